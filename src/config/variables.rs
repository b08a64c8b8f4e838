//! What can be configured, as one table.

use crate::span;
use std::time::Duration;

/// One thing that can be configured.
pub struct Variable {
    /// Its name in the environment and in `.env`; [`flag_of`] tells the flag.
    pub name: &'static str,
    /// What holds when it is not set or empty.
    pub default: &'static str,
    /// A secret has no flag, because flags are seen in the process list.
    pub secret: bool,
    pub about: &'static str,
}

const fn open(name: &'static str, default: &'static str, about: &'static str) -> Variable {
    Variable {
        name,
        default,
        secret: false,
        about,
    }
}

const fn secret(name: &'static str, default: &'static str, about: &'static str) -> Variable {
    Variable {
        name,
        default,
        secret: true,
        about,
    }
}

/// Every variable, in the order of the documentation.
#[rustfmt::skip] // one row, one line
pub const VARIABLES: &[Variable] = &[
    secret("MASTER1_URL", "postgresql://root:root@127.0.0.1:5432/bases2-db", "the primary master"),
    secret("MASTER2_URL", "postgresql://root:root@127.0.0.1:5433/bases2-db", "the secondary master"),
    open("CLUSTER_ID", "", "which cluster the masters must belong to, as `GET /health` shows it; by default what both of them say. The local cluster has its own"),
    secret("REDIS_URL", "redis://127.0.0.1:6379", "where the history and the lease are kept"),
    open("PORT", "5000", "port of the API"),
    open("BIND", "127.0.0.1", "address that the API listens on"),
    open("PUBLISHED_ON", "", "address at which a container's port is published, as others reach it; by default BIND, and for `imdb-ha master` everywhere"),
    open("ADVERTISE", "", "where others find this API, as a host with or without a port, or a URL: the other processes of the cluster tell it to whoever asks who decides; by default BIND, or the name of this machine where that is 0.0.0.0 or ::"),
    secret("ADMIN_TOKEN", "", "bearer token for what changes the cluster; without one only callers from loopback may"),
    open("USE_SEQUENCE", "auto", "ids from the sequence: auto (if the table has one), true, false (MAX+1 under a lock)"),
    open("DURABILITY", "zero-loss", "zero-loss: a write is acknowledged when both masters have it, for as long as both take part; async: when one has it"),
    open("HTTP_WORKERS", "24", "threads that serve reads and switches, 2 to 512"),
    open("POOL_SIZE", "8", "connections to each master, 1 to 128; half of them serve reads, at best twice as many as the master has processors"),
    open("PROBE_INTERVAL_MS", "200", "time between two questions to a master, 20 to 10000"),
    open("SILENCE_DEADLINE_MS", "1000", "a master silent for longer is down, 200 to 60000"),
    open("REQUEST_DEADLINE_MS", "8000", "a request is answered within this time, 3000 to 60000"),
    open("STOP_DEADLINE_MS", "10000", "a stop answers what was accepted within this time, 1000 to 25000"),
    secret("REPLICATION_PASSWORD", "repl_pass", "password of the role replicator, with which the masters reach each other"),
    open("MASTER1_PEER_ADDRESS", "", "host or host:port at which master2 reaches master1; by default, also the port alone, as in MASTER1_URL"),
    open("MASTER2_PEER_ADDRESS", "", "host or host:port at which master1 reaches master2; by default, also the port alone, as in MASTER2_URL"),
    open("MASTER_SETTINGS", "", "settings of PostgreSQL for the masters that this program starts, such as shared_buffers=1GB work_mem=16MB"),
    open("PEER_SSLROOTCERT", "", "file with the CA of the masters' certificates, on the masters' own machines; with it they reach each other by TLS alone"),
    open("IMDB_HA_DATA", "", "folder of the local cluster; by default /var/lib/imdb-ha for root, else ~/.local/state/imdb-ha"),
    open("PG_BIN", "", "folder of PostgreSQL's programs; by default under /usr/lib/postgresql, the version that made the data or the newest"),
    open("LOAD_AT_START", "", "folder with IMDb's files that the first start of a local cluster, or of `replication setup --at-start`, loads; scripts/up.sh loads data/sample"),
    open("LOAD_DIR", "", "folder in which a file that is sent to POST /load is kept while it is loaded; by default that of temporary files"),
    open("COMPARE_INTERVAL", "1h", "time between two comparisons of the masters in the background, such as 90s, 30m or 12h; 0 or off for none"),
    open("BACKUP_CONFIG_DIR", "", "folder with master1/pgbackrest.conf and master2/pgbackrest.conf; without it there are no backups. The local cluster has its own"),
    secret("BACKUP_PASSPHRASE", "", "with it the backups are encrypted; the local cluster draws one at its first start if none is given"),
    open("BACKUP_PASSPHRASE_FILE", "", "a file that holds it"),
    open("BACKUP_FULL_EVERY", "7d", "time between two full backups of a master, such as 12h or 7d; 0 or off for none"),
    open("BACKUP_DIFF_EVERY", "1d", "time between two backups, differential or full; likewise"),
    open("BACKUP_INCR_EVERY", "6h", "time between two backups of any kind; likewise"),
    open("BACKUP_CYCLE", "", "instead of these three: the manual's six days of backups, the next day's each 24h or whatever is given"),
    open("BACKUP_DRILL_EVERY", "1d", "time between two trial restores of a master's newest backup, beside those of full ones; 0 or off for none"),
    open("BACKUP_KEY_PREFIX", "pgbackrest", "what the keys of the backups in Redis begin with"),
    open("MASTER1_STOP_COMMAND", "", "command by which a restore stops the server of master1, such as systemctl stop postgresql@17-main; no shell sees it"),
    open("MASTER1_START_COMMAND", "", "command that starts it"),
    open("MASTER2_STOP_COMMAND", "", "the same for master2"),
    open("MASTER2_START_COMMAND", "", "the same for master2"),
    open("RUST_LOG", "info", "what is logged: off, error, warn, info, debug or trace; or module=level, several with commas between"),
];

