//! `Idempotency-Key`: a write is done once, whoever is killed between its commit and its answer, and on whichever master it is repeated.

mod common;
#[allow(dead_code)]
#[path = "../benches/chaos/relay.rs"]
mod relay;

use common::pair::{Pair, texts};
use common::{Answer, Cluster, clean_command, wait_until};
use postgres::Client;
use relay::{Mode, Relay};
use serde_json::{Value, json};
use std::process::{Child, Stdio};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const JSON: (&str, &str) = ("Content-Type", "application/json");

/// An API that reaches the first master by this port.
struct Api {
    process: Child,
}

impl Api {
    /// Starts one and has the cluster's questions go to it.
    fn start(cluster: &mut Cluster, port_of_master1: u16, environment: &[(&str, &str)]) -> Api {
        let mut url = url::Url::parse(&cluster.url("master1")).expect("a URL");
        url.set_port(Some(port_of_master1)).expect("a port");
        let port = relay::free_port().expect("a port");
        let mut command = clean_command();
        command
            .args(["serve", "--port", &port.to_string()])
            .env("MASTER1_URL", url.as_str())
            .env("MASTER2_URL", cluster.url("master2"))
            .env(
                "REDIS_URL",
                cluster.status["redis"].as_str().expect("redis"),
            )
            // A master that stands still is waited for.
            .env("SILENCE_DEADLINE_MS", "20000")
            .env("REQUEST_DEADLINE_MS", "40000")
            .envs(environment.iter().copied())
            .stderr(Stdio::null());
        let process = command.spawn().expect("start an API");
        cluster.api = format!("http://127.0.0.1:{port}");
        wait_until("both masters have each commit", || {
            let health = cluster.try_ask("GET", "/health", None, &[]);
            health.is_ok_and(|answer| answer.body["durability"] == "zero-loss")
        });
        Api { process }
    }

