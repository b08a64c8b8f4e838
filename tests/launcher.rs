//! Two masters with launchers of their own, as in containers: what they do when they are told to stop, when their server dies, and
//! when a restore holds them down.

mod common;

use common::{clean_command, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use postgres::{Client, NoTls};
use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};

/// A folder with the configuration of both masters, and the launchers that run.
struct Pair {
    root: PathBuf,
    ports: [u16; 2],
    password: &'static str,
    launchers: [Option<Child>; 2],
}

const NODES: [&str; 2] = ["master1", "master2"];

impl Pair {
    fn new() -> Pair {
        let root = std::env::temp_dir().join(format!("imdb-ha-launcher-{}", std::process::id()));
        let free = || {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            listener.local_addr().expect("its address").port()
        };
        let ports = [free(), free()];
        for (node, port) in NODES.into_iter().zip(ports) {
            let folder = root.join("pgbackrest").join(node);
            fs::create_dir_all(&folder).expect("a folder");
            let text = fs::read_to_string(format!("pgbackrest/{node}/pgbackrest.conf"));
            let here = |inside: &str| format!("={}/{inside}", root.display());
            let text = text
                .expect("the project's configuration")
                .replace("=/var/lib/imdb-ha/", &here("lib/"))
                .replace("=/var/lib/pgbackrest/", &here("repository/"))
                .replace("=/var/log/pgbackrest", &here("log"))
                .replace("pg1-port=5432", &format!("pg1-port={port}"));
            fs::write(folder.join("pgbackrest.conf"), text).expect("a file");
        }
        fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).expect("for all to read");
        Pair {
            root,
            ports,
            password: "first",
            launchers: [None, None],
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = clean_command();
        command.args(arguments);
        for (name, port) in ["MASTER1_URL", "MASTER2_URL"].iter().zip(self.ports) {
            let password = self.password;
            command.env(
                name,
                format!("postgresql://root:{password}@127.0.0.1:{port}/films"),
            );
        }
        command
            .env("BACKUP_CONFIG_DIR", self.root.join("pgbackrest"))
            .env("BACKUP_PASSPHRASE", "a-passphrase-of-a-test")
            .env("PUBLISHED_ON", "127.0.0.1")
            // Nobody is there, and nothing here needs them.
            .env("PORT", "9")
            .env("REDIS_URL", "redis://127.0.0.1:9")
            .stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("run imdb-ha")
    }

    fn must(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn launch(&mut self, index: usize) {
        let mut command = self.command(&["master", NODES[index]]);
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.log(index))
            .expect("a log");
        command.env("MASTER_SETTINGS", "work_mem=7MB").stderr(log);
        self.launchers[index] = Some(command.spawn().expect("start a launcher"));
        wait_until(&format!("{} takes connections", NODES[index]), || {
            self.sql(index).is_ok()
        });
    }

    fn log(&self, index: usize) -> PathBuf {
        self.root.join(format!("{}.log", NODES[index]))
    }

    fn said(&self, index: usize) -> String {
        let mut text = String::new();
        let file = fs::File::open(self.log(index));
        let read = file.and_then(|mut file| file.read_to_string(&mut text));
        read.map_or(String::new(), |_| text)
    }

    fn sql(&self, index: usize) -> Result<Client, postgres::Error> {
        let (password, port) = (self.password, self.ports[index]);
        Client::connect(
            &format!("postgresql://root:{password}@127.0.0.1:{port}/films"),
            NoTls,
        )
    }

    fn genres(&self, index: usize) -> i64 {
        let mut client = self.sql(index).expect("connect");
        let row = client.query_one("SELECT count(*) FROM generos", &[]);
        row.expect("count").get(0)
    }

    fn postmaster(&self, index: usize) -> Pid {
        let path = self
            .root
            .join(format!("lib/{}/data/postmaster.pid", NODES[index]));
        let text = fs::read_to_string(path).expect("it runs");
        Pid::from_raw(
            text.lines()
                .next()
                .and_then(|id| id.parse().ok())
                .expect("an id"),
        )
    }

    fn end(&mut self, index: usize) -> ExitStatus {
        let mut launcher = self.launchers[index].take().expect("it runs");
        launcher.wait().expect("its end")
    }

