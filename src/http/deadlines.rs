//! Connections that are closed when their time is over. A thread that reads a body looks at the clock after each piece, and tiny_http
//! reads the size of a chunk until it ends, byte by byte: a client can make that last for ever.

use super::wire::Wire;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What is closed when; as many as there are threads that read bodies.
#[derive(Default)]
pub(super) struct Deadlines(Mutex<State>);

#[derive(Default)]
struct State {
    last: u64,
    open: HashMap<u64, (Instant, Wire)>,
}

/// A connection is not closed any more when this is dropped.
pub(super) struct Watch<'a> {
    deadlines: &'a Deadlines,
    number: u64,
}

impl Deadlines {
    /// Closes a connection at this time.
    pub(super) fn close_at(&self, time: Instant, wire: Wire) -> Watch<'_> {
        let mut state = self.state();
        state.last += 1;
        let number = state.last;
        state.open.insert(number, (time, wire));
        Watch {
            deadlines: self,
            number,
        }
    }

    /// Closes those whose time is over.
    pub(super) fn look(&self) {
        let now = Instant::now();
        let mut state = self.state();
        for (time, wire) in state.open.values() {
            if *time <= now {
                wire.close();
            }
        }
        state.open.retain(|_, (time, _)| *time > now);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.deadlines.state().open.remove(&self.number);
    }
}
