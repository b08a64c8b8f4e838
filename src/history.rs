//! The history of the cluster: every change, in memory and in the Redis list `imdb-ha:history`,
//! newest first. Redis may be gone: nobody waits for it, and what it missed is written when it is
//! back.

use crate::cluster::Change;
use crate::config::SecretUrl;
use crate::limits;
use crate::redis_link::{self, RedisHealth, RedisWatch};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The Redis list that holds the history.
pub const KEY: &str = "imdb-ha:history";

/// Written at each look, so that Redis is judged by a write also when there is nothing to write.
const MARK: &str = "imdb-ha:written";

/// A handle on the history.
#[derive(Clone)]
pub struct History {
    url: SecretUrl,
    shared: Arc<Mutex<Shared>>,
    /// For whoever reads; one at a time, so that a Redis that has stopped answering is found out once.
    reader: Arc<Mutex<Option<redis::Connection>>>,
    watch: RedisWatch,
    wake: Sender<()>,
}

struct Shared {
    /// Newest first, at most [`limits::HISTORY_MAX`].
    entries: VecDeque<Value>,
    /// What Redis does not have yet, newest first, as many.
    unwritten: VecDeque<Value>,
    /// What goes there too if it comes out that this process decides, newest first, as many.
    doubtful: VecDeque<Value>,
    /// How often each kind of change happened since the start.
    counts: BTreeMap<&'static str, u64>,
}

/// Starts the thread that writes to Redis and keeps an eye on it.
///
/// # Errors
/// When the thread cannot be started.
pub fn start(url: &SecretUrl, watch: &RedisWatch) -> std::io::Result<History> {
    let shared = Shared {
        entries: VecDeque::new(),
        unwritten: VecDeque::new(),
        doubtful: VecDeque::new(),
        counts: BTreeMap::new(),
    };
    let (wake, woken) = crossbeam_channel::bounded(1);
    let history = History {
        url: url.clone(),
        shared: Arc::new(Mutex::new(shared)),
        reader: Arc::default(),
        watch: watch.clone(),
        wake,
    };
    let writer = Writer {
        url: url.clone(),
        connection: None,
        watch: watch.clone(),
    };
    let of_thread = Arc::clone(&history.shared);
    std::thread::Builder::new()
        .name("history".to_string())
        .spawn(move || writer.run(&of_thread, &woken))?;
    Ok(history)
}

impl History {
    /// Adds a change; never waits for Redis. With `shared_by_all` it also goes into the list there,
    /// which all processes of the API share; without a word on it, [`History::settle`] decides later.
    pub fn record(&self, change: Change, shared_by_all: Option<bool>) {
        let mut entry = json!({ "at": jiff::Timestamp::now().to_string() });
        if let (Value::Object(entry), Ok(Value::Object(change))) =
            (&mut entry, serde_json::to_value(&change))
        {
            entry.extend(change);
        }
        let mut shared = lock(&self.shared);
        *shared.counts.entry(change.what).or_default() += 1;
        match shared_by_all {
            Some(true) => shared.unwritten.push_front(entry.clone()),
            None => shared.doubtful.push_front(entry.clone()),
            Some(false) => {}
        }
        shared.entries.push_front(entry);
        // The oldest go first; those that Redis never saw are then lost to it, which could not hold
        // them anyway.
        shared.entries.truncate(limits::HISTORY_MAX);
        shared.unwritten.truncate(limits::HISTORY_MAX);
        shared.doubtful.truncate(limits::HISTORY_MAX);
        drop(shared);
        let _ = self.wake.try_send(());
    }

