//! Bounds of the backups.

use std::time::Duration;

/// Time that pgBackRest gets to say what backups there are: some 30 ms on a local disk.
pub const BACKUP_ASK: Duration = Duration::from_secs(20);

/// Time for making or upgrading a stanza, some 50 ms; it waits for a lock and a checkpoint at the worst.
pub const BACKUP_STANZA: Duration = Duration::from_secs(90);

/// Time for one backup. pgBackRest itself gives up on a master or a disk that is silent much earlier.
pub const BACKUP_RUN: Duration = Duration::from_secs(24 * 3_600);

/// The shortest and the longest time between two backups of a kind.
pub const BACKUP_EVERY_MIN: Duration = Duration::from_secs(10);
pub const BACKUP_EVERY_MAX: Duration = Duration::from_secs(365 * 86_400);

/// Time between two looks at how far a backup is.
pub const BACKUP_LOOK: Duration = Duration::from_millis(500);

/// Time that a server on restored data gets to answer one question; while it recovers it is asked again and again.
pub const SCRATCH_ASK: Duration = Duration::from_secs(5);

/// Time that it gets to stop in an orderly way.
pub const SCRATCH_STOP: Duration = Duration::from_secs(20);

// --- the backup thread ------------------------------------------------------------------------

/// Time between two looks at the repositories, where backups come and go without our doing: pgBackRest answers in 10 ms.
pub const BACKUP_REFRESH: Duration = Duration::from_secs(5);

/// Time between two listings of a master's archive, in which a busy month leaves 100,000 names.
pub const BACKUP_WAL_LOOK: Duration = Duration::from_secs(60);

/// Pause when somebody else has the backups in hand, who may need a second or hours.
pub const BACKUP_BUSY_PAUSE: Duration = Duration::from_secs(5);

/// Pauses after the first failure, the second, and so on; the last one for all after it. A disk that was full is tried again
/// soon enough, and one that stays full does not fill the log.
pub const BACKUP_RETRY: [Duration; 7] = [
    Duration::from_secs(60),
    Duration::from_secs(120),
    Duration::from_secs(240),
    Duration::from_secs(480),
    Duration::from_secs(960),
    Duration::from_secs(1_920),
    Duration::from_secs(3_600),
];

/// Failures in a row after which it is an alarm even though trying again may help.
pub const BACKUP_FAILURES_ALARM: u32 = 3;

/// A master that has a schedule and no backup is an alarm after this time, long enough for a full one of 100 GB.
pub const BACKUP_NEVER_AFTER: Duration = Duration::from_secs(600);

/// A backup that somebody else made is left alone for this time, since they may well have more to do with the repository.
pub const BACKUP_SETTLE: Duration = Duration::from_secs(60);

/// A trial restore lets backups go first, but not for longer than this.
pub const BACKUP_DRILL_YIELDS: Duration = Duration::from_secs(3_600);

/// A running backup of a master that is down is given up after this time. pgBackRest itself would wait for a frozen one for half
/// an hour, and nothing else could be done meanwhile.
pub const BACKUP_AWAY_MS: u64 = 30_000;

/// Full backups that are kept at most when nothing may expire, because a restore has failed.
pub const BACKUP_FULLS_KEPT: usize = 6;

/// Ended jobs of which the outcome is still known.
pub const BACKUP_JOBS_KEPT: usize = 50;

/// Time that a master gets to say how its archiving goes.
pub const BACKUP_ARCHIVER_ASK: Duration = Duration::from_secs(2);

/// Segments of WAL that wait to be archived and are an alarm: a gigabyte, which a bulk load can make within seconds, and which
/// an archiver that works takes away as fast.
pub const BACKUP_WAL_WAITING_MAX: i64 = 64;
