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

/// Bytes free in the file system of a repository below which a failure to write is for want of room.
pub const REPOSITORY_ROOM: u64 = 32 << 20;
