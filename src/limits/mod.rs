//! Every bound of the program, with its unit and its reason. What an operator may change is in
//! [`crate::config`]; its defaults are here.

mod backup;
mod compare;
mod drift;
mod durability;
mod films;
mod fitness;
mod load;
mod processes;
mod server;
mod stop;

pub use backup::*;
pub use compare::*;
pub use drift::*;
pub use durability::*;
pub use films::*;
pub use fitness::*;
pub use load::*;
pub use processes::*;
pub use server::*;
pub use stop::*;

use std::time::Duration;

// --- probing and failover ---------------------------------------------------------------------

/// Time between two questions to a master. Five a second cost a master nothing measurable and find
/// a clean death within 200 ms even when no request is under way.
pub const PROBE_INTERVAL_MS: u64 = 200;

/// How long a probe waits for a lock, in ms. What it cannot read for that is a figure that is missing for
/// a while; to wait for it would look like silence.
pub const PROBE_LOCK_WAIT_MS: u64 = 50;

/// A master that has not answered for this long is `suspect`: shown, but still served from.
pub const SUSPECT_AFTER_MS: u64 = 500;

/// A master that has not answered for this long is `down`. A second is four to five lost probes:
/// long enough for a checkpoint on a slow disk, short enough for a person not to reload the page.
pub const SILENCE_DEADLINE_MS: u64 = 1_000;

/// How long an unfit master waits, once it answers and nobody serves, before the best of the unfit is
/// taken. It gives the master that served last, and so holds the newest rows, the time to come back too.
pub const NOBODY_BETTER_AFTER_MS: u64 = 2_000;

/// How long the primary gets at the start to show that it is not behind, before its peer serves.
pub const START_PATIENCE_MS: u64 = 3_000;

/// A handover that has not ended by then is refused and the writes it held go on where they were.
pub const HANDOVER_DEADLINE_MS: u64 = 2_000;

/// A master further behind than this is not even tried as the target of a handover, since holding
/// all writes for it would only end at [`HANDOVER_DEADLINE_MS`]. The apply worker takes about
/// 40,000 rows/s, some 8 MB/s of WAL.
pub const HANDOVER_LAG_MAX_BYTES: u64 = 16 * 1024 * 1024;

/// Turn of the supervisor when nothing happens: the grain of every deadline that it counts.
pub const TICK: Duration = Duration::from_millis(50);

/// Its turn while a handover is under way, when every millisecond is one that writes wait.
pub const TICK_HANDOVER: Duration = Duration::from_millis(2);

/// A supervisor that has not turned for this long was stopped with its whole process, or had no
/// processor; the masters' silence meanwhile is not theirs.
pub const SLEPT: Duration = Duration::from_millis(300);

/// Events that may wait for the supervisor. It takes microseconds for one, so a full queue means
/// that it is stuck; a worker's doubt is then dropped (the probes tell the same), never waited for.
pub const EVENT_QUEUE: usize = 1_024;

/// A turn of the supervisor that takes longer is logged with its event.
pub const SLOW_TURN: Duration = Duration::from_millis(100);

// --- a person's commands ------------------------------------------------------------------------

/// The longest pause that can be asked for at once.
pub const PAUSE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

// --- database sessions ------------------------------------------------------------------------

/// Sessions, and so r2d2 connections and threads, per master.
pub const POOL_SIZE: u64 = 8;

/// TCP connect to a master. The kernel of a frozen server still accepts, so this alone bounds nothing.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(1_000);

/// A master whose machine has acknowledged nothing of what was sent for so long is gone.
pub const TCP_USER_TIMEOUT: Duration = Duration::from_secs(5);

/// Silence after which the kernel asks whether the other machine is there, the time between two such questions,
/// and how many may remain unanswered: together [`TCP_USER_TIMEOUT`].
pub const KEEPALIVE_IDLE: Duration = Duration::from_secs(2);
/// See [`KEEPALIVE_IDLE`].
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// See [`KEEPALIVE_IDLE`].
pub const KEEPALIVE_RETRIES: u32 = 3;

/// Addresses of a master's host that are tried over TLS; they share [`CONNECT_TIMEOUT`].
pub const ADDRESSES_MAX: usize = 8;

