//! The bounds of comparing the masters.

use std::time::Duration;

/// One statement of a comparison, with the time to connect. Chunks are cut so that they take a
/// fraction of a second; a master that needs longer is frozen, gone or far too busy for this.
pub const COMPARE_CALL: Duration = Duration::from_secs(8);

/// PostgreSQL's own bound on such a statement: ends it before [`COMPARE_CALL`], with an error that
/// says why.
pub const COMPARE_STATEMENT: Duration = Duration::from_secs(7);

/// Tries to connect before a comparison, of [`POOL_WAIT`](super::POOL_WAIT) each when the master is away or very busy.
pub const COMPARE_CONNECTS: u32 = 3;

/// The question whether a table exists, while a request waits for the answer.
pub const COMPARE_CHECK: Duration = Duration::from_secs(2);

/// Rows of the first chunk, few enough for very wide rows; the next ones follow the speed of the masters.
pub const COMPARE_ROWS_FIRST: i64 = 200;

/// Rows of a chunk at most. Twice as many of each master are held in memory when a chunk differs.
pub const COMPARE_ROWS_MAX: i64 = 20_000;

/// Time that a chunk should take when somebody waits for the result.
pub const COMPARE_CHUNK_FAST: Duration = Duration::from_millis(200);

/// Time that a chunk should take in the background; as much time passes before the next one, so that
/// at most half of one processor of a master is busy with it.
pub const COMPARE_CHUNK_GENTLE: Duration = Duration::from_millis(20);

/// Keys that are looked at again together, between two barriers.
pub const COMPARE_BATCH: usize = 5_000;

/// Keys of one statement that reads or mends rows by key.
pub const COMPARE_LOOKUP: usize = 500;

/// Looks at a key that keeps changing before it is called unsettled, about two seconds. A row that is
/// written hundreds of times a second is seen to follow within a few.
pub const COMPARE_LOOKS: u32 = 400;

/// Pause between two such looks. Shorter than the time between two writes of a busy row, or the version
/// that one master had at an earlier look would be over on the other before it is looked at.
pub const COMPARE_LOOK_PAUSE: Duration = Duration::from_millis(3);

/// Differing keys of a table that are kept and told; beyond it they are only counted.
pub const COMPARE_KEYS_MAX: usize = 1_000;

/// Of these, how many a person is shown.
pub const COMPARE_KEYS_SHOWN: usize = 10;

/// Cuts of a chunk whose two sides differ in size by more than one chunk.
pub const COMPARE_DEPTH: u32 = 8;

/// Time for what was read on one master to be confirmed by its peer: a master that lags under load
/// catches up within seconds once it may.
pub const BARRIER: Duration = Duration::from_secs(30);

/// The same, while nobody reads from the slot: time for an apply worker to come back.
pub const BARRIER_BROKEN: Duration = Duration::from_secs(2);

/// Pause between two looks at how far the peer has confirmed.
pub const BARRIER_POLL: Duration = Duration::from_millis(10);

/// An idle link that has not confirmed by then gets a message to carry.
pub const BARRIER_NUDGE: Duration = Duration::from_millis(250);

/// Rounds of mending and comparing again before what is left is left to a person.
pub const REPAIR_ROUNDS: u32 = 100;

/// The first comparison of a running program comes this long after its start, when the masters have
/// had the time to catch up.
pub const COMPARE_FIRST: Duration = Duration::from_secs(60);

/// The next try, after one that was skipped because a master was not up, or that failed. Twice as long after each failure in a row.
pub const COMPARE_RETRY: Duration = Duration::from_secs(15);

/// The longest time between two comparisons that can be configured: 30 days. Who wants none at all says so.
pub const COMPARE_INTERVAL_MAX: Duration = Duration::from_secs(720 * 3_600);

/// Tables that one request may name.
pub const COMPARE_TABLES_MAX: usize = 1_000;

/// Time in which two masters get level with each other after a load. Both have read much WAL then, and a barrier waits for 30 s itself.
pub const COMPARE_SETTLE: Duration = Duration::from_secs(60);