    /// Whether what this process saw while nobody could say who decides belongs into the list that all share.
    pub fn settle(&self, shared_by_all: Option<bool>) {
        let Some(shares) = shared_by_all else { return };
        let mut shared = lock(&self.shared);
        let doubtful = std::mem::take(&mut shared.doubtful);
        if shares && !doubtful.is_empty() {
            doubtful
                .into_iter()
                .rev()
                .for_each(|entry| shared.unwritten.push_front(entry));
            shared.unwritten.truncate(limits::HISTORY_MAX);
            drop(shared);
            let _ = self.wake.try_send(());
        }
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

    /// The newest entries of the list that all processes share, newest first, earlier runs included, with those on top that Redis
    /// does not have yet; or those of this process when Redis cannot be asked. In both cases with the reason why it is not all from
    /// Redis. Takes a few times [`limits::REDIS_TIMEOUT`] at the most, and no time while Redis is known not to answer.
    pub fn shared_by_all(&self, count: usize) -> (Vec<Value>, &'static str, Option<String>) {
        let waiting: Vec<Value> = {
            let shared = lock(&self.shared);
            shared
                .doubtful
                .iter()
                .chain(&shared.unwritten)
                .cloned()
                .collect()
        };
        match self.read(count) {
            Ok(lines) => {
                let entry = |line: &String| serde_json::from_str(line).unwrap_or(json!(line));
                let written: Vec<Value> = lines.iter().map(entry).collect();
                let mut entries: Vec<Value> = waiting
                    .into_iter()
                    .filter(|entry| !written.contains(entry))
                    .collect();
                let why = (!entries.is_empty()).then(|| {
                    let cause = self.watch.health().error.unwrap_or_default();
                    let count = entries.len();
                    format!("the newest {count} are not in redis yet, and wait in memory: {cause}")
                });
                entries.extend(written);
                entries.truncate(count);
                (entries, "redis", why)
            }
            Err(why) => (self.newest(count), "memory", Some(why)),
        }
    }

    /// Reads the list. Whoever comes while another waits for Redis waits for that one and goes by what it found.
    fn read(&self, count: usize) -> Result<Vec<String>, String> {
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |why: String| format!("read the history from redis: {why}");
        if let Some(why) = self.watch.silent() {
            *reader = None;
            return Err(failed(why));
        }
        let last = count.max(1) - 1;
        let mut ask = || -> redis::RedisResult<Vec<String>> {
            let connection = match reader.take() {
                Some(connection) => reader.insert(connection),
                None => reader.insert(redis_link::connect(&self.url)?),
            };
            let mut command = redis::cmd("LRANGE");
            command.arg(KEY).arg(0).arg(last).query(connection)
        };
        // Redis ends a connection that was idle, or whose server was started anew: that proves nothing.
        let answer = ask().or_else(|error| match error.is_timeout() {
            true => Err(error),
            false => ask(),
        });
        answer.map_err(|error| {
            // A connection that missed an answer must not be used for the next question.
            *reader = None;
            let why = failed(crate::pg::explain_any(&error));
            self.watch.tell(redis_link::Writer::History, &Err(error));
            let _ = self.wake.try_send(());
            why
        })
    }

    /// How often each kind of change happened since the start of this process.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.shared).counts.clone()
    }

    /// How Redis is.
    pub fn redis(&self) -> RedisHealth {
        self.watch.health()
    }

    /// What a person has to do about Redis.
    pub fn alarms(&self) -> Vec<String> {
        self.watch.alarms()
    }
}

struct Writer {
    url: SecretUrl,
    connection: Option<redis::Connection>,
    watch: RedisWatch,
}

impl Writer {
    fn run(mut self, shared: &Mutex<Shared>, woken: &Receiver<()>) {
        loop {
            let outcome = self.write(shared);
            if outcome.is_err() {
                // A connection that missed an answer must not be used for the next question.
                self.connection = None;
            }
            self.watch.tell(redis_link::Writer::History, &outcome);
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

    /// Writes what Redis does not have yet, oldest first, and before that a mark: a Redis that is read-only or full answers
    /// all the same, and inside a transaction its reason would be lost. Cutting the list to its length shows that it is one.
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
        let now = jiff::Timestamp::now().as_second();
        redis::cmd("SET").arg(MARK).arg(now).exec(connection)?;
        let last = limits::HISTORY_MAX - 1;
        let mut cut = redis::cmd("LTRIM");
        cut.arg(KEY).arg(0).arg(last).exec(connection)?;
        if waiting.is_empty() {
            return Ok(());
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
}

fn lock(shared: &Mutex<Shared>) -> std::sync::MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
