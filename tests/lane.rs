//! The write lane: inserts that share a commit are still each their own, and nobody waits for another
//! one's trouble. Over real masters.

mod common;

use common::{Cluster, wait_until};
use postgres::Client;
use serde_json::json;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

fn post_id(cluster: &Cluster, id: i64, genero: &str) -> common::Answer {
    let body = json!({ "id_genero": id, "genero": genero }).to_string();
    cluster.post("/generos", &body)
}

/// Runs `work` for each of `count` numbers at the same time, and returns what came of it.
fn together<T: Send>(count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..count)
            .map(|number| scope.spawn(move || work(number)))
            .collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined.map(|result| result.expect("a client")).collect()
    })
}

/// Runs `queued` while the lane is busy with an insert whose commit stalls, so that what is posted meanwhile
/// goes into one batch, if it comes in time. The cluster must be one with `DURABILITY=async`.
fn behind_one_insert<T: Send>(cluster: &Cluster, queued: impl FnOnce() -> T + Send) -> T {
    let mut sql = cluster.sql("master1");
    stall_commits(&mut sql, true);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| cluster.add("el primero"));
        wait_for_stalled(&mut sql);
        let queued = scope.spawn(queued);
        std::thread::sleep(Duration::from_millis(500));
        stall_commits(&mut sql, false);
        assert_eq!(first.join().expect("the first").status, 201);
        queued.join().expect("the others")
    })
}

/// Waits until a commit stalls.
fn wait_for_stalled(sql: &mut Client) {
    wait_until("a commit stalls", || {
        let waiting = "SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        !sql.query(waiting, &[]).expect("look").is_empty()
    });
}

#[test]
fn of_a_doubled_id_one_is_inserted_and_drawn_ids_keep_clear_of_chosen_ones() {
    let cluster = Cluster::start_with(&[("DURABILITY", "async")]);
    let before = cluster.add("antes").id();
    let wanted = |number: usize| before + 2 + number as i64 / 4;
    let answers = behind_one_insert(&cluster, || {
        together(48, |number| match number {
            // Four clients want each of these; the sequence would draw them, too.
            0..24 => post_id(&cluster, wanted(number), &format!("elegido {number}")),
            _ => cluster.add(&format!("sacado {number}")),
        })
    });
    let (chosen, drawn) = answers.split_at(24);
    assert!(
        drawn.iter().all(|answer| answer.status == 201),
        "{answers:?}"
    );
    // Whoever came first has it, also if that was one who chose none.
    for (index, four) in chosen.chunks(4).enumerate() {
        let taken = four.iter().filter(|answer| answer.code() == "id_taken");
        let won = four.iter().filter(|answer| answer.status == 201).count();
        assert!(won <= 1 && taken.count() == 4 - won, "{four:?}");
        let there = cluster.get(&format!("/generos/{}", wanted(index * 4)));
        assert_eq!(there.status, 200, "{there:?}");
        let name = there.body["data"]["genero"].as_str().expect("a name");
        assert!(
            won == 0 || name.starts_with("elegido"),
            "{there:?}: {four:?}"
        );
    }
    let made: Vec<_> = answers
        .iter()
        .filter(|answer| answer.status == 201)
        .collect();
    let mut ids: Vec<i64> = made.iter().map(|answer| answer.id()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), made.len(), "an id was given twice");
    let rows = cluster.wait_equal();
    for answer in made {
        let row = format!("({},", answer.id());
        let name = answer.body["data"]["genero"].as_str().expect("a name");
        let kept = rows
            .iter()
            .filter(|found| found.starts_with(&row) && found.contains(name));
        assert_eq!(kept.count(), 1, "{answer:?}");
    }

    // A comb of rows ahead of the sequence, in which one id of sixteen is free: the whole batch gets through it.
    let mut sql = cluster.sql("master1");
    let comb = "INSERT INTO generos (id_genero, genero) SELECT id, 'peine' FROM \
         generate_series((SELECT last_value FROM generos_id_genero_seq) + 2, 9001, 2) AS id \
         WHERE id / 2 % 16 <> 0 ON CONFLICT DO NOTHING";
    sql.execute(comb, &[]).expect("the comb");
    let answers = behind_one_insert(&cluster, || together(16, |_| cluster.add("entre dientes")));
    assert!(
        answers.iter().all(|answer| answer.status == 201),
        "{answers:?}"
    );
}

