//! Configuration: environment, `.env` and flags, read once, checked as a whole, secrets masked.
//! [`VARIABLES`] is the one list of what can be set; the flags, the help and README come from it.
//! This is the only module that reads the environment.

mod address;
mod backups;
mod check;
mod gather;
mod secret;
mod tls;
mod variables;

pub use backups::{Backups, Plan, ServerCommands};
pub use check::InvalidConfig;
pub use gather::gather;
pub use secret::{Secret, SecretUrl};
pub use variables::{VARIABLES, as_markdown, flag_of};

use crate::cluster::{Mode, NodeId};
use crate::limits;
use crate::pg::identity::Roster;
use check::{Check, POSTGRES};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Whether ids are drawn from the sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UseSequence {
    /// If the table's id column has one.
    Auto,
    Always,
    Never,
}

/// What `BIND` and `PUBLISHED_ON` must be.
const AN_ADDRESS: &str = "an IP address such as 127.0.0.1 or 0.0.0.0";

/// The token of `.env.example` and `docker-compose.yml`, which everybody knows.
pub const EXAMPLE_TOKEN: &str = "imdb-ha-example-token";

/// The manual's passwords of the superuser and of the role that replicates, which everybody knows too. They are the defaults.
pub const MANUALS_PASSWORDS: (&str, &str) = ("root", "repl_pass");

/// The configuration, checked.
#[derive(Clone, Debug)]
pub struct Config {
    pub masters: [SecretUrl; 2],
    /// Who the masters are, as far as this process knows by now. Its copies know the same.
    pub roster: Arc<Roster>,
    pub redis_url: SecretUrl,
    pub port: u16,
    pub bind: IpAddr,
    pub admin_token: Option<Secret>,
    /// Where others reach what listens here, if that is another address than it listens on.
    pub published_on: Option<IpAddr>,
    /// Where others are told to find this API, as a URL.
    pub advertised: String,
    pub use_sequence: UseSequence,
    pub durability: Mode,
    pub http_workers: usize,
    pub pool_size: u32,
    pub probe_interval: Duration,
    pub silence_deadline_ms: u64,
    pub request_deadline: Duration,
    /// A stop takes no longer than this.
    pub stop_deadline: Duration,
    pub replication_password: Secret,
    /// Whether somebody has chosen it, be it the default.
    pub replication_password_set: bool,
    /// Address of each master as its peer sees it.
    pub peer_addresses: [PeerAddress; 2],
    /// Settings of PostgreSQL for masters that this program starts, each as its name and value.
    pub master_settings: Vec<(String, String)>,
    /// The file on the masters' machines by which they prove each other's names; without it they do not.
    pub peer_sslrootcert: Option<String>,
    /// Folder of the local cluster, if one was named.
    pub data: Option<String>,
    /// The home folder, below which the local cluster lives by default for anyone but root.
    pub home: Option<PathBuf>,
    /// Folder of PostgreSQL's programs, if one was named.
    pub pg_bin: Option<String>,
    /// Folder with the files that the first start loads, if one was named.
    pub load_at_start: Option<String>,
    /// Folder for files that are sent to the API, if one was named.
    pub load_dir: Option<String>,
    pub log_filter: String,
    /// Time between two comparisons in the background, if there are any.
    pub compare_interval: Option<Duration>,
    pub backups: Backups,
}

/// A host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    pub host: String,
    pub port: u16,
}

/// Values by name of the variable, from wherever they came.
pub type Values = HashMap<&'static str, String>;

