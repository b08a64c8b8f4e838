//! Connections that are encrypted and prove who answers: to the masters, and from one to the other. The
//! servers are real ones with certificates, and take nothing else by TCP.

mod common;

use common::{Cluster, NO_HANG, clean_command, wait_until};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};

const NODES: [&str; 2] = ["master1", "master2"];

/// Who may come: by TLS alone, but for one role by which a test looks on.
const HBA: &str = "hostnossl all vigia 127.0.0.1/32 trust\n\
    hostssl all con_certificado 127.0.0.1/32 scram-sha-256 clientcert=verify-ca\n\
    hostssl all all 127.0.0.1/32 scram-sha-256\n";

/// An authority, as anybody can make one.
struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    fn new() -> Ca {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // All of them have the same name, which proves nothing.
        params.distinguished_name.push(DnType::CommonName, "CA");
        let key = KeyPair::generate().expect("a key");
        Ca(CertifiedIssuer::self_signed(params, key).expect("a CA"))
    }

    /// A certificate for these names, and its key.
    fn issue(&self, names: &[&str], ends_in: i32) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(ends_in, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let issued = params.signed_by(&key, &self.0).expect("a certificate");
        (issued.pem(), key.serialize_pem())
    }
}

const LATE: i32 = 2090;

/// A cluster whose masters have certificates of one CA.
struct Lab {
    cluster: Cluster,
    ca: Ca,
    folder: PathBuf,
}

impl Lab {
    /// Starts it, with no TLS yet and no API.
    fn start() -> Lab {
        let cluster = Cluster::start_flagged(&["--no-api"], &[]);
        let folder = Path::new(&cluster.data).join("tls");
        fs::create_dir(&folder).expect("a folder");
        // The masters, who may be another user, read the CA as well.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("its rights");
        let lab = Lab {
            cluster,
            ca: Ca::new(),
            folder,
        };
        lab.write("ca.pem", &lab.ca.0.pem());
        lab
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.folder.join(name);
        fs::write(&path, text).expect("write");
        path.display().to_string()
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Gives both masters certificates, and closes every other way to them.
    fn secure(&self) {
        for node in NODES {
            self.cluster
                .sql(node)
                .batch_execute("CREATE ROLE vigia SUPERUSER LOGIN")
                .expect("a role");
            self.certify(node, self.ca.issue(&["localhost", "127.0.0.1"], LATE));
            self.give(node, "ca.pem", &self.ca.0.pem());
            self.give(node, "pg_hba.conf", HBA);
            for setting in ["ssl = on", "ssl_ca_file = 'ca.pem'"] {
                let change = format!("ALTER SYSTEM SET {setting}");
                let mut sql = self.cluster.sql(node);
                sql.batch_execute(&change).expect("a setting");
            }
            let reloaded = self
                .cluster
                .sql(node)
                .batch_execute("SELECT pg_reload_conf()");
            reloaded.expect("reload");
            wait_until("plain connections are refused", || {
                postgres::Client::connect(&self.cluster.url(node), postgres::NoTls).is_err()
            });
        }
    }

    /// A file in the data folder, as the server wants it.
    fn give(&self, node: &str, name: &str, text: &str) {
        let data = self.cluster.status["masters"][node]["data"].as_str();
        let data = Path::new(data.expect("a folder"));
        let owner = fs::metadata(data).expect("the folder");
        let path = data.join(name);
        fs::write(&path, text).expect("write");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its rights");
        chown(&path, Some(owner.uid()), Some(owner.gid())).expect("its owner");
    }

    fn certify(&self, node: &str, (certificate, key): (String, String)) {
        self.give(node, "server.crt", &certificate);
        self.give(node, "server.key", &key);
    }

    fn reload(&self, node: &str) {
        let reloaded = self.watch(node).batch_execute("SELECT pg_reload_conf()");
        reloaded.expect("reload");
    }

    fn port(&self, node: &str) -> u16 {
        let url = url::Url::parse(&self.cluster.url(node)).expect("a URL");
        url.port().expect("a port")
    }

    /// A session by which a test looks on, without TLS.
    fn watch(&self, node: &str) -> postgres::Client {
        let url = format!("postgresql://vigia@127.0.0.1:{}/bases2-db", self.port(node));
        postgres::Client::connect(&url, postgres::NoTls).expect("look on")
    }

    /// The URL of a master at a host, with more parameters.
    fn url_at(&self, node: &str, who: &str, host: &str, more: &str) -> String {
        let (port, ca) = (self.port(node), self.path("ca.pem"));
        format!(
            "postgresql://{who}@{host}:{port}/bases2-db?sslmode=verify-full&sslrootcert={ca}{more}"
        )
    }

    /// The first has its name in its certificate, the second its address.
    fn urls(&self) -> [String; 2] {
        let url = |node, host| self.url_at(node, "root:root", host, "");
        [url("master1", "localhost"), url("master2", "127.0.0.1")]
    }

    /// Runs the binary against masters at these URLs.
    fn run(&self, urls: &[String; 2], arguments: &[&str], ca_of_peers: Option<&str>) -> Output {
        let mut command = clean_command();
        command.args(arguments);
        command
            .env("MASTER1_URL", &urls[0])
            .env("MASTER2_URL", &urls[1]);
        command.envs(ca_of_peers.map(|path| ("PEER_SSLROOTCERT", path)));
        command.output().expect("run imdb-ha")
    }

    fn must(&self, arguments: &[&str], ca_of_peers: &str) -> String {
        let output = self.run(&self.urls(), arguments, Some(ca_of_peers));
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
        said(&output)
    }

    /// What `replication status` says when master1 is looked for at each of these URLs. All at once, since it
    /// takes its time before it gives a master up.
    fn statuses_at<const N: usize>(&self, urls: [String; N]) -> [String; N] {
        let second = &self.urls()[1];
        std::thread::scope(|scope| {
            let looks = urls.map(|url| {
                let urls = [url, second.clone()];
                scope.spawn(move || said(&self.run(&urls, &["replication", "status"], None)))
            });
            looks.map(|look| look.join().expect("a look"))
        })
    }

    /// An API of its own, which the cluster's helpers ask from now on.
    fn serve(&mut self, urls: &[String; 2]) -> Api {
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|socket| socket.local_addr())
            .expect("a free port")
            .port();
        let redis = self.cluster.status["redis"].as_str().expect("redis");
        let mut command = clean_command();
        command
            .args(["serve", "--port", &port.to_string()])
            .env("MASTER1_URL", &urls[0])
            .env("MASTER2_URL", &urls[1])
            .env("REDIS_URL", redis)
            .stderr(Stdio::null());
        let api = Api(command.spawn().expect("start an API"));
        self.cluster.api = format!("http://127.0.0.1:{port}");
        wait_until("the API serves", || {
            let health = self.cluster.try_ask("GET", "/health", None, &[]);
            health.is_ok_and(|answer| answer.status == 200)
        });
        api
    }

