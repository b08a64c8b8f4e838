//! What the supervisor publishes and everyone reads: the atomic flag of the active master, the
//! picture of the cluster, and the gate at which writes wait during a handover.

use crate::cluster::{ClusterView, NodeId};
use crate::replication::status::NodeReplication;
use crossbeam_channel::{Receiver, Sender};
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Ends when a newer picture is published: a receiver of a channel on which nothing is ever sent.
pub type Changed = Receiver<Infallible>;

/// Shared by all threads; written by the supervisor, and the details by the probes.
pub struct Board {
    started: Instant,
    active: AtomicUsize,
    holding_writes: AtomicBool,
    writes_under_way: AtomicUsize,
    picture: Mutex<Picture>,
    details: [Mutex<Option<NodeReplication>>; 2],
}

struct Picture {
    view: Arc<ClusterView>,
    /// Dropping it wakes everyone who waits for a newer picture.
    _open: Sender<Infallible>,
    changed: Changed,
}

impl Picture {
    fn new(view: ClusterView) -> Picture {
        let (open, changed) = crossbeam_channel::bounded(0);
        Picture {
            view: Arc::new(view),
            _open: open,
            changed,
        }
    }
}

/// A write under way; the handover waits for its end.
pub struct WriteGuard<'a>(&'a Board);

impl Drop for WriteGuard<'_> {
    fn drop(&mut self) {
        self.0.writes_under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Board {
    /// A board that shows `view`; `started` is the zero of all times in it.
    pub fn new(view: ClusterView, started: Instant) -> Board {
        Board {
            started,
            active: AtomicUsize::new(view.active.index()),
            holding_writes: AtomicBool::new(view.holding_writes),
            writes_under_way: AtomicUsize::new(0),
            picture: Mutex::new(Picture::new(view)),
            details: [Mutex::new(None), Mutex::new(None)],
        }
    }

    /// Milliseconds since the start of the program, the clock of everything in the picture.
    pub fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// The active master: the flag that every request reads.
    pub fn active(&self) -> NodeId {
        NodeId::BOTH[self.active.load(Ordering::SeqCst)]
    }

    /// The picture of now, and what ends when there is a newer one.
    pub fn look(&self) -> (Arc<ClusterView>, Changed) {
        let picture = lock(&self.picture);
        (Arc::clone(&picture.view), picture.changed.clone())
    }

    /// Publishes a newer picture and wakes all who wait for one.
    pub fn publish(&self, view: ClusterView) {
        self.active.store(view.active.index(), Ordering::SeqCst);
        self.holding_writes
            .store(view.holding_writes, Ordering::SeqCst);
        *lock(&self.picture) = Picture::new(view);
    }

    /// Begins a write, unless writes are being held. Counting comes before looking, and the
    /// supervisor looks at the count after it has begun to hold: so it misses no write.
    pub fn begin_write(&self) -> Option<WriteGuard<'_>> {
        self.writes_under_way.fetch_add(1, Ordering::SeqCst);
        let guard = WriteGuard(self);
        (!self.holding_writes.load(Ordering::SeqCst)).then_some(guard)
    }

    /// Writes that have begun and not ended.
    pub fn writes_under_way(&self) -> usize {
        self.writes_under_way.load(Ordering::SeqCst)
    }

    /// What the newest answered probe of a master saw of its replication.
    pub fn details(&self, node: NodeId) -> Option<NodeReplication> {
        lock(&self.details[node.index()]).clone()
    }

    /// Keeps what a probe saw.
    pub fn set_details(&self, node: NodeId, details: Option<NodeReplication>) {
        *lock(&self.details[node.index()]) = details;
    }
}

/// A panic while one of these locks is held leaves a whole value behind: only whole values are put in.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
