//! A connection to Redis that never waits without a limit, and what is known of how Redis is: judged by writes, since one that
//! only answers keeps neither the history nor the lease.

use crate::config::SecretUrl;
use crate::limits;
use crate::pg::explain_any;
use crate::quiet::Quiet;
use redis::{Client, Connection, ErrorKind, RedisError, RedisResult, ServerErrorKind};
use serde::Serialize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Connects. The plain `get_connection()` has no time limit at all, and the one with a limit takes it off
/// again once the connection is made.
///
/// # Errors
/// Those of the driver, within [`limits::REDIS_TIMEOUT`].
pub fn connect(url: &SecretUrl) -> RedisResult<Connection> {
    let client = Client::open(url.reveal())?;
    let connection = client.get_connection_with_timeout(limits::REDIS_TIMEOUT)?;
    connection.set_read_timeout(Some(limits::REDIS_TIMEOUT))?;
    connection.set_write_timeout(Some(limits::REDIS_TIMEOUT))?;
    Ok(connection)
}

/// How Redis is, for `/status`.
#[derive(Clone, Debug, Serialize)]
pub struct RedisHealth {
    pub url: String,
    /// `up`: it takes writes; `failing`: it answers and refuses them; `down`: it does not answer; `unknown` before the first try.
    pub state: &'static str,
    pub error: Option<String>,
    /// What to do about it.
    pub advice: Option<&'static str>,
}

/// Who writes to Redis. Each is told by itself, since one key can be wrong and the others well.
#[derive(Clone, Copy, Debug)]
pub enum Writer {
    History,
    Lease,
}

impl Writer {
    /// What it writes, and what happens while it cannot.
    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Writer::History => ("write the history", "the history waits in memory meanwhile"),
            Writer::Lease => (
                "claim the lease",
                "the masters' own locks say meanwhile which process decides",
            ),
        }
    }
}

/// What the writers found last; shared by them and the API.
#[derive(Clone)]
pub struct RedisWatch {
    url: SecretUrl,
    found: Arc<Mutex<[Finding; 2]>>,
    quiet: Arc<[Quiet; 2]>,
}

/// What came of a writer's last try; the words of an error and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Finding {
    Unknown,
    Well,
    Ill {
        state: &'static str,
        error: String,
        advice: &'static str,
    },
}

impl RedisWatch {
    /// Nothing is known yet.
    pub fn new(url: &SecretUrl) -> RedisWatch {
        RedisWatch {
            url: url.clone(),
            found: Arc::new(Mutex::new([Finding::Unknown, Finding::Unknown])),
            quiet: Arc::default(),
        }
    }

    /// Keeps what came of a try to write, and logs it when it is news.
    pub fn tell(&self, writer: Writer, outcome: &RedisResult<()>) {
        let finding = match outcome {
            Ok(()) => Finding::Well,
            Err(error) => judge(error),
        };
        let (quiet, address) = (&self.quiet[writer as usize], self.url.address());
        let (doing, meanwhile) = writer.words();
        match &finding {
            Finding::Ill { error, advice, .. } if quiet.admit(error).is_some() => {
                log::warn!("ALARM: redis {address}: {doing}: {error}; {advice}; {meanwhile}");
            }
            Finding::Well if quiet.clear() => log::info!("redis {address}: can {doing} again"),
            _ => {}
        }
        self.lock()[writer as usize] = finding;
    }

    /// How Redis is, by the worst that is known.
    pub fn health(&self) -> RedisHealth {
        let found = self.lock();
        let ill = found
            .iter()
            .find(|finding| matches!(finding, Finding::Ill { .. }));
        let (state, error, advice) = match ill {
            Some(Finding::Ill {
                state,
                error,
                advice,
            }) => (*state, Some(error.clone()), Some(*advice)),
            _ if found[Writer::History as usize] == Finding::Well => ("up", None, None),
            _ => ("unknown", None, None),
        };
        RedisHealth {
            url: format!("{:?}", self.url),
            state,
            error,
            advice,
        }
    }

    /// Why Redis is not worth asking now: it did not answer whoever asked last.
    pub fn silent(&self) -> Option<String> {
        let found = self.lock();
        found.iter().find_map(|finding| match finding {
            Finding::Ill { state, error, .. } if *state == DOWN => Some(error.clone()),
            _ => None,
        })
    }

