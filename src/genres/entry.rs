//! One insert over all its tries: what it wants, what was settled for it, and whether somebody still waits.

use super::stamp;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// One row to be inserted, over all its tries and batches.
pub(super) struct Entry {
    /// The client's choice.
    pub chosen: Option<i32>,
    genero: String,
    progress: AtomicU8,
    /// A try may have left the row somewhere. Set for good, since it may appear later still.
    maybe: AtomicBool,
    draw: Mutex<Draw>,
}

/// Progress of an entry. Whoever waits for it and whoever inserts it both move it on from `WAITING`,
/// and only one of them wins.
const WAITING: u8 = 0;
const BEGUN: u8 = 1;
const ABANDONED: u8 = 2;

/// A try of a row: the number of the batch, and of the try within it. A later one is greater.
pub(super) type Try = (u64, u32);

/// The id that was drawn for a row, its stamp, and the newest try. Only the newest try may change them:
/// an earlier one can still be sitting on a frozen master, and when that thaws it must not insert under
/// an id of its own (seen in the first test of a freeze: one request, two rows), nor bring back a row
/// that has been deleted since.
struct Draw {
    newest: Try,
    id: Option<i32>,
    /// The time of the request, or just after the deletion of an earlier row with this id.
    at: SystemTime,
}

impl Entry {
    pub fn new(chosen: Option<i32>, genero: String) -> Entry {
        Entry {
            chosen,
            genero,
            progress: AtomicU8::new(WAITING),
            maybe: AtomicBool::new(false),
            draw: Mutex::new(Draw {
                newest: (0, 0),
                id: None,
                at: stamp::now(),
            }),
        }
    }

    /// Begins a try, unless nobody waits for the row any more.
    pub fn begin(&self) -> bool {
        self.progress
            .compare_exchange(WAITING, BEGUN, Ordering::SeqCst, Ordering::SeqCst)
            .unwrap_or_else(|now| now)
            != ABANDONED
    }

    /// Stops waiting; no try begins after this. Returns whether one has begun, so that the outcome is
    /// unknown.
    pub fn abandon(&self) -> bool {
        let before = self.progress.swap(ABANDONED, Ordering::SeqCst);
        before == BEGUN || self.may_have_happened()
    }

    pub fn is_abandoned(&self) -> bool {
        self.progress.load(Ordering::SeqCst) == ABANDONED
    }

    /// Tells that the row may be somewhere from now on.
    pub fn may_be_there(&self) {
        self.maybe.store(true, Ordering::SeqCst);
    }

    pub fn may_have_happened(&self) -> bool {
        self.maybe.load(Ordering::SeqCst)
    }

    /// A call that held this row failed. If that is known to have changed nothing, the row waits again.
    pub fn failed(&self, may_have_happened: bool) {
        if may_have_happened {
            self.may_be_there();
        } else if !self.may_have_happened() {
            let _ =
                self.progress
                    .compare_exchange(BEGUN, WAITING, Ordering::SeqCst, Ordering::SeqCst);
        }
    }

    /// Forgets the id that was drawn, unless the row may be there under it.
    pub fn forget_id(&self) {
        if !self.may_have_happened() {
            self.draw().id = None;
        }
    }

    /// Tells that a try is under way; returns the id that was drawn before.
    pub fn enter(&self, this: Try) -> Option<i32> {
        let mut draw = self.draw();
        draw.newest = draw.newest.max(this);
        draw.id
    }

    /// Settles on a drawn id, unless a later try is under way.
    pub fn settle(&self, id: i32, this: Try) -> bool {
        let mut draw = self.draw();
        let newest = draw.newest == this;
        if newest {
            draw.id = Some(id);
        }
        newest
    }

    pub fn genero(&self) -> &str {
        &self.genero
    }

    /// The stamp of the row: the same at every try, but for [`Entry::postpone`].
    pub fn at(&self) -> SystemTime {
        self.draw().at
    }

    /// Moves the stamp past a deletion of its id, as long as somebody waits for this very try. Who runs
    /// late cannot tell that deletion from the one of its own row.
    pub fn postpone(&self, deleted: SystemTime, this: Try) -> bool {
        let mut draw = self.draw();
        let may = draw.newest == this && !self.is_abandoned();
        if may {
            draw.at = stamp::after(deleted);
        }
        may
    }

    fn draw(&self) -> std::sync::MutexGuard<'_, Draw> {
        self.draw.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
