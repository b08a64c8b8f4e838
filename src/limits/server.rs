//! The bounds of servers that this program starts: those of the local cluster, and those with a launcher of their own.

use std::time::Duration;

// --- the cluster on this machine --------------------------------------------------------------

/// A started PostgreSQL must accept connections within this time, crash recovery included.
pub const SERVER_START: Duration = Duration::from_secs(60);

/// Time to make a data folder: a second or two, and more on a disk where each sync is slow.
pub const SERVER_MAKE: Duration = Duration::from_secs(60);

/// Fast shutdown, then immediate shutdown; after both the server is killed. Together with
/// [`API_STOP`] they stay under the 10 s in which `local down` must be done.
pub const SERVER_STOP_FAST: Duration = Duration::from_secs(4);
/// See [`SERVER_STOP_FAST`].
pub const SERVER_STOP_IMMEDIATE: Duration = Duration::from_millis(1_000);

/// Time for the API to finish what it is doing.
pub const API_STOP: Duration = Duration::from_secs(3);

/// `STOP_DEADLINE_MS` of the API of a local cluster, unless the user sets it: with giving back its lease it stays under [`API_STOP`].
pub const LOCAL_STOP_DEADLINE_MS: u64 = 2_000;

/// Ports tried upwards from the wanted one.
pub const PORTS_TRIED: u16 = 100;

/// The whole of `local up`, before it gives up and says what is missing.
pub const LOCAL_READY: Duration = Duration::from_secs(90);

/// Of it, the time to wait for another start that has chosen its ports and does not listen on them yet, which takes some seconds.
pub const LOCAL_TURN: Duration = Duration::from_secs(30);

/// Of it, the time for both masters to take part in each commit once the API serves: some 0.3 s, unless one
/// of them is not there.
pub const LOCAL_JOINED: Duration = Duration::from_millis(1_500);

// --- a master with a launcher of its own --------------------------------------------------------

/// How often a launcher looks at its server and at who holds it down.
pub const LAUNCHER_LOOK: Duration = Duration::from_millis(100);

/// A lock that is only looked at is free again within milliseconds, one of a process that was killed within a second.
pub const LAUNCHER_CLAIM: Duration = Duration::from_secs(1);

/// A start of a server that nobody waits for: ending it would only make the recovery after a crash begin anew.
pub const LAUNCHER_START: Duration = Duration::from_secs(24 * 3_600);

/// An orderly stop of it: writing 512 MB of shared buffers to a slow disk takes longer than [`SERVER_STOP_FAST`], and a start after a
/// stop without that is a recovery from a crash. With [`SERVER_STOP_IMMEDIATE`] it stays under the 30 s of docker-compose.yml.
pub const LAUNCHER_STOP: Duration = Duration::from_secs(20);

/// A server that does not say within this time which one it is does not answer.
pub const LAUNCHED_ASK: Duration = Duration::from_secs(3);

/// `replication setup --at-start` waits so long for both masters: for making their data folders ([`SERVER_MAKE`]) and stanzas, or for a
/// recovery from a crash, which replays up to `max_wal_size` of 2 GB. What depends on it does not start when it gives up.
pub const SETUP_BOTH: Duration = Duration::from_secs(300);

/// It waits so long for one of them when the other was joined before and can serve.
pub const SETUP_OTHER: Duration = Duration::from_secs(15);

/// How long the first connection of a process to a master waits for what the other master says of itself: longer than connecting may take.
/// It is asked once, and a frozen one must not keep its peer from serving.
pub const WHO_ASK: Duration = Duration::from_millis(1_200);

/// Length of a cluster's id. One that is drawn has 36; with `replicator_` before it PostgreSQL takes a name of 63 bytes at the most.
pub const CLUSTER_ID_MAX: usize = 48;
