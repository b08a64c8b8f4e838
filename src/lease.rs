//! Which of several API processes decides: the one that holds the lease in Redis. Each claims it a few
//! times a second, in one step that also says what the holder decided, so that the others can follow.
//! Nobody waits for it. When Redis is gone, who decided goes on deciding, and who followed serves on by
//! itself; the data path needs neither.

use crate::board::Board;
use crate::cluster::{Event, Leader, NodeId, Role};
use crate::config::Config;
use crate::limits;
use crate::pg::explain_any;
use crate::redis_link::{self, RedisWatch, Writer};
use crate::supervisor::Supervisor;
use crossbeam_channel::{Receiver, Sender, select};
use redis::{Connection, ErrorKind, RedisError, RedisResult};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Instant;

/// The Redis key of the lease. Its value is what the holder decided.
pub const KEY: &str = "imdb-ha:lease";

/// Takes the lease if it is ours already, or free and wanted, and returns whose it is then. Whatever
/// else somebody put there, or what nobody renews because it has no end, is no lease.
const CLAIM: &str = "\
    local is_text = redis.call('TYPE', KEYS[1]).ok == 'string' \
    local held = is_text and redis.call('PTTL', KEYS[1]) >= 0 and redis.call('GET', KEYS[1]) \
    local read, record = pcall(cjson.decode, held) \
    local names = read and type(record) == 'table' and type(record.holder) == 'string' \
    if names and record.holder ~= ARGV[1] then return held end \
    local ours = names and record.holder == ARGV[1] \
    if not ours and ARGV[4] == '0' then return false end \
    redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) \
    return ARGV[2]";

/// Deletes the lease if it is ours: by then it may be another's.
const RELEASE: &str = "\
    local is_text = redis.call('TYPE', KEYS[1]).ok == 'string' \
    local read, record = pcall(cjson.decode, is_text and redis.call('GET', KEYS[1])) \
    local ours = read and type(record) == 'table' and record.holder == ARGV[1] \
    return ours and redis.call('DEL', KEYS[1]) or 0";

/// What the holder of the lease tells the others.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// Whose it is: a process, and when it began.
    holder: String,
    /// Where that process is reached.
    address: String,
    active: NodeId,
    serving: bool,
    /// For how long a person still holds the traffic where it is, in ms.
    paused_for_ms: Option<u64>,
}

struct Claimant {
    config: Arc<Config>,
    board: Arc<Board>,
    holder: String,
    connection: Option<Connection>,
    /// Whether this process decides, as far as it was ever told.
    leads: Option<bool>,
    /// Since Redis is back, whoever decided has not been heard of: it gets the time to claim first.
    orphaned: bool,
    /// Since when the lease is known to be free.
    vacant_since: Option<Instant>,
    watch: RedisWatch,
}

/// The thread that claims the lease.
pub struct Lease {
    stop: Sender<Sender<()>>,
}

/// Starts the thread that claims the lease.
///
/// # Errors
/// When the thread cannot be started.
pub fn start(
    config: Arc<Config>,
    board: Arc<Board>,
    watch: RedisWatch,
    supervisor: Supervisor,
) -> std::io::Result<Lease> {
    let now = jiff::Timestamp::now().as_millisecond();
    let (stop, asked) = crossbeam_channel::bounded(1);
    let mut claimant = Claimant {
        holder: format!("{}-{}-{now}", host(), std::process::id()),
        config,
        board,
        connection: None,
        leads: None,
        orphaned: false,
        vacant_since: None,
        watch,
    };
    crate::vital::spawn("lease".to_string(), move || {
        let stopped = claimant.claim_until(&asked, &supervisor);
        claimant.release();
        drop(stopped);
    })?;
    Ok(Lease { stop })
}

impl Lease {
    /// Ends the claiming and gives the lease back, so that another process decides at once, and a restart
    /// of this one does not follow it for as long as the lease lasts. Redis may take
    /// [`limits::LEASE_RELEASE`] for it.
    pub fn release(self) {
        let (done, told) = crossbeam_channel::bounded(0);
        let _ = self.stop.try_send(done);
        // It ends with an error when the thread drops its side, which is the sign.
        let _ = told.recv_timeout(limits::LEASE_RELEASE);
    }
}

