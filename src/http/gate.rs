//! How many requests may be with the masters at the same time. Whoever is let in finds a worker that is free, so those that need no
//! master always find one too, however long the others take.

use super::messages as msg;
use super::{Problem, router::Place};
use crate::limits;
use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The gates of the requests that a master, or Redis, can hold up.
pub(super) struct Gates {
    reads: Arc<Gate>,
    writes: Arc<Gate>,
    aside: Arc<Gate>,
    /// The places of requests that are on their way to a worker, by number.
    handed_on: Mutex<(u64, HashMap<u64, Pass>)>,
}

impl Gates {
    pub(super) fn new(readers: usize, writers: usize) -> Gates {
        Gates {
            reads: Gate::new(readers, limits::CALL_QUEUE),
            writes: Gate::new(writers, limits::CALL_QUEUE),
            aside: Gate::new(limits::HTTP_ASIDE, limits::ASIDE_QUEUE),
            handed_on: Mutex::default(),
        }
    }

    /// Keeps a place for the worker that gets the request, which gives it back when it is free again, whether somebody still waits
    /// for its answer or not.
    pub(super) fn hand_on(&self, pass: Pass) -> u64 {
        let mut handed_on = self.handed_on();
        handed_on.0 += 1;
        let number = handed_on.0;
        handed_on.1.insert(number, pass);
        number
    }

    /// The place with this number.
    pub(super) fn take(&self, number: u64) -> Option<Pass> {
        self.handed_on().1.remove(&number)
    }

    fn handed_on(&self) -> MutexGuard<'_, (u64, HashMap<u64, Pass>)> {
        self.handed_on
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// How many requests are let in by all of them.
    pub(super) fn size(&self) -> usize {
        [&self.reads, &self.writes, &self.aside]
            .map(|gate| gate.most)
            .iter()
            .sum()
    }

    /// Waits until a request may go on; none for one that needs not ask.
    ///
    /// # Errors
    /// When too many wait, or its deadline comes.
    pub(super) fn enter(&self, place: Place, deadline: Instant) -> Result<Option<Pass>, Problem> {
        let gate = match place {
            Place::Front | Place::Lane => return Ok(None),
            Place::Worker => &self.reads,
            Place::Writer | Place::WriterWithBody => &self.writes,
            _ => &self.aside,
        };
        let entered = Gate::enter(gate, deadline);
        let kinds = "for the history, the conflicts, comparisons or backups";
        entered.map(Some).map_err(|problem| match place.is_aside() {
            true if problem.fault.message == msg::LATE => problem.because(format!(
                "the requests {kinds} before this one took all of its time"
            )),
            true => problem.because(format!(
                "{} requests {kinds} are waiting",
                limits::HTTP_ASIDE + limits::ASIDE_QUEUE
            )),
            false => problem,
        })
    }
}

/// So many may be inside, and so many may wait.
struct Gate {
    most: usize,
    waiting_most: usize,
    state: Mutex<State>,
    left: Condvar,
}

#[derive(Default)]
struct State {
    inside: usize,
    waiting: usize,
}

/// The place of one that is inside.
pub(super) struct Pass(Arc<Gate>);

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.state().inside -= 1;
        self.0.left.notify_one();
    }
}

impl Gate {
    fn new(most: usize, waiting_most: usize) -> Arc<Gate> {
        Arc::new(Gate {
            most,
            waiting_most,
            state: Mutex::default(),
            left: Condvar::new(),
        })
    }

    fn enter(gate: &Arc<Gate>, deadline: Instant) -> Result<Pass, Problem> {
        let mut state = gate.state();
        if state.inside >= gate.most {
            if state.waiting >= gate.waiting_most {
                return Err(msg::OVERLOADED.into());
            }
            state.waiting += 1;
            while state.inside >= gate.most {
                let patience = deadline.saturating_duration_since(Instant::now());
                if patience.is_zero() {
                    state.waiting -= 1;
                    return Err(msg::LATE.into());
                }
                let waited = gate.left.wait_timeout(state, patience);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            state.waiting -= 1;
        }
        state.inside += 1;
        Ok(Pass(Arc::clone(gate)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn code(entered: Result<Pass, Problem>) -> &'static str {
        entered
            .err()
            .map_or("", |problem| problem.fault.message.code)
    }

    #[test]
    fn a_gate_lets_so_many_in_and_lets_so_many_wait() {
        let gate = Gate::new(1, 1);
        let soon = || Instant::now() + Duration::from_secs(60);
        let pass = Gate::enter(&gate, soon()).expect("it is free");
        assert_eq!(code(Gate::enter(&gate, Instant::now())), "late");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| Gate::enter(&gate, soon()).is_ok());
            while gate.state().waiting == 0 {
                std::thread::yield_now();
            }
            assert_eq!(code(Gate::enter(&gate, soon())), "overloaded");
            drop(pass);
            assert!(waiting.join().expect("no panic"));
        });
    }

    #[test]
    fn a_place_is_free_when_the_worker_is_and_not_before() {
        let gates = Gates::new(1, 1);
        let enter = || gates.enter(Place::Worker, Instant::now());
        let pass = enter().ok().flatten().expect("it is free");
        // Whoever asked may have gone by now.
        let number = gates.hand_on(pass);
        assert!(enter().is_err());
        let pass = gates.take(number).expect("handed on once");
        assert!(gates.take(number).is_none());
        assert!(enter().is_err());
        drop(pass);
        assert!(enter().is_ok());
    }
}