#[test]
fn what_the_database_refuses_fails_alone() {
    let cluster = Cluster::start_with(&[("DURABILITY", "async")]);
    // Unlogged, so that it stays on this master.
    let batch_sizes = "CREATE UNLOGGED TABLE public.lotes (filas bigint); \
        CREATE FUNCTION public.contar() RETURNS trigger LANGUAGE plpgsql AS \
        'BEGIN INSERT INTO public.lotes SELECT count(*) FROM nuevas; RETURN NULL; END'; \
        CREATE TRIGGER contar AFTER INSERT ON public.generos REFERENCING NEW TABLE AS nuevas \
        FOR EACH STATEMENT EXECUTE FUNCTION public.contar();";
    let check =
        "ALTER TABLE public.generos ADD CONSTRAINT sin_veneno CHECK (genero NOT LIKE 'veneno%')";
    cluster
        .sql("master1")
        .batch_execute(&format!("{batch_sizes} {check}"))
        .expect("a check");
    let answers = behind_one_insert(&cluster, || {
        together(30, |number| match number % 10 {
            7 => cluster.add(&format!("veneno {number}")),
            3 => post_id(&cluster, 900_000 + number as i64, &format!("sano {number}")),
            _ => cluster.add(&format!("sano {number}")),
        })
    });
    for (number, answer) in answers.iter().enumerate() {
        let expected = match number % 10 {
            7 => (500, "database_error"),
            _ => (201, ""),
        };
        assert_eq!(
            (answer.status, answer.code()),
            expected,
            "{number}: {answer:?}"
        );
    }
    let rows = cluster.wait_equal();
    let sound = rows.iter().filter(|row| row.contains("sano")).count();
    assert_eq!((sound, rows.len()), (27, 28 + 1 + 27), "{rows:?}");
    // And without poison they do share their commits, once they come in time for that.
    let mut sql = cluster.sql("master1");
    wait_until("thirty inserts share a commit", || {
        behind_one_insert(&cluster, || {
            together(30, |number| cluster.add(&format!("junto {number}")))
        });
        let largest = sql.query_one("SELECT max(filas) FROM public.lotes", &[]);
        largest.expect("sizes").get::<_, i64>(0) >= 25
    });
}

/// Somebody's open transaction holds a key that a client chose: that client waits, and nobody else.
#[test]
fn a_held_key_keeps_only_its_own_client_waiting() {
    let cluster = Cluster::start();
    let mut sql = cluster.sql("master1");
    let next = cluster.add("antes").id() + 2;
    let mut open = sql.transaction().expect("begin");
    let held = "INSERT INTO generos (id_genero, genero) VALUES (7001, 'a'), (7003, 'b'), ($1, 'c')";
    open.execute(held, &[&(next as i32)]).expect("insert");
    std::thread::scope(|scope| {
        let waiting: Vec<_> = [7001, 7003]
            .map(|id| {
                scope.spawn({
                    let cluster = &cluster;
                    move || post_id(cluster, id, "esperando")
                })
            })
            .into_iter()
            .collect();
        // If these waited for the key, they would wait until it is let go, which is not before they are answered.
        for round in 0..20 {
            for answer in together(8, |number| match number {
                0 => post_id(&cluster, 8000 + round, "elegido"),
                _ => cluster.add("ajeno"),
            }) {
                assert_eq!(answer.status, 201, "{answer:?}");
            }
        }
        open.commit().expect("commit");
        for thread in waiting {
            let answer = thread.join().expect("a client");
            assert_eq!(
                (answer.status, answer.code()),
                (409, "id_taken"),
                "{answer:?}"
            );
        }
    });
    // And one that is held for good is an answer in time.
    let mut open = sql.transaction().expect("begin");
    open.execute(
        "INSERT INTO generos (id_genero, genero) VALUES (7005, 'd')",
        &[],
    )
    .expect("insert");
    let answer = post_id(&cluster, 7005, "en vano");
    assert_eq!((answer.status, answer.code()), (503, "late"), "{answer:?}");
    // By the lock's own limit, before the deadline of the request.
    let reason = answer.body["reason"].as_str().unwrap_or("");
    assert!(reason.contains("lock timeout"), "{answer:?}");
    open.rollback().expect("rollback");
    assert_eq!(post_id(&cluster, 7005, "libre").status, 201);
}

/// Makes every commit on a master wait for a peer that does not exist, or stop doing so.
fn stall_commits(sql: &mut Client, stalled: bool) {
    let names = if stalled { "nadie" } else { "" };
    sql.batch_execute("SET synchronous_commit = local")
        .expect("set");
    sql.batch_execute(&format!(
        "ALTER SYSTEM SET synchronous_standby_names = '{names}'"
    ))
    .expect("set");
    sql.execute("SELECT pg_reload_conf()", &[]).expect("reload");
    wait_until("the setting is in force", || {
        let shown = "SELECT current_setting('synchronous_standby_names')";
        sql.query_one(shown, &[])
            .expect("a setting")
            .get::<_, String>(0)
            == names
    });
    std::thread::sleep(Duration::from_millis(100)); // for the other backends to have read it, too
}

