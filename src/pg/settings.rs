//! How a master is reached: the settings of its connections, and the one place where they are made.

use super::explain;
use super::identity::Guard;
use super::tls::{self, Target};
use crate::cluster::NodeId;
use crate::config::{Config, SecretUrl};
use crate::limits;
use postgres::config::{Host, SslMode};
use postgres::error::SqlState;
use postgres::{Client, NoTls};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The settings of the connections to one master.
#[derive(Clone)]
pub struct Settings {
    driver: postgres::Config,
    /// With it the way is encrypted, and the server proves who it is.
    tls: Option<Target>,
    /// With it the server proves which master it is, before anything is read or changed there.
    guard: Option<Guard>,
}

/// A connection string that leads nowhere; the text says why and holds no secret.
#[derive(Debug)]
pub struct InvalidUrl(String);

impl fmt::Display for InvalidUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InvalidUrl {}

/// Why there is no connection, with the whole cause.
#[derive(Debug)]
pub struct ConnectError {
    pub(super) cause: String,
    /// What the server answered, if it is that.
    pub(super) code: Option<SqlState>,
    /// Whether the server was heard to refuse; a time limit proves nothing, nor does a lack on this side.
    pub(super) refused: bool,
    /// Whether a server answered that is not the master that was meant.
    pub(super) stranger: bool,
}

const STRANGER: &str = "another server answers: ";

impl ConnectError {
    /// What there is to say of a server that is not the master that was meant.
    pub(super) fn of_stranger(why: &str) -> ConnectError {
        ConnectError {
            cause: format!("{STRANGER}{why}"),
            code: None,
            refused: true,
            stranger: true,
        }
    }

    /// Why the server that answered is not the master that was meant, if that is so.
    pub fn stranger(&self) -> Option<&str> {
        let why = self.cause.strip_prefix(STRANGER)?;
        self.stranger.then_some(why)
    }

    /// The server's code, if it answered with an error.
    pub fn code(&self) -> Option<&SqlState> {
        self.code.as_ref()
    }

    /// Whether it proves that the server takes no connection.
    pub fn is_refusal(&self) -> bool {
        // A server without a free connection lives.
        self.refused && self.code != Some(SqlState::TOO_MANY_CONNECTIONS)
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause)
    }
}

impl std::error::Error for ConnectError {}

impl From<postgres::Error> for ConnectError {
    fn from(error: postgres::Error) -> ConnectError {
        ConnectError {
            cause: explain(&error),
            code: error.code().cloned(),
            refused: !super::explain_any(&error).contains("timed out"),
            stranger: false,
        }
    }
}

/// Connection settings for a master. The driver's own time limits cover only the TCP level; the
/// deadlines that hold against a frozen server are counted by whoever waits (see `sessions.rs`).
///
/// # Errors
/// A URL that is no PostgreSQL connection string; the configuration check has refused it before.
pub fn connection_settings(
    url: &SecretUrl,
    statement_timeout: Duration,
) -> Result<Settings, InvalidUrl> {
    let parsed = url.for_driver().parse::<postgres::Config>();
    let mut driver = parsed.map_err(|error| InvalidUrl(explain(&error)))?;
    driver
        .application_name("imdb-ha")
        .connect_timeout(limits::CONNECT_TIMEOUT)
        .tcp_user_timeout(limits::TCP_USER_TIMEOUT)
        .keepalives(true)
        .keepalives_idle(limits::KEEPALIVE_IDLE)
        .keepalives_interval(limits::KEEPALIVE_INTERVAL)
        .keepalives_retries(limits::KEEPALIVE_RETRIES);
    let tls = match url.trust() {
        Some(trust) => Some(target(&driver, trust).map_err(InvalidUrl)?),
        None => None,
    };
    let guard = None;
    let bounds = Settings { driver, tls, guard }
        .with_option(&format!(
            "statement_timeout={}",
            statement_timeout.as_millis()
        ))
        .with_option(&format!("lock_timeout={}", limits::LOCK_TIMEOUT_MS));
    let idle = statement_timeout.as_millis();
    Ok(bounds.with_option(&format!("idle_in_transaction_session_timeout={idle}")))
}

/// Connection settings for one of the two masters, whose server proves on every connection that it is that master.
///
/// # Errors
/// As those of [`connection_settings`].
pub fn master_settings(
    config: &Config,
    node: NodeId,
    statement_timeout: Duration,
) -> Result<Settings, InvalidUrl> {
    let peer = connection_settings(config.master(node.peer()), limits::WHO_ASK)?;
    let guard = Guard::new(node, Arc::clone(&config.roster), peer);
    let settings = connection_settings(config.master(node), statement_timeout)?;
    Ok(Settings {
        guard: Some(guard),
        ..settings
    })
}

