//! The orderly stop: nobody else is let in, and everything that was accepted is answered, up to a deadline.

use super::server::{Http, Shared};
use super::turns::Standing;
use super::wire::Wire;
use crate::limits;
use std::collections::HashMap;
use std::net::SocketAddr;
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
            let open = self.shared.close_idle(self.port.number(), &mut seen);
            let unanswered = self.shared.under_way.load(Ordering::SeqCst);
            let stopped = Stopped { unanswered, open };
            if stopped.is_clean() || Instant::now() >= deadline {
                return stopped;
            }
            std::thread::sleep(limits::STOP_LOOK);
        }
    }

    /// Lets nobody else in, waits until tiny_http has taken whoever is, and closes the port.
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

/// What a stop remembers of a connection.
struct Seen {
    standing: Standing,
    /// Since when nothing has happened there.
    since: Instant,
    /// Its client keeps its own end open.
    closed: bool,
}

impl Shared {
    /// Closes the connections on which nothing has happened for a while; returns how many others there are.
    fn close_idle(&self, port: u16, seen: &mut HashMap<SocketAddr, Seen>) -> usize {
        // Without the list nobody can be closed, and the end of the process does it.
        let open = Wire::all(port).unwrap_or_default();
        let mut left = 0;
        for (client, wire) in open {
            let standing = self.turns.standing(client);
            let seen = seen.entry(client).or_insert_with(|| Seen {
                standing,
                since: Instant::now(),
                closed: false,
            });
            if seen.closed {
                continue;
            }
            // What comes on one that is over is not read.
            let moves = standing != Standing::Over && wire.has_unread();
            if moves || seen.standing != standing {
                (seen.standing, seen.since) = (standing, Instant::now());
            }
            let quiet = seen.since.elapsed();
            match standing {
                // If it waits for the rest of a body, its client is too slow; if for a master, nothing is lost.
                Standing::Busy if quiet >= limits::STOP_STALL => wire.end_reading(),
                Standing::Idle | Standing::Over if quiet >= limits::STOP_IDLE => {
                    wire.close();
                    seen.closed = true;
                    continue;
                }
                _ => {}
            }
            left += 1;
        }
        left
    }
}