    /// What a person has to do, for the alarms.
    pub fn alarms(&self) -> Vec<String> {
        let found = self.lock();
        let mut alarms: Vec<String> = Vec::new();
        for (writer, finding) in [Writer::History, Writer::Lease].into_iter().zip(&*found) {
            let Finding::Ill { error, advice, .. } = finding else {
                continue;
            };
            let (doing, meanwhile) = writer.words();
            alarms.push(format!(
                "redis {}: cannot {doing}: {error}; {advice} ({meanwhile})",
                self.url.address()
            ));
        }
        alarms
    }

    fn lock(&self) -> MutexGuard<'_, [Finding; 2]> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const DOWN: &str = "down";
const FAILING: &str = "failing";

/// What to do, by the first word of what Redis answers.
const ADVICE: &[(&str, &str)] = &[
    (
        "READONLY",
        "it is a replica: let REDIS_URL name its primary, or run `REPLICAOF NO ONE` on it",
    ),
    (
        "OOM",
        "its memory is full: raise `maxmemory`, or delete what does not belong there",
    ),
    (
        "NOREPLICAS",
        "too few of its replicas are connected: bring them back, or lower `min-replicas-to-write`",
    ),
    ("MISCONF", "it cannot save to its disk: see its log for why"),
    (
        "WRONGTYPE",
        "the key imdb-ha:history holds something else: rename or delete that",
    ),
    ("NOAUTH", "it wants a password: put it into REDIS_URL"),
    ("WRONGPASS", "user or password is wrong: correct REDIS_URL"),
    (
        "NOPERM",
        "its user may not do this: allow it the keys imdb-ha:* and EVAL",
    ),
    (
        "LOADING",
        "it is reading its data from the disk: wait until it is done",
    ),
    (
        "BUSY",
        "a script keeps it busy: `SCRIPT KILL` ends one that has written nothing",
    ),
    (
        "MASTERDOWN",
        "it is a replica without its primary: let REDIS_URL name the primary",
    ),
];

/// What an error says of Redis.
fn judge(error: &RedisError) -> Finding {
    let text = explain_any(error);
    // An error inside a script, or of a transaction, has the code of the wrapping; the cause is in the words.
    let code = ADVICE.iter().find(|(code, _)| {
        error.code() == Some(*code) || text.split([' ', ':', '"', '\'']).any(|word| word == *code)
    });
    let authentication = error.kind() == ErrorKind::AuthenticationFailed;
    let (state, advice) = match code {
        Some((_, advice)) => (FAILING, *advice),
        None if authentication => (FAILING, "user or password is wrong: correct REDIS_URL"),
        None if error.kind() == ErrorKind::Io => {
            (DOWN, "see that it runs and can be reached from here")
        }
        None if error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly) => {
            (FAILING, ADVICE[0].1)
        }
        None => (FAILING, "see its log, and what else uses it"),
    };
    Finding::Ill {
        state,
        error: text,
        advice,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(answer: &'static str, detail: &str) -> RedisError {
        let kind = ErrorKind::Server(ServerErrorKind::ResponseError);
        RedisError::from((kind, answer, detail.to_string()))
    }

    #[test]
    fn what_redis_answers_is_told_with_its_cure() {
        let url = SecretUrl::new(url::Url::parse("redis://127.0.0.1:1").expect("a URL"));
        let watch = RedisWatch::new(&url);
        assert_eq!(watch.health().state, "unknown");
        let broken = RedisError::from(std::io::Error::other("broken pipe"));
        let cases = [
            (
                refused("An error", "OOM command not allowed"),
                "failing",
                "maxmemory",
            ),
            (
                refused("An error", "READONLY You can't write"),
                "failing",
                "REPLICAOF NO ONE",
            ),
            (
                refused("An error", "user_script:1: ups"),
                "failing",
                "see its log",
            ),
            (broken, "down", "see that it runs"),
        ];
        for (error, state, advice) in cases {
            watch.tell(Writer::History, &Ok(()));
            watch.tell(Writer::Lease, &Err(error));
            let health = watch.health();
            assert_eq!(health.state, state, "{health:?}");
            assert!(watch.alarms()[0].contains(advice), "{:?}", watch.alarms());
            assert_eq!(watch.silent().is_some(), state == "down");
        }
        watch.tell(Writer::Lease, &Ok(()));
        assert_eq!((watch.health().state, watch.alarms().len()), ("up", 0));
    }
}
