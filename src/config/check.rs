//! The checking of the values: each by its own rule, and everything that is wrong with them at once.

use super::secret::{self, Secret, SecretUrl, mask};
use super::variables::{duration_or_off, is_log_filter, variable};
use super::{Config, EXAMPLE_TOKEN, PeerAddress, Values, address, tls};
use crate::cluster::NodeId;
use crate::limits;
use crate::pg::{connection_settings, tls::Trust};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;
use url::Url;

/// One value that cannot be used: the variable, why, and the value as far as it may be shown.
#[derive(Debug, PartialEq, Eq)]
pub struct Invalid {
    pub name: &'static str,
    pub reason: String,
    pub value: Option<String>,
}

/// Everything that is wrong with the configuration, all at once.
#[derive(Debug, PartialEq, Eq)]
pub struct InvalidConfig(pub Vec<Invalid>);

impl fmt::Display for InvalidConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self
            .0
            .iter()
            .map(|invalid| {
                let got = invalid.value.as_ref();
                let got = got.map_or(String::new(), |value| format!(" (got {value})"));
                format!("{}: {}{got}", invalid.name, invalid.reason)
            })
            .collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for InvalidConfig {}

/// How the URL of a PostgreSQL database may begin.
pub(super) const POSTGRES: &[&str] = &["postgresql", "postgres"];

/// Collects what is wrong while the values are read. A wrong value yields the default, which never
/// gets out, because then the whole check fails.
pub(super) struct Check<'a> {
    values: &'a Values,
    invalid: Vec<Invalid>,
}