/// A file with certificates or a key. The CAs of a whole system are a quarter of a megabyte.
pub const PEM_MAX_BYTES: u64 = 4 * 1024 * 1024;

/// What waits in each direction of a connection over TLS, on each side of the encryption: four of its records.
pub const TLS_BUFFER_BYTES: usize = 64 * 1024;

/// When the driver has closed a connection over TLS, its last words get this time.
pub const TLS_GOODBYE: Duration = Duration::from_millis(1_000);

/// Wait for a connection of the pool; r2d2 doubles its retry delay up to half of this.
pub const POOL_WAIT: Duration = Duration::from_millis(1_000);

/// The same for the set-up and its like: a machine that has just started two servers can be slow.
pub const SETUP_CONNECT: Duration = Duration::from_secs(5);

/// Calls that may wait for a session of one master. Beyond it the caller gets 503 at once.
pub const CALL_QUEUE: usize = 256;

/// PostgreSQL's own bound on a statement of ours. It is behind [`REQUEST_DEADLINE_MS`] and only
/// tidies up on a server whose caller has long gone.
pub const STATEMENT_TIMEOUT_MS: u64 = 10_000;

/// Bound on waiting for a lock, so that a `LOCK TABLE` forgotten in a psql is an error, not a hang.
pub const LOCK_TIMEOUT_MS: u64 = 3_000;

/// Time for a call of the set-up or of `replication status`; creating a slot waits for the oldest
/// transaction that runs on the publisher.
pub const SETUP_CALL: Duration = Duration::from_secs(30);

/// A migration may make the words of all titles anew: 12 million take some minutes.
pub const MIGRATION: Duration = Duration::from_secs(3600);

/// How fast a master sums up a table at the least, in bytes of its file per second, before the two are joined. 90 MB/s were measured
/// (3 million rows in 2.3 s, on one of two busy cores), so a machine may be twenty times slower.
pub const EQUAL_BYTES_PER_S: u64 = 4 * 1024 * 1024;

/// How long the masters may differ after they were joined, while the first changes travel.
pub const JOIN_PATIENCE: Duration = Duration::from_secs(5);

/// Pause before a request that met a broken connection looks at the cluster again. A probe sent at
/// the same moment has its answer in about a millisecond.
pub const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Tries of one request. Each try but the last ended with a lost connection or a moved route.
pub const ATTEMPTS_MAX: u32 = 50;

/// Ids to draw for one row before giving up; each draw skips a whole run of taken ids.
pub const ID_DRAWS_MAX: u32 = 8;

/// After each draw that met taken ids, eight times as many are drawn (so many doublings), up to
/// [`ID_DRAW_MAX`] at once: in five draws a batch is past thousands of scattered rows.
pub const ID_DRAW_SHIFT: u32 = 3;
/// See [`ID_DRAW_SHIFT`]; more doublings than these are never needed.
pub const ID_DRAW_SHIFT_MAX: u32 = 12;
/// See [`ID_DRAW_SHIFT`].
pub const ID_DRAW_MAX: usize = 4_096;

/// Time, in ms, that the waiting commit of somebody else's session gets before it is freed by force, because
/// an error may hit that session's next statement instead. It holds its rows locked meanwhile, so not longer
/// than somebody who wants them waits: [`LOCK_TIMEOUT_MS`].
pub const FREE_OTHERS_AFTER_MS: f64 = 2_000.0;

// --- the write lane ---------------------------------------------------------------------------

/// Inserts that may wait for the lane; beyond it the client gets 503 at once. A client waits for its
/// answer before it sends the next, so this is a bound on clients: 512 that insert at once.
pub const LANE_QUEUE: usize = 512;

/// Inserts of one batch. The gain is all in the first hundred, and a batch of this size takes some
/// 10 ms, which is what the one behind it waits.
pub const LANE_BATCH_MAX: usize = 512;

/// How long a batch waits for a key that another transaction holds. Everybody behind it waits along,
/// so this is far below [`LOCK_TIMEOUT_MS`], which the one insert gets that wanted the key.
pub const LANE_LOCK_WAIT_MS: u64 = 250;

/// Turn of the thread that counts the deadlines of waiting inserts: how late a deadline may be kept.
pub const LANE_TICK: Duration = Duration::from_millis(20);