impl Config {
    /// Checks all values and fills in the defaults.
    ///
    /// # Errors
    /// Every value that cannot be used, not only the first.
    pub fn check(values: &Values) -> Result<Config, InvalidConfig> {
        let mut check = Check::new(values);
        let masters = [
            check.url("MASTER1_URL", POSTGRES),
            check.url("MASTER2_URL", POSTGRES),
        ];
        check.two_masters(&masters);
        let redis_url = check.url("REDIS_URL", &["redis", "rediss"]);
        let peers = NodeId::BOTH.map(|node| check.peer_address(node, &masters[node.index()]));
        let cluster_id = check.cluster_id();
        let port = check.number("PORT", 1, 65_535) as u16;
        let bind = check.parsed("BIND", AN_ADDRESS);
        let config = Config {
            roster: Arc::new(Roster::new(cluster_id)),
            redis_url,
            port,
            bind,
            advertised: check.advertised(bind, port),
            published_on: (check.optional("PUBLISHED_ON"))
                .map(|_| check.parsed("PUBLISHED_ON", AN_ADDRESS)),
            admin_token: check.admin_token(),
            use_sequence: check.choice(
                "USE_SEQUENCE",
                [
                    ("auto", UseSequence::Auto),
                    ("true", UseSequence::Always),
                    ("false", UseSequence::Never),
                ],
            ),
            durability: check.choice(
                "DURABILITY",
                [("zero-loss", Mode::ZeroLoss), ("async", Mode::Async)],
            ),
            http_workers: check.number("HTTP_WORKERS", 2, 512) as usize,
            pool_size: check.number("POOL_SIZE", 1, 128) as u32,
            probe_interval: Duration::from_millis(check.number("PROBE_INTERVAL_MS", 20, 10_000)),
            silence_deadline_ms: check.silence_deadline(),
            request_deadline: Duration::from_millis(check.request_deadline()),
            stop_deadline: Duration::from_millis(check.number(
                "STOP_DEADLINE_MS",
                1_000,
                limits::STOP_DEADLINE_MAX_MS,
            )),
            replication_password: Secret(check.text("REPLICATION_PASSWORD")),
            replication_password_set: check.optional("REPLICATION_PASSWORD").is_some(),
            peer_addresses: peers,
            master_settings: check.master_settings(),
            peer_sslrootcert: check.peer_sslrootcert(),
            data: check.optional("IMDB_HA_DATA"),
            home: std::env::var_os("HOME")
                .filter(|home| !home.is_empty())
                .map(PathBuf::from),
            pg_bin: check.optional("PG_BIN"),
            load_at_start: check.optional("LOAD_AT_START"),
            load_dir: check.optional("LOAD_DIR"),
            log_filter: check.log_filter(),
            compare_interval: check.compare_interval(),
            backups: check.backups(),
            masters,
        };
        check.is_safe_to_publish(&config);
        check.done(config)
    }

    /// What the API listens on.
    pub fn listens_on(&self) -> SocketAddr {
        SocketAddr::new(self.bind, self.port)
    }

    /// The connection string of one master.
    pub fn master(&self, node: NodeId) -> &SecretUrl {
        &self.masters[node.index()]
    }

