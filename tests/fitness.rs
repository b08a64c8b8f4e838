//! A master that answers and is of no use: it refuses writes, has no connection left, or holds up what its peer sends. And what a
//! person is told of it; over real servers.

mod common;

use common::{Cluster, wait_until, wait_until_within};
use postgres::{Client, NoTls};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

fn alarms(cluster: &Cluster) -> String {
    cluster.get("/status").body["alarms"].to_string()
}

fn wait_well(cluster: &Cluster) {
    wait_until("both masters are up, zero-loss, without alarms", || {
        let status = cluster.get("/status").body;
        let up = |node: &str| status["masters"][node]["state"] == "up";
        let zero_loss = status["durability"]["level"] == "zero-loss";
        up("master1") && up("master2") && zero_loss && status["alarms"] == serde_json::json!([])
    });
}

/// Brings the traffic back to master1 once all is well.
fn home(cluster: &Cluster) {
    wait_well(cluster);
    if cluster.get("/active-node").body["active_node"] != "master1" {
        let answer = cluster.post("/switch-to-primary", "");
        assert_eq!(answer.status, 200, "{answer:?}");
        wait_well(cluster);
    }
}

fn port(cluster: &Cluster) -> &str {
    cluster.api.rsplit(':').next().expect("a port")
}

fn sql(cluster: &Cluster, node: &str, statements: &[&str]) {
    let mut client = cluster.sql(node);
    for statement in statements {
        client
            .batch_execute(statement)
            .unwrap_or_else(|error| panic!("{node}: {statement}: {error:?}"));
    }
}

fn read_only(cluster: &Cluster, node: &str, on: bool) {
    let value = if on { "on" } else { "off" };
    let set = format!("ALTER SYSTEM SET default_transaction_read_only = {value}");
    sql(cluster, node, &[&set, "SELECT pg_reload_conf()"]);
}

/// Waits until the traffic has left master1 because of `message`, and looks at what is told of it.
fn assert_left(cluster: &Cluster, message: &str) {
    wait_until("the traffic has left master1", || {
        cluster.get("/active-node").body["active_node"] == "master2"
    });
    let answer = cluster.add(&format!("tras {message}"));
    assert_eq!(
        (answer.status, answer.node()),
        (201, "master2"),
        "{answer:?}"
    );
    let status = cluster.get("/status").body;
    let change = status["history"]
        .as_array()
        .expect("a history")
        .iter()
        .find(|change| change["what"] == "failover")
        .expect("a failover")
        .clone();
    assert_eq!(
        change["why"],
        "the active master refuses writes and its peer takes them"
    );
    assert!(
        change["cause"].to_string().contains(message),
        "{change}, not {message}"
    );
    let told = alarms(cluster);
    assert!(
        told.contains("master1: it answers and refuses writes") && told.contains(message),
        "{told}"
    );
}

