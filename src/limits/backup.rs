//! Bounds of the backups.

use std::time::Duration;

/// Time that pgBackRest gets to say what backups there are: some 30 ms on a local disk.
pub const BACKUP_ASK: Duration = Duration::from_secs(20);

/// Characters of an answer of pgBackRest that are shown when it cannot be used: its beginning says why, and the rest may be garbage.
pub const BACKUP_ANSWER_SHOWN: usize = 300;

/// Time for making or upgrading a stanza, some 50 ms; it waits for a lock and a checkpoint at the worst.
pub const BACKUP_STANZA: Duration = Duration::from_secs(90);

/// Time for clearing one backup away, whose files are many and quickly removed.
pub const BACKUP_EXPIRE: Duration = Duration::from_secs(600);

/// Time for one backup. pgBackRest itself gives up on a master or a disk that is silent much earlier.
pub const BACKUP_RUN: Duration = Duration::from_secs(24 * 3_600);

/// Time between two looks at what the program's role may do, and for one of them.
pub const PRIVILEGES_AGAIN: Duration = Duration::from_secs(10);
pub const PRIVILEGES_ASK: Duration = Duration::from_secs(5);

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
/// How long the writers of a master wait, at the most, while a seal waits for the rows to stand still: they queue up behind it. It is
/// well under the second that PostgreSQL takes to look for a deadlock, so that a seal gives way and never ends anybody else.
pub const SEAL_LOCK: Duration = Duration::from_millis(300);

/// When it looks what is in its way. It must be under [`SEAL_LOCK`].
pub const SEAL_DEADLOCK: Duration = Duration::from_millis(100);

/// How often that is tried, and the time between. A commit that waits for a frozen peer holds its rows for [`super::WAIT_MAX_MS`],
/// a long transaction for as long as it likes.
pub const SEAL_TRIES: u32 = 10;
pub const SEAL_AGAIN: Duration = Duration::from_millis(1_500);

/// How long the rows stand still, at the most, while a restore point is set, which takes about a millisecond.
pub const SEAL_POINT: Duration = Duration::from_millis(500);

/// Time for the checksums of all tables, at about a million rows a second. Nobody waits for them, but until they are done nothing
/// is vacuumed away; a database that takes longer is restored without this check.
pub const SEAL_SUM: Duration = Duration::from_secs(600);

/// Time until the WAL with the restore point is in the archive; pgBackRest's own `archive-timeout` is as long.
pub const SEAL_ARCHIVE: Duration = Duration::from_secs(60);
pub const SEAL_LOOK: Duration = Duration::from_millis(100);

/// How long a note on a backup waits for somebody's lock on the repository, and the time between two tries.
pub const NOTE_PATIENCE: Duration = Duration::from_secs(15);
pub const NOTE_AGAIN: Duration = Duration::from_millis(500);

/// Room that a trial restore needs, in percent of the database: its WAL comes along, and the server needs some.
pub const DRILL_ROOM_PERCENT: u64 = 120;

/// Time for reading all files of a backup, for restoring them, and for checking every page: each is about as fast as the disk, so
/// this is for a terabyte on a slow one.
pub const DRILL_STEP: Duration = Duration::from_secs(6 * 3_600);

/// Time for recovery: the WAL of the backup and of the seal after it, which is seldom more than some segments.
pub const DRILL_RECOVERY: Duration = Duration::from_secs(3_600);

/// Time for the checksums on a restored server, which has a small cache and a disk that is cold.
pub const DRILL_SUM: Duration = Duration::from_secs(3_600);

/// How long its folder is tried to be removed, while what was ended a moment ago may still write into it.
pub const SCRATCH_REMOVE: Duration = Duration::from_secs(3);

/// Bytes of a WAL segment, unless a server was made with another size, which is rare. It is used for naming one that is missing.
pub const WAL_SEGMENT_BYTES: u64 = 16 * 1024 * 1024;

const _: () = assert!(SEAL_DEADLOCK.as_millis() < SEAL_LOCK.as_millis());
// The peer must not be given up because its apply worker waits for a seal.
const _: () = assert!((SEAL_LOCK.as_millis() as u64) < super::WAIT_MAX_MS);
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

/// Full backups that are kept at most when nothing may expire by itself, because the one to go back to would be next.
pub const BACKUP_FULLS_KEPT: usize = 6;

/// Ended jobs of which the outcome is still known.
pub const BACKUP_JOBS_KEPT: usize = 50;

/// Time that a master gets to say how its archiving goes.
pub const BACKUP_ARCHIVER_ASK: Duration = Duration::from_secs(2);

/// Segments of WAL that wait to be archived and are an alarm: a gigabyte, which a bulk load can make within seconds, and which
/// an archiver that works takes away as fast.
pub const BACKUP_WAL_WAITING_MAX: i64 = 64;

/// Backups in the history in Redis, those that have expired included: a year and a half at the manual's pace.
pub const HISTORY_OF_BACKUPS_MAX: usize = 500;

/// Time between two turns of the spinner of a progress bar, and between two lines where there is no terminal.
pub const BAR_TICK: Duration = Duration::from_millis(100);
pub const BAR_LINE: Duration = Duration::from_secs(10);

/// How long a command waits until nobody else works on the backups, after which time it says so, and the time between two looks.
pub const CLAIM_PATIENCE: Duration = Duration::from_secs(600);
pub const CLAIM_TOLD: Duration = Duration::from_secs(1);
pub const CLAIM_AGAIN: Duration = Duration::from_millis(100);
// --- restoring both masters ---------------------------------------------------------------------

/// Wait for a running master to hand its last WAL over, and for one segment to be handed over by hand. pgBackRest itself gives up on a
/// segment after a minute.
pub const RESTORE_ARCHIVE: Duration = Duration::from_secs(70);

/// Time for recovering to the chosen moment; a day of WAL of a busy master takes hours.
pub const RESTORE_RECOVER: Duration = Duration::from_secs(24 * 3_600);

/// Time for counting the rows of everything that was restored, and for making it fit to serve.
pub const RESTORE_LOOK: Duration = Duration::from_secs(3_600);

/// Time for a command that stops or starts a server, its checkpoint or crash recovery included, and again until it takes connections.
pub const RESTORE_COMMAND: Duration = Duration::from_secs(600);

/// Time for bringing every file that was restored to the disk.
pub const RESTORE_SYNC: Duration = Duration::from_secs(3_600);

/// Room that a restore needs beside a fifth more than the database: WAL that is being replayed, in bytes.
pub const RESTORE_ROOM_BYTES: u64 = 512 * 1024 * 1024;

/// Wait for the API to notice that the restored master runs and to serve from it; a probe's interval or two.
pub const RESTORE_SERVE: Duration = Duration::from_secs(20);

/// Wait for one answer of the API to an order; a handover ends after [`super::HANDOVER_DEADLINE_MS`].
pub const RESTORE_ORDER: Duration = Duration::from_secs(5);

/// After this time the server itself gives up a lock that a seal holds, should this program have been frozen or cut off after it took it.
pub const SEAL_ABANDONED: Duration = Duration::from_secs(1);