/// A cancel that was meant for a commit may hit the next statement of its session.
#[test]
fn a_statement_that_is_cancelled_is_repeated_and_the_commits_of_others_are_let_wait() {
    let cluster = Cluster::start_with(&[("DURABILITY", "async")]);
    let mut sql = cluster.sql("master1");
    let mut watch = cluster.sql("master1");
    let mut sql_of_cancels = cluster.sql("master1");
    let mut hold = sql.transaction().expect("begin");
    hold.execute(
        "SELECT FROM public.generos WHERE id_genero = 5 FOR UPDATE",
        &[],
    )
    .expect("lock");
    std::thread::scope(|scope| {
        let (headers, body) = (
            &[("Content-Type", "application/json")],
            r#"{"genero": "x"}"#,
        );
        let cluster = &cluster;
        let putting = scope.spawn(move || cluster.ask("PUT", "/generos/5", Some(body), headers));
        for _ in 0..2 {
            let waiting = "SELECT pid, query_start::text FROM pg_stat_activity \
                WHERE wait_event_type = 'Lock' AND application_name = 'imdb-ha'";
            let mut look = || {
                let rows = watch.query(waiting, &[]).expect("look");
                let row = rows.first();
                row.map(|row| (row.get::<_, i32>(0), row.get::<_, String>(1)))
            };
            let mut seen = None;
            wait_until("the update waits", || {
                seen = look();
                seen.is_some()
            });
            let pid = seen.as_ref().map(|(pid, _)| *pid);
            let cancel = "SELECT pg_cancel_backend($1)";
            sql_of_cancels.execute(cancel, &[&pid]).expect("cancel");
            // It is repeated at once, and then waits again.
            wait_until("it is cancelled", || look() != seen);
        }
        hold.rollback().expect("let go");
        let put = putting.join().expect("a client");
        assert_eq!(put.status, 200, "{put:?}");
    });

    // Somebody else's commit is left to PostgreSQL at first; of ours nobody would notice.
    let free = include_str!("../sql/free_commits.sql");
    stall_commits(&mut sql, true);
    std::thread::scope(|scope| {
        let mut other = cluster.sql("master1");
        let writing = scope.spawn(move || {
            other.batch_execute("INSERT INTO public.generos VALUES (9001, 'de otro')")
        });
        wait_for_stalled(&mut sql);
        let mut freed = |after_ms: f64| sql.query(free, &[&after_ms]).expect("free").len();
        assert_eq!(freed(3_600_000.0), 0);
        assert_eq!(freed(0.0), 1);
        writing.join().expect("a writer").expect("a commit");
        let posting = scope.spawn(|| cluster.add("nuestro"));
        wait_until("ours is freed", || freed(3_600_000.0) == 1);
        assert_eq!(posting.join().expect("a client").status, 201);
    });
    stall_commits(&mut sql, false);
    cluster.wait_equal();
}

