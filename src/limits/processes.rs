//! The bounds by which several API processes on one pair agree on who decides.

use std::time::Duration;

/// Time between two claims of the lease, and so between two looks at what its holder decided: several
/// within the second in which a follower must follow.
pub const LEASE_INTERVAL: Duration = Duration::from_millis(250);

/// A lease that is not renewed for this long is free: a few lost claims, or a holder that died.
pub const LEASE_TTL: Duration = Duration::from_millis(1_500);

/// When Redis is back, who decided without it gets this time to claim the lease before any other: its
/// next claim comes within twice [`LEASE_INTERVAL`].
pub const LEASE_PATIENCE: Duration = Duration::from_millis(1_000);

/// After the time of a lease that cannot be renewed, whoever reaches Redis has this time to take it and to tell the masters, before the
/// masters' locks say who decides. It claims within [`LEASE_INTERVAL`], and tells them in milliseconds.
pub const SEAT_PATIENCE: Duration = Duration::from_millis(2_000);

/// Turn of the thread that puts together who decides: it takes no longer to notice a newer term once a probe has read it.
pub const MANDATE_TICK: Duration = Duration::from_millis(100);

/// Time between two signs of life of whoever decides to a master, and between two tries to take its lock.
pub const SEAT_INTERVAL: Duration = Duration::from_millis(200);

/// A master's lock counts as held for so long after the question by which that was known: as long as a lease.
pub const SEAT_VALID: Duration = LEASE_TTL;

/// Whoever holds a master's lock and has said nothing for so long stands still, or its machine is gone: anybody may end its session.
/// By its own word ([`SEAT_VALID`]) it decides no longer by then.
pub const SEAT_SILENCE_MS: u64 = 5_000;

/// The same of a session in the middle of an order, which takes milliseconds, once a newer term waits for it.
pub const ORDER_SILENCE_MS: u64 = 500;

/// How long a new term waits for the order of an older one that is being carried out, in ms, before it looks at who that is.
pub const SEAT_LOCK_WAIT_MS: u64 = 500;

/// PostgreSQL's own bound on a statement of a seat's session.
pub const SEAT_STATEMENT: Duration = Duration::from_secs(2);

/// At an orderly stop, the time to give the lease back: a claim under way and one more answer of Redis,
/// which takes a millisecond. What is not given back is free after [`LEASE_TTL`].
pub const LEASE_RELEASE: Duration = Duration::from_millis(300);

/// A start waits for so long to learn whether other processes serve the same pair.
pub const ROLE_PATIENCE_MS: u64 = 1_000;

const _: () = assert!(SEAT_SILENCE_MS > 2 * SEAT_VALID.as_millis() as u64);