/// The flag of a variable: `PROBE_INTERVAL_MS` is `--probe-interval-ms`, `IMDB_HA_DATA` is `--data`.
pub fn flag_of(variable: &Variable) -> String {
    let name = variable
        .name
        .strip_prefix("IMDB_HA_")
        .unwrap_or(variable.name);
    name.to_ascii_lowercase().replace('_', "-")
}

/// The table of variables as Markdown, as README shows it.
pub fn as_markdown() -> String {
    let mut text = String::from("| variable | flag | default | what it is |\n|---|---|---|---|\n");
    for variable in VARIABLES {
        let flag = match variable.secret {
            true => "(none: a secret)".to_string(),
            false => format!("`--{}`", flag_of(variable)),
        };
        let default = match variable.default {
            "" => String::new(),
            default => format!("`{default}`"),
        };
        text.push_str(&format!(
            "| `{}` | {flag} | {default} | {} |\n",
            variable.name, variable.about
        ));
    }
    text
}

/// The variable of this name, which must be in the table: a name that is not is a mistake in this
/// program, and the check of the defaults reads every name in a test.
pub(super) fn variable(name: &'static str) -> &'static Variable {
    VARIABLES
        .iter()
        .find(|variable| variable.name == name)
        .expect("every name read is in the table")
}

/// A length of time as a number with its unit (`90s`, `30m`, `12h`); 0 and `off` are no time at all.
pub(super) fn duration_or_off(text: &str) -> Option<Option<Duration>> {
    let text = text.trim().to_ascii_lowercase();
    if text == "off" {
        return Some(None);
    }
    let span = span::parse(&text)?;
    Some((!span.is_zero()).then_some(span))
}

/// Whether every part of a log filter is `level`, `module=level` or `module`. The logger itself would
/// only print a warning about a part that it does not understand, and then log less than was asked for.
pub(super) fn is_log_filter(text: &str) -> bool {
    let is_level = |word: &str| {
        ["off", "error", "warn", "info", "debug", "trace"]
            .iter()
            .any(|level| level.eq_ignore_ascii_case(word))
    };
    let is_module = |word: &str| {
        word.split("::").all(|name| {
            !name.is_empty()
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
        })
    };
    text.split(',')
        .map(str::trim)
        .all(|part| match part.split_once('=') {
            Some((module, level)) => is_module(module) && is_level(level),
            None => is_module(part),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_is_a_span_or_off() {
        let seconds =
            |text: &str| duration_or_off(text).map(|time| time.map(|time| time.as_secs()));
        assert_eq!(seconds("90s"), Some(Some(90)));
        assert_eq!(seconds(" 2H "), Some(Some(7_200)));
        for off in ["0", "off", "OFF", "0s"] {
            assert_eq!(seconds(off), Some(None), "{off}");
        }
        for wrong in ["", "h", "no"] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }
}
