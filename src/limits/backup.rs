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

// --- restoring both masters ---------------------------------------------------------------------

/// Wait for a running master to hand its last WAL over, and for one segment to be handed over by hand. pgBackRest itself gives up on a
/// segment after a minute.
pub const RESTORE_ARCHIVE: Duration = Duration::from_secs(70);

/// Time for recovering to the chosen moment; a day of WAL of a busy master takes hours.
pub const RESTORE_RECOVER: Duration = Duration::from_secs(24 * 3_600);

/// Time for counting the rows of everything that was restored, and for making it fit to serve.
pub const RESTORE_LOOK: Duration = Duration::from_secs(3_600);

/// Time for bringing every file that was restored to the disk.
pub const RESTORE_SYNC: Duration = Duration::from_secs(3_600);

/// Room that a restore needs beside a fifth more than the database: WAL that is being replayed, in bytes.
pub const RESTORE_ROOM_BYTES: u64 = 512 * 1024 * 1024;

/// Wait for the API to notice that the restored master runs and to serve from it; a probe's interval or two.
pub const RESTORE_SERVE: Duration = Duration::from_secs(20);

/// Wait for one answer of the API to an order; a handover ends after [`super::HANDOVER_DEADLINE_MS`].
pub const RESTORE_ORDER: Duration = Duration::from_secs(5);