    /// Why an API that goes on with master2 does not use master1.
    fn reason_at(&mut self, first: &str, second: &str) -> String {
        let _api = self.serve(&[first.to_string(), second.to_string()]);
        assert_eq!(self.cluster.add("con el otro").node(), "master2");
        let status = self.cluster.get("/status").body;
        status["masters"]["master1"]["reason"].to_string()
    }

    /// How many sessions of one kind a master has, and how many of them are encrypted.
    fn sessions(&self, node: &str, what: &str) -> (i64, i64) {
        let sql = format!(
            "SELECT count(*), count(*) FILTER (WHERE s.ssl) \
             FROM pg_stat_activity AS a JOIN pg_stat_ssl AS s USING (pid) WHERE {what}"
        );
        let row = self.watch(node).query_one(&sql, &[]).expect("its sessions");
        (row.get(0), row.get(1))
    }

    /// Waits until each master streams to its peer, encrypted.
    fn wait_encrypted_streams(&self) {
        for node in NODES {
            wait_until(&format!("{node} streams by TLS"), || {
                self.sessions(node, "backend_type = 'walsender'") == (1, 1)
            });
        }
    }
}

struct Api(Child);

impl Api {
    /// Its threads that encrypt; each is a connection.
    fn pumps(&self) -> usize {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.0.id())).expect("its threads");
        let named = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm"));
        let names = tasks.filter_map(|task| named(task.ok()?).ok());
        names.filter(|name| name.trim() == "pg-tls").count()
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