/// Nobody writes at all, and the state that is shown is true all the same.
#[test]
fn a_master_that_refuses_writes_does_not_serve() {
    let cluster = Cluster::start();
    wait_well(&cluster);
    let history = || cluster.get("/status").body["history"].to_string();

    // Read-only, by somebody's hand.
    read_only(&cluster, "master1", true);
    assert_left(&cluster, "25006");
    cluster.wait_state("master1", "unfit");
    let refused = cluster.post("/switch-to-primary", "");
    assert_eq!(
        (refused.status, refused.code()),
        (409, "target_unfit"),
        "{refused:?}"
    );
    wait_until("the log says so", || {
        let said = cluster.said();
        said.contains("ALARM: master1: it answers and refuses writes")
    });

    // Both refuse: nobody is helped by a move.
    read_only(&cluster, "master2", true);
    wait_until("writes are said to be refused", || {
        let health = cluster.get("/health");
        health.status == 200 && health.body["ok"] == false && health.body["writes"] == "refused"
    });
    let strict = |code: i32| {
        let ask =
            |flags: &[&str]| cluster.run(&[&["health", "--port", port(&cluster)], flags].concat());
        assert_eq!(ask(&[]).status.code(), Some(0), "it serves reads");
        let told = ask(&["--strict"]);
        assert_eq!(told.status.code(), Some(code), "{told:?}");
    };
    strict(2);
    assert_eq!(cluster.get("/generos/1").status, 200);
    let answer = cluster.add("nadie");
    assert_eq!(
        (answer.status, answer.code()),
        (500, "database_error"),
        "{answer:?}"
    );
    let changes = |what: &str| history().matches(what).count();
    let moved = changes(r#""what":"failover""#);
    std::thread::sleep(Duration::from_secs(8)); // four times what makes one move
    assert_eq!(changes(r#""what":"failover""#), moved, "{}", history());
    assert_eq!(cluster.get("/active-node").body["active_node"], "master2");

    // Fit again, and nothing goes home by itself.
    read_only(&cluster, "master1", false);
    read_only(&cluster, "master2", false);
    wait_well(&cluster);
    strict(0);
    assert_eq!(cluster.get("/health").body["ok"], true);
    home(&cluster);

    // A column is gone, which EXPLAIN finds.
    sql(
        &cluster,
        "master1",
        &["ALTER TABLE generos RENAME COLUMN genero TO otro"],
    );
    assert_left(&cluster, "42703");
    sql(
        &cluster,
        "master1",
        &["ALTER TABLE generos RENAME COLUMN otro TO genero"],
    );
    home(&cluster);

    // A function beneath the trigger of a deletion, which only a trial finds; a client's deletion asks for it.
    sql(
        &cluster,
        "master1",
        &["ALTER TABLE imdb_ha.borrados RENAME TO otros"],
    );
    let deleted = cluster.ask("DELETE", "/generos/28", None, &[]);
    assert_eq!(deleted.status, 500, "{deleted:?}");
    assert_left(&cluster, "42P01");
    sql(
        &cluster,
        "master1",
        &["ALTER TABLE imdb_ha.otros RENAME TO borrados"],
    );
    home(&cluster);

    // A trigger of somebody's refuses every row, which is no error of the server's own.
    sql(
        &cluster,
        "master1",
        &[
            "CREATE FUNCTION public.cerrado() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN RAISE EXCEPTION 'cerrado por inventario'; END $$",
            "CREATE TRIGGER cerrado BEFORE INSERT ON generos \
             FOR EACH ROW EXECUTE FUNCTION public.cerrado()",
        ],
    );
    let answer = cluster.add("rechazado");
    assert_eq!(answer.status, 500, "{answer:?}");
    assert_left(&cluster, "cerrado por inventario");
    sql(
        &cluster,
        "master1",
        &[
            "DROP TRIGGER cerrado ON generos",
            "DROP FUNCTION public.cerrado()",
        ],
    );
    home(&cluster);
    cluster.wait_equal();
    cluster.wait_compare();
}

/// A small disk beneath the data folder of a master; its WAL is elsewhere, since a server without room for that ends.
struct SmallDisk {
    folder: PathBuf,
    user: String,
}

impl SmallDisk {
    /// Puts one there, if this machine lets us: that takes root and a capability. The master must be stopped.
    fn beneath(folder: PathBuf) -> Option<SmallDisk> {
        let aside = folder.with_extension("aside");
        let owner = shell(&format!("stat -c %u:%g {}", folder.display()))?;
        let disk = SmallDisk {
            user: owner.trim().to_string(),
            folder,
        };
        let (data, user) = (disk.folder.display(), &disk.user);
        let aside = aside.display();
        shell(&format!("cp -a {data} {aside}"))?;
        if shell(&format!(
            "mount -t tmpfs -o size=192m,mode=0700 none {data}"
        ))
        .is_none()
        {
            shell(&format!("rm -rf {aside}"));
            return None;
        }
        shell(&format!("chown {user} {data} && cp -a {aside}/. {data}/"))?;
        shell(&format!(
            "rm -rf {data}/pg_wal && ln -s {aside}/pg_wal {data}/pg_wal"
        ))?;
        Some(disk)
    }

    /// Takes all the room there is.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.folder.join("full")).expect("a file");
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    fn empty(&self) {
        std::fs::remove_file(self.folder.join("full")).expect("room");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let (data, aside) = (&self.folder, self.folder.with_extension("aside"));
        let (data, aside) = (data.display(), aside.display());
        shell(&format!("umount -l {data}; rm -rf {aside}"));
    }
}

/// What a command says, if it succeeds.
fn shell(command: &str) -> Option<String> {
    let output = Command::new("sh")
        .args(["-c", command])
        .output()
        .expect("sh");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then_some(said)
}

/// Inserts long rows until one is refused, because a full disk has room in the pages that it has.
fn insert_until_refused(cluster: &Cluster) {
    let long = "x".repeat(200);
    let refused = |number: usize| cluster.add(&format!("{number} {long}")).status != 201;
    let moved = || cluster.get("/active-node").body["active_node"] == "master2";
    let filled = (0..2_000).any(|number| refused(number) || moved());
    assert!(filled, "the disk is not full");
}

#[test]
fn a_master_whose_disk_is_full_does_not_serve() {
    let cluster = Cluster::start();
    wait_well(&cluster);
    cluster.local(&["stop", "master1"]);
    let folder = Path::new(&cluster.data).join("master1");
    let Some(disk) = SmallDisk::beneath(folder) else {
        eprintln!("SKIPPED: a full disk was NOT TESTED, since no file system can be mounted here");
        return;
    };
    cluster.local(&["start", "master1"]);
    home(&cluster);

    disk.fill();
    insert_until_refused(&cluster);
    assert_left(&cluster, "53100");
    // With room again it takes what it has missed, and nothing stays degraded.
    disk.empty();
    home(&cluster);

    // By hand, where a pause keeps it from going by itself.
    assert_eq!(cluster.post("/pause?for=10m", "").status, 200);
    disk.fill();
    insert_until_refused(&cluster);
    cluster.wait_state("master1", "unfit");
    wait_until("the alarm", || {
        alarms(&cluster).contains("a pause holds the traffic there")
    });
    assert_eq!(cluster.get("/active-node").body["active_node"], "master1");
    let answer = cluster.post("/switch-to-secondary", "");
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = cluster.add("a mano");
    assert_eq!(
        (answer.status, answer.node()),
        (201, "master2"),
        "{answer:?}"
    );
    assert_eq!(cluster.post("/resume", "").status, 200);
    disk.empty();
    wait_well(&cluster);
    cluster.wait_equal();
    cluster.local(&["stop", "master1"]);
    drop(disk);
}

#[test]
fn a_person_is_told_why_and_what_to_do() {
    let cluster = Cluster::start();
    for node in ["master1", "master2"] {
        let settings = [
            "ALTER SYSTEM SET max_connections = 40",
            "ALTER SYSTEM SET max_prepared_transactions = 2",
        ];
        sql(&cluster, node, &settings);
    }
    a_comparison_that_failed_is_made_again(&cluster);
    cluster.local(&["stop", "master1"]);
    cluster.local(&["start", "master1"]);
    home(&cluster);
    who_holds_up_the_apply_worker_is_named(&cluster);
    a_password_that_is_refused_is_the_reason(&cluster);
    too_many_connections_are_the_reason(&cluster);
    home(&cluster);
    cluster.wait_equal();
}

/// Master2 is killed in the middle of it. The schedule's own turn would be in an hour.
fn a_comparison_that_failed_is_made_again(cluster: &Cluster) {
    let mut holder = cluster.sql("master2");
    let mut hold = holder.transaction().expect("a transaction");
    hold.batch_execute("LOCK TABLE generos").expect("the lock");
    assert_eq!(cluster.post("/compare", "").status, 202);
    cluster.local(&["kill", "master2"]);
    let state = || cluster.get("/status").body["compare"]["state"].clone();
    wait_until("the comparison has failed", || state() == "failed");
    drop(hold);
    cluster.local(&["start", "master2"]);
    let deadline = Instant::now() + Duration::from_secs(45);
    while state() != "equal" {
        assert!(Instant::now() < deadline, "still {}", state());
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn who_holds_up_the_apply_worker_is_named(cluster: &Cluster) {
    let url = format!("{}?application_name=olvidado", cluster.url("master2"));
    let mut holder = Client::connect(&url, NoTls).expect("connect");
    let pid: i32 = holder
        .query_one("SELECT pg_backend_pid()", &[])
        .expect("its id")
        .get(0);
    holder
        .batch_execute("BEGIN; LOCK TABLE generos")
        .expect("the lock");
    assert_eq!(
        cluster.add("en espera").status,
        201,
        "nobody waits for it for long"
    );
    let named =
        format!("held by session {pid} of root (olvidado) from 127.0.0.1, idle in transaction");
    wait_until("the session is named", || {
        let told = alarms(cluster);
        told.contains(&named) && told.contains(&format!("pg_terminate_backend({pid})"))
    });
    wait_until("the durability is an alarm", || {
        alarms(cluster).contains("durability is degraded")
    });
    assert!(
        alarms(cluster).contains("LOCK TABLE generos"),
        "{}",
        alarms(cluster)
    );
    // A transaction that has no session.
    let prepare = "ROLLBACK; BEGIN; UPDATE generos SET genero = 'otro' WHERE id_genero = 1; PREPARE TRANSACTION 'olvidada'";
    let (unlock, prepare) = prepare.split_once("; ").expect("two");
    holder.batch_execute(unlock).expect("unlock");
    wait_well(cluster);
    holder.batch_execute(prepare).expect("prepare");
    let body = r#"{"genero":"cambiado"}"#;
    let json = [("Content-Type", "application/json")];
    let changed = cluster.ask("PUT", "/generos/1", Some(body), &json);
    assert_eq!(changed.status, 200, "{changed:?}");
    wait_until("the prepared transaction is named", || {
        let told = alarms(cluster);
        told.contains("held by prepared transaction 'olvidada' of root since 2")
            && told.contains("ROLLBACK PREPARED 'olvidada'")
    });
    holder
        .batch_execute("ROLLBACK PREPARED 'olvidada'")
        .expect("undo");
    wait_well(cluster);
    assert!(
        cluster
            .said()
            .contains("the alarm is over: master2: what master1 sends")
    );
}

fn a_password_that_is_refused_is_the_reason(cluster: &Cluster) {
    sql(cluster, "master2", &["ALTER ROLE root PASSWORD 'otra'"]);
    cluster.local(&["stop", "master2"]);
    cluster.local(&["start", "master2"]);
    wait_until("the alarm has the newest reason", || {
        let told = alarms(cluster);
        told.contains("master2: down")
            && told.contains("28P01")
            && told.contains("present password")
    });
    let reason = cluster.get("/status").body["masters"]["master2"]["reason"].to_string();
    assert!(reason.contains("28P01"), "{reason}");
    let metrics = cluster.run(&["health", "--port", port(cluster), "--strict"]);
    assert_eq!(metrics.status.code(), Some(2), "{metrics:?}");
    let url = cluster.url("master2").replace(":root@", ":otra@");
    let mut client = Client::connect(&url, NoTls).expect("connect");
    client
        .batch_execute("ALTER ROLE root PASSWORD 'root'")
        .expect("as it was");
    wait_well(cluster);
}

/// All sessions of master1 are taken, those of the API among them.
fn too_many_connections_are_the_reason(cluster: &Cluster) {
    let mut taken = vec![cluster.sql("master1")];
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'imdb-ha' AND backend_type = 'client backend'";
    // On a busy machine the silence can be over before the server has said anything, and whoever is quicker gets the place of a session
    // that was ended: so they are taken until it has been said.
    let patience = Duration::from_secs(60);
    wait_until_within(patience, "the reason is the server's own", || {
        while let Ok(client) = Client::connect(&cluster.url("master1"), NoTls) {
            taken.push(client);
        }
        taken[0].batch_execute(end).expect("end them");
        let status = cluster.get("/status").body;
        let reason = status["masters"]["master1"]["reason"].to_string();
        let is_down = status["masters"]["master1"]["state"] == "down";
        is_down && reason.contains("53300") && status["active_node"] == "master2"
    });
    wait_until("the alarm says what to do", || {
        alarms(cluster).contains("raise its max_connections")
    });
    drop(taken);
}
