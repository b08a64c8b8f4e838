//! Two versions of one row, settled in the database: over real masters, with their links cut by
//! disabling the subscriptions, and with both masters written at once.

mod common;

use common::pair::{MASTERS, Pair, texts};
use common::{Cluster, wait_until};
use postgres::Client;
use serde_json::Value;
use std::time::{Duration, Instant};

/// Numbers that are the same at each run with the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn errors(client: &mut Client) -> i64 {
    client
        .query_one(
            "SELECT sum(apply_error_count)::bigint FROM pg_stat_subscription_stats",
            &[],
        )
        .expect("the statistics")
        .get(0)
}

/// One random transaction on one master, over a few ids, with and without a time of its own.
fn change(dice: &mut Dice, master: &mut Client) {
    let mut statements = vec!["BEGIN".to_string()];
    for _ in 0..=dice.below(3) {
        let (id, other) = (101 + dice.below(6), 101 + dice.below(6));
        let name = format!("n{}", dice.below(1_000_000));
        let time = format!("now() + interval '{} ms'", dice.below(4_000) as i64 - 2_000);
        statements.push(match dice.below(9) {
            0 | 1 => format!("INSERT INTO public.generos VALUES ({id}, '{name}') ON CONFLICT DO NOTHING"),
            2 => format!(
                "INSERT INTO public.generos VALUES ({id}, '{name}', {time}) ON CONFLICT DO NOTHING"
            ),
            3 => format!("UPDATE public.generos SET genero = '{name}' WHERE id_genero = {id}"),
            4 => format!(
                "UPDATE public.generos SET genero = '{name}', cambiado_en = {time} WHERE id_genero = {id}"
            ),
            5 => format!("DELETE FROM public.generos WHERE id_genero = {id}"),
            6 => format!(
                "SELECT set_config('imdb_ha.hora', ({time})::text, true); \
                 DELETE FROM public.generos WHERE id_genero = {id}"
            ),
            7 => format!(
                "UPDATE public.generos SET id_genero = {other} WHERE id_genero = {id} \
                 AND NOT EXISTS (SELECT FROM public.generos WHERE id_genero = {other})"
            ),
            _ => format!(
                "INSERT INTO public.generos VALUES ({id}, '{name}') \
                 ON CONFLICT (id_genero) DO UPDATE SET genero = excluded.genero"
            ),
        });
    }
    statements.push(
        if dice.below(8) == 0 {
            "ROLLBACK"
        } else {
            "COMMIT"
        }
        .to_string(),
    );
    if master.batch_execute(&statements.join("; ")).is_err() {
        // Two sessions that met at one id: one of them lost, as PostgreSQL has it.
        let _ = master.batch_execute("ROLLBACK");
    }
}

#[test]
fn both_masters_end_equal_whatever_was_written_on_both_sides_of_a_cut() {
    let cluster = Cluster::start();
    let mut pair = Pair::new(&cluster);
    let seed =
        std::env::var("IMDB_HA_TEST_SEED").map_or(20_251, |seed| seed.parse().expect("a number"));
    let mut dice = Dice(seed);
    for round in 0..20 {
        pair.links("DISABLE");
        for _ in 0..dice.below(60) {
            let master = dice.below(2) as usize;
            change(&mut dice, &mut pair.masters[master]);
        }
        pair.links("ENABLE");
        pair.settle();
        pair.equal(&format!("seed {seed}, round {round}"));
    }
    let logged = pair.masters.each_mut().map(|master| {
        texts(
            master,
            "SELECT DISTINCT tipo || ' ' || gano FROM imdb_ha.conflictos ORDER BY 1",
        )
    });
    let mut kinds: Vec<String> = logged.concat();
    kinds.sort();
    kinds.dedup();
    let expected = [
        "delete_update local",
        "delete_update remote",
        "insert_delete local",
        "insert_insert local",
        "insert_insert remote",
        "update_delete local",
        "update_delete remote",
        "update_update local",
        "update_update remote",
    ];
    assert_eq!(kinds, expected);
    let errors = pair.masters.each_mut().map(errors);
    assert_eq!(errors, [0, 0], "an apply worker stopped");
}