#[test]
fn everything_goes_by_tls_and_fails_over_as_without() {
    let mut lab = Lab::start();
    lab.secure();
    let ca = lab.path("ca.pem");
    // The masters trust nobody of a CA that is not there, and what works stays.
    let refused = lab.run(
        &lab.urls(),
        &["replication", "setup"],
        Some("/nowhere/ca.pem"),
    );
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    assert!(
        said(&refused).contains("see that master2 reaches master1")
            && said(&refused).contains("\"/nowhere/ca.pem\" does not exist"),
        "{}",
        said(&refused)
    );
    // Nor does a command that was not told of the CA take the proof away again.
    for command in [
        &["replication", "setup"][..],
        &["rejoin", "master2", "--yes"],
    ] {
        let refused = lab.run(&lab.urls(), command, None);
        assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
        assert!(
            said(&refused).contains("PEER_SSLROOTCERT: must be set"),
            "{}",
            said(&refused)
        );
    }
    let told = lab.must(&["replication", "setup"], &ca);
    for node in NODES {
        let line = format!("got the new address, password or CA of {node}");
        assert!(told.contains(&line), "{told}");
    }
    assert!(
        lab.must(&["replication", "setup"], &ca)
            .contains("nothing to do")
    );
    lab.wait_encrypted_streams();

    let urls = lab.urls();
    let api = lab.serve(&urls);
    let cluster = &lab.cluster;
    wait_until("writes are safe", || {
        cluster.get("/health").body["durability"] == "zero-loss"
    });
    for number in 0..20 {
        let added = cluster.add(&format!("cifrado {number}"));
        assert_eq!((added.status, added.node()), (201, "master1"), "{added:?}");
    }
    for node in NODES {
        let (all, encrypted) = lab.sessions(node, "application_name LIKE 'imdb-ha%'");
        assert!(
            all > 1 && all == encrypted,
            "{encrypted} of {all} on {node}"
        );
    }

    cluster.local(&["kill", "master1"]);
    let added = cluster.add("después de la muerte");
    assert_eq!((added.status, added.node()), (201, "master2"), "{added:?}");
    wait_until("the refusal is known for what it is", || {
        let status = cluster.get("/status").body;
        let reason = status["masters"]["master1"]["reason"]
            .as_str()
            .unwrap_or("");
        reason.contains("Connection refused")
    });
    cluster.local(&["start", "master1"]);
    cluster.wait_state("master1", "up");
    let back = cluster.ask("POST", "/switch-to-primary", None, &[]);
    assert_eq!(back.status, 200, "{back:?}");

    cluster.local(&["freeze", "master1"]);
    let added = cluster.add("después del hielo");
    assert_eq!((added.status, added.node()), (201, "master2"), "{added:?}");
    assert!(added.took < NO_HANG, "{added:?}");
    let status = cluster.get("/status");
    assert!(status.took < NO_HANG, "{status:?}");
    cluster.local(&["thaw", "master1"]);
    cluster.wait_state("master1", "up");
    let back = cluster.ask("POST", "/switch-to-primary", None, &[]);
    assert_eq!(back.status, 200, "{back:?}");
    assert_eq!(cluster.add("como antes").node(), "master1");

    // No thread outlives its connection, whatever happened to that.
    wait_until("there are as many threads as connections", || {
        let open = NODES.map(|node| lab.sessions(node, "application_name LIKE 'imdb-ha%'").0);
        api.pumps() as i64 == open.iter().sum::<i64>()
    });
    // A rebuilt master is reached and reaches by TLS as well.
    drop(api);
    let told = lab.must(&["rejoin", "master2", "--yes"], &ca);
    assert!(told.contains("master2 is rebuilt from master1"), "{told}");
    lab.wait_encrypted_streams();
}

