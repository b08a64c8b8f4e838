//! Loads that end too early: a killed loader, a master that dies or freezes, and the moment between the two masters. And the
//! same door over HTTP.

mod common;

use common::{Cluster, clean_command, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use postgres::Client;
use serde_json::Value;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

const BASICS: &str = "tconst\ttitleType\tprimaryTitle\toriginalTitle\tisAdult\tstartYear\tendYear\truntimeMinutes\tgenres\n";
const RATINGS: &str = "tconst\taverageRating\tnumVotes\n";

/// So many titles with so many ratings, which takes some seconds to load.
fn write(folder: &Path, titles: u32, name: &str) {
    let (mut basics, mut ratings) = (BASICS.to_string(), RATINGS.to_string());
    for id in 1..=titles {
        let _ = writeln!(
            basics,
            "tt{id:07}\tmovie\t{name} {id}\t{name} {id}\t0\t1994\t\\N\t142\tDrama,Comedy"
        );
        let _ = writeln!(ratings, "tt{id:07}\t5.0\t{id}");
    }
    fs::write(folder.join("title.basics.tsv"), basics).expect("titles");
    fs::write(folder.join("title.ratings.tsv"), ratings).expect("ratings");
}

/// However many rows are left: what is loaded here replaces something else.
fn load(cluster: &Cluster, folder: &Path) -> Output {
    cluster.run(&["load", "--allow-shrink", &folder.display().to_string()])
}

fn must_load(cluster: &Cluster, folder: &Path) -> Output {
    let output = load(cluster, folder);
    assert!(output.status.success(), "{output:?}");
    output
}

fn begin(cluster: &Cluster, folder: &Path) -> Child {
    let mut command = clean_command();
    command
        .arg("load")
        .arg(folder)
        .env("IMDB_HA_DATA", &cluster.data);
    for (name, node) in [("MASTER1_URL", "master1"), ("MASTER2_URL", "master2")] {
        command.env(name, cluster.url(node));
    }
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("imdb-ha load")
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id() as i32), signal).expect("a signal");
}

