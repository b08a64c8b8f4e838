//! The bounds of the durability.

use std::time::Duration;

/// A commit that has waited this long for a peer that confirms nothing has the peer given up. With the
/// probe's interval and the way to the master it stays under 1.5 s, and a peer that is busy applying
/// (40,000 rows/s) is not mistaken for one that is gone.
pub const WAIT_MAX_MS: u64 = 800;

/// A peer further behind than this is not waited for anew: commits would wait until it has caught up.
/// It is an eighth of a second of the apply worker.
pub const WAIT_LAG_MAX_BYTES: u64 = 1024 * 1024;

/// A peer that is not waited for and is further behind applies without a flush for each transaction: this is some 150 of one row,
/// which a disk with as many flushes a second would take a second for.
pub const APPLY_LAG_MAX_BYTES: u64 = 64 * 1024;

/// PostgreSQL's processes take a new `synchronous_standby_names` up one after the other, within a few
/// milliseconds; a master that has answered for this long that it waits, waits.
pub const TAKEN_UP_AFTER_MS: u64 = 50;

/// An order to wait, or not to, that has not been followed is given again after this time.
pub const ASK_AGAIN_AFTER_MS: u64 = 500;

/// An order is carried out so often on one session while what is wanted changes under it. The next probe shows what it is then.
pub const ORDER_TURNS: usize = 3;

/// No write has ended for so long although one is under way: then it is looked whether the walsender has missed its wake-up. A batch
/// of inserts takes 2 to 10 ms, and with what follows a commit that was missed ends within 30.
pub const WRITE_STANDS_STILL: Duration = Duration::from_millis(10);

/// While something waits and no walsender sleeps, it is looked again after this time: 40 small statements a second.
pub const WAKEUP_LOOK_AGAIN: Duration = Duration::from_millis(25);

/// A walsender that was woken starts within this time.
pub const WALSENDER_STARTS: Duration = Duration::from_millis(3);

/// A walsender that does not move after so many wake-ups stands still for another reason.
pub const WAKEUPS_IN_VAIN: u32 = 3;
/// It is tried again after this time.
pub const WAKEUP_TRY_AGAIN: Duration = Duration::from_secs(1);

/// A look at a walsender takes a millisecond.
pub const WAKEUP_STATEMENT: Duration = Duration::from_secs(1);

/// For so long a master that has been told to wait is asked at each [`super::TICK`] whether it does. It takes an order up within some 10 ms;
/// one whose checkpointer is busy for longer is left to its probe.
pub const HASTEN_MS: u64 = 2_000;

/// A handover goes on without zero-loss on its target when that does not come about in this time.
pub const ARMING_MAX_MS: u64 = 400;

/// For so long commits on a master that a handover has left still wait for its peer: other processes
/// of the API follow within a second, and what they write until then must not be less durable.
pub const LINGER_MS: u64 = 1_500;

/// Looks at a survivor's apply worker after a failover, and the pause between two. What it has received it applies
/// within a second, and on a busy machine in several; after `wal_receiver_timeout`, 5 s, it notices by itself.
pub const RELEASE_LOOKS: u32 = 100;
/// See [`RELEASE_LOOKS`].
pub const RELEASE_PAUSE: Duration = Duration::from_millis(50);