    fn terminate(&mut self, index: usize) -> ExitStatus {
        let id = self.launchers[index].as_ref().expect("it runs").id();
        kill(Pid::from_raw(id as i32), Signal::SIGTERM).expect("SIGTERM");
        self.end(index)
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for index in [0, 1] {
            if std::thread::panicking() {
                eprintln!("--- {} ---\n{}", NODES[index], self.said(index));
            }
            if self.launchers[index].is_some() {
                self.terminate(index);
            }
        }
        let _ = fs::remove_dir_all(&self.root);
    }
}

#[test]
fn a_launcher_keeps_its_master_as_it_should_be() {
    let mut pair = Pair::new();
    pair.launch(0);
    pair.launch(1);
    pair.must(&["replication", "setup", "--at-start"]);
    let again = pair.must(&["replication", "setup", "--at-start"]);
    assert!(again.contains("nothing to do"), "{again}");
    let mut client = pair.sql(0).expect("connect");
    let shown = client.query_one("SELECT current_setting('work_mem')", &[]);
    assert_eq!(shown.expect("shown").get::<_, String>(0), "7MB");

    // Two servers on one data folder would destroy it.
    let second = pair.run(&["master", "master1"]);
    assert_eq!(second.status.code(), Some(1));
    let why = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(why.contains("another launcher"), "{why}");

    // A restore stops, exchanges and starts both.
    let made = pair.must(&["backup", "run", "master1", "--type", "full", "--json"]);
    let made: serde_json::Value = serde_json::from_str(&made).expect("JSON");
    let label = made["backup"]["label"].as_str().expect("a label");
    client
        .execute("DELETE FROM generos WHERE id_genero < 9", &[])
        .expect("delete");
    assert_eq!(pair.genres(0), 20);
    drop(client);
    pair.must(&["backup", "restore", "master1", "--set", label, "--yes"]);
    assert_eq!([pair.genres(0), pair.genres(1)], [28, 28]);
    assert!(pair.said(0).contains("kept down by another process"));
    pair.must(&["compare"]);

    // A frozen server is told from one that is down, and nothing is done to it.
    let postmaster = pair.postmaster(1);
    kill(postmaster, Signal::SIGSTOP).expect("SIGSTOP");
    let frozen = pair.run(&["backup", "restore", "master1", "--set", label, "--yes"]);
    kill(postmaster, Signal::SIGCONT).expect("SIGCONT");
    assert_eq!(frozen.status.code(), Some(1));
    let why = String::from_utf8_lossy(&frozen.stderr).into_owned();
    assert!(why.contains("runs and does not answer"), "{why}");

    // A server that dies takes its launcher along, so that whoever watches that one starts both again.
    kill(pair.postmaster(0), Signal::SIGKILL).expect("SIGKILL");
    assert_eq!(pair.end(0).code(), Some(1));
    assert!(pair.said(0).contains("the server has ended by itself"));

    // The password of the configuration is the one that holds, also when it is another than at the first start.
    pair.password = "second";
    pair.launch(0);
    assert_eq!(pair.genres(0), 28);
    assert!(
        pair.said(0).contains("listening on"),
        "the server's own log is shown"
    );

    assert_eq!(pair.terminate(0).code(), Some(0));

    // One master that is away keeps nobody from starting what the other can do.
    pair.password = "first";
    let left = pair.must(&["replication", "setup", "--at-start"]);
    assert!(
        left.contains("ALARM") && left.contains("master2 is left to serve"),
        "{left}"
    );

    // A password that everybody knows is for this machine alone, and a server that nobody says is only here is everywhere.
    let passwords = [
        ("root", "another", "POSTGRES_PASSWORD"),
        ("first", "repl_pass", "REPLICATION_PASSWORD"),
    ];
    for (superuser, replicator, what) in passwords {
        for published in [Some("0.0.0.0"), None] {
            pair.password = superuser;
            let mut open = pair.command(&["master", "master1"]);
            open.env("REPLICATION_PASSWORD", replicator)
                .env_remove("PUBLISHED_ON");
            open.envs(published.map(|address| ("PUBLISHED_ON", address)));
            let open = open.output().expect("run imdb-ha");
            let why = String::from_utf8_lossy(&open.stderr).into_owned();
            assert!(!open.status.success() && why.contains(what), "{why}");
        }
    }

    pair.password = "first";
    assert_eq!(pair.terminate(1).code(), Some(0));
    assert!(pair.sql(0).is_err() && pair.sql(1).is_err());
}