/// What a load said that has ended with an error.
fn failure(child: Child) -> String {
    let output = child.wait_with_output().expect("its end");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn is(session: &mut Client, condition: &str) -> bool {
    let row = session.query_one(&format!("SELECT {condition}"), &[]);
    row.unwrap_or_else(|error| panic!("{condition}: {error:?}"))
        .get(0)
}

/// Waits until titles are being copied.
fn wait_for_the_middle(session: &mut Client) {
    wait_until("titles are being copied", || {
        is(
            session,
            "EXISTS (SELECT FROM pg_stat_progress_copy WHERE type = 'PIPE' AND tuples_processed > 0)",
        )
    });
}

/// Waits until somebody waits for the lock of a table that somebody else reads.
fn wait_for_the_queue(session: &mut Client) {
    wait_until("the load waits for a reader", || {
        is(
            session,
            "EXISTS (SELECT FROM pg_locks WHERE relation = 'public.titulos'::regclass \
             AND mode = 'AccessExclusiveLock' AND NOT granted)",
        )
    });
}

/// Lets the commit of a load on one master take long, so that the other has the new rows before.
fn hold_commits(session: &mut Client) {
    let sql = "CREATE FUNCTION public.esperar() RETURNS trigger LANGUAGE plpgsql AS \
         'BEGIN PERFORM pg_catalog.pg_sleep(60); RETURN NULL; END'; \
         CREATE CONSTRAINT TRIGGER esperar AFTER INSERT ON public.cargas DEFERRABLE INITIALLY DEFERRED \
         FOR EACH ROW EXECUTE FUNCTION public.esperar()";
    session.batch_execute(sql).expect("a trigger");
}

fn release_commits(session: &mut Client) {
    let sql = "DROP TRIGGER esperar ON public.cargas; DROP FUNCTION public.esperar()";
    session.batch_execute(sql).expect("dropped");
}

fn title(session: &mut Client) -> String {
    let row = session.query_one("SELECT titulo_principal || ' ' || (SELECT count(*) FROM titulos) FROM titulos WHERE id_titulo = 1", &[]);
    row.expect("the first title").get(0)
}

fn assert_equal(cluster: &Cluster) {
    let output = cluster.run(&["compare"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn a_load_that_dies_leaves_the_old_rows_and_the_next_one_is_whole() {
    let cluster = Cluster::start_flagged(&["--no-api"], &[]);
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let mut masters = ["master1", "master2"].map(|node| cluster.sql(node));
    write(folder, 10, "Old");
    must_load(&cluster, folder);

    // Somebody reads on each master in turn for longer than one try waits: the load waits for them, and everybody reads the old rows on both.
    write(folder, 11, "Old");
    for (index, node) in ["master1", "master2"].into_iter().enumerate() {
        let mut reader = cluster.sql(node);
        let mut reading = reader.transaction().expect("a transaction");
        let before = title(&mut masters[1 - index]);
        reading
            .query("SELECT FROM titulos LIMIT 1", &[])
            .expect("a row");
        let child = begin(&cluster, folder);
        for _ in 0..2 {
            wait_for_the_queue(&mut masters[index]);
            std::thread::sleep(Duration::from_millis(500));
        }
        assert_eq!(title(&mut masters[1 - index]), before);
        reading
            .query("SELECT FROM titulos LIMIT 1", &[])
            .expect("a row");
        reading.rollback().expect("the end");
        let output = child.wait_with_output().expect("its end");
        assert!(output.status.success(), "{node}: {output:?}");
        write(folder, 11, "Old again");
    }
    write(folder, 11, "Old");
    must_load(&cluster, folder);
    for master in &mut masters {
        assert_eq!(title(master), "Old 1 11");
    }

    // Killed in the middle.
    write(folder, 200_000, "New");
    let mut child = begin(&cluster, folder);
    wait_for_the_middle(&mut masters[0]);
    signal(&child, Signal::SIGKILL);
    child.wait().expect("its end");
    for master in &mut masters {
        assert_eq!(title(master), "Old 1 11");
    }
    // Its sessions hold locks and an origin until the servers have noticed, and the next load must cope.
    write(folder, 20, "Newer");
    must_load(&cluster, folder);
    for master in &mut masters {
        assert_eq!(title(master), "Newer 1 20");
        assert!(is(master, "to_regnamespace('imdb_carga') IS NULL"));
    }

    // Interrupted by whoever started it.
    write(folder, 200_000, "Never");
    let child = begin(&cluster, folder);
    wait_for_the_middle(&mut masters[0]);
    signal(&child, Signal::SIGINT);
    assert!(failure(child).contains("interrupted"));
    for master in &mut masters {
        assert_eq!(title(master), "Newer 1 20");
        assert!(is(master, "to_regnamespace('imdb_carga') IS NULL"));
    }

    // Interrupted while somebody reads, when all but the exchange is done.
    write(folder, 21, "Never");
    let mut reader = cluster.sql("master2");
    let mut reading = reader.transaction().expect("a transaction");
    reading
        .query("SELECT FROM titulos LIMIT 1", &[])
        .expect("a row");
    let child = begin(&cluster, folder);
    wait_for_the_queue(&mut masters[1]);
    signal(&child, Signal::SIGTERM);
    let began = Instant::now();
    let told = failure(child);
    assert!(
        told.contains("interrupted") && began.elapsed() < Duration::from_secs(10),
        "{:?}: {told}",
        began.elapsed()
    );
    reading.rollback().expect("the end");
    for master in &mut masters {
        assert_eq!(title(master), "Newer 1 20");
        assert!(is(master, "to_regnamespace('imdb_carga') IS NULL"));
    }
}

#[test]
fn a_load_that_dies_between_the_two_masters_is_finished_by_whoever_comes() {
    let cluster = Cluster::start_flagged(&["--no-api"], &[]);
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let mut masters = ["master1", "master2"].map(|node| cluster.sql(node));
    write(folder, 10, "Old");
    must_load(&cluster, folder);
    let mut die_between = |titles: u32, name: &str| {
        let old = title(&mut masters[1]);
        hold_commits(&mut masters[1]);
        write(folder, titles, name);
        let mut child = begin(&cluster, folder);
        let new = format!("{name} 1 {titles}");
        wait_until("master1 has the new rows", || title(&mut masters[0]) == new);
        // A second load is refused as long as the first one lives.
        let second = load(&cluster, folder);
        assert!(
            String::from_utf8_lossy(&second.stderr).contains("another load is running"),
            "{second:?}"
        );
        signal(&child, Signal::SIGKILL);
        child.wait().expect("its end");
        assert_eq!(title(&mut masters[1]), old);
        release_commits(&mut masters[1]);
    };

    // The next load has only ratings, and finishes the titles first.
    die_between(30, "Newest");
    fs::remove_file(folder.join("title.basics.tsv")).expect("removed");
    fs::write(
        folder.join("title.ratings.tsv"),
        format!("{RATINGS}tt0000030\t9.0\t9\n"),
    )
    .expect("ratings");
    let output = must_load(&cluster, folder);
    let finishing = "master2: finishing load";
    assert!(
        String::from_utf8_lossy(&output.stderr).contains(finishing),
        "{output:?}"
    );
    for node in ["master1", "master2"] {
        let mut master = cluster.sql(node);
        assert_eq!(title(&mut master), "Newest 1 30");
        assert!(is(&mut master, "(SELECT count(votos) = 1 FROM titulos)"));
    }
    assert_equal(&cluster);

    // A start, or a set-up by hand, does it too, and the tables are replicated.
    for (arguments, titles) in [
        (&["replication", "setup", "--at-start"][..], 31),
        (&["replication", "setup"], 32),
    ] {
        die_between(titles, "Started");
        let output = cluster.run(arguments);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && told.contains(finishing),
            "{output:?}"
        );
        let mut other = cluster.sql("master2");
        assert_eq!(title(&mut other), format!("Started 1 {titles}"));
        assert!(is(&mut other, "to_regnamespace('imdb_carga') IS NULL"));
        cluster
            .sql("master1")
            .execute("DELETE FROM titulo_genero WHERE id_titulo = 1", &[])
            .expect("a change");
        wait_until("the change arrives", || {
            is(
                &mut other,
                "NOT EXISTS (SELECT FROM titulo_genero WHERE id_titulo = 1)",
            )
        });
        assert_equal(&cluster);
    }
}

#[test]
fn a_load_that_dies_before_its_tables_are_replicated_is_mended_by_the_next_one() {
    let cluster = Cluster::start_flagged(&["--no-api"], &[]);
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    write(folder, 10, "Old");
    // The subscriptions cannot be changed, and the exchange does not need that.
    let mut blocker = cluster.sql("master1");
    let mut blocking = blocker.transaction().expect("a transaction");
    blocking
        .batch_execute("LOCK TABLE pg_catalog.pg_subscription IN SHARE MODE")
        .expect("a lock");
    let mut child = begin(&cluster, folder);
    let mut other = cluster.sql("master2");
    wait_until("master2 has the new rows", || {
        is(&mut other, "EXISTS (SELECT FROM titulos)")
    });
    signal(&child, Signal::SIGKILL);
    child.wait().expect("its end");
    blocking.rollback().expect("the end");
    let taken =
        "EXISTS (SELECT FROM pg_subscription_rel WHERE srrelid = 'public.titulos'::regclass)";
    assert!(!is(&mut other, taken));
    // A load that is refused mends it all the same: these are the principals of persons that nobody has loaded.
    let wrong = tempfile::tempdir().expect("a folder");
    let principals = "tconst\tordering\tnconst\tcategory\tjob\tcharacters\n\
         tt0000001\t1\tnm0000001\tactor\t\\N\t\\N\n";
    fs::write(wrong.path().join("title.principals.tsv"), principals).expect("principals");
    assert!(!load(&cluster, wrong.path()).status.success());
    for node in ["master1", "master2"] {
        assert!(is(&mut cluster.sql(node), taken), "{node}");
    }
    assert_equal(&cluster);
}

#[test]
fn films_are_loaded_while_commits_on_either_master_wait_for_the_other() {
    let cluster = Cluster::start_with(&[("ADMIN_TOKEN", "a-token-of-this-test")]);
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let headers = [("Authorization", "Bearer a-token-of-this-test")];
    for (titles, door, active) in [
        (10, "/switch-to-secondary", "master2"),
        (11, "/switch-to-primary", "master1"),
    ] {
        let moved = cluster.ask("POST", door, None, &headers);
        assert_eq!(moved.status, 200, "{moved:?}");
        assert_eq!(cluster.get("/active-node").body["active_node"], active);
        wait_until("commits wait for the peer", || {
            cluster.get("/health").body["durability"] == "zero-loss"
        });
        write(folder, titles, "Film");
        let done = std::sync::atomic::AtomicBool::new(false);
        let took = std::thread::scope(|scope| {
            for writer in 0..8 {
                let (cluster, done) = (&cluster, &done);
                scope.spawn(move || {
                    let mut number = 0;
                    while !done.load(std::sync::atomic::Ordering::SeqCst) {
                        let added = cluster.add(&format!("{active} {writer} {number}"));
                        assert_eq!(added.status, 201, "{added:?}");
                        number += 1;
                    }
                });
            }
            let began = Instant::now();
            let output = load(&cluster, folder);
            done.store(true, std::sync::atomic::Ordering::SeqCst);
            assert!(output.status.success(), "{output:?}");
            began.elapsed()
        });
        assert!(took < Duration::from_secs(30), "{took:?}");
    }
    cluster.wait_compare();
}

#[test]
fn a_genre_that_is_deleted_while_its_films_are_loaded_is_there_again() {
    let cluster = Cluster::start();
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    write(folder, 10, "Dramatic");
    let mut masters = ["master1", "master2"].map(|node| cluster.sql(node));
    let mut reader = cluster.sql("master2");
    let mut reading = reader.transaction().expect("a transaction");
    reading
        .query("SELECT FROM titulos LIMIT 1", &[])
        .expect("no row");
    let child = begin(&cluster, folder);
    wait_for_the_queue(&mut masters[1]);
    let deleted = cluster.ask("DELETE", "/generos/9", None, &[]);
    assert_eq!(deleted.status, 200, "{deleted:?}");
    let gone = "NOT EXISTS (SELECT FROM generos WHERE id_genero = 9)";
    for master in &mut masters {
        wait_until("the deletion arrives", || is(master, gone));
    }
    reading.rollback().expect("the end");
    let output = child.wait_with_output().expect("its end");
    assert!(output.status.success(), "{output:?}");
    for master in &mut masters {
        assert!(is(
            master,
            "(SELECT count(*) = 10 FROM titulo_genero JOIN generos USING (id_genero) \
             JOIN generos_imdb USING (id_genero) WHERE id_genero = 9 AND genero = 'Drama' AND codigo_imdb = 'Drama')"
        ));
    }
    cluster.wait_equal();
    assert_equal(&cluster);
    assert_eq!(
        cluster.get("/conflicts").body["data"],
        serde_json::json!([])
    );
    let kept = cluster.ask("DELETE", "/generos/9", None, &[]);
    assert_eq!((kept.status, kept.code()), (409, "genero_in_use"));
}

#[test]
fn a_master_that_dies_or_freezes_ends_the_load_and_nothing_is_changed() {
    let cluster = Cluster::start();
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let mut survivor = cluster.sql("master1");
    write(folder, 10, "Old");
    must_load(&cluster, folder);
    write(folder, 200_000, "New");
    for (strike, mend) in [("kill", "start"), ("freeze", "thaw")] {
        let child = begin(&cluster, folder);
        wait_for_the_middle(&mut survivor);
        // It stands still meanwhile, so that the master is struck in the middle of a COPY.
        signal(&child, Signal::SIGSTOP);
        let began = Instant::now();
        cluster.local(&[strike, "master2"]);
        signal(&child, Signal::SIGCONT);
        let told = failure(child);
        assert!(
            told.contains("copy into") && told.contains("on master2"),
            "{strike}: {told}"
        );
        assert!(
            began.elapsed() < Duration::from_secs(90),
            "{strike}: {:?}",
            began.elapsed()
        );
        assert_eq!(title(&mut survivor), "Old 1 10");
        assert_eq!(cluster.add(&format!("tras {strike}")).status, 201);
        // Both masters must be there, which is said before any file is read.
        let output = load(&cluster, folder);
        assert!(
            String::from_utf8_lossy(&output.stderr).contains("master2"),
            "{output:?}"
        );
        cluster.local(&[mend, "master2"]);
        cluster.wait_state("master2", "up");
        wait_until("both directions stream again", || {
            cluster.run(&["replication", "status"]).status.success()
        });
    }
    assert_eq!(title(&mut cluster.sql("master2")), "Old 1 10");
    write(folder, 2_000, "New");
    must_load(&cluster, folder);
    assert_equal(&cluster);
    for node in ["master1", "master2"] {
        assert_eq!(title(&mut cluster.sql(node)), "New 1 2000");
    }
}

#[test]
fn a_file_that_is_sent_to_the_api_is_loaded_and_can_be_followed() {
    let cluster = Cluster::start_with(&[("ADMIN_TOKEN", "a-token-of-this-test")]);
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), 60_000, "Sent");
    let sent = |name: &str, token: &str| {
        let text = fs::read_to_string(folder.path().join(name)).expect("a file");
        let authorization = format!("Bearer {token}");
        cluster.ask(
            "POST",
            "/load",
            Some(&text),
            &[("Authorization", &authorization)],
        )
    };
    let token = "a-token-of-this-test";
    let refused = sent("title.ratings.tsv", "another");
    assert_eq!((refused.status, refused.code()), (401, "unauthorized"));
    // Ratings of titles that are not there.
    let ended = |answer: &common::Answer| {
        let place = answer
            .header("Location")
            .expect("where to look")
            .to_string();
        let mut job = Value::Null;
        wait_until("the load has ended", || {
            job = cluster.get(&place).body["job"].clone();
            job["state"] != "running"
        });
        job
    };
    let job = ended(&sent("title.ratings.tsv", token));
    assert_eq!(job["state"], "failed", "{job}");
    assert!(
        job["error"]
            .as_str()
            .expect("why")
            .contains("load title.basics too"),
        "{job}"
    );

    let answer = sent("title.basics.tsv", token);
    assert_eq!(
        (answer.status, &answer.body["job"]["state"]),
        (202, &Value::from("running"))
    );
    let busy = sent("title.ratings.tsv", token);
    assert_eq!((busy.status, busy.code()), (409, "load_busy"));
    let job = ended(&answer);
    assert_eq!(
        (&job["state"], &job["rows_loaded"], &job["error"]),
        (&Value::from("done"), &Value::from(60_000), &Value::Null),
        "{job}"
    );
    // Packed, as a client sends it that tells its length and waits to be asked for it.
    let packed = std::process::Command::new("gzip")
        .arg("-kf")
        .arg(folder.path().join("title.ratings.tsv"))
        .status();
    assert!(packed.expect("gzip").success());
    let mut curl = std::process::Command::new("curl");
    curl.args([
        "-sS",
        "--max-time",
        "20",
        "-X",
        "POST",
        "-H",
        "Expect: 100-continue",
        "-H",
    ]);
    curl.arg(format!("Authorization: Bearer {token}")).arg("-T");
    curl.arg(folder.path().join("title.ratings.tsv.gz"))
        .arg(format!("{}/load", cluster.api));
    let output = curl.output().expect("curl");
    let answer: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    let id = answer["job"]["id"].as_u64().expect("a job");
    wait_until("the ratings are loaded", || {
        cluster.get(&format!("/load/{id}")).body["job"]["state"] == "done"
    });
    for node in ["master1", "master2"] {
        assert!(is(
            &mut cluster.sql(node),
            "(SELECT count(votos) = 60000 FROM titulos)"
        ));
    }
    assert_equal(&cluster);

    let authorization = format!("Bearer {token}");
    let headers = [("Authorization", authorization.as_str())];
    let wrong = cluster.ask("POST", "/load", Some("a,b,c\n1,2,3\n"), &headers);
    assert_eq!((wrong.status, wrong.code()), (400, "load_invalid"));
    assert!(
        wrong.body["reason"]
            .as_str()
            .expect("why")
            .contains("a,b,c")
    );
    let empty = cluster.ask("POST", "/load", Some(""), &headers);
    assert_eq!((empty.status, empty.code()), (400, "load_invalid"));
    assert_eq!(cluster.get("/load/999").code(), "job_not_found");
    assert!(cluster.said().contains("rows read = 60000 loaded"));
}
