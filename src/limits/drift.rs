//! The bounds of looking for what somebody changes by hand.

use std::time::Duration;

/// A table that is taken into the replication is read as a whole to see whether both masters hold the same, if it is no larger than this: a
/// second. For a larger one there is `imdb-ha compare`.
pub const EQUAL_AT_ONCE_BYTES: u64 = 64 * 1024 * 1024;

/// Time between two looks at what the replication rests on. An alarm needs two of them, and whoever made a mistake is still there then.
pub const DRIFT_INTERVAL: Duration = Duration::from_secs(4);

/// One statement of such a look takes milliseconds; a thousand tables, a second.
pub const DRIFT_STATEMENT: Duration = Duration::from_secs(4);

/// A look at one master that takes longer than this is let pass.
pub const DRIFT_CALL: Duration = Duration::from_secs(5);

/// Alarms about tables that are told one by one.
pub const DRIFT_SHOWN: usize = 20;
