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

/// How often a stop looks at the connections that are left. It asks the system about each descriptor, some microseconds.
pub const STOP_LOOK: Duration = Duration::from_millis(10);

/// How long a stop waits for the connections that the system has taken for us and tiny_http has not: a moment, and as long as the
/// other end of one that is being made takes to say so.
pub const STOP_BACKLOG: Duration = Duration::from_millis(100);
/// See [`STOP_BACKLOG`]; for a machine without a processor to spare.
pub const STOP_BACKLOG_MAX: Duration = Duration::from_secs(2);

/// A start listens when a master serves, or after this time, since `/health` and `/status` must be reached when none does. It is longer
/// than [`super::START_PATIENCE_MS`], after which the peer of a primary that is not well serves.
pub const START_LISTEN: Duration = Duration::from_secs(6);

/// Listeners that go deaf within this time are counted together. Each is replaced; more than a few in so short a time cannot be helped
/// by another one.
pub const DEAF_WINDOW: Duration = Duration::from_secs(600);

/// Time that the API's own pulse gets for its answer.
pub const PULSE_PATIENCE: Duration = Duration::from_secs(2);

/// The listener carries [`super::CLIENT_SILENCE`] as its own accept timeout, so somebody must connect more
/// often than that; see `http/listener.rs`.
pub const PULSE_INTERVAL: Duration = Duration::from_secs(3);

/// How long a connection can lie in tiny_http's queue without a thread, or, of several, each after the
/// other; see `http/listener.rs`.
pub const NUDGE_INTERVAL: Duration = Duration::from_millis(20);

/// Pause before a listener that failed is built again (out of file descriptors, for instance).
pub const LISTENER_RETRY: Duration = Duration::from_millis(500);