/// Threads for inserts that bear a key. Each waits for a commit of its own, beside the lanes and the writers, which come first.
pub const KEYED_THREADS: usize = 2;

/// Characters of a client's key.
pub const KEY_MAX_CHARS: usize = 255;

/// Time between two looks whether another request under the same key has ended: about that of a commit on a busy master.
pub const KEY_BUSY_PAUSE: Duration = Duration::from_millis(20);

// --- HTTP -------------------------------------------------------------------------------------

/// Requests that read or switch and may be with the masters at a time, each with a worker. More than the sessions of both masters, so
/// that one that freezes cannot hold them all.
pub const HTTP_WORKERS: u64 = 24;

/// Sessions of a master for each update or deletion that may be with it at a time. Of eight sessions, four and
/// one for each lane can be held up by commits; two are left to the reads.
pub const SESSIONS_PER_WRITER: usize = 2;

/// Sessions of a master for each that serves reads; every second of those serves nothing else. Measured on two cores with 16 clients that
/// search: four reads at a time are 1,855 a second with a p99 of 28 ms, eight 1,460 and 68 ms, three 1,627 and 26 ms.
pub const SESSIONS_PER_READER: u32 = 2;

/// The same for what is no data: the history, the conflict logs, comparisons and backups. What they wait for has a bound of two seconds
/// at most, and nobody's rows wait for them.
pub const HTTP_ASIDE: usize = 4;

/// Requests that may wait to be one of these; beyond it the client gets 503 at once.
pub const ASIDE_QUEUE: usize = 32;

/// Sessions of each master for the conflict logs alone, so that a lock on one holds up no session of the requests.
pub const CONFLICTS_SESSIONS: u32 = 2;

/// Deadline of a request, from the moment it was received.
pub const REQUEST_DEADLINE_MS: u64 = 8_000;

/// Body of a request, in bytes. The longest genre with every character escaped is under 4 KiB.
pub const BODY_MAX_BYTES: usize = 64 * 1024;

/// Length of a genre, in characters.
pub const GENRE_MAX_CHARS: usize = 255;

/// Rows of a page of `GET /generos`: the default and the most.
pub const PAGE_DEFAULT: i64 = 100;
/// See [`PAGE_DEFAULT`].
pub const PAGE_MAX: i64 = 1_000;

/// `Retry-After` of a 503, in seconds: a failover takes about one.
pub const RETRY_AFTER_S: u64 = 1;

// --- history ----------------------------------------------------------------------------------

/// Changes kept, in memory and in Redis.
pub const HISTORY_MAX: usize = 1_000;

/// Of these, how many `/status` shows.
pub const HISTORY_IN_STATUS: usize = 20;

/// Redis: connect, read and write, each.
pub const REDIS_TIMEOUT: Duration = Duration::from_millis(1_000);

/// Time between two looks at Redis when nothing is to be written.
pub const REDIS_INTERVAL: Duration = Duration::from_secs(2);

/// A repeated error is logged when it changes, and then once in this time.
pub const REPEATED_ERROR: Duration = Duration::from_secs(30);

// --- rebuilding a master ----------------------------------------------------------------------

/// Time for the first answer of each master to a rejoin: a frozen one is found out before anything is
/// changed, and long before [`SETUP_CALL`]. It is over [`SETUP_CONNECT`], which ends with the cause.
pub const REJOIN_ASK: Duration = Duration::from_secs(6);

/// Wait for the lock of a set-up whose program was killed; its server notices within a second.
pub const SETUP_ALONE: Duration = Duration::from_secs(4);

/// Wait for an answer of the API that needs no master; it comes in a millisecond or not at all.
pub const API_ASK: Duration = Duration::from_millis(1_000);

/// Of an answer of the API, how much is read, in bytes. The longest that is asked for is `/status`, with its history some tens of kilobytes.
pub const API_ANSWER_MAX_BYTES: usize = 256 * 1024;

/// Rows looked for on the other master at once: a few hundred kilobytes of JSON.
pub const REJOIN_PAGE_ROWS: usize = 5_000;

