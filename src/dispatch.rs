//! Sends a call to the active master, and again when that master is lost on the way: a request that
//! is under way during a failover is answered by the other master, and its client notices a pause.

use crate::board::Board;
use crate::cluster::{Event, NodeId};
use crate::limits;
use crate::pg::{Call, CallError, Session, Sessions, is_of_a_rule, is_of_the_server};
use crate::supervisor::Supervisor;
use crossbeam_channel::select;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Whether a call changes rows; those that do wait while a handover holds the writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Read,
    Write,
}

/// Which try of a call this is.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// Counted from 0; a later one may run while an earlier one still sits on a frozen master.
    pub number: u32,
    /// An earlier try may have taken effect, here or on the other master.
    pub may_have_happened: bool,
    /// One may have taken effect on the other master, from where it need not have arrived here.
    pub may_be_elsewhere: bool,
}

/// Why a call has no result.
#[derive(Debug)]
pub enum DispatchError {
    /// Nobody serves.
    NoMaster { reason: String },
    /// The deadline of the request is over.
    Late { reason: String },
    /// Too many calls are waiting.
    Overloaded,
    /// The server's verdict.
    Verdict {
        node: NodeId,
        error: postgres::Error,
    },
}

/// A failed call, and whether it may have taken effect all the same. One call can stand for many
/// requests, each of which is told.
#[derive(Clone, Debug)]
pub struct Failed {
    pub error: Arc<DispatchError>,
    pub may_have_happened: bool,
}

/// The way from a request to the active master.
pub struct Dispatch {
    board: Arc<Board>,
    supervisor: Supervisor,
    sessions: [Sessions; 2],
}

impl Dispatch {
    pub fn new(board: Arc<Board>, supervisor: Supervisor, sessions: [Sessions; 2]) -> Dispatch {
        Dispatch {
            board,
            supervisor,
            sessions,
        }
    }

    /// Runs `work` on the active master and returns its result with the master that gave it. `work`
    /// runs again, on whichever master is active then, whenever a try ended without a verdict; so it
    /// must be safe to repeat.
    ///
    /// # Errors
    /// When nobody serves, the deadline is over, the queues are full, or the server says no.
    pub fn call<T, F>(&self, kind: Kind, deadline: Instant, work: F) -> Result<(T, NodeId), Failed>
    where
        T: Send + 'static,
        F: Fn(&mut Session, Attempt) -> Result<T, postgres::Error> + Send + Sync + 'static,
    {
        let work = Arc::new(work);
        let mut may_have_happened = false;
        let mut may_be_on = [false; 2];
        let mut last_cause = String::from("writes are held by a handover");
        let mut number = 0;
        while number < limits::ATTEMPTS_MAX && Instant::now() < deadline {
            let fail = |error| Failed {
                error: Arc::new(error),
                may_have_happened,
            };
            let (view, changed) = self.board.look();
            if !view.serving {
                return Err(fail(DispatchError::NoMaster {
                    reason: view.outage_reason(),
                }));
            }
            let node = view.active;
            let guard = match kind {
                Kind::Read => None,
                Kind::Write => match self.board.begin_write(node) {
                    Some(guard) => Some(guard),
                    // Waiting is no attempt: the picture changes when the handover has ended.
                    None => {
                        wait_for(&changed, limits::RETRY_PAUSE.min(left(deadline)));
                        continue;
                    }
                },
            };
            let attempt = Attempt {
                number,
                may_have_happened,
                may_be_elsewhere: may_be_on[node.peer().index()],
            };
            number += 1;
            let work = Arc::clone(&work);
            // The guard goes along, so that a handover also waits for a call that was given up on.
            let result = self.attempt(kind, node, deadline, move |session| {
                let _guard = guard;
                work(session, attempt)
            });
            match result {
                Ok(value) => return Ok((value, node)),
                Err(CallError::Verdict(error)) => {
                    self.doubt(kind, node, &error);
                    return Err(fail(DispatchError::Verdict { node, error }));
                }
                Err(CallError::Busy) => return Err(fail(DispatchError::Overloaded)),
                Err(CallError::NotStarted(cause)) => last_cause = cause,
                Err(CallError::Unknown(cause)) => {
                    may_have_happened = true;
                    may_be_on[node.index()] = true;
                    last_cause = cause;
                }
            }
            // Looked at before it is told: the failover may be over before this thread goes on.
            let (view, changed) = self.board.look();
            if view.active != node {
                continue; // it is over, and the other master is ready
            }
            self.supervisor.report(Event::Doubted {
                node,
                cause: last_cause.clone(),
            });
            wait_for(&changed, limits::RETRY_PAUSE);
        }
        Err(Failed {
            error: Arc::new(DispatchError::Late { reason: last_cause }),
            may_have_happened,
        })
    }

    /// Tells of a write that the server refused for a reason of its own, or by a rule: it may refuse all of them.
    fn doubt(&self, kind: Kind, node: NodeId, error: &postgres::Error) {
        let own = error.code();
        let own = own.is_some_and(|code| is_of_the_server(code) || is_of_a_rule(code));
        if own && kind == Kind::Write && self.board.may_doubt(node) {
            self.supervisor.report(Event::WriteDoubted { node });
        }
    }

    /// One try on one master. It ends early when the route moves away from that master.
    fn attempt<T: Send + 'static>(
        &self,
        kind: Kind,
        node: NodeId,
        deadline: Instant,
        work: impl FnOnce(&mut Session) -> Result<T, postgres::Error> + Send + 'static,
    ) -> Result<T, CallError> {
        let sessions = &self.sessions[node.index()];
        let call: Call<T> = match kind {
            Kind::Read => sessions.submit_read(work)?,
            Kind::Write => sessions.submit(work)?,
        };
        loop {
            let (view, changed) = self.board.look();
            if !view.serving || view.active != node {
                return call.give_up("the route moved to the other master meanwhile");
            }
            let left = left(deadline);
            if left.is_zero() {
                return call.give_up("the deadline of the request is over");
            }
            select! {
                recv(call.reply()) -> reply => return reply.unwrap_or_else(|_| {
                    Err(CallError::Unknown("the session ended without an answer".to_string()))
                }),
                recv(changed) -> _ => {}
                default(left) => {}
            }
        }
    }
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// Waits for a newer picture, but not longer than `time`.
fn wait_for(changed: &crate::board::Changed, time: Duration) {
    select! {
        recv(changed) -> _ => {}
        default(time) => {}
    }
}