#[test]
fn both_masters_end_equal_when_both_are_written_at_once() {
    let cluster = Cluster::start();
    let mut pair = Pair::new(&cluster);
    for round in 0..3 {
        std::thread::scope(|scope| {
            for (index, node) in MASTERS.iter().cycle().take(4).enumerate() {
                let mut master = cluster.sql(node);
                // Sessions that wait for each other find out sooner.
                let sooner = master.batch_execute("SET deadlock_timeout = '20ms'");
                sooner.expect("superuser");
                let mut dice = Dice(1_000 * round + index as u64);
                scope.spawn(move || (0..80).for_each(|_| change(&mut dice, &mut master)));
            }
        });
        pair.settle();
        pair.equal(&format!("round {round}"));
    }
    eprintln!("apply errors {:?}", pair.masters.each_mut().map(errors));
}

/// The rows with these ids, as one master has them, without the stamps.
fn names(master: &mut Client, from: i32) -> Vec<String> {
    let sql = format!(
        "SELECT id_genero || ' ' || genero FROM public.generos WHERE id_genero >= {from} ORDER BY id_genero"
    );
    texts(master, &sql)
}

#[test]
fn the_later_change_wins_and_each_conflict_is_told() {
    let cluster = Cluster::start();
    let mut pair = Pair::new(&cluster);
    let ids = [201, 202, 203, 204, 205, 206];
    for id in ids {
        pair.run(
            0,
            &format!("INSERT INTO public.generos VALUES ({id}, 'antes')"),
        );
    }
    pair.settle();
    pair.links("DISABLE");
    // Without conflict: a deletion, an update, and the same row on both, as a retry leaves it.
    pair.run(0, "DELETE FROM public.generos WHERE id_genero = 201");
    pair.run(
        0,
        "UPDATE public.generos SET genero = 'después' WHERE id_genero = 202",
    );
    for master in [0, 1] {
        pair.run(
            master,
            "INSERT INTO public.generos VALUES (207, 'reintento', '2025-11-01')",
        );
    }
    // Deleted on one side, and changed later on the other; and the other way round.
    pair.run(1, "DELETE FROM public.generos WHERE id_genero = 203");
    pair.run(
        0,
        "UPDATE public.generos SET genero = 'vive' WHERE id_genero = 203",
    );
    pair.run(
        0,
        "UPDATE public.generos SET genero = 'muere' WHERE id_genero = 204",
    );
    pair.run(1, "DELETE FROM public.generos WHERE id_genero = 204");
    // Deleted on both, and made anew on one.
    for master in [0, 1] {
        pair.run(master, "DELETE FROM public.generos WHERE id_genero = 205");
    }
    pair.run(0, "INSERT INTO public.generos VALUES (205, 'otra vez')");
    pair.run(
        0,
        "UPDATE public.generos SET genero = 'uno' WHERE id_genero = 206",
    );
    pair.run(
        1,
        "UPDATE public.generos SET genero = 'dos' WHERE id_genero = 206",
    );
    pair.links("ENABLE");
    pair.settle();
    pair.equal("the scenarios");
    let expected = [
        "202 después",
        "203 vive",
        "205 otra vez",
        "206 dos",
        "207 reintento",
    ];
    assert_eq!(names(&mut pair.masters[1], 201), expected);

    let output = cluster.run(&["conflicts", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let mut found: Vec<String> = entries(&told)
        .iter()
        .map(|entry| {
            format!(
                "{} {} {} {}",
                entry["key"].as_str().expect("a key"),
                entry["master"],
                entry["kind"],
                entry["won"]
            )
            .replace('"', "")
        })
        .collect();
    found.sort();
    let expected = [
        "203 master1 delete_update local",
        "203 master2 update_delete remote",
        "204 master1 delete_update remote",
        "204 master2 update_delete local",
        "206 master1 update_update remote",
        "206 master2 update_update local",
    ];
    assert_eq!(found, expected);
    wait_until("the status has the counts", || {
        cluster.get("/status").body["conflicts"] == serde_json::json!({"master1": 3, "master2": 3})
    });

    // The same over HTTP, in pages, newest first, and with what each version was.
    let all = cluster.get("/conflicts");
    assert_eq!(
        (all.status, entries(&all.body).len(), &all.body["next"]),
        (200, 6, &Value::Null)
    );
    let mut pages = Vec::new();
    let mut after = "-".to_string();
    loop {
        let page = cluster.get(&format!("/conflicts?limit=4&after={after}"));
        pages.extend(entries(&page.body));
        match page.body["next"].as_str() {
            Some(next) => after = next.to_string(),
            None => break,
        }
    }
    assert_eq!(pages, entries(&all.body));
    let of_206 = pages
        .iter()
        .find(|entry| entry["key"] == "206" && entry["master"] == "master1");
    let of_206 = of_206.expect("the update");
    assert_eq!(
        (&of_206["local"]["genero"], &of_206["remote"]["genero"]),
        (&Value::from("uno"), &Value::from("dos"))
    );
    assert_eq!(
        cluster.get("/conflicts?after=x").code(),
        "parameter_invalid"
    );

    // TRUNCATE could not be settled, so it is refused.
    let refused = pair.masters[0].batch_execute("TRUNCATE public.generos");
    assert!(
        refused
            .expect_err("refused")
            .to_string()
            .contains("db error")
    );
    // A master that is down is named, and the other one answers.
    cluster.local(&["stop", "master2"]);
    cluster.wait_state("master2", "down");
    let half = cluster.get("/conflicts");
    assert_eq!((half.status, entries(&half.body).len()), (200, 3));
    assert!(
        half.body["not_asked"]["master2"]
            .as_str()
            .is_some_and(|why| why.contains("down")),
        "{half:?}"
    );
    let output = cluster.run(&["conflicts"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.code() == Some(1) && text.contains("master2 could not be asked"),
        "{text}"
    );
}

fn entries(body: &Value) -> Vec<Value> {
    body["data"].as_array().expect("entries").clone()
}

#[test]
fn the_log_is_bounded_and_never_stops_the_apply_worker() {
    let cluster = Cluster::start();
    let mut pair = Pair::new(&cluster);
    let fill = "SELECT count(imdb_ha.anotar_conflicto('update_update', n, 'local', '{}', '{}')) \
        FROM generate_series(1, 10050) AS n";
    pair.run(0, fill);
    let count = "SELECT count(*)::text FROM imdb_ha.conflictos";
    assert_eq!(texts(&mut pair.masters[0], count), ["10000"]);

    let mut round = 0;
    let mut collide = |pair: &mut Pair| {
        round += 1;
        pair.links("DISABLE");
        for master in [0, 1] {
            let sql = format!(
                "INSERT INTO public.generos VALUES (301, 'm{master} {round}') \
                ON CONFLICT (id_genero) DO UPDATE SET genero = excluded.genero"
            );
            pair.run(master, &sql);
        }
        pair.links("ENABLE");
        pair.settle();
        pair.equal("a log that cannot be written");
    };
    let mut holder = cluster.sql("master2");
    let mut hold = holder.transaction().expect("a transaction");
    hold.batch_execute("LOCK TABLE imdb_ha.conflictos")
        .expect("the lock");
    collide(&mut pair);
    hold.rollback().expect("its end");
    assert_eq!(texts(&mut pair.masters[1], count), ["0"]);
    pair.run(1, "DROP TABLE imdb_ha.conflictos");
    collide(&mut pair);
    assert_eq!(
        pair.masters.each_mut().map(errors),
        [0, 0],
        "an apply worker stopped"
    );
    // The probe goes on without the table, and says that it has no figure.
    wait_until("the count is gone", || {
        cluster.get("/status").body["conflicts"]["master2"].is_null()
    });
    cluster.wait_state("master2", "up"); // on a busy machine a late answer makes it suspect for a moment
    let output = cluster.run(&["conflicts", "--limit", "1"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("master2 could not be asked: it has no conflict log yet"),
        "{text}"
    );

    // Old deletions are forgotten by each master for itself.
    let old = "INSERT INTO imdb_ha.borrados \
        SELECT id, now() - age, 1, to_jsonb(g) || jsonb_build_object('id_genero', id) \
        FROM (VALUES (401, interval '31 days'), (402, interval '29 days')) AS v (id, age), \
        public.generos AS g WHERE g.id_genero = 1";
    pair.run(
        0,
        &format!("SET session_replication_role = replica; {old}; RESET session_replication_role"),
    );
    pair.settle();
    let kept = "SELECT id_genero::text FROM imdb_ha.borrados WHERE id_genero > 400 ORDER BY 1";
    assert_eq!(texts(&mut pair.masters[1], kept), ["401", "402"]);
    pair.run(0, "SELECT imdb_ha.olvidar_borrados(1000)");
    pair.settle();
    assert_eq!(texts(&mut pair.masters[0], kept), ["402"]);
    assert_eq!(texts(&mut pair.masters[1], kept), ["401", "402"]);
}

fn alarms(cluster: &Cluster) -> String {
    cluster.get("/status").body["alarms"].to_string()
}

#[test]
fn a_stopped_apply_worker_is_an_alarm_with_its_cause_until_it_runs_again() {
    let cluster = Cluster::start();
    let mut pair = Pair::new(&cluster);
    wait_until("all is well", || alarms(&cluster) == "[]");
    pair.run(1, "CREATE UNIQUE INDEX unico ON public.generos (genero)");
    cluster.add("doble");
    cluster.add("doble");
    wait_until("the alarm", || alarms(&cluster).contains("apply worker"));
    let text = alarms(&cluster);
    for part in [
        "master2: the apply worker of sub_from_master1",
        "unico",
        "(genero)=(doble)",
        "drop the constraint",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let status = cluster.run(&["replication", "status"]);
    let text = String::from_utf8_lossy(&status.stdout).into_owned();
    assert_eq!(status.status.code(), Some(1));
    assert!(
        text.contains("PROBLEM") && text.contains("(genero)=(doble)"),
        "{text}"
    );

    // A role that may not read the log says where to look.
    pair.run(
        1,
        "CREATE ROLE sencillo LOGIN PASSWORD 'x' IN ROLE pg_monitor",
    );
    let mut plain = common::clean_command();
    plain
        .args(["replication", "status"])
        .env("MASTER1_URL", cluster.url("master1"));
    plain.env(
        "MASTER2_URL",
        cluster.url("master2").replace("root:root", "sencillo:x"),
    );
    // The worker is started again and again, and this role does not see since when it has been running.
    wait_until("the status says where to look", || {
        let text = String::from_utf8_lossy(&plain.output().expect("imdb-ha").stdout).into_owned();
        text.contains("cannot be read from here") && text.contains("permission denied")
    });

    pair.run(1, "DROP INDEX public.unico");
    wait_until("the alarm is over", || alarms(&cluster) == "[]");
    cluster.wait_equal();
    assert!(cluster.said().contains("sub_from_master1 is applied again"));

    // A column that one master has alone. What a row has beside its name is carried too.
    pair.run(
        0,
        "ALTER TABLE public.generos ADD COLUMN nota text DEFAULT 'sí'",
    );
    cluster.add("con nota");
    wait_until("the alarm", || {
        alarms(&cluster).contains("missing replicated column")
    });
    assert!(
        alarms(&cluster).contains("add the column"),
        "{}",
        alarms(&cluster)
    );
    pair.run(
        1,
        "ALTER TABLE public.generos ADD COLUMN nota text DEFAULT 'sí'",
    );
    wait_until("the alarm is over", || alarms(&cluster) == "[]");
    pair.run(
        0,
        "UPDATE public.generos SET nota = 'otra' WHERE id_genero = 1",
    );
    pair.settle();
    pair.equal("another column");
    // A peer that is away is no alarm: there is nothing to apply.
    cluster.local(&["kill", "master1"]);
    cluster.wait_state("master1", "down");
    let until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until {
        assert_eq!(alarms(&cluster), "[]");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn data_of_an_earlier_version_is_taken_over_while_it_is_written() {
    let cluster = Cluster::start();
    let mut pair = Pair::new(&cluster);
    pair.links("DISABLE");
    for master in [0, 1] {
        pair.run(master, "DROP TRIGGER generos_sellar ON public.generos; \
            DROP TRIGGER generos_enterrar ON public.generos; DROP TRIGGER generos_nuevas ON public.generos; \
            DROP TRIGGER generos_movidas ON public.generos; DROP TRIGGER generos_no_truncar ON public.generos; \
            DROP TRIGGER generos_conciliar ON public.generos; \
            DROP TABLE imdb_ha.borrados, imdb_ha.cambios, imdb_ha.conflictos, imdb_ha.mandato, imdb_ha.arranques");
        pair.run(master, include_str!("fixtures/before-films.sql"));
        pair.run(
            master,
            include_str!("fixtures/conflicts-before-deletions.sql"),
        );
        pair.run(
            master,
            "BEGIN; DROP PUBLICATION pub_imdb; CREATE PUBLICATION pub_imdb FOR TABLE public.generos; COMMIT",
        );
    }
    pair.links("ENABLE");
    pair.links("REFRESH PUBLICATION WITH (copy_data = false)");
    let tables = "SELECT srrelid::regclass::text FROM pg_subscription_rel ORDER BY 1";
    assert_eq!(texts(&mut pair.masters[1], tables), ["generos"]);
    // Written on one side of a cut by the earlier version, and still on its way.
    pair.run(
        0,
        "INSERT INTO public.generos VALUES (501, 'a'), (502, 'b'), (503, 'c')",
    );
    pair.settle();
    wait_until("both directions stream", || {
        cluster.run(&["replication", "status"]).status.success()
    });
    let walsender =
        "SELECT pid::text FROM pg_stat_replication WHERE application_name LIKE 'sub_from%'";
    let before = pair
        .masters
        .each_mut()
        .map(|master| texts(master, walsender));
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let mut master = cluster.sql("master1");
            let mut number = 0;
            while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                number += 1;
                let sql = format!(
                    "INSERT INTO public.generos VALUES ({id}, 'x'); \
                    UPDATE public.generos SET genero = 'u{number}' WHERE id_genero IN (501, {id}); \
                    DELETE FROM public.generos WHERE id_genero = {id} - 20",
                    id = 600 + number
                );
                master.batch_execute(&sql).expect("write");
            }
            number
        });
        let setup = cluster.run(&["replication", "setup"]);
        std::thread::sleep(Duration::from_millis(300));
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
        let text = String::from_utf8_lossy(&setup.stdout).into_owned();
        assert!(setup.status.success(), "{setup:?}");
        for part in [
            "schema extended",
            "migration 1 (imdb) applied",
            "pub_imdb made anew",
            "takes the tables",
        ] {
            assert_eq!(text.matches(part).count(), 2, "{text}");
        }
        assert!(writing.join().expect("the writer") > 20);
    });
    pair.settle();
    pair.equal("after the upgrade");
    let after = pair
        .masters
        .each_mut()
        .map(|master| texts(master, walsender));
    assert_eq!(
        (before, pair.masters.each_mut().map(errors)),
        (after, [0, 0]),
        "a stream was broken"
    );
    for _ in 0..2 {
        let again = cluster.run(&["replication", "setup"]);
        let text = String::from_utf8_lossy(&again.stdout).into_owned();
        assert_eq!(text.trim(), "nothing to do: the masters are joined");
    }
    pair.links("DISABLE");
    pair.run(1, "DELETE FROM public.generos WHERE id_genero = 502");
    pair.run(
        0,
        "UPDATE public.generos SET genero = 'vive' WHERE id_genero = 502",
    );
    pair.links("ENABLE");
    pair.settle();
    pair.equal("a deletion after the upgrade");
    assert_eq!(names(&mut pair.masters[1], 502)[0], "502 vive");
}

/// A request that was stuck on a frozen master must not delete what was made after it.
#[test]
fn a_deletion_counts_from_its_request_and_a_plain_role_may_write() {
    let cluster = Cluster::start();
    let mut pair = Pair::new(&cluster);
    // Before the request, which waits for its lock for only so long.
    pair.links("DISABLE");
    let mut holder = cluster.sql("master1");
    let mut hold = holder.transaction().expect("a transaction");
    hold.execute(
        "SELECT FROM public.generos WHERE id_genero = 7 FOR UPDATE",
        &[],
    )
    .expect("the lock");
    std::thread::scope(|scope| {
        let deleting = scope.spawn(|| cluster.ask("DELETE", "/generos/7", None, &[]));
        wait_until("the deletion waits", || {
            let waiting = "SELECT pid::text FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
            !texts(&mut pair.masters[0], waiting).is_empty()
        });
        // Meanwhile its client has given up, and others go on at the other master.
        pair.run(
            1,
            "DELETE FROM public.generos WHERE id_genero = 7; \
             INSERT INTO public.generos VALUES (7, 'hecho después')",
        );
        hold.rollback().expect("its end");
        assert_eq!(deleting.join().expect("the request").status, 200);
    });
    pair.links("ENABLE");
    pair.settle();
    pair.equal("a late deletion");
    assert_eq!(names(&mut pair.masters[0], 1)[6], "7 hecho después");

    // A clock that goes ahead at one master does not keep a new row from staying.
    pair.run(
        1,
        "BEGIN; SELECT set_config('imdb_ha.hora', (now() + interval '1 hour')::text, true); \
         DELETE FROM public.generos WHERE id_genero = 8; COMMIT",
    );
    pair.settle();
    let anew = cluster.post("/generos", r#"{"id_genero": 8, "genero": "otra vez"}"#);
    assert_eq!(anew.status, 201);
    pair.settle();
    pair.equal("a row after a deletion of the future");
    assert_eq!(names(&mut pair.masters[1], 8)[0], "8 otra vez");

    pair.run(
        0,
        "CREATE ROLE sencillo LOGIN PASSWORD 'x' IN ROLE pg_monitor; \
         GRANT SELECT, INSERT, UPDATE, DELETE ON public.generos TO sencillo; SET ROLE sencillo; \
         INSERT INTO public.generos VALUES (9001, 'a'), (9002, 'b'); \
         UPDATE public.generos SET genero = 'c' WHERE id_genero = 9001; \
         DELETE FROM public.generos WHERE id_genero = 9002; RESET ROLE",
    );
    pair.settle();
    pair.equal("written by a plain role");
    assert_eq!(names(&mut pair.masters[1], 9001), ["9001 c"]);
}

/// The worker's error names neither its subscription nor its origin then, only the slot.
#[test]
fn a_slot_that_is_gone_is_an_alarm_that_says_what_to_run() {
    let cluster = Cluster::start();
    wait_until("all is well", || alarms(&cluster) == "[]");
    let mut first = cluster.sql("master1");
    let drop = "SELECT pg_terminate_backend(active_pid), pg_drop_replication_slot(slot_name) \
        FROM pg_replication_slots WHERE slot_name = 'slot_1_to_2'";
    wait_until("the slot is dropped", || first.batch_execute(drop).is_ok());
    let part = "run `imdb-ha replication setup`, which says which master to rejoin";
    wait_until("the alarm", || alarms(&cluster).contains(part));
    let text = alarms(&cluster);
    assert!(
        text.contains("master2: the apply worker of sub_from_master1 has stopped"),
        "{text}"
    );
    let setup = cluster.run(&["replication", "setup"]);
    let said = String::from_utf8_lossy(&setup.stderr);
    assert_eq!(setup.status.code(), Some(1), "{said}");
    assert!(said.contains("imdb-ha rejoin master2"), "{said}");
}

/// What a restore of data alone does to the triggers: those for the changes that arrive fire for everybody's,
/// and not for those that arrive.
#[test]
fn triggers_in_the_wrong_mode_are_told_do_no_harm_and_are_mended_by_the_set_up() {
    let cluster = Cluster::start();
    let mut pair = Pair::new(&cluster);
    let wrong = "SELECT tabla || ' ' || nombre || ' ' || coalesce(esta, '-') || debe \
        FROM imdb_ha.disparadores_mal() ORDER BY 1";
    assert!(texts(&mut pair.masters[0], wrong).is_empty());
    for table in [
        "public.generos",
        "imdb_ha.cambios",
        "imdb_ha.borrados",
        "imdb_ha.claves",
    ] {
        for verb in ["DISABLE", "ENABLE"] {
            pair.run(0, &format!("ALTER TABLE {table} {verb} TRIGGER ALL"));
        }
    }
    let told = [
        "imdb_ha.borrados borrados_conciliar OR",
        "imdb_ha.cambios cambios_conciliar OR",
        "imdb_ha.claves claves_conciliar OR",
        "public.generos generos_conciliar OR",
    ];
    assert_eq!(texts(&mut pair.masters[0], wrong), told);
    pair.run(
        0,
        "ALTER TABLE public.generos DISABLE TRIGGER generos_sellar, ENABLE ALWAYS TRIGGER generos_enterrar; \
         DROP TRIGGER generos_no_truncar ON public.generos",
    );
    assert_eq!(texts(&mut pair.masters[0], wrong).len(), 7);
    pair.run(
        0,
        "ALTER TABLE public.generos ENABLE TRIGGER generos_sellar, ENABLE TRIGGER generos_enterrar",
    );

    let rows =
        "SELECT id_genero::text FROM public.generos WHERE genero = 'uno solo' ORDER BY id_genero";
    let posted = cluster.add("uno solo");
    assert_eq!(posted.status, 201, "{posted:?}");
    let id = posted.id();
    assert_eq!(texts(&mut pair.masters[0], rows), [id.to_string()]);
    let put = cluster.ask(
        "PUT",
        &format!("/generos/{id}"),
        Some(r#"{"genero": "otro"}"#),
        &[("Content-Type", "application/json")],
    );
    assert_eq!(put.status, 200, "{put:?}");
    let deleted = cluster.ask("DELETE", &format!("/generos/{id}"), None, &[]);
    assert_eq!(deleted.status, 200, "{deleted:?}");

    // Somebody's own trigger may put the row in by itself, too. What the statement returns is not all there is.
    pair.run(
        0,
        "CREATE FUNCTION public.a_mano() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             IF pg_trigger_depth() > 1 THEN RETURN NEW; END IF; \
             INSERT INTO public.generos SELECT NEW.*; RETURN NULL; END $$; \
         CREATE TRIGGER a_mano BEFORE INSERT ON public.generos \
             FOR EACH ROW EXECUTE FUNCTION public.a_mano()",
    );
    let posted = cluster.add("uno solo");
    assert_eq!(posted.status, 201, "{posted:?}");
    assert_eq!(texts(&mut pair.masters[0], rows), [posted.id().to_string()]);
    pair.run(0, "DROP FUNCTION public.a_mano() CASCADE");

    let setup = cluster.run(&["replication", "setup"]);
    assert!(setup.status.success(), "{setup:?}");
    assert!(texts(&mut pair.masters[0], wrong).is_empty());
    pair.settle();
    pair.equal("written with triggers in the wrong mode");
}

/// A deletion that is copied asks nothing of the rows: they come from the same copy.
#[test]
fn a_master_that_is_rebuilt_takes_the_deletions_over_as_they_are() {
    let cluster = Cluster::start();
    let mut pair = Pair::new(&cluster);
    pair.run(1, "ALTER SUBSCRIPTION sub_from_master1 DISABLE");
    // As many have been deleted long ago.
    pair.run(
        0,
        "SET synchronous_commit = local; INSERT INTO imdb_ha.borrados \
         SELECT 10000 + n, now() - interval '9 days', 1, to_jsonb(g) || jsonb_build_object('id_genero', 10000 + n) \
         FROM public.generos AS g, generate_series(1, 20000) AS n WHERE g.id_genero = 1",
    );
    let rejoin = cluster.run(&["rejoin", "master2", "--yes"]);
    assert!(rejoin.status.success(), "{rejoin:?}");
    pair.settle();
    let rows = pair.equal("after the rejoin");
    assert!(rows.len() > 20_000);
    // Each was an insert and a deletion before.
    let touched = "SELECT n_tup_ins::text FROM pg_stat_user_tables WHERE relname = 'generos'";
    let touched = texts(&mut pair.masters[1], touched).remove(0);
    let touched: i64 = touched.parse().expect("a number");
    assert!(touched < 1_000, "{touched} rows were written");
    // And deletions count again.
    pair.run(0, "DELETE FROM public.generos WHERE id_genero = 7");
    pair.settle();
    pair.equal("a deletion after it");
    assert!(!names(&mut pair.masters[1], 7)[0].starts_with("7 "));
}