/// Settings for a server's socket in `folder`, whose owner it trusts.
pub fn over_socket(folder: &Path, port: u16, user: &str, database: &str) -> Settings {
    let mut driver = postgres::Config::new();
    driver
        .host_path(folder)
        .port(port)
        .user(user)
        .dbname(database)
        .connect_timeout(limits::CONNECT_TIMEOUT)
        .application_name("imdb-ha");
    Settings::from(driver)
}

/// Whom a connection over TLS is for. The driver takes several hosts; a certificate is of one.
fn target(driver: &postgres::Config, trust: &tls::Trust) -> Result<Target, String> {
    let several = "with sslmode=verify-full it must name one host, one port and no Unix socket";
    let ([Host::Tcp(host)], [] | [_], [] | [_]) = (
        driver.get_hosts(),
        driver.get_ports(),
        driver.get_hostaddrs(),
    ) else {
        return Err(several.to_string());
    };
    let port = driver.get_ports().first().copied().unwrap_or(5432);
    Target::new(host, driver.get_hostaddrs().first().copied(), port, trust)
}

/// Settings for a server that is reached otherwise than by a master's URL: without TLS.
impl From<postgres::Config> for Settings {
    fn from(driver: postgres::Config) -> Settings {
        Settings {
            driver,
            tls: None,
            guard: None,
        }
    }
}

impl Settings {
    /// A setting of the server for these sessions, as `name=value`.
    pub fn with_option(mut self, option: &str) -> Settings {
        let options = format!("{} -c {option}", self.driver.get_options().unwrap_or(""));
        self.driver.options(options.trim());
        self
    }

    /// The name under which the server lists these sessions.
    pub fn named(mut self, name: &str) -> Settings {
        self.driver.application_name(name);
        self
    }

    /// The same for another role.
    pub fn for_role(mut self, role: &str, password: &str) -> Settings {
        self.driver.user(role).password(password);
        self
    }

    /// What the driver's own manager of connections takes.
    pub(super) fn driver(&self) -> &postgres::Config {
        &self.driver
    }

    /// Connects. It can wait for a frozen server without limit, as everything of the driver can.
    ///
    /// # Errors
    /// Why there is no connection, with the whole cause.
    pub fn connect(&self) -> Result<Client, ConnectError> {
        let mut client = self.open()?;
        if let Some(guard) = &self.guard {
            guard.check(&mut client)?;
        }
        Ok(client)
    }

    /// Connects to whatever answers.
    fn open(&self) -> Result<Client, ConnectError> {
        let Some(target) = &self.tls else {
            return Ok(self.driver.connect(NoTls)?);
        };
        let opened = target.open(limits::CONNECT_TIMEOUT)?;
        let failure = Arc::new(Mutex::new(None));
        let socket = tls::lend(opened, target.random()?, Arc::clone(&failure))?;
        let connected = self.through(&socket).connect(NoTls);
        connected.map_err(|error| {
            let mut error = ConnectError::from(error);
            // The driver saw only that the way ended.
            if let Some(why) = tls::told(&failure) {
                error.cause = format!("{}: TLS: {why}", error.cause);
            }
            error
        })
    }

    /// The driver's settings for a connection that is open already, lent to it at `socket`.
    fn through(&self, socket: &tls::Socket) -> postgres::Config {
        let mut through = postgres::Config::new();
        through
            .host_path(&socket.folder)
            .port(tls::SOCKET_PORT)
            .ssl_mode(SslMode::Disable)
            .channel_binding(self.driver.get_channel_binding())
            .target_session_attrs(self.driver.get_target_session_attrs())
            .connect_timeout(limits::CONNECT_TIMEOUT);
        if let Some(user) = self.driver.get_user() {
            through.user(user);
        }
        if let Some(password) = self.driver.get_password() {
            through.password(password);
        }
        if let Some(database) = self.driver.get_dbname() {
            through.dbname(database);
        }
        if let Some(options) = self.driver.get_options() {
            through.options(options);
        }
        if let Some(name) = self.driver.get_application_name() {
            through.application_name(name);
        }
        through
    }
}

/// The same settings for sessions whose own commits never wait for the peer. Whoever sets something up,
/// repairs it, or frees others from waiting must not wait along with them.
pub fn without_waiting(settings: Settings) -> Settings {
    settings.with_option("synchronous_commit=local")
}

/// The same settings for requests: each takes milliseconds, in which neither a second process nor compiled code pays, and many come
/// at once. What they look for is in memory: with the usual costs of a page, 1, PostgreSQL rather walks past 8,000 rows than look
/// 300 up in their pages, which takes a thirtieth of the time.
pub fn for_requests(settings: Settings) -> Settings {
    settings
        .with_option("max_parallel_workers_per_gather=0")
        .with_option("jit=off")
        .with_option("seq_page_cost=0.1")
        .with_option("random_page_cost=0.1")
}

/// The same for probes, which also wait for no lock: a probe that waits makes its master look silent.
pub fn for_probes(settings: Settings) -> Settings {
    let bound = format!("lock_timeout={}", limits::PROBE_LOCK_WAIT_MS);
    without_waiting(settings).with_option(&bound)
}