    fn kill(&mut self) {
        self.process.kill().expect("SIGKILL");
        self.process.wait().expect("its end");
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A write with a key.
#[derive(Clone)]
struct Write {
    key: &'static str,
    method: &'static str,
    path: String,
    body: Option<Value>,
}

impl Write {
    fn post(key: &'static str, body: Value) -> Write {
        Write {
            key,
            method: "POST",
            path: "/generos".to_string(),
            body: Some(body),
        }
    }

    fn send(&self, cluster: &Cluster) -> Answer {
        self.try_send(cluster)
            .unwrap_or_else(|error| panic!("{}: {error}", self.key))
    }

    fn try_send(&self, cluster: &Cluster) -> Result<Answer, String> {
        let headers = [JSON, ("Idempotency-Key", self.key)];
        let body = self.body.as_ref().map(Value::to_string);
        let headers = match body {
            Some(_) => &headers[..],
            None => &headers[1..],
        };
        cluster.try_ask(self.method, &self.path, body.as_deref(), headers)
    }

    /// Sends it again, which must bring just this answer.
    fn repeat(&self, cluster: &Cluster, first: &Answer) {
        let again = self.send(cluster);
        assert_eq!(
            (
                again.status,
                &again.body,
                again.header("Idempotency-Replayed")
            ),
            (first.status, &first.body, Some("true")),
            "{}",
            self.key
        );
    }
}

fn count(sql: &mut Client, of: &str) -> i64 {
    sql.query_one(of, &[]).expect(of).get(0)
}

fn rows_named(sql: &mut Client, genero: &str) -> Vec<i32> {
    let found = sql.query(
        "SELECT id_genero FROM public.generos WHERE genero = $1 ORDER BY 1",
        &[&genero],
    );
    found.expect("look").iter().map(|row| row.get(0)).collect()
}

/// Waits until each of these requests waits for the second master with its commit. On a machine with much else to do the API may have given that
/// master up before the last one did; those that it has answered then are done as well.
fn wait_for_commits<T>(sql: &mut Client, asked: &[ScopedJoinHandle<'_, T>]) {
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    wait_until("the commits wait for the peer", || {
        let answered = asked.iter().filter(|thread| thread.is_finished()).count();
        count(sql, waiting) + answered as i64 >= asked.len() as i64
    });
}

#[test]
fn a_request_with_a_key_is_done_once_whoever_is_killed() {
    let mut cluster = Cluster::start_flagged(&["--no-api"], &[]);
    let mut sql = cluster.sql("master1");
    let port = url::Url::parse(&cluster.url("master1"))
        .expect("a URL")
        .port();
    let port = port.expect("a port");
    let door = Relay::start(port).expect("a relay");
    let mut api = Api::start(&mut cluster, door.port, &[]);

    // The answer to the API is lost after the commit, and it asks again by itself.
    let lost = Write::post("perdida", json!({"genero": "con clave, perdida"}));
    cluster.local(&["freeze", "master2"]);
    let answer = std::thread::scope(|scope| {
        let asked = [scope.spawn(|| lost.send(&cluster))];
        wait_for_commits(&mut sql, &asked);
        door.set(Mode::Hole);
        cluster.local(&["thaw", "master2"]);
        wait_until("it is done", || {
            !rows_named(&mut sql, "con clave, perdida").is_empty()
        });
        door.reset();
        door.set(Mode::Pass);
        let [asked] = asked;
        asked.join().expect("a client")
    });
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(answer.header("Idempotency-Replayed"), None);
    assert_eq!(rows_named(&mut sql, "con clave, perdida").len(), 1);
    lost.repeat(&cluster, &answer);

    // The API is killed between the commits and the answers.
    let ids = ["para cambiar", "para borrar"].map(|genero| cluster.add(genero).id());
    let writes = [
        Write::post("nueva", json!({"genero": "con clave", "otro": 1})),
        Write {
            key: "cambio",
            method: "PUT",
            path: format!("/generos/{}", ids[0]),
            body: Some(json!({"genero": "cambiado"})),
        },
        Write {
            key: "borrado",
            method: "DELETE",
            path: format!("/generos/{}", ids[1]),
            body: None,
        },
    ];
    wait_until("both masters have each commit", || {
        cluster.get("/health").body["durability"] == "zero-loss"
    });
    cluster.local(&["freeze", "master2"]);
    std::thread::scope(|scope| {
        let asked: Vec<_> = writes
            .iter()
            .map(|write| scope.spawn(|| write.try_send(&cluster)))
            .collect();
        wait_for_commits(&mut sql, &asked);
        api.kill();
        for thread in asked {
            if let Ok(answer) = thread.join().expect("a client") {
                assert!(answer.status < 300, "{answer:?}");
            }
        }
    });
    cluster.local(&["thaw", "master2"]);
    wait_until("they are done all the same", || {
        rows_named(&mut sql, "con clave").len() == 1
            && rows_named(&mut sql, "cambiado").len() == 1
            && rows_named(&mut sql, "para borrar").is_empty()
    });
    drop(api);
    let mut api = Api::start(&mut cluster, port, &[]);
    let answers = writes.each_ref().map(|write| write.send(&cluster));
    let told = [(201, "con clave"), (200, "cambiado"), (200, "para borrar")];
    for (answer, (status, genero)) in answers.iter().zip(told) {
        let said = (answer.status, &answer.body["data"]["genero"], answer.node());
        assert_eq!(said, (status, &json!(genero), "master1"), "{answer:?}");
        assert_eq!(answer.header("Idempotency-Replayed"), Some("true"));
    }
    assert_eq!(answers[0].body["ignored"], json!(["otro"]));
    for (write, answer) in writes.iter().zip(&answers) {
        write.repeat(&cluster, answer);
    }
    assert_eq!(rows_named(&mut sql, "con clave").len(), 1);

    // Somebody else's rows since then change nothing about that.
    let put = cluster.ask(
        "PUT",
        &writes[1].path,
        Some(r#"{"genero": "ajeno"}"#),
        &[JSON],
    );
    assert_eq!(put.status, 200);
    writes[1].repeat(&cluster, &answers[1]);
    assert_eq!(rows_named(&mut sql, "ajeno").len(), 1);

    what_a_key_is_not_for(&cluster, &writes);
    several_at_once(&cluster, &mut sql);

    // On the other master, and by a process that is as new.
    // The lease of the one that was killed ends by itself.
    wait_until("the traffic moves", || {
        cluster.post("/switch-to-secondary", "").status == 200
    });
    api.kill();
    let api = Api::start(&mut cluster, port, &[("USE_SEQUENCE", "false")]);
    wait_until("it serves from there", || {
        cluster.get("/active-node").body["active_node"] == "master2"
            || cluster.post("/switch-to-secondary", "").status == 200
    });
    for (write, answer) in writes.iter().zip(&answers) {
        write.repeat(&cluster, answer);
    }
    lost.repeat(&cluster, &answer);
    let without = Write::post("sin secuencia", json!({"genero": "sin secuencia"}));
    let first = without.send(&cluster);
    assert_eq!((first.status, first.node()), (201, "master2"), "{first:?}");
    without.repeat(&cluster, &first);

    // A master that is rebuilt has the keys, too.
    let port_of_api = cluster.api.rsplit(':').next().expect("a port");
    let mut rejoin = clean_command();
    rejoin.args(["rejoin", "master1", "--yes", "--port", port_of_api]);
    for (name, node) in [("MASTER1_URL", "master1"), ("MASTER2_URL", "master2")] {
        rejoin.env(name, cluster.url(node));
    }
    let rejoined = rejoin.output().expect("run imdb-ha");
    assert!(rejoined.status.success(), "{rejoined:?}");
    let equal = cluster.run(&["compare", "generos", "imdb_ha.claves", "imdb_ha.borrados"]);
    assert!(equal.status.success(), "{equal:?}");
    wait_until("the traffic is back", || {
        cluster.post("/switch-to-primary", "").status == 200
    });
    for (write, answer) in writes.iter().zip(&answers) {
        write.repeat(&cluster, answer);
    }
    let mut sql = cluster.sql("master1");
    assert_eq!(rows_named(&mut sql, "con clave").len(), 1);
    assert_eq!(rows_named(&mut sql, "sin secuencia").len(), 1);
    cluster.wait_compare();

    // Whoever waits too long for another one under the same key is told so.
    drop(api);
    let _api = Api::start(&mut cluster, port, &[("REQUEST_DEADLINE_MS", "3000")]);
    let active = cluster.get("/active-node").body["active_node"].clone();
    let mut holder = cluster.sql(active.as_str().expect("a master"));
    let held = "SELECT pg_advisory_lock(hashtext('imdb_ha.claves'), hashtext('en curso'))";
    holder.batch_execute(held).expect("hold the key");
    let busy = Write::post("en curso", json!({"genero": "no ahora"}));
    wait_until("it is told to be busy", || {
        let answer = busy.send(&cluster);
        let retry = answer.header("Retry-After").is_some();
        (answer.status, answer.code(), retry) == (409, "idempotency_key_busy", true)
    });
    assert!(rows_named(&mut sql, "no ahora").is_empty());
}

/// Keys of other requests, keys that are none, and requests that have not been done.
fn what_a_key_is_not_for(cluster: &Cluster, writes: &[Write; 3]) {
    let [new, change, _] = writes;
    let others = [
        Write::post("nueva", json!({"genero": "otra cosa", "otro": 1})),
        Write::post("nueva", json!({"genero": "con clave"})),
        Write {
            key: "nueva",
            ..change.clone()
        },
        Write {
            key: "borrado",
            ..new.clone()
        },
        Write {
            key: "cambio",
            path: "/generos/1".to_string(),
            ..change.clone()
        },
    ];
    for other in others {
        let answer = other.send(cluster);
        let refused = (answer.status, answer.code());
        assert_eq!(refused, (422, "idempotency_key_reused"), "{answer:?}");
    }
    let long = "k".repeat(256);
    let twice = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")];
    let (empty, long) = ([("Idempotency-Key", "")], [("Idempotency-Key", &long[..])]);
    for keys in [&twice[..], &empty, &long] {
        for (method, path) in [
            ("POST", "/generos"),
            ("PUT", "/generos/1"),
            ("DELETE", "/generos/1"),
        ] {
            let body = (method != "DELETE").then_some(r#"{"genero": "nunca"}"#);
            let json = body.map(|_| JSON);
            let headers: Vec<_> = keys.iter().copied().chain(json).collect();
            let answer = cluster.ask(method, path, body, &headers);
            let refused = (answer.status, answer.code());
            assert_eq!(refused, (400, "idempotency_key_invalid"), "{answer:?}");
        }
    }
    // What was refused has not been done, so it may be done later.
    let chosen = Write::post(
        "elegida",
        json!({"genero": "elegida", "id_genero": 900_001}),
    );
    let late = Write {
        key: "tarde",
        method: "PUT",
        path: "/generos/900001".to_string(),
        body: Some(json!({"genero": "tarde"})),
    };
    assert_eq!(late.send(cluster).code(), "genero_not_found");
    let taken = Write::post(
        "ocupada",
        json!({"genero": "ocupada", "id_genero": 900_001}),
    );
    let first = chosen.send(cluster);
    assert_eq!(first.status, 201, "{first:?}");
    chosen.repeat(cluster, &first);
    assert_eq!(taken.send(cluster).code(), "id_taken");
    let renamed = late.send(cluster);
    assert_eq!(
        (renamed.status, renamed.header("Idempotency-Replayed")),
        (200, None)
    );
    let deleted = cluster.ask("DELETE", "/generos/900001", None, &[]);
    assert_eq!(deleted.status, 200);
    let first = taken.send(cluster);
    assert_eq!((first.status, first.id()), (201, 900_001), "{first:?}");
}

/// One row, and one answer for all who ask at the same time.
fn several_at_once(cluster: &Cluster, sql: &mut Client) {
    let together = Write::post("juntas", json!({"genero": "juntas"}));
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| together.send(cluster)))
            .collect();
        let joined = asked
            .into_iter()
            .map(|thread| thread.join().expect("a client"));
        joined.collect()
    });
    for answer in &answers {
        assert_eq!(
            (answer.status, &answer.body),
            (201, &answers[0].body),
            "{answer:?}"
        );
    }
    let first = |answer: &&Answer| answer.header("Idempotency-Replayed").is_none();
    assert_eq!(answers.iter().filter(first).count(), 1);
    assert_eq!(rows_named(sql, "juntas").len(), 1);

    // While somebody holds it, the others are told, in time.
    let mut holder = cluster.sql("master1");
    let held = "SELECT pg_advisory_lock(hashtext('imdb_ha.claves'), hashtext('ocupada siempre'))";
    holder.batch_execute(held).expect("hold the key");
    let waiting = Write::post("ocupada siempre", json!({"genero": "espera"}));
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| waiting.send(cluster));
        std::thread::sleep(Duration::from_millis(300));
        // Others go on meanwhile.
        let other = Write::post("otra", json!({"genero": "otra"})).send(cluster);
        assert_eq!(other.status, 201, "{other:?}");
        assert!(!asked.is_finished());
        holder
            .batch_execute("SELECT pg_advisory_unlock_all()")
            .expect("let go");
        assert_eq!(asked.join().expect("a client").status, 201);
    });
}

