//! The history of the cluster: every change, in memory and in the Redis list `imdb-ha:history`,
//! newest first. Redis may be gone: nobody waits for it, and what it missed is written when it is
//! back.

use crate::cluster::Change;
use crate::config::SecretUrl;
use crate::limits;
use crate::quiet::Quiet;
use crate::redis_link;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The Redis list that holds the history.
pub const KEY: &str = "imdb-ha:history";

/// A handle on the history.
#[derive(Clone)]
pub struct History {
    url: SecretUrl,
    shared: Arc<Mutex<Shared>>,
    wake: Sender<()>,
}

struct Shared {
    /// Newest first, at most [`limits::HISTORY_MAX`].
    entries: VecDeque<Value>,
    /// What Redis does not have yet, newest first, as many.
    unwritten: VecDeque<Value>,
    /// How often each kind of change happened since the start.
    counts: BTreeMap<&'static str, u64>,
    redis: RedisHealth,
}

/// Whether Redis can be reached, for `/status`.
#[derive(Clone, Debug, Serialize)]
pub struct RedisHealth {
    pub url: String,
    /// `up`, `down`, or `unknown` before the first try.
    pub state: &'static str,
    pub error: Option<String>,
}

/// Starts the thread that writes to Redis and keeps an eye on it.
///
/// # Errors
/// When the thread cannot be started.
pub fn start(url: &SecretUrl) -> std::io::Result<History> {
    let redis = RedisHealth {
        url: format!("{url:?}"),
        state: "unknown",
        error: None,
    };
    let shared = Shared {
        entries: VecDeque::new(),
        unwritten: VecDeque::new(),
        counts: BTreeMap::new(),
        redis,
    };
    let (wake, woken) = crossbeam_channel::bounded(1);
    let history = History {
        url: url.clone(),
        shared: Arc::new(Mutex::new(shared)),
        wake,
    };
    let writer = Writer {
        url: url.clone(),
        connection: None,
        quiet: Quiet::default(),
    };
    let of_thread = Arc::clone(&history.shared);
    std::thread::Builder::new()
        .name("history".to_string())
        .spawn(move || writer.run(&of_thread, &woken))?;
    Ok(history)
}

impl History {
    /// Adds a change; never waits for Redis. With `shared_by_all` it also goes into the list there,
    /// which all processes of the API share.
    pub fn record(&self, change: Change, shared_by_all: bool) {
        let mut entry = json!({ "at": jiff::Timestamp::now().to_string() });
        if let (Value::Object(entry), Ok(Value::Object(change))) =
            (&mut entry, serde_json::to_value(&change))
        {
            entry.extend(change);
        }
        let mut shared = lock(&self.shared);
        *shared.counts.entry(change.what).or_default() += 1;
        if shared_by_all {
            shared.unwritten.push_front(entry.clone());
        }
        shared.entries.push_front(entry);
        // The oldest go first; those that Redis never saw are then lost to it, which could not hold
        // them anyway.
        shared.entries.truncate(limits::HISTORY_MAX);
        shared.unwritten.truncate(limits::HISTORY_MAX);
        drop(shared);
        let _ = self.wake.try_send(());
    }

    /// The newest entries, newest first.
    pub fn newest(&self, count: usize) -> Vec<Value> {
        lock(&self.shared)
            .entries
            .iter()
            .take(count)
            .cloned()
            .collect()
    }

    /// The newest entries of the list that all processes share, newest first, earlier runs included; or
    /// those of this process, and why, when Redis cannot be asked. Takes a few times
    /// [`limits::REDIS_TIMEOUT`] at the most.
    pub fn shared_by_all(&self, count: usize) -> (Vec<Value>, Option<String>) {
        let read = || -> redis::RedisResult<Vec<String>> {
            let mut connection = redis_link::connect(&self.url)?;
            let last = count.max(1) - 1;
            let mut command = redis::cmd("LRANGE");
            command.arg(KEY).arg(0).arg(last).query(&mut connection)
        };
        match read() {
            Ok(lines) => {
                let entry = |line: &String| serde_json::from_str(line).unwrap_or(json!(line));
                (lines.iter().map(entry).collect(), None)
            }
            Err(error) => {
                let why = format!(
                    "read the history from redis: {}",
                    crate::pg::explain_any(&error)
                );
                (self.newest(count), Some(why))
            }
        }
    }

    /// How often each kind of change happened since the start of this process.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.shared).counts.clone()
    }

    /// Whether Redis can be reached.
    pub fn redis(&self) -> RedisHealth {
        lock(&self.shared).redis.clone()
    }
}

struct Writer {
    url: SecretUrl,
    connection: Option<redis::Connection>,
    quiet: Quiet,
}

impl Writer {
    fn run(mut self, shared: &Mutex<Shared>, woken: &Receiver<()>) {
        loop {
            let outcome = self.write(shared);
            if outcome.is_err() {
                // A connection that missed an answer must not be used for the next question.
                self.connection = None;
            }
            self.tell(
                shared,
                outcome
                    .map_err(|error| crate::pg::explain_any(&error))
                    .err(),
            );
            match woken.recv_timeout(limits::REDIS_INTERVAL) {
                Ok(()) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if self.connection.is_none() {
                // Many changes in a row must not become as many attempts to connect.
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }

    /// Writes what Redis does not have yet, oldest first; with nothing to write, asks it for a sign
    /// of life.
    fn write(&mut self, shared: &Mutex<Shared>) -> redis::RedisResult<()> {
        let waiting: Vec<String> = {
            let shared = lock(shared);
            shared
                .unwritten
                .iter()
                .rev()
                .map(Value::to_string)
                .collect()
        };
        let connection = self.connection()?;
        if waiting.is_empty() {
            return redis::cmd("PING").query(connection);
        }
        redis::pipe()
            .atomic()
            .cmd("LPUSH")
            .arg(KEY)
            .arg(&waiting)
            .ignore()
            .cmd("LTRIM")
            .arg(KEY)
            .arg(0)
            .arg(limits::HISTORY_MAX - 1)
            .ignore()
            .query::<()>(connection)?;
        // The newest may have come meanwhile; those that were written are the oldest.
        let mut shared = lock(shared);
        let left = shared.unwritten.len().saturating_sub(waiting.len());
        shared.unwritten.truncate(left);
        Ok(())
    }

    fn connection(&mut self) -> redis::RedisResult<&mut redis::Connection> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => redis_link::connect(&self.url)?,
        };
        Ok(self.connection.insert(connection))
    }

    /// Publishes how Redis is, and logs it when it changes or has been the same for long.
    fn tell(&self, shared: &Mutex<Shared>, error: Option<String>) {
        let state = if error.is_some() { "down" } else { "up" };
        {
            let mut shared = lock(shared);
            shared.redis.state = state;
            shared.redis.error.clone_from(&error);
        }
        let address = self.url.address();
        match error {
            None if self.quiet.clear() => log::info!("redis {address}: reachable again"),
            Some(error) if self.quiet.admit(&error).is_some() => {
                log::warn!("redis {address}: {error}; the history waits in memory meanwhile");
            }
            _ => {}
        }
    }
}

fn lock(shared: &Mutex<Shared>) -> std::sync::MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