impl<'a> Check<'a> {
    pub(super) fn new(values: &'a Values) -> Check<'a> {
        Check {
            values,
            invalid: Vec::new(),
        }
    }

    /// Gives `config` if nothing that it was made of was wrong.
    pub(super) fn done(self, config: Config) -> Result<Config, InvalidConfig> {
        match self.invalid.is_empty() {
            true => Ok(config),
            false => Err(InvalidConfig(self.invalid)),
        }
    }

    pub(super) fn optional(&self, name: &'static str) -> Option<String> {
        self.values.get(name).cloned()
    }

    /// The id of the cluster, if one was named.
    pub(super) fn cluster_id(&mut self) -> Option<String> {
        let id = self.optional("CLUSTER_ID")?;
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if id.len() > limits::CLUSTER_ID_MAX || !id.bytes().all(fits) {
            self.complain(
                "CLUSTER_ID",
                format!(
                    "must be letters, digits and hyphens, {} at the most",
                    limits::CLUSTER_ID_MAX
                ),
            );
        }
        Some(id)
    }

    pub(super) fn text(&self, name: &'static str) -> String {
        self.optional(name)
            .unwrap_or_else(|| variable(name).default.to_string())
    }

    pub(super) fn complain(&mut self, name: &'static str, reason: impl Into<String>) {
        let value = self.text(name);
        // An address with a user's name in it may have a password as well, also where none belongs.
        let value = match variable(name).secret || value.contains('@') {
            true => mask(&value),
            false => format!("{value:?}"),
        };
        self.invalid.push(Invalid {
            name,
            reason: reason.into(),
            value: Some(value),
        });
    }

    pub(super) fn number(&mut self, name: &'static str, least: u64, most: u64) -> u64 {
        match self.text(name).trim().parse() {
            Ok(number) if (least..=most).contains(&number) => number,
            _ => {
                self.complain(
                    name,
                    format!("must be a whole number from {least} to {most}"),
                );
                least
            }
        }
    }

    pub(super) fn parsed(&mut self, name: &'static str, what: &str) -> IpAddr {
        IpAddr::from_str(self.text(name).trim()).unwrap_or_else(|_| {
            self.complain(name, format!("must be {what}"));
            IpAddr::from([127, 0, 0, 1])
        })
    }

    pub(super) fn url(&mut self, name: &'static str, schemes: &[&str]) -> SecretUrl {
        let text = self.text(name);
        let parsed = secret::check_encoding(&text)
            .and_then(|()| Url::parse(&text).map_err(|error| format!("is not a URL: {error}")));
        let url = match parsed {
            Ok(url) => url,
            Err(reason) => {
                self.complain(name, reason);
                // A test holds that every default is valid.
                return SecretUrl::new(
                    Url::parse(variable(name).default).expect("a valid default"),
                );
            }
        };
        if !schemes.contains(&url.scheme()) {
            self.complain(name, format!("must begin with {}://", schemes[0]));
        } else if url.host_str().is_none_or(str::is_empty) {
            self.complain(name, "names no host");
        } else if schemes == POSTGRES && url.path().trim_matches('/').is_empty() {
            self.complain(name, "names no database (the manual's is bases2-db)");
        } else if schemes == POSTGRES {
            return self.master(name, url);
        } else if let Err(error) = redis::Client::open(url.as_str()) {
            self.complain(name, format!("is not a Redis URL: {error}"));
        }
        SecretUrl::new(url)
    }

    /// The connection string of a master, with what it says of TLS.
    fn master(&mut self, name: &'static str, url: Url) -> SecretUrl {
        let mut url = SecretUrl::new(url);
        let files = tls::files(&url.url);
        match files.and_then(|files| files.as_ref().map(Trust::load).transpose()) {
            Ok(trust) => url.trust = trust,
            Err(reason) => {
                self.complain(name, reason);
                return url;
            }
        }
        if let Err(reason) = tls::check_driver(&url.url) {
            self.complain(name, reason);
        } else if let Err(error) = connection_settings(&url, limits::SETUP_CALL) {
            let reason = format!("is not a PostgreSQL connection string: {error}");
            self.complain(name, reason);
        }
        url
    }

    /// One database under both names would be replicated to itself, and no failover would help.
    pub(super) fn two_masters(&mut self, masters: &[SecretUrl; 2]) {
        let [first, second] = masters;
        let same = first.address().eq_ignore_ascii_case(&second.address())
            && first.database() == second.database();
        // A URL that cannot be used stands here as its default.
        if same && self.invalid.is_empty() {
            self.complain(
                "MASTER2_URL",
                format!("is the same database as MASTER1_URL ({first:?})"),
            );
        }
    }

    pub(super) fn log_filter(&mut self) -> String {
        let text = self.text("RUST_LOG");
        if !is_log_filter(&text) {
            self.complain(
                "RUST_LOG",
                "must be a level (off, error, warn, info, debug, trace), module=level or module, \
                 or several of them with commas between",
            );
        }
        text
    }

    pub(super) fn peer_address(&mut self, node: NodeId, master: &SecretUrl) -> PeerAddress {
        let name = match node {
            NodeId::Master1 => "MASTER1_PEER_ADDRESS",
            NodeId::Master2 => "MASTER2_PEER_ADDRESS",
        };
        let of_url = PeerAddress {
            host: (master.url.host_str().unwrap_or("127.0.0.1"))
                .trim_matches(['[', ']'])
                .to_string(),
            port: master.port(),
        };
        let Some(text) = self.optional(name) else {
            return of_url;
        };
        match address::host_and_port(&text) {
            Ok((host, port)) => PeerAddress {
                host,
                port: port.unwrap_or(of_url.port),
            },
            Err(reason) => {
                self.complain(name, reason);
                of_url
            }
        }
    }

    /// Where others are told to find this API.
    pub(super) fn advertised(&mut self, bind: IpAddr, port: u16) -> String {
        let machine = nix::unistd::gethostname().unwrap_or_default();
        let usual = address::usual(bind, port, &machine.to_string_lossy());
        let Some(text) = self.optional("ADVERTISE") else {
            return usual;
        };
        address::api(&text, port).unwrap_or_else(|reason| {
            self.complain("ADVERTISE", reason);
            usual
        })
    }

    pub(super) fn peer_sslrootcert(&mut self) -> Option<String> {
        let path = self.optional("PEER_SSLROOTCERT")?;
        // A relative one would be looked for in the data folder of each master.
        if !path.starts_with('/') {
            let reason = "must be an absolute path, the same on both masters' machines";
            self.complain("PEER_SSLROOTCERT", reason);
        }
        Some(path)
    }

    pub(super) fn admin_token(&mut self) -> Option<Secret> {
        let token = self.optional("ADMIN_TOKEN")?;
        if token.len() < 16 || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            self.complain(
                "ADMIN_TOKEN",
                "must have at least 16 characters, printable ASCII without spaces",
            );
        }
        Some(Secret(token))
    }

