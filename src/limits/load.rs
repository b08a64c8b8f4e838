//! The bounds of loading IMDb's files.

use std::time::Duration;

/// How much of a file is read at a time. Measured: more makes unpacking no faster.
pub const LOAD_READ_BYTES: usize = 256 * 1024;

/// Lines that go from the thread that reads to the one that takes them apart. With those that wait, and with the rows that they
/// become, this is nearly all the memory that a load takes.
pub const LOAD_BLOCK_BYTES: usize = 512 * 1024;

/// Blocks that wait between the two.
pub const LOAD_BLOCKS: usize = 3;

/// Pieces of rows that wait for each COPY; each is what has become of a block.
pub const LOAD_PIECES: usize = 3;

/// The longest line. The longest of IMDb's files have some thousand bytes.
pub const LOAD_LINE_BYTES: usize = 1024 * 1024;

/// The longest new type, category, profession or genre: as long as one that can be asked for. IMDb's longest has 25, and
/// PostgreSQL's unique indexes take 2,700.
pub const LOAD_CODE_BYTES: usize = super::CODE_MAX_CHARS;

/// The longest title: IMDb's have some hundred bytes. A master takes no title whose words, of both titles together, have more than a
/// megabyte in its index; taking them apart makes text up to 37 times as long (11 times for a ligature, 3.4 times for words of a few letters).
pub const LOAD_TITLE_BYTES: usize = 10_000;

/// Names that are read of a folder in the place of a file, and how many are shown of them.
pub const LOAD_FOLDER_MAX: usize = 1_000;
/// See [`LOAD_FOLDER_MAX`].
pub const LOAD_FOLDER_SHOWN: usize = 10;

/// A load that would leave fewer rows than so many of a hundred that are there is refused. IMDb's files grow, and lose some hundred rows a
/// day; one that was cut off between two lines lacks any part of them.
pub const LOAD_SHRINK_PERCENT: u64 = 90;

/// Genres in one file. IMDb has 28.
pub const LOAD_GENRES_MAX: usize = 200;

/// Rows that are remembered of titles whose rows do not stand together, and as many of one title; each takes some 16 bytes of memory.
/// IMDb's files are sorted, and no title has more than some ten thousand rows.
pub const LOAD_PLACES_MAX: usize = 1_000_000;

/// Values of one list. IMDb's longest are the writers of long series, some hundreds. Each is compared with those before it, which takes
/// 10 ms for so many, and each that is rejected becomes a row.
pub const LOAD_LIST_MAX: usize = 10_000;
// The place in such a list is a smallint in some tables.
const _: () = assert!(LOAD_LIST_MAX <= i16::MAX as usize);

/// Characters that are kept of a value that was rejected; the whole row is kept beside the first one of a row.
pub const LOAD_DETAIL_CHARS: usize = 200;

/// Rejects that are sent at once. A line of two bytes becomes a reject of eighty, so that those of a block would take forty times its memory.
pub const LOAD_REJECTS_BYTES: usize = 1024 * 1024;

/// A file that is sent to the API: the largest of IMDb's has 0.8 GB packed and 4.3 GB as it is.
pub const LOAD_BODY_MAX_BYTES: u64 = 16 * 1024 * 1024 * 1024;

/// Time in which it must have arrived.
pub const LOAD_BODY_PATIENCE: Duration = Duration::from_secs(3600);

/// In each time like this so much of it must arrive, or a client that sends a byte now and then would keep its place for all that time.
pub const LOAD_BODY_WINDOW: Duration = Duration::from_secs(30);
/// See [`LOAD_BODY_WINDOW`].
pub const LOAD_BODY_LEAST: u64 = 256 * 1024;

/// Files that may arrive at the same time; one that comes while another is loaded is refused at once.
pub const HTTP_UPLOADS: usize = 2;

/// Loads that are remembered.
pub const LOAD_JOBS_KEPT: usize = 100;