#[test]
fn reads_go_on_while_every_commit_stalls() {
    let cluster = Cluster::start_with(&[("DURABILITY", "async")]);
    let put = |number: usize| {
        let body = json!({ "genero": format!("cambiado {number}") }).to_string();
        cluster.ask(
            "PUT",
            &format!("/generos/{}", number % 20 + 2),
            Some(&body),
            &[("Content-Type", "application/json")],
        )
    };
    let mut sql = cluster.sql("master1");
    for _ in 0..20 {
        assert_eq!((cluster.add("antes").status, put(0).status), (201, 200));
    }
    stall_commits(&mut sql, true);
    std::thread::scope(|scope| {
        let inserting =
            scope.spawn(|| together(60, |number| cluster.add(&format!("parado {number}"))));
        let updating = scope.spawn(|| together(20, put));
        std::thread::sleep(Duration::from_millis(300));
        let began = Instant::now();
        let mut slowest = Duration::ZERO;
        let mut reads = 0;
        while began.elapsed() < Duration::from_millis(1_200) {
            let answer = cluster.get("/generos/1");
            // The commits stall until all reads are done, so one that waited for them would end in 503.
            assert_eq!(answer.status, 200, "{answer:?}");
            slowest = slowest.max(answer.took);
            reads += 1;
        }
        assert!(
            !inserting.is_finished() && !updating.is_finished(),
            "the commits did not stall"
        );
        println!("{reads} reads, the slowest took {slowest:?}");
        stall_commits(&mut sql, false);
        for answer in inserting.join().expect("inserts") {
            assert_eq!(answer.status, 201, "{answer:?}");
        }
        for answer in updating.join().expect("updates") {
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    });
    let rows = cluster.wait_equal();
    assert_eq!(rows.iter().filter(|row| row.contains("parado")).count(), 60);
}

/// A request whose turn never came is told that it was not done, and it is not done later.
#[test]
fn a_request_that_was_late_in_the_queue_is_not_inserted_later() {
    let cluster = Cluster::start_with(&[("REQUEST_DEADLINE_MS", "3000"), ("DURABILITY", "async")]);
    let mut sql = cluster.sql("master1");
    assert_eq!(cluster.add("antes").status, 201);
    stall_commits(&mut sql, true);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| cluster.add("en curso"));
        wait_for_stalled(&mut sql);
        let answers = together(20, |number| cluster.add(&format!("en cola {number}")));
        let first = first.join().expect("the first");
        assert_eq!(
            (first.status, first.code()),
            (503, "outcome_unknown"),
            "{first:?}"
        );
        let late = answers
            .iter()
            .filter(|answer| answer.code() == "late")
            .count();
        // The lane is free for them for the moment that they came after the first.
        let unknown = answers
            .iter()
            .filter(|answer| answer.code() == "outcome_unknown")
            .count();
        assert_eq!(late + unknown, 20, "{answers:?}");
        stall_commits(&mut sql, false);
        assert_eq!(cluster.add("después").status, 201);
        let rows = cluster.wait_equal();
        for (number, answer) in answers.iter().enumerate() {
            let name = format!("\"en cola {number}\"");
            let there = rows.iter().any(|row| row.contains(&name));
            assert!(
                !there || answer.code() == "outcome_unknown",
                "{answer:?} was inserted"
            );
        }
    });
}

/// More clients than the queue takes, while no commit ends.
#[test]
fn a_full_queue_is_said_at_once_and_empties_by_itself() {
    let cluster = Cluster::start_with(&[("REQUEST_DEADLINE_MS", "60000"), ("DURABILITY", "async")]);
    assert_eq!(cluster.add("antes").status, 201);
    let address = cluster.api.strip_prefix("http://").expect("an address");
    let mut sql = cluster.sql("master1");
    stall_commits(&mut sql, true);
    let mut clients: Vec<TcpStream> = Vec::new();
    for number in 0..700 {
        let mut stream = TcpStream::connect(address).expect("connect");
        let body = json!({ "genero": format!("multitud {number}") }).to_string();
        let head = "POST /generos HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n";
        let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(request.as_bytes()).expect("send");
        clients.push(stream);
    }
    let early = AtomicUsize::new(0);
    let answers: Vec<String> = std::thread::scope(|scope| {
        let reading: Vec<_> = clients
            .into_iter()
            .map(|mut stream| {
                let early = &early;
                scope.spawn(move || {
                    let mut text = String::new();
                    stream
                        .set_read_timeout(Some(Duration::from_secs(60)))
                        .expect("a limit");
                    stream.read_to_string(&mut text).expect("an answer");
                    early.fetch_add(1, Ordering::SeqCst);
                    text
                })
            })
            .collect();
        // The master has said nothing yet.
        wait_until("some are refused", || early.load(Ordering::SeqCst) > 50);
        stall_commits(&mut sql, false);
        reading
            .into_iter()
            .map(|thread| thread.join().expect("a client"))
            .collect()
    });
    let (made, refused): (Vec<_>, Vec<_>) = answers
        .iter()
        .partition(|text| text.starts_with("HTTP/1.1 201"));
    for text in &refused {
        let overloaded = text.starts_with("HTTP/1.1 503") && text.contains("\"overloaded\"");
        assert!(overloaded && text.contains("Retry-After: 1"), "{text}");
    }
    println!("{} made, {} refused", made.len(), refused.len());
    assert!(
        made.len() >= 512 && refused.len() > 50,
        "{} made, {} refused",
        made.len(),
        refused.len()
    );
    assert_eq!(cluster.add("después").status, 201);
    let rows = cluster.wait_equal();
    let crowd = rows.iter().filter(|row| row.contains("multitud")).count();
    assert_eq!(
        crowd,
        made.len(),
        "a refused request was done, or an acknowledged one was not"
    );
}

/// Ends the writers of a test that fails in the middle, too.
struct EndsOnDrop<'a>(&'a AtomicBool);