    /// The times that the cluster's decisions depend on.
    pub fn cluster_settings(&self) -> crate::cluster::Settings {
        crate::cluster::Settings {
            suspect_after_ms: limits::SUSPECT_AFTER_MS
                .max(self.probe_interval.as_millis() as u64 * 5 / 4)
                .min(self.silence_deadline_ms / 2),
            silence_deadline_ms: self.silence_deadline_ms,
            nobody_better_after_ms: limits::NOBODY_BETTER_AFTER_MS,
            start_patience_ms: limits::START_PATIENCE_MS,
            handover_deadline_ms: limits::HANDOVER_DEADLINE_MS,
            handover_lag_max_bytes: limits::HANDOVER_LAG_MAX_BYTES,
            durability: self.durability,
            wait_max_ms: limits::WAIT_MAX_MS,
            wait_lag_max_bytes: limits::WAIT_LAG_MAX_BYTES,
            apply_lag_max_bytes: limits::APPLY_LAG_MAX_BYTES,
            taken_up_after_ms: limits::TAKEN_UP_AFTER_MS,
            ask_again_after_ms: limits::ASK_AGAIN_AFTER_MS,
            hasten_ms: limits::HASTEN_MS,
            arming_max_ms: limits::ARMING_MAX_MS,
            linger_ms: limits::LINGER_MS,
            role_patience_ms: limits::ROLE_PATIENCE_MS,
            unfit_after_ms: limits::UNFIT_AFTER_MS,
            fit_after_ms: limits::FIT_AFTER_MS,
            unfit_sends_ms: limits::UNFIT_SENDS_MS,
            trial_urgent_ms: limits::TRIAL_URGENT_MS,
            trial_unfit_ms: limits::TRIAL_UNFIT_MS,
            trial_quiet_ms: limits::TRIAL_QUIET_MS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pairs: &[(&'static str, &str)]) -> Result<Config, InvalidConfig> {
        Config::check(
            &pairs
                .iter()
                .map(|(name, value)| (*name, value.to_string()))
                .collect(),
        )
    }

    #[test]
    fn the_defaults_are_valid_and_are_those_of_limits() {
        let config = check(&[]).expect("the defaults");
        assert_eq!(config.http_workers as u64, limits::HTTP_WORKERS);
        assert_eq!(config.pool_size as u64, limits::POOL_SIZE);
        assert_eq!(
            config.probe_interval.as_millis() as u64,
            limits::PROBE_INTERVAL_MS
        );
        assert_eq!(config.silence_deadline_ms, limits::SILENCE_DEADLINE_MS);
        assert_eq!(
            config.request_deadline.as_millis() as u64,
            limits::REQUEST_DEADLINE_MS
        );
        assert!(config.stop_deadline > config.request_deadline);
        assert_eq!(config.master(NodeId::Master2).address(), "127.0.0.1:5433");
        assert_eq!(config.master(NodeId::Master2).database(), "bases2-db");
    }

    #[test]
    fn an_error_names_the_variable_the_reason_and_the_value() {
        let error =
            check(&[("PORT", "70000"), ("USE_SEQUENCE", "si")]).expect_err("both are wrong");
        assert_eq!(
            error.to_string(),
            "PORT: must be a whole number from 1 to 65535 (got \"70000\")\n\
             USE_SEQUENCE: must be auto or true or false (got \"si\")"
        );
    }

    #[test]
    fn no_error_and_no_debug_output_shows_a_secret() {
        let wrong = [
            ("MASTER1_URL", "mysql://root:hunter2@db/imdb"),
            ("MASTER2_URL", "postgresql://root:hunter2@db:99999/imdb"),
            ("REDIS_URL", "hunter2"),
            ("ADMIN_TOKEN", "hunter2"),
        ];
        let error = check(&wrong).expect_err("all four are wrong");
        assert_eq!(error.0.len(), 4);
        assert!(!error.to_string().contains("hunter2"), "{error}");

        let right = [
            (
                "MASTER1_URL",
                "postgresql://root:hunter2@db:5/imdb?password=hunter2",
            ),
            ("ADMIN_TOKEN", "hunter2hunter2hunter2"),
            ("REPLICATION_PASSWORD", "hunter2"),
        ];
        let config = check(&right).expect("all are right");
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn a_token_that_everybody_knows_is_for_this_machine_alone() {
        let with = |bind, published| {
            check(&[
                ("ADMIN_TOKEN", EXAMPLE_TOKEN),
                ("BIND", bind),
                ("PUBLISHED_ON", published),
            ])
        };
        with("127.0.0.1", "127.0.0.1").expect("only this machine reaches it");
        with("0.0.0.0", "127.0.0.1").expect("a container that only this machine reaches");
        check(&[("ADMIN_TOKEN", EXAMPLE_TOKEN)]).expect("loopback is the default");
        for (bind, published) in [("0.0.0.0", "0.0.0.0"), ("127.0.0.1", "192.0.2.1")] {
            let error = with(bind, published).expect_err("others reach it");
            assert!(
                error
                    .to_string()
                    .contains("ADMIN_TOKEN: is the one of the example")
            );
        }
        let bound = [("ADMIN_TOKEN", EXAMPLE_TOKEN), ("BIND", "::")];
        check(&bound).expect_err("others reach it");
    }

    #[test]
    fn every_line_of_the_example_can_be_used_as_it_stands() {
        let text = include_str!("../../.env.example");
        let is_value = |line: &&str| {
            let name = line.split('=').next().unwrap_or_default();
            line.contains('=')
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_uppercase() || byte == b'_')
        };
        let lines = text.lines().filter_map(|line| line.strip_prefix('#'));
        let lines: Vec<&str> = lines.filter(is_value).collect();
        assert!(lines.len() > 6, "{lines:?}");
        let read = lines.join("\n");
        let found: Result<HashMap<String, String>, _> =
            dotenvy::from_read_iter(read.as_bytes()).collect();
        let found = found.expect("lines of NAME=VALUE");
        let known = VARIABLES.iter().filter_map(|variable| {
            let value = found.get(variable.name)?;
            Some((variable.name, value.clone()))
        });
        let config = Config::check(&known.collect()).expect("valid");
        assert_eq!(config.master_settings.len(), 4);
    }

    #[test]
    fn settings_of_the_masters_are_names_with_values() {
        let of = |text| check(&[("MASTER_SETTINGS", text)]).map(|config| config.master_settings);
        let pair = |name: &str, value: &str| (name.to_string(), value.to_string());
        let found = of("shared_buffers=1GB  pg_stat_statements.max=5").expect("valid");
        assert_eq!(
            found,
            [
                pair("shared_buffers", "1GB"),
                pair("pg_stat_statements.max", "5")
            ]
        );
        for wrong in [
            "shared_buffers",
            "=1GB",
            "work_mem=",
            "a'b=1",
            "include_if_exists=x;y=z\\",
        ] {
            of(wrong).expect_err(wrong);
        }
    }

    #[test]
    fn the_manuals_passwords_are_the_defaults() {
        let config = check(&[]).expect("the defaults");
        let password = config.master(NodeId::Master1).password().expect("one");
        let passwords = (password.reveal(), config.replication_password.reveal());
        assert_eq!(passwords, MANUALS_PASSWORDS);
    }

    #[test]
    fn peer_addresses_come_from_the_urls_unless_they_are_set() {
        let config = check(&[("MASTER2_PEER_ADDRESS", "imdb-master2:5432")]).expect("valid");
        assert_eq!(
            config.peer_addresses[0],
            PeerAddress {
                host: "127.0.0.1".into(),
                port: 5432
            }
        );
        assert_eq!(
            config.peer_addresses[1],
            PeerAddress {
                host: "imdb-master2".into(),
                port: 5432
            }
        );
        // Without a port it is that of the URL, also where an address has colons of its own.
        for (text, host, port) in [
            ("db1", "db1", 5432),
            ("::1", "::1", 5432),
            ("[::1]", "::1", 5432),
            ("[::1]:5433", "::1", 5433),
        ] {
            let config = check(&[("MASTER1_PEER_ADDRESS", text)]).expect(text);
            let host = host.to_string();
            assert_eq!(config.peer_addresses[0], PeerAddress { host, port });
        }
        let of_url = [("MASTER1_URL", "postgresql://root@[::1]:5444/imdb")];
        let config = check(&of_url).expect("an address of IPv6");
        let (host, port) = ("::1".to_string(), 5444);
        assert_eq!(config.peer_addresses[0], PeerAddress { host, port });
        assert_eq!(config.master(NodeId::Master1).address(), "[::1]:5444");
        for wrong in [":5432", "db1:", "::1:5433", "db1:5432:1"] {
            let error = check(&[("MASTER1_PEER_ADDRESS", wrong)]).expect_err(wrong);
            assert_eq!(error.0[0].name, "MASTER1_PEER_ADDRESS");
        }
    }

    #[test]
    fn what_is_told_to_others_is_checked() {
        let told = |pairs: &[(&'static str, &str)]| check(pairs).map(|config| config.advertised);
        let ours = [("BIND", "::1"), ("PORT", "5712")];
        assert_eq!(told(&ours).as_deref(), Ok("http://[::1]:5712"));
        let named = [("BIND", "0.0.0.0"), ("ADVERTISE", "api1"), ("PORT", "5710")];
        assert_eq!(told(&named).as_deref(), Ok("http://api1:5710"));
        // By the name of this machine, whatever that is.
        let anywhere = told(&[("BIND", "::"), ("PORT", "5712")]).expect("valid");
        assert!(anywhere.ends_with(":5712"), "{anywhere}");
        let error = told(&[("ADVERTISE", "http://0.0.0.0:5710")]).expect_err("no machine");
        assert_eq!(error.0[0].name, "ADVERTISE");
        for (name, value) in [
            ("ADVERTISE", "http://root:hunter2@api1"),
            ("ADVERTISE", "root:hunter2@api1"),
            ("MASTER1_PEER_ADDRESS", "root:hunter2@db1:5432"),
        ] {
            let error = check(&[(name, value)]).expect_err(value).to_string();
            assert!(
                error.starts_with(name) && !error.contains("hunter2"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_password_that_ends_its_url_too_early_is_to_be_encoded() {
        for (url, letter) in [
            ("postgresql://root:hun#ter2@db/imdb", "%23"),
            ("postgresql://root:12#hunter2@db/imdb", "%23"),
            ("postgresql://root:12/hunter2@db/imdb", "%2F"),
            ("postgresql://root:12?hunter2@db/imdb", "%3F"),
            ("postgresql://root:h@12/hunter2@db/imdb", "%2F"),
            ("postgresql://root:h@12/d?hunter2@db/imdb", "%2F"),
            ("postgresql://root:hunter2%@db/imdb", "%25"),
            ("postgresql://root:%hunter2@db/imdb", "%25"),
        ] {
            let error = check(&[("MASTER2_URL", url)]).expect_err(url).to_string();
            assert!(error.starts_with("MASTER2_URL: "), "{error}");
            assert!(error.contains("percent-encode it"), "{error}");
            assert!(error.contains(letter), "{error}");
            assert!(
                !error.contains("hunter") && !error.contains("ter2"),
                "{error}"
            );
        }
        let error = check(&[("REDIS_URL", "redis://:12/hunter2@redis")]).expect_err("likewise");
        assert!(error.to_string().contains("percent-encode it"), "{error}");
        let error =
            check(&[("MASTER1_URL", "postgresql://root:%ff@db/imdb")]).expect_err("no text");
        assert!(error.to_string().contains("not UTF-8"), "{error}");
        let error =
            check(&[("MASTER1_URL", "postgresql://root:x@db/imdb#hunter2")]).expect_err("#");
        assert!(!error.to_string().contains("hunter"), "{error}");
        // What needs no encoding, and what is encoded.
        for (url, password) in [
            ("postgresql://root:h@ter:2!@db/imdb", "h@ter:2!"),
            ("postgresql://root:a%23b%2Fc%3Fd%40%25@db/imdb", "a#b/c?d@%"),
        ] {
            let config = check(&[("MASTER2_URL", url)]).expect(url);
            let found = config.master(NodeId::Master2).password().expect("one");
            assert_eq!(found.reveal(), password);
            assert_eq!(config.master(NodeId::Master2).address(), "db:5432");
        }
    }

    #[test]
    fn what_the_driver_takes_and_can_never_work_here_is_refused() {
        for (parameter, reason) in [
            ("channel_binding=require", "cannot be had"),
            ("channel_b%69nding=require", "cannot be had"),
            ("channel_binding=prefer&channel_binding=require", "twice"),
            ("target_session_attrs=read-only", "takes writes"),
        ] {
            let url = format!("postgresql://root:x@db/imdb?{parameter}");
            let error = check(&[("MASTER2_URL", &url)]).expect_err(parameter);
            let told = error.to_string();
            assert!(
                told.starts_with("MASTER2_URL: ") && told.contains(reason),
                "{told}"
            );
        }
        for usable in ["channel_binding=prefer", "target_session_attrs=read-write"] {
            let url = format!("postgresql://root:x@db/imdb?{usable}");
            check(&[("MASTER2_URL", &url)]).expect(usable);
        }
    }

    #[test]
    fn the_same_database_as_both_masters_is_refused() {
        let one = "postgresql://root:hunter2@DB.example/imdb";
        let same = "postgresql://other:hunter2@db.example:5432/imdb";
        let error = check(&[("MASTER1_URL", one), ("MASTER2_URL", same)]).expect_err("one master");
        assert_eq!(
            error.to_string(),
            "MASTER2_URL: is the same database as MASTER1_URL (postgresql://root:***@DB.example/imdb) \
             (got postgresql://other:***@db.example:5432/imdb)"
        );
        for other in [
            "postgresql://root@db.example:5433/imdb",
            "postgresql://root@db.example/imdb2",
            "postgresql://root@db2.example/imdb",
        ] {
            check(&[("MASTER1_URL", one), ("MASTER2_URL", other)]).expect("two masters");
        }
    }

    #[test]
    fn a_log_filter_and_the_shortest_deadline_are_checked() {
        for right in [
            "info",
            "OFF",
            "warn,imdb_ha::pg=debug",
            "imdb_ha",
            "error, imdb_ha=trace",
        ] {
            check(&[("RUST_LOG", right)]).expect(right);
        }
        for wrong in [
            "imdb_ha=loud",
            "=info",
            "info,",
            "a b",
            "info;warn",
            "a=b=info",
        ] {
            let error = check(&[("RUST_LOG", wrong)]).expect_err(wrong);
            assert_eq!(error.0[0].name, "RUST_LOG");
        }
        check(&[("REQUEST_DEADLINE_MS", "3000")]).expect("the least");
        let error = check(&[("REQUEST_DEADLINE_MS", "2999")]).expect_err("too short");
        assert!(error.to_string().contains("from 3000 to 60000"), "{error}");
    }
}