#[test]
fn a_server_that_does_not_prove_its_name_is_told_as_such() {
    let mut lab = Lab::start();
    let [first, second] = lab.urls();
    let plain = lab.cluster.url("master2");
    let reason = lab.reason_at(&first, &plain);
    assert!(
        reason.contains("offers no TLS (see its setting ssl)"),
        "{reason}"
    );
    lab.secure();
    let other = lab.write("other.pem", &Ca::new().0.pem());
    let wrong = first.replace(&lab.path("ca.pem"), &other);
    let unsigned = format!("no CA in {other} has signed its certificate");
    let elsewhere = "&hostaddr=127.0.0.1";
    let named = lab.url_at("master1", "root:root", "otro.example", elsewhere);
    let plain = lab.cluster.url("master1");
    let said = lab.statuses_at([named, wrong.clone(), plain]);
    for (said, reason) in said.iter().zip([
        "its certificate is not for otro.example, only for DnsName(\"localhost\")",
        &unsigned,
        "no encryption",
    ]) {
        assert!(said.contains(reason), "{said}");
        assert!(!said.contains("root:root"), "{said}");
    }

    let reason = lab.reason_at(&wrong, &second);
    assert!(reason.contains(&unsigned), "{reason}");
    lab.certify("master1", lab.ca.issue(&["localhost"], 2021));
    lab.reload("master1");
    let reason = lab.reason_at(&first, &second);
    let expired = "its certificate, or that of a CA, has expired";
    assert!(reason.contains(expired), "{reason}");
}

#[test]
fn a_server_that_wants_to_know_its_clients_is_shown_a_certificate() {
    let lab = Lab::start();
    lab.secure();
    let role = "CREATE ROLE con_certificado SUPERUSER LOGIN PASSWORD 'clave'";
    lab.watch("master1").batch_execute(role).expect("a role");
    let url = |more: &str| lab.url_at("master1", "con_certificado:clave", "localhost", more);
    let own = |ca: &Ca, name: &str| {
        let (certificate, key) = ca.issue(&["con_certificado"], LATE);
        let certificate = lab.write(&format!("{name}.crt"), &certificate);
        let key = lab.write(&format!("{name}.key"), &key);
        url(&format!("&sslcert={certificate}&sslkey={key}"))
    };
    let foreign = own(&Ca::new(), "foreign");
    let [right, none, foreign] = lab.statuses_at([own(&lab.ca, "own"), url(""), foreign]);
    assert!(right.contains("both directions are streaming"), "{right}");
    let reason = "requires a valid client certificate";
    assert!(none.contains(reason), "{none}");
    // The server says so after the handshake, by TLS itself; the driver hears only that it hung up.
    let reason = "TLS: received fatal alert: ";
    assert!(foreign.contains(reason), "{foreign}");
}

#[test]
fn what_proves_nothing_is_wrong_configuration() {
    let folder = std::env::temp_dir().join(format!("imdb-ha-tls-{}", std::process::id()));
    fs::create_dir(&folder).expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).expect("write");
        path.display().to_string()
    };
    let nonsense = file("nonsense.pem", "hunter2");
    let empty = file("empty.pem", "");
    let broken = "-----BEGIN CERTIFICATE-----\naHVudGVyMg==\n-----END CERTIFICATE-----\n";
    let broken = file("broken.pem", broken);
    let folder_itself = folder.display().to_string();
    let verified = "sslmode=verify-full&sslrootcert";
    for (query, reason) in [
        (
            "sslmode=require".to_string(),
            "sslmode=require encrypts, and takes anybody",
        ),
        (
            "sslmode=prefer".to_string(),
            "sslmode=prefer does without encryption",
        ),
        ("sslmode=verify-full".to_string(), "needs sslrootcert"),
        (
            format!("{verified}=/nowhere.pem"),
            "sslrootcert /nowhere.pem cannot be read: No such file",
        ),
        (format!("{verified}={folder_itself}"), "is not a file"),
        (format!("{verified}={empty}"), "holds no certificate"),
        (format!("{verified}={nonsense}"), "holds no certificate"),
        (
            format!("{verified}={broken}"),
            "holds a certificate that cannot be used",
        ),
    ] {
        let mut command = clean_command();
        let url = format!("postgresql://root:hunter2@127.0.0.1:1/imdb?{query}");
        command.arg("serve").env("MASTER2_URL", url);
        let output = command.output().expect("run imdb-ha");
        let text = said(&output);
        assert_eq!(output.status.code(), Some(2), "{query}: {text}");
        assert!(
            text.contains("MASTER2_URL: ") && text.contains(reason),
            "{query}: {text}"
        );
        assert!(!text.contains("hunter2"), "{text}");
    }
    fs::remove_dir_all(&folder).expect("remove it");
}