impl Drop for EndsOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A killed and a frozen master under sixteen clients: each acknowledged row is there once, and no
/// request failed.
#[test]
fn each_acknowledged_insert_is_one_row_through_kill_and_freeze() {
    let cluster = Cluster::start();
    let ended = AtomicBool::new(false);
    let acknowledged: Mutex<HashMap<String, i64>> = Mutex::default();
    let failed: Mutex<Vec<String>> = Mutex::default();
    std::thread::scope(|scope| {
        let _end = EndsOnDrop(&ended);
        for writer in 0..16 {
            let (cluster, ended, acknowledged, failed) = (&cluster, &ended, &acknowledged, &failed);
            scope.spawn(move || {
                for number in 0.. {
                    if ended.load(Ordering::Relaxed) {
                        return;
                    }
                    let name = format!("fila {writer}-{number}");
                    let answer = match number % 4 {
                        0 => post_id(cluster, 1_000_000 * (writer + 1) + number, &name),
                        _ => cluster.add(&name),
                    };
                    match answer.status {
                        201 => drop(acknowledged.lock().expect("lock").insert(name, answer.id())),
                        _ => failed.lock().expect("lock").push(format!("{answer:?}")),
                    }
                }
            });
        }
        std::thread::sleep(Duration::from_millis(800));
        cluster.local(&["kill", "master1"]);
        std::thread::sleep(Duration::from_millis(800));
        cluster.local(&["start", "master1"]);
        cluster.wait_state("master1", "up");
        cluster.local(&["freeze", "master2"]);
        std::thread::sleep(Duration::from_millis(2_000));
        cluster.local(&["thaw", "master2"]);
        cluster.wait_state("master2", "up");
        std::thread::sleep(Duration::from_millis(300));
    });
    let rows = cluster.wait_equal();
    let acknowledged = acknowledged.into_inner().expect("lock");
    let failed = failed.into_inner().expect("lock");
    assert!(
        failed.is_empty(),
        "{} failed, the first with {}",
        failed.len(),
        failed[0]
    );
    println!("{} acknowledged", acknowledged.len());
    assert!(
        acknowledged.len() > 200,
        "hardly any load: {}",
        acknowledged.len()
    );
    let mut times: HashMap<String, usize> = HashMap::new();
    for row in &rows {
        let mut fields = row.trim_start_matches('(').split(',');
        let id = fields.next().unwrap_or("").to_string();
        let name = fields.next().unwrap_or("").trim_matches('"').to_string();
        *times.entry(format!("{id} {name}")).or_default() += 1;
    }
    for (name, id) in &acknowledged {
        assert_eq!(times.get(&format!("{id} {name}")), Some(&1), "{id} {name}");
    }
    assert_eq!(
        rows.len(),
        28 + acknowledged.len(),
        "a request became two rows"
    );
}

/// Many requests on one connection at once: their answers come in order, and nobody else waits.
#[test]
fn pipelined_inserts_are_answered_in_order_and_block_nobody() {
    let cluster = Cluster::start();
    let address = cluster.api.strip_prefix("http://").expect("an address");
    let answers = together(12, |client| {
        let mut stream = TcpStream::connect(address).expect("connect");
        let mut text = String::new();
        for number in 0..40 {
            let body = json!({ "genero": format!("tubo {client}-{number}") }).to_string();
            let last = if number == 39 {
                "Connection: close\r\n"
            } else {
                ""
            };
            let head =
                "POST /generos HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
            text.push_str(&format!(
                "{head}{last}Content-Length: {}\r\n\r\n{body}",
                body.len()
            ));
            if number % 10 == 5 {
                text.push_str("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
                text.push_str("GET /generos/1 HTTP/1.1\r\nHost: localhost\r\n\r\n");
            }
        }
        stream.write_all(text.as_bytes()).expect("send");
        stream
            .set_read_timeout(Some(Duration::from_secs(15)))
            .expect("a limit");
        let mut answers = String::new();
        stream.read_to_string(&mut answers).expect("the answers");
        answers
    });
    for (client, text) in answers.iter().enumerate() {
        let places: Vec<Option<usize>> = (0..40)
            .map(|number| text.find(&format!("\"tubo {client}-{number}\"")))
            .collect();
        assert!(
            places.iter().all(Option::is_some) && places.is_sorted(),
            "{places:?}"
        );
        assert_eq!(text.matches("HTTP/1.1 200").count(), 8, "{text}");
    }
    assert_eq!(cluster.wait_equal().len(), 28 + 12 * 40);
}