/// The stamp of a request, so many seconds after the beginning of the test's time.
fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_900_000_000 + seconds)
}

/// A key, the id and the stamp of its row on each master, and the ids that are left.
type Case = (&'static str, (i32, u64), (i32, u64), &'static [i32]);

/// Does what the API does for a request with a key, on one master.
fn insert(pair: &mut Pair, master: usize, key: &str, id: i32, genero: &str, stamp: SystemTime) {
    let request = format!("POST {genero}");
    let sql = include_str!("../sql/keyed_insert.sql");
    let rows = pair.masters[master].query(sql, &[&key, &request, &id, &genero, &stamp]);
    let rows = rows.unwrap_or_else(|error| panic!("{key}: {error:?}"));
    assert!(
        rows[0].get::<_, bool>(0) && rows[0].get::<_, Option<i16>>(1).is_some(),
        "{key}"
    );
}

/// The same request may be done on both masters, when the first one's commit had not arrived at the second. They settle it alike.
#[test]
fn one_request_that_both_masters_have_done_leaves_one_row() {
    let cluster = Cluster::start_flagged(&["--no-api"], &[]);
    let mut pair = Pair::new(&cluster);
    // The text of a time is another one here.
    pair.run(1, "ALTER SYSTEM SET timezone = 'Asia/Tokyo'");
    pair.run(1, "SELECT pg_reload_conf()");
    for master in [0, 1] {
        pair.run(master, "SET timezone = 'UTC'");
    }
    pair.links("DISABLE");
    let cases: [Case; 5] = [
        ("repetida en el segundo", (3001, 1), (3002, 2), &[3002]),
        ("repetida en el primero", (3011, 2), (3012, 1), &[3011]),
        ("a la vez", (3021, 3), (3022, 3), &[3022]),
        ("la misma fila", (3031, 4), (3031, 4), &[3031]),
        ("con el id del cliente", (3041, 5), (3041, 6), &[3041]),
    ];
    for (key, first, second, _) in cases {
        insert(&mut pair, 0, key, first.0, key, at(first.1));
        insert(&mut pair, 1, key, second.0, key, at(second.1));
    }
    // Two requests that share a key by mistake are two requests.
    insert(&mut pair, 0, "por error", 3051, "una cosa", at(1));
    insert(&mut pair, 1, "por error", 3052, "otra cosa", at(2));
    // Somebody has changed the row since, and did so with a later stamp.
    insert(&mut pair, 0, "cambiada", 3061, "cambiada", at(1));
    insert(&mut pair, 1, "cambiada", 3062, "cambiada", at(2));
    let changed = "UPDATE public.generos SET genero = 'cambiada después', \
        cambiado_en = '2040-01-01 00:00:00+00' WHERE id_genero = 3061";
    pair.run(0, changed);
    // And deleted.
    insert(&mut pair, 0, "borrada", 3071, "borrada", at(1));
    insert(&mut pair, 1, "borrada", 3072, "borrada", at(2));
    pair.run(0, "DELETE FROM public.generos WHERE id_genero = 3071");
    // An update and a deletion under one key on both sides, as of one client.
    for (master, seconds) in [(0, 1), (1, 2)] {
        let stamp = at(seconds);
        let (update, delete) = (
            include_str!("../sql/keyed_update.sql"),
            include_str!("../sql/keyed_delete.sql"),
        );
        let sql = &mut pair.masters[master];
        let done = sql.query(update, &[&"cambio", &"PUT", &5_i32, &"cambiado", &stamp]);
        assert!(done.expect("update")[0].get::<_, Option<i16>>(1).is_some());
        let done = sql.query(delete, &[&"borrado", &"DELETE", &7_i32, &stamp]);
        assert!(done.expect("delete")[0].get::<_, Option<i16>>(1).is_some());
    }
    pair.links("ENABLE");
    pair.settle();
    pair.equal("requests that both have done");
    for (key, _, _, left) in cases {
        for sql in &mut pair.masters {
            assert_eq!(rows_named(sql, key), left, "{key}");
        }
    }
    let sql = &mut pair.masters[1];
    let ids = "SELECT id_genero::text FROM public.generos WHERE id_genero BETWEEN 3050 AND 3099 ORDER BY 1";
    assert_eq!(texts(sql, ids), ["3051", "3052", "3061", "3062", "3072"]);
    assert_eq!(
        texts(
            sql,
            "SELECT genero FROM public.generos WHERE id_genero IN (5, 7)"
        ),
        ["cambiado"]
    );
    let kept = "SELECT clave || ' ' || id_genero FROM imdb_ha.claves WHERE clave LIKE 're%' OR clave LIKE 'por%' ORDER BY 1";
    let told = [
        "por error 3052",
        "repetida en el primero 3011",
        "repetida en el segundo 3002",
    ];
    assert_eq!(texts(sql, kept), told);
    // A person can see which rows went.
    for sql in &mut pair.masters {
        let noted = "SELECT clave FROM imdb_ha.conflictos WHERE tipo = 'same_key' ORDER BY 1";
        assert_eq!(texts(sql, noted), ["3001", "3012", "3021", "3061", "3071"]);
    }
    at_the_same_time(&cluster, &mut pair);
    let failed = "SELECT sum(apply_error_count)::text FROM pg_stat_subscription_stats";
    for sql in &mut pair.masters {
        assert_eq!(texts(sql, failed), ["0"], "no apply worker has stopped");
    }
}

/// Both masters take the same keys at the same moment, with their links up.
fn at_the_same_time(cluster: &Cluster, pair: &mut Pair) {
    const KEYS: i32 = 300;
    std::thread::scope(|scope| {
        for (node, half) in [("master1", 0), ("master2", 1)] {
            scope.spawn(move || {
                let mut sql = cluster.sql(node);
                let insert = sql.prepare(include_str!("../sql/keyed_insert.sql"));
                let insert = insert.expect("prepare");
                for number in 0..KEYS {
                    let (key, id) = (format!("carrera {number}"), 5000 + 2 * number + half);
                    let stamp = at(1_000 + (number % 7) as u64);
                    // The other one's may be here already: nothing is done then.
                    match sql.query(&insert, &[&key, &"POST", &id, &key, &stamp]) {
                        Ok(_) => {}
                        Err(error) => {
                            assert_eq!(error.code().map(|code| code.code()), Some("23505"))
                        }
                    }
                }
            });
        }
    });
    pair.settle();
    pair.equal("keys that both take");
    let rows = "SELECT count(*)::text FROM public.generos WHERE genero LIKE 'carrera %'";
    assert_eq!(texts(&mut pair.masters[0], rows), [KEYS.to_string()]);
}