/// Wait for an apply worker that was told to stop, and for a walsender whose reader is gone. A sender
/// to a peer that vanished ends itself after wal_sender_timeout, which is 5 s.
pub const WORKER_END: Duration = Duration::from_secs(15);

/// Time between two lines about the copying.
pub const COPY_TELL: Duration = Duration::from_millis(1_000);

/// Copying in which nothing moves for this long has failed. The longest silence of a good one is a
/// large index being written through a slow disk.
pub const COPY_STALL: Duration = Duration::from_secs(60);

/// Failures of the copying before it is given up; PostgreSQL itself would try for ever.
pub const COPY_FAILURES_MAX: i64 = 5;

/// Of the WAL that a slot may keep, the part below which it is an alarm, in percent. With the 4 GB of
/// sql/master.conf that is the last gigabyte: some minutes of a bulk load.
pub const SLOT_ALARM_PERCENT: u64 = 25;

// --- conflicts and the apply worker -----------------------------------------------------------

/// An apply worker that has run for this long has settled. One that fails at the first change of
/// its backlog is gone within milliseconds.
pub const APPLY_SETTLED: Duration = Duration::from_millis(1_000);

/// An apply worker that has not settled for this long, while its peer answers, has stopped for a
/// reason of its own. A restart takes half a second, and whoever looks must know within 5 s.
pub const APPLY_WRONG_AFTER: Duration = Duration::from_millis(2_500);

/// Time between two looks into the log of a server whose apply worker has stopped.
pub const APPLY_LOG_INTERVAL: Duration = Duration::from_secs(2);

/// Lines among which one report of a server's log is looked for; it has five or six, and reports of
/// busy sessions can stand between them.
pub const LOG_REPORT_LINES: usize = 50;

/// Characters that are shown of a line of a server's log which was not understood.
pub const LOG_LINE_SHOWN: usize = 500;

/// Time that the masters get to show their conflicts; one that is frozen costs a reader this much.
pub const CONFLICTS_PATIENCE: Duration = Duration::from_secs(2);

/// Conflicts that `imdb-ha conflicts` shows by default.
pub const CONFLICTS_SHOWN: i64 = 20;

/// Time between two prunings of the deletions, which are kept for 30 days, or of the keys of requests.
pub const PRUNE_INTERVAL: Duration = Duration::from_secs(3_600);

/// Time after which a pruning that failed is tried again: long enough that what stands in its way
/// fills no log.
pub const PRUNE_RETRY: Duration = Duration::from_secs(60);

/// The same for keys while the peer's changes do not arrive, since that may have changed by then.
pub const PRUNE_AGAIN: Duration = Duration::from_secs(5);

/// Deletions or keys that one pruning forgets, and the next probe goes on: some milliseconds of work, because a
/// probe does it, and while it does its master says nothing.
pub const PRUNE_MAX: i32 = 500;

/// Deletions are pruned only while the peer's changes arrive within this time: next to the 30 days
/// that they are kept it is nothing, and on a busy cluster nobody is ever at zero.
pub const PRUNE_LAG_MAX_MS: u64 = 60_000;

const _: () = assert!(
    SUSPECT_AFTER_MS > 2 * PROBE_INTERVAL_MS,
    "one lost probe is no suspicion"
);
const _: () = assert!(SILENCE_DEADLINE_MS > SUSPECT_AFTER_MS);
const _: () = assert!(REQUEST_DEADLINE_MS > 2 * SILENCE_DEADLINE_MS + HANDOVER_DEADLINE_MS);
const _: () = assert!(REJOIN_ASK.as_millis() > SETUP_CONNECT.as_millis());
const _: () = assert!(STATEMENT_TIMEOUT_MS > REQUEST_DEADLINE_MS);
const _: () = assert!(
    HTTP_WORKERS > 2 * POOL_SIZE,
    "one frozen master must not hold all workers"
);
const _: () = assert!(
    API_STOP.as_millis() + SERVER_STOP_FAST.as_millis() + SERVER_STOP_IMMEDIATE.as_millis() < 9_000
);
const _: () =
    assert!(COMPARE_CALL.as_millis() / 2 + (LOCK_TIMEOUT_MS as u128) < COMPARE_CALL.as_millis());
const _: () = assert!(COMPARE_STATEMENT.as_millis() < COMPARE_CALL.as_millis());
