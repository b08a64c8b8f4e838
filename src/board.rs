//! What the supervisor publishes and everyone reads: the atomic flag of the active master, the
//! picture of the cluster, and the gate at which writes wait during a handover.

use crate::cluster::{ClusterView, NodeId};
use crate::limits;
use crate::replication::status::NodeReplication;
use crossbeam_channel::{Receiver, Sender};
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Ends when a newer picture is published: a receiver of a channel on which nothing is ever sent.
pub type Changed = Receiver<Infallible>;

/// Shared by all threads; written by the supervisor, and the details by the probes.
pub struct Board {
    started: Instant,
    active: AtomicUsize,
    holding_writes: AtomicBool,
    /// Writes that are running, on each master.
    writes_under_way: [AtomicUsize; 2],
    /// Writes that have ended since the start, on each master.
    writes_ended: [AtomicU64; 2],
    /// Reasons to look after the walsender of each master; a full channel holds one already.
    watch: [(Sender<()>, Receiver<()>); 2],
    /// Walsenders of each master that were woken.
    wakeups: [AtomicU64; 2],
    /// Whether the probe of each master is to try a write.
    trials: [AtomicBool; 2],
    /// When a refused write on each master was last told, in ms.
    doubted_ms: [AtomicU64; 2],
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

/// A write under way on a master. It goes along with the call, and so lasts for as long as the call
/// may still take effect, even when its caller has given up.
pub struct WriteGuard {
    board: Arc<Board>,
    node: NodeId,
}

impl Drop for WriteGuard {
    fn drop(&mut self) {
        self.board.writes_under_way[self.node.index()].fetch_sub(1, Ordering::SeqCst);
        self.board.writes_ended[self.node.index()].fetch_add(1, Ordering::SeqCst);
    }
}

impl Board {
    /// A board that shows `view`; `started` is the zero of all times in it.
    pub fn new(view: ClusterView, started: Instant) -> Board {
        Board {
            started,
            active: AtomicUsize::new(view.active.index()),
            holding_writes: AtomicBool::new(view.holding_writes),
            writes_under_way: Default::default(),
            writes_ended: Default::default(),
            watch: [(); 2].map(|()| crossbeam_channel::bounded(1)),
            wakeups: Default::default(),
            trials: Default::default(),
            doubted_ms: Default::default(),
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

    /// Publishes a newer picture. Those who wait are woken when something changed on which they
    /// decide; figures alone are swapped quietly, since they come many times a second.
    ///
    /// The order matters to a write that still goes by the old picture. When writes are held, it finds
    /// the gate closed; when they are let go after a handover, the gate opens only once the flag of
    /// the active master has moved, so it is turned away and woken by the picture, which comes last.
    pub fn publish(&self, view: ClusterView) {
        if view.holding_writes {
            self.holding_writes.store(true, Ordering::SeqCst);
        }
        self.active.store(view.active.index(), Ordering::SeqCst);
        self.holding_writes
            .store(view.holding_writes, Ordering::SeqCst);
        let mut picture = lock(&self.picture);
        match picture.view.decides_as(&view) {
            true => picture.view = Arc::new(view),
            false => *picture = Picture::new(view),
        }
    }

    /// Begins a write on `node`, unless writes are being held or the traffic has moved. Counting comes
    /// before looking, and the supervisor looks at the count after it has begun to hold, so it misses
    /// no write.
    pub fn begin_write(self: &Arc<Board>, node: NodeId) -> Option<WriteGuard> {
        let others = self.writes_under_way[node.index()].fetch_add(1, Ordering::SeqCst);
        if others == 0 {
            self.watch(node);
        }
        let guard = WriteGuard {
            board: Arc::clone(self),
            node,
        };
        let held = self.holding_writes.load(Ordering::SeqCst);
        (!held && self.active() == node).then_some(guard)
    }

    /// Writes that run on a master, those included whose caller has given up.
    pub fn writes_under_way(&self, node: NodeId) -> usize {
        self.writes_under_way[node.index()].load(Ordering::SeqCst)
    }

    /// Writes that have ended on a master since the start, whatever came of them.
    pub fn writes_ended(&self, node: NodeId) -> u64 {
        self.writes_ended[node.index()].load(Ordering::SeqCst)
    }

    /// There is a reason to look after the walsender of a master.
    pub fn watch(&self, node: NodeId) {
        let _ = self.watch[node.index()].0.try_send(());
    }

    /// Where the reasons arrive, several at once as one.
    pub fn reasons_to_watch(&self, node: NodeId) -> Receiver<()> {
        self.watch[node.index()].1.clone()
    }

    /// Counts a walsender that was woken.
    pub fn note_wakeup(&self, node: NodeId) {
        self.wakeups[node.index()].fetch_add(1, Ordering::SeqCst);
    }

    /// Walsenders of a master that were woken since the start.
    pub fn wakeups(&self, node: NodeId) -> u64 {
        self.wakeups[node.index()].load(Ordering::SeqCst)
    }

    /// Asks the probe of a master for a trial write.
    pub fn ask_trial(&self, node: NodeId) {
        self.trials[node.index()].store(true, Ordering::SeqCst);
    }

    /// Whether one was asked for since this was last called.
    pub fn take_trial(&self, node: NodeId) -> bool {
        self.trials[node.index()].swap(false, Ordering::SeqCst)
    }

    /// Whether a refused write on a master is to be told, which a thousand in a second are not.
    pub fn may_doubt(&self, node: NodeId) -> bool {
        let (last, now) = (&self.doubted_ms[node.index()], self.now_ms());
        let before = last.load(Ordering::SeqCst);
        let due = now >= before + limits::DOUBT_PAUSE_MS;
        due && last
            .compare_exchange(before, now, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
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
