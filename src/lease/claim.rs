//! The lease in Redis. Each process claims it a few times a second, in one step that also says what the holder decided, so that
//! the others can follow, and that gives whoever takes it a term above all that are known. A claim that keeps the lease writes it,
//! so who cannot write does not hold it.

use super::Shared;
use crate::cluster::{Lease, NodeId};
use crate::limits;
use crate::pg::explain_any;
use crate::redis_link::{self, RedisWatch, Writer};
use crossbeam_channel::{Receiver, Sender, select};
use redis::{Connection, ErrorKind, RedisError, RedisResult};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Instant;

/// The Redis key of the lease. Its value is what the holder decided.
const KEY: &str = "imdb-ha:lease";

/// The Redis key of the highest term that was taken here.
const TERM: &str = "imdb-ha:term";

/// Takes the lease if it is ours already, or free and wanted, and returns whose it is then. Whatever
/// else somebody put there, or what nobody renews because it has no end, is no lease. One that is taken, or whose term is not above
/// what its holder has seen elsewhere, gets a new term.
const CLAIM: &str = "\
    local function text(key) return redis.call('TYPE', key).ok == 'string' and redis.call('GET', key) end \
    local held = text(KEYS[1]) \
    if held and redis.call('PTTL', KEYS[1]) < 0 then held = false end \
    local read, record = pcall(cjson.decode, held) \
    local names = read and type(record) == 'table' and type(record.holder) == 'string' \
    if names and record.holder ~= ARGV[1] then return held end \
    local ours = names and record.holder == ARGV[1] \
    if not ours and ARGV[4] == '0' then return false end \
    local above, term = tonumber(ARGV[5]), ours and tonumber(record.term) or 0 \
    if term <= above then \
        term = math.max(tonumber(text(KEYS[2]) or '') or 0, above) + 1 \
        redis.call('SET', KEYS[2], string.format('%.0f', term)) \
    end \
    local mine = cjson.decode(ARGV[2]) \
    mine.term = term \
    mine = cjson.encode(mine) \
    redis.call('SET', KEYS[1], mine, 'PX', ARGV[3]) \
    return mine";

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
    #[serde(default)]
    term: u64,
}

/// Whoever claims, and what it remembers of its claims.
pub(super) struct Claimant {
    shared: Arc<Shared>,
    connection: Option<Connection>,
    /// Whether another process holds it, as far as this one was ever told.
    follows: bool,
    /// Since Redis is back, whoever decided has not been heard of: it gets the time to claim first.
    orphaned: bool,
    /// Since when the lease is known to be free.
    vacant_since: Option<Instant>,
    watch: RedisWatch,
}

impl Claimant {
    pub(super) fn new(shared: Arc<Shared>, watch: RedisWatch) -> Claimant {
        Claimant {
            shared,
            connection: None,
            follows: false,
            orphaned: false,
            vacant_since: None,
            watch,
        }
    }

    /// Claims the lease again and again, gives it back at the end, and returns who is to be told then.
    pub(super) fn claim_until(
        &mut self,
        asked: &Receiver<Sender<()>>,
        hurry: &Receiver<()>,
    ) -> Option<Sender<()>> {
        let whom = loop {
            let (_, changed) = self.shared.board.look();
            let asked_ms = self.shared.board.now_ms();
            let found = self.look();
            self.watch.tell(
                Writer::Lease,
                &found.as_ref().map(drop).map_err(Clone::clone),
            );
            self.take_in(found, asked_ms);
            // What was decided is told to the others at once, but Redis is not asked in vain more often.
            let (changed, hurry) = match self.connection {
                Some(_) => (changed, hurry.clone()),
                None => (crossbeam_channel::never(), crossbeam_channel::never()),
            };
            select! {
                recv(asked) -> whom => break whom.ok(),
                recv(changed) -> _ => {}
                recv(hurry) -> _ => {}
                default(limits::LEASE_INTERVAL) => {}
            }
        };
        self.release();
        whom
    }

    /// Tells the deciding thread what came of a claim.
    fn take_in(&mut self, found: RedisResult<Option<Record>>, asked_ms: u64) {
        let lease = match found {
            Err(_) => {
                // A connection that missed an answer must not be used for the next question.
                self.connection = None;
                (self.orphaned, self.vacant_since) = (true, None);
                None
            }
            Ok(None) => Some(Lease::Free),
            Ok(Some(record)) => {
                (self.orphaned, self.vacant_since) = (false, None);
                self.follows = record.holder != self.shared.holder;
                let term = record.term;
                Some(match self.follows {
                    false => Lease::Ours { term },
                    true => Lease::Theirs {
                        term,
                        leader: crate::cluster::Leader {
                            address: record.address,
                            active: record.serving.then_some(record.active),
                            paused_for_ms: record.paused_for_ms,
                        },
                    },
                })
            }
        };
        self.shared.tell_lease(lease, asked_ms);
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
            .arg(&self.shared.holder)
            .query(connection);
        if let Err(error) = released {
            log::warn!("give back the lease in redis: {}", explain_any(&error));
        }
    }

    /// Whose the lease is, claimed if it is this process's turn; nothing while it is another one's. A
    /// follower looks before it claims, so that no claim of its own can lie about in a frozen Redis and
    /// take effect when that thaws.
    fn look(&mut self) -> RedisResult<Option<Record>> {
        let decides = self.shared.decides();
        // Who was kept from Redis looks too, unless it decides: nobody knows what has come of the lease.
        let held = self.claim(decides || !(self.follows || self.orphaned))?;
        if held.is_some() {
            return Ok(held);
        }
        let since = *self.vacant_since.get_or_insert_with(Instant::now);
        match self.orphaned && !decides && since.elapsed() < limits::LEASE_PATIENCE {
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
                .insert(redis_link::connect(&self.shared.config.redis_url)?),
        };
        let held: Option<String> = redis::cmd("EVAL")
            .arg(CLAIM)
            .arg(2)
            .arg(KEY)
            .arg(TERM)
            .arg(&record.holder)
            .arg(ours)
            .arg(limits::LEASE_TTL.as_millis() as u64)
            .arg(i32::from(wanted))
            .arg(self.shared.above())
            .query(connection)?;
        let Some(held) = held else { return Ok(None) };
        Ok(Some(serde_json::from_str(&held).map_err(|error| {
            let what = "the lease holds what this program does not understand";
            RedisError::from((ErrorKind::Parse, what, error.to_string()))
        })?))
    }

    fn record(&self) -> Record {
        let view = self.shared.board.look().0;
        let now_ms = self.shared.board.now_ms();
        Record {
            holder: self.shared.holder.clone(),
            address: self.shared.address.clone(),
            active: view.active,
            serving: view.serving,
            paused_for_ms: view
                .paused_until_ms
                .map(|until| until.saturating_sub(now_ms)),
            term: 0,
        }
    }
}
