//! Access to PostgreSQL: connections with bounds, and calls that their caller can give up on.

mod pool;
mod sessions;

pub use pool::Session;
pub use sessions::{Call, CallError, Sessions};

use crate::config::SecretUrl;
use crate::limits;
use std::error::Error;
use std::path::Path;
use std::time::Duration;

/// Connection settings for a master. The driver's own time limits cover only the TCP level; the
/// deadlines that hold against a frozen server are counted by whoever waits (see `sessions.rs`).
///
/// # Errors
/// A URL that is no PostgreSQL connection string; the configuration check has refused it before.
pub fn connection_settings(
    url: &SecretUrl,
    statement_timeout: Duration,
) -> Result<postgres::Config, postgres::Error> {
    let mut settings: postgres::Config = url.reveal().parse()?;
    let options = format!(
        "{} -c statement_timeout={} -c lock_timeout={} -c idle_in_transaction_session_timeout={}",
        settings.get_options().unwrap_or(""),
        statement_timeout.as_millis(),
        limits::LOCK_TIMEOUT_MS,
        statement_timeout.as_millis(),
    );
    settings
        .application_name("imdb-ha")
        .options(options.trim())
        .connect_timeout(limits::CONNECT_TIMEOUT)
        .tcp_user_timeout(Duration::from_secs(5))
        .keepalives(true)
        .keepalives_idle(Duration::from_secs(2))
        .keepalives_interval(Duration::from_secs(1))
        .keepalives_retries(3);
    Ok(settings)
}

/// Connection settings for a server's socket in `folder`, whose owner it trusts.
pub fn over_socket(folder: &Path, port: u16, user: &str, database: &str) -> postgres::Config {
    let mut settings = postgres::Config::new();
    settings
        .host_path(folder)
        .port(port)
        .user(user)
        .dbname(database)
        .connect_timeout(limits::CONNECT_TIMEOUT)
        .application_name("imdb-ha");
    settings
}

/// The same settings for sessions whose own commits never wait for the peer. Whoever sets something up,
/// repairs it, or frees others from waiting must not wait along with them.
pub fn without_waiting(settings: postgres::Config) -> postgres::Config {
    with_option(settings, "synchronous_commit=local")
}

/// The same for probes, which also wait for no lock: a probe that waits makes its master look silent.
pub fn for_probes(settings: postgres::Config) -> postgres::Config {
    let bound = format!("lock_timeout={}", limits::PROBE_LOCK_WAIT_MS);
    with_option(without_waiting(settings), &bound)
}

fn with_option(mut settings: postgres::Config, option: &str) -> postgres::Config {
    let options = format!("{} -c {option}", settings.get_options().unwrap_or(""));
    settings.options(options.trim());
    settings
}

/// The whole cause of a PostgreSQL error on one line: the server's message with its code and
/// detail, or the chain of causes of the driver.
pub fn explain(error: &postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => {
            let detail = db
                .detail()
                .map(|detail| format!(" ({detail})"))
                .unwrap_or_default();
            format!(
                "{} {}: {}{detail}",
                db.severity(),
                db.code().code(),
                db.message()
            )
        }
        None => explain_any(error),
    }
}

/// The chain of causes of any error on one line.
pub fn explain_any(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Some errors of the driver repeat their source in their own text.
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text.replace('\n', " ")
}
