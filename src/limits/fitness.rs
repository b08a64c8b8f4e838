//! Bounds of what is found out about a master that answers and takes no writes, and of what becomes an alarm.

use std::time::Duration;

/// A master that has refused every trial write for this long is unfit, and left if its peer takes them. Two seconds are five
/// trials: a disk that is full for a moment, while a checkpoint makes room, moves no traffic.
pub const UNFIT_AFTER_MS: u64 = 2_000;

/// An unfit master that has taken every trial write for this long is fit again. With [`UNFIT_AFTER_MS`] it bounds how often a
/// fault that comes and goes can move the traffic.
pub const FIT_AFTER_MS: u64 = 5_000;

/// What an unfit master has not sent yet is waited for so long before the traffic leaves it: without room it may never send it.
pub const UNFIT_SENDS_MS: u64 = 1_000;

/// Time between two trial writes while it matters.
pub const TRIAL_URGENT_MS: u64 = 500;

/// The same on a master that is unfit, which may last for days.
pub const TRIAL_UNFIT_MS: u64 = 2_000;

/// The same when all is well. A trial writes 2 kB of WAL, and each makes PostgreSQL archive a segment of a cluster that is idle
/// otherwise; what it finds besides the looks is rare.
pub const TRIAL_QUIET_MS: u64 = 5 * 60 * 1_000;

/// Time between two looks whether a master could take writes, which write no WAL.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Bound on each statement of a look or a trial, in ms: the next question of the probe waits for it. One that takes longer, or
/// waits for a lock, says nothing about the master.
pub const TRIAL_STATEMENT_MS: u64 = 250;

/// Refused writes of clients ask for a trial no more often than this.
pub const DOUBT_PAUSE_MS: u64 = 100;

/// Time between two looks for what holds up an apply worker, and how long it must have been held up to be an alarm. A commit
/// that waits for the peer has been freed by then.
pub const BLOCKED_LOOK: Duration = Duration::from_secs(1);
/// See [`BLOCKED_LOOK`].
pub const BLOCKED_AFTER: Duration = Duration::from_secs(3);

/// Characters that are shown of a statement that holds up an apply worker.
pub const BLOCKER_QUERY_SHOWN: i32 = 80;

/// Sessions that are named of those that hold up an apply worker.
pub const BLOCKERS_SHOWN: i64 = 3;

/// A master that is down, or a durability that is degraded, for this long is an alarm. A restart takes less.
pub const ALARM_AFTER_MS: u64 = 5_000;

/// Time between two looks whether the alarms have changed, for the log.
pub const ALARM_LOOK: Duration = Duration::from_secs(1);