/// The name of this machine: process ids are unique on one only.
fn host() -> String {
    let name = nix::unistd::gethostname().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

impl Claimant {
    /// Claims the lease again and again, and returns who is to be told when the claiming has ended.
    fn claim_until(
        &mut self,
        asked: &Receiver<Sender<()>>,
        supervisor: &Supervisor,
    ) -> Option<Sender<()>> {
        loop {
            let (_, changed) = self.board.look();
            supervisor.report(Event::Role(self.role()));
            // What was decided is told to the others at once, but Redis is not asked in vain more often.
            let changed = match self.connection {
                Some(_) => changed,
                None => crossbeam_channel::never(),
            };
            select! {
                recv(asked) -> whom => return whom.ok(),
                recv(changed) -> _ => {}
                default(limits::LEASE_INTERVAL) => {}
            }
        }
    }

    /// Gives the lease back if it is ours. It may come too late, or never, like any message of a process
    /// that ends.
    fn release(&mut self) {
        let Some(connection) = self.connection.as_mut() else {
            return;
        };
        let released: RedisResult<i64> = redis::cmd("EVAL")
            .arg(RELEASE)
            .arg(1)
            .arg(KEY)
            .arg(&self.holder)
            .query(connection);
        if let Err(error) = released {
            log::warn!("give back the lease in redis: {}", explain_any(&error));
        }
    }

    /// What this process is, by one more claim.
    fn role(&mut self) -> Role {
        match self.look() {
            Ok(None) => Role::Orphan,
            Ok(Some(record)) => {
                (self.orphaned, self.vacant_since) = (false, None);
                self.leads = Some(record.holder == self.holder);
                match self.leads {
                    Some(true) => Role::Leader,
                    _ => Role::Follower(Leader {
                        address: record.address,
                        active: record.serving.then_some(record.active),
                        paused_for_ms: record.paused_for_ms,
                    }),
                }
            }
            Err(error) => {
                // A connection that missed an answer must not be used for the next question.
                self.connection = None;
                (self.orphaned, self.vacant_since) = (true, None);
                self.watch.tell(Writer::Lease, &Err(error));
                // Without Redis there was never anybody else to follow.
                match self.leads {
                    Some(false) => Role::Orphan,
                    _ => Role::Leader,
                }
            }
        }
    }

    /// Whose the lease is, claimed if it is this process's turn; nothing while it is another one's. A
    /// follower looks before it claims, so that no claim of its own can lie about in a frozen Redis and
    /// take effect when that thaws.
    fn look(&mut self) -> RedisResult<Option<Record>> {
        let follows = self.leads == Some(false);
        let held = self.claim(!follows)?;
        self.watch.tell(Writer::Lease, &Ok(()));
        if held.is_some() {
            return Ok(held);
        }
        let since = *self.vacant_since.get_or_insert_with(Instant::now);
        match self.orphaned && since.elapsed() < limits::LEASE_PATIENCE {
            true => Ok(None),
            false => self.claim(true),
        }
    }

    /// Asks whose the lease is, and takes it if it is free and `wanted`.
    fn claim(&mut self, wanted: bool) -> RedisResult<Option<Record>> {
        let record = self.record();
        let ours = serde_json::to_string(&record).unwrap_or_default();
        let connection = match self.connection.take() {
            Some(connection) => self.connection.insert(connection),
            None => self
                .connection
                .insert(redis_link::connect(&self.config.redis_url)?),
        };
        let held: Option<String> = redis::cmd("EVAL")
            .arg(CLAIM)
            .arg(1)
            .arg(KEY)
            .arg(&record.holder)
            .arg(ours)
            .arg(limits::LEASE_TTL.as_millis() as u64)
            .arg(i32::from(wanted))
            .query(connection)?;
        let Some(held) = held else { return Ok(None) };
        Ok(Some(serde_json::from_str(&held).map_err(|error| {
            let what = "the lease holds what this program does not understand";
            RedisError::from((ErrorKind::Parse, what, error.to_string()))
        })?))
    }

    fn record(&self) -> Record {
        let view = self.board.look().0;
        let now_ms = self.board.now_ms();
        Record {
            holder: self.holder.clone(),
            address: format!("http://{}:{}", self.config.bind, self.config.port),
            active: view.active,
            serving: view.serving,
            paused_for_ms: view
                .paused_until_ms
                .map(|until| until.saturating_sub(now_ms)),
        }
    }
}
