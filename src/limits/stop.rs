//! The bounds of the API's port: of its listener, and of the beginning and the end of the process.

use std::time::Duration;

/// The longest time that a stop may be given to answer what was accepted. With the rest of it that stays under the 30 s after which
/// docker-compose.yml has the process killed. (The default is longer than [`super::REQUEST_DEADLINE_MS`], in which each is answered.)
pub const STOP_DEADLINE_MAX_MS: u64 = 25_000;

/// At a stop, a connection on which nothing has happened for so long is closed. Whoever has just been answered gets its next request
/// in, and its answer then says that the connection ends.
pub const STOP_IDLE: Duration = Duration::from_millis(300);

/// At a stop, a client that owes the rest of a body and sends nothing for so long is not waited for.
pub const STOP_STALL: Duration = Duration::from_secs(1);

/// How often a stop looks at the connections that are left.
pub const STOP_LOOK: Duration = Duration::from_millis(10);

/// How long a stop waits for the connections that the system has taken and this program has not: a moment, and as long as the
/// other end of one that is being made takes to say so.
pub const STOP_BACKLOG: Duration = Duration::from_millis(100);
/// See [`STOP_BACKLOG`]; for a machine without a processor to spare.
pub const STOP_BACKLOG_MAX: Duration = Duration::from_secs(2);

/// A start listens when a master serves, or after this time, since `/health` and `/status` must be reached when none does. It is longer
/// than [`super::START_PATIENCE_MS`], after which the peer of a primary that is not well serves.
pub const START_LISTEN: Duration = Duration::from_secs(6);

/// Pause before the next client is let in when the last one could not be (out of file descriptors, for instance).
pub const ACCEPT_RETRY: Duration = Duration::from_millis(20);

// --- clients ----------------------------------------------------------------------------------

/// Clients that are connected at the same time, each with a thread. Some two thousand can wait for the masters, in
/// [`super::CALL_QUEUE`], [`super::LANE_QUEUE`] and the like, and `/health` is answered beside them. The next one gets 503.
pub const HTTP_CLIENTS: usize = 3_072;

/// The least, where the limit of open files allows no more.
pub const HTTP_CLIENTS_LEAST: usize = 16;

/// Open files that are not those of clients: the connections to the masters, the log, files that are loaded.
pub const FILES_OF_OTHERS: usize = 256;

/// Stack of the thread of a client, which runs no handler but those that answer from memory.
pub const CLIENT_STACK_BYTES: usize = 1024 * 1024;

/// Head of a request, in bytes.
pub const HEAD_MAX_BYTES: usize = 32 * 1024;

/// Its first line. RFC 9112 recommends 8,000 bytes at the least.
pub const LINE_MAX_BYTES: usize = 8 * 1024;

/// Its headers. A browser with its cookies and three proxies sends some thirty.
pub const HEADERS_MAX: usize = 100;

/// Empty lines before a request; RFC 9112 wants one to be ignored.
pub const EMPTY_LINES_MAX: usize = 8;

/// A line with the size of a chunk, or of its trailer section, in bytes.
pub const CHUNK_LINE_MAX_BYTES: usize = 1024;

/// All of those of one body.
pub const CHUNKS_FRAMING_MAX_BYTES: usize = 8 * super::BODY_MAX_BYTES;

/// A connection that sends nothing for this long is closed; a request that is not whole after this time gets 408.
pub const CLIENT_SILENCE: Duration = Duration::from_secs(10);

/// A client that does not read its answer is given up after this time, per piece.
pub const CLIENT_STUCK: Duration = Duration::from_secs(2);

/// The same for all of an answer.
pub const CLIENT_STUCK_ALL: Duration = Duration::from_secs(60);

/// A client that has been answered and sends nothing more for so long has read its answer, or never will.
pub const LINGER_SILENCE: Duration = Duration::from_secs(1);

/// Whoever goes on sending then is listened to for this long.
pub const LINGER_MAX: Duration = Duration::from_secs(10);

/// Connections to tiny_http that are kept while nobody needs them, each with a thread of tiny_http's.
pub const INNER_KEPT: usize = 512;

/// An answer, or a request, whose memory is kept for the next one of the same client.
pub const KEPT_BYTES: usize = 128 * 1024;

/// A new connection to tiny_http is answered within this time, which takes some 0.1 ms, on a machine with a processor to spare.
pub const INNER_GREETING: Duration = Duration::from_secs(5);

/// No handler takes so long, so it is a defect when one does; its client is told, and the process goes on.
pub const INNER_ANSWER: Duration = Duration::from_secs(90);