/// Connections to each master: one per table of a file, one for the rejects, and one for questions.
pub const LOAD_SESSIONS: u32 = 5;

/// Bytes of rows in one transaction of a COPY. Fewer would leave more rows that are not frozen; IMDb's largest file has 4.3 GB.
pub const LOAD_COMMIT_BYTES: usize = 512 * 1024 * 1024;

/// What a master may keep for its peer has room for so many of them: WAL is somewhat larger than the rows, and a slot lets go of one
/// transaction when the next but one has begun.
pub const LOAD_BATCHES_IN_ROOM: i64 = 8;

/// A slot must have half of its room again within this time before an index is begun. The other tables of the same master get theirs
/// meanwhile: one of the words of all titles takes minutes.
pub const LOAD_ROOM_OF_KEYS: Duration = Duration::from_secs(1200);

/// The same before a COPY goes on, beside which nothing goes on that is longer; below [`LOAD_STALL`], so that the reason is told.
pub const LOAD_ROOM_OF_ROWS: Duration = Duration::from_secs(25);

/// The pause between two looks at it.
pub const LOAD_ROOM_PAUSE: Duration = Duration::from_millis(200);

/// Time for a question that takes a moment.
pub const LOAD_CALL: Duration = Duration::from_secs(20);

/// A master that takes no rows for so long is given up. A checkpoint on a slow disk can hold up a COPY for seconds.
pub const LOAD_STALL: Duration = Duration::from_secs(30);

/// How often a master that works on something long is asked whether it lives, and how long it may take to answer.
pub const LOAD_BEAT: Duration = Duration::from_secs(5);

/// Tables that get their keys at the same time, on each master. One alone leaves a processor idle while an index of words is made, which
/// PostgreSQL does with one process.
pub const LOAD_KEY_LANES: usize = 2;

/// How long to wait before asking again whether one of them has room.
pub const LOAD_KEY_PAUSE: Duration = Duration::from_millis(5);

/// Memory for each index in the making.
pub const LOAD_INDEX_MEMORY: &str = "128MB";

/// A try to exchange the tables waits so long on each master for whoever reads them, in milliseconds. It keeps others waiting as long, and on
/// the first master until the second has said something, far below the time that a request waits for a lock.
pub const LOAD_SWAP_LOCK_MS: u64 = 400;

/// A master that says nothing for so long has not got its locks, and those of the other one are given back.
pub const LOAD_SWAP_HEAR: Duration = Duration::from_millis(2 * LOAD_SWAP_LOCK_MS);

/// The pause after the first try. It doubles up to the second figure, so that those who read meanwhile wait ever more seldom.
pub const LOAD_SWAP_PAUSE: Duration = Duration::from_millis(600);
pub const LOAD_SWAP_PAUSE_MAX: Duration = Duration::from_secs(5);

/// All tries together, for readers that stay long. The longest that this program knows is the seal of a backup, which counts all tables.
pub const LOAD_SWAP: Duration = Duration::from_secs(660);

/// All tries together, for a master that dies and comes back in between.
pub const LOAD_SWAP_AWAY: Duration = Duration::from_secs(60);

/// After this time it is told who or what is in the way.
pub const LOAD_SWAP_TELL: Duration = Duration::from_secs(10);

/// The tables of one master stay locked so long while the other one is not ready, or while this program is stopped.
pub const LOAD_SWAP_IDLE: Duration = Duration::from_secs(60);

/// How often to ask for the lock of the set-up, when somebody else has it.
pub const LOAD_ALONE_PAUSE: Duration = Duration::from_millis(100);

const _: () = assert!(LOAD_SWAP.as_secs() > super::SEAL_SUM.as_secs());
const _: () =
    assert!(LOAD_SWAP_LOCK_MS + (LOAD_SWAP_HEAR.as_millis() as u64) < super::LOCK_TIMEOUT_MS);