    /// A token that everybody knows is no token where anybody can reach what it guards.
    pub(super) fn is_safe_to_publish(&mut self, config: &Config) {
        let reached_at = config.published_on.unwrap_or(config.bind);
        let token = config.admin_token.as_ref();
        if token.is_some_and(|token| token.reveal() == EXAMPLE_TOKEN) && !reached_at.is_loopback() {
            let reason = format!(
                "is the one of the example, which everybody knows; set another before the API can be reached at \
                 {reached_at}"
            );
            self.complain("ADMIN_TOKEN", reason);
        }
    }

    /// Names with values, with blanks between.
    pub(super) fn master_settings(&mut self) -> Vec<(String, String)> {
        let text = self.text("MASTER_SETTINGS");
        let is_name = |name: &str| {
            let usable = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.';
            !name.is_empty() && name.bytes().all(usable)
        };
        let is_value = |value: &str| {
            let usable = |byte: u8| byte.is_ascii_graphic() && byte != b'\\';
            !value.is_empty() && value.bytes().all(usable)
        };
        let settings = text.split_whitespace().map(|setting| {
            let (name, value) = setting.split_once('=')?;
            (is_name(name) && is_value(value)).then(|| (name.to_string(), value.to_string()))
        });
        let settings: Option<Vec<_>> = settings.collect();
        settings.unwrap_or_else(|| {
            let reason =
                "must be settings of PostgreSQL such as shared_buffers=1GB, with blanks between";
            self.complain("MASTER_SETTINGS", reason);
            Vec::new()
        })
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy, const N: usize>(
        &mut self,
        name: &'static str,
        words: [(&str, T); N],
    ) -> T {
        let value = self.text(name).trim().to_ascii_lowercase();
        let found = words.iter().find(|(word, _)| *word == value);
        if found.is_none() {
            let known = words.map(|(word, _)| word);
            self.complain(name, format!("must be {}", known.join(" or ")));
        }
        found.map_or(words[0].1, |(_, meaning)| *meaning)
    }

    pub(super) fn compare_interval(&mut self) -> Option<Duration> {
        let interval = duration_or_off(&self.text("COMPARE_INTERVAL"));
        let most = limits::COMPARE_INTERVAL_MAX;
        match interval {
            Some(None) => None,
            Some(Some(interval)) if interval >= Duration::from_secs(1) && interval <= most => {
                Some(interval)
            }
            _ => {
                let reason = "must be off or a time from 1s to 720h, such as 90s, 30m or 12h";
                self.complain("COMPARE_INTERVAL", reason);
                None
            }
        }
    }

    /// A handover may hold a write for as long as it lasts, and the write needs its time after that.
    pub(super) fn request_deadline(&mut self) -> u64 {
        let least = limits::HANDOVER_DEADLINE_MS + 1_000;
        self.number("REQUEST_DEADLINE_MS", least, 60_000)
    }

    pub(super) fn silence_deadline(&mut self) -> u64 {
        let silence_ms = self.number("SILENCE_DEADLINE_MS", 200, 60_000);
        let probe_ms = self.text("PROBE_INTERVAL_MS").trim().parse().unwrap_or(0);
        if silence_ms < 3 * probe_ms {
            let reason = format!("must be at least three times PROBE_INTERVAL_MS ({probe_ms})");
            self.complain("SILENCE_DEADLINE_MS", reason);
        }
        silence_ms
    }
}
