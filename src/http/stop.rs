//! The orderly stop: nobody else is let in, and everything that was accepted is answered, up to a deadline.

use super::clients::Standing;
use super::server::{Http, Shared};
use crate::limits;
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Why the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// A signal of this name asked for it.
    Asked(&'static str),
    /// Something in it is broken for good, and was logged.
    Broken,
}

/// How a stop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Requests that were accepted and have no answer.
    pub unanswered: usize,
    /// Connections on which something could still have come.
    pub open: usize,
}

impl Stopped {
    /// Whether nobody waits for an answer any more.
    pub fn is_clean(self) -> bool {
        (self.unanswered, self.open) == (0, 0)
    }
}

impl Http {
    /// Answers every request that was accepted, and closes the connections after that; not beyond `deadline`.
    pub fn stop(&self, deadline: Instant) -> Stopped {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.close_the_port(deadline);
        let mut seen = HashMap::new();
        loop {
            let stopped = self.shared.close_idle(&mut seen);
            if stopped.is_clean() || Instant::now() >= deadline {
                return stopped;
            }
            std::thread::sleep(limits::STOP_LOOK);
        }
    }

    /// Lets nobody else in, waits until whoever is has been accepted, and closes the port.
    fn close_the_port(&self, deadline: Instant) {
        if let Err(error) = self.port.refuse_newcomers() {
            log::warn!("keep newcomers out while stopping: {error}; some of them may be cut off");
        }
        let last = deadline.min(Instant::now() + limits::STOP_BACKLOG_MAX);
        let mut seen = Instant::now();
        while seen.elapsed() < limits::STOP_BACKLOG && Instant::now() < last {
            if self.port.has_waiting() {
                seen = Instant::now();
            }
            std::thread::sleep(limits::STOP_LOOK);
        }
        self.port.close();
    }
}

impl Shared {
    /// Ends the connections on which nothing has happened for a while; returns how many are left. `seen` is what was seen before: the
    /// moves of each, and since when there was no other one.
    fn close_idle(&self, seen: &mut HashMap<u64, (u32, Instant)>) -> Stopped {
        let mut left = Stopped {
            unanswered: 0,
            open: 0,
        };
        for (number, client) in self.clients.all() {
            // The moves first: whoever moves meanwhile is looked at again.
            let (moves, standing) = (client.moves(), client.standing());
            if standing == Standing::Over {
                continue;
            }
            left.open += 1;
            left.unanswered += usize::from(standing != Standing::Idle);
            let seen = seen.entry(number).or_insert((moves, Instant::now()));
            if seen.0 != moves {
                *seen = (moves, Instant::now());
            }
            let quiet = seen.1.elapsed();
            match standing {
                // What has come by now is still read and answered.
                Standing::Idle if quiet >= limits::STOP_IDLE => client.end_reading(),
                Standing::Reading if quiet >= limits::STOP_STALL => client.end_reading(),
                _ => {}
            }
        }
        left
    }
}
