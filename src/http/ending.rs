//! Requests that end before they were read, and connections that end with them.

use super::body::{self, has_unread_body, header, response};
use super::deadlines::Watch;
use super::messages as msg;
use super::server::{Guest, Shared, Turn};
use super::wire::Wire;
use super::{Problem, Reply};
use crate::limits;
use std::io::{Error, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Requests that had to be left lying before the process ends, to be started again by whoever runs it.
const LEFT_LYING_MAX: usize = 1_000;

/// Whether a connection cannot go on after this problem: where its next request begins is not known, or is known when everything that
/// its client has to send has come, which is too late for the answer.
pub(super) fn ends_connection(problem: &Problem) -> bool {
    [msg::BODY_INCOMPLETE, msg::LENGTH_REQUIRED, msg::STOPPING].contains(&problem.fault.message)
}

impl Shared {
    /// Ends a request with a body that nobody read. What has been announced must be read before the
    /// connection can go on, and tiny_http would do so without a limit in time or memory.
    pub(super) fn drain(self: &Arc<Shared>, (mut guest, reply): (Guest, Reply)) {
        let length = guest.request.body_length().unwrap_or(0);
        // Who waits to be asked for a body need not send one that is not wanted.
        let waits = header(&guest.request, "Expect").is_some();
        let mut ends = guest.hang_up || waits || length > limits::DRAIN_MAX_BYTES;
        if !ends {
            let watch = self.watch(&guest, Instant::now() + limits::DRAIN_PATIENCE);
            ends = !body::discard_body(&mut guest.request);
            drop(watch);
        }
        if ends {
            self.hang_up(guest, &reply, limits::DRAIN_PATIENCE);
        } else {
            self.respond((guest, reply));
        }
    }

    /// Answers a request while the process stops, and says that its connection ends with that, unless more of its requests were taken.
    pub(super) fn respond_and_end(&self, guest: Guest, reply: &Reply) {
        let Guest { request, turn, .. } = guest;
        let last = turn.client.is_none_or(|client| self.turns.is_last(client));
        let answer = body::printed(&request, reply, last);
        let mut stream = request.into_writer();
        // A client that has gone is no error of ours.
        let _ = stream.write_all(&answer);
        let _ = stream.flush();
        drop(stream);
        drop(turn); // only now may the next request of this connection be answered
    }

    /// Sees to it that reading a body in chunks ends some time after this deadline, by which it should.
    pub(super) fn watch(&self, guest: &Guest, deadline: Instant) -> Option<Watch<'_>> {
        let chunked = guest.request.body_length().is_none() && has_unread_body(&guest.request);
        let client = guest.turn.client.filter(|_| chunked)?;
        let wire = self.wire_of(client).ok().flatten()?;
        // A client that is silent is noticed before, and answered.
        let time = deadline + limits::CLIENT_SILENCE;
        Some(self.deadlines.close_at(time, wire))
    }

    /// The socket of a client's connection; see [`Wire::find`].
    ///
    /// # Errors
    /// When it cannot be told.
    pub(super) fn wire_of(&self, client: SocketAddr) -> std::io::Result<Option<Wire>> {
        Wire::find(client, self.app.config.port)
    }

    /// Answers a request and ends its connection, where the rest of the body may still arrive.
    pub(super) fn hang_up(&self, guest: Guest, reply: &Reply, patience: Duration) {
        let length = guest.request.body_length().unwrap_or(0);
        let unread = !guest.body_read && has_unread_body(&guest.request);
        let Guest { request, turn, .. } = guest;
        let wire = match turn.client {
            Some(client) => self.wire_of(client),
            None => Err(Error::other("it has no address")),
        };
        // The only way in which tiny_http answers before it has read the body. It sends the head alone, without a length, so that the
        // text ends with the connection.
        let text = body::text_for(&request, reply);
        let mut stream = request.upgrade("none", response(reply));
        // A client that has gone is no error of ours.
        let _ = stream.write_all(text.as_bytes());
        let _ = stream.flush();
        if let Ok(Some(wire)) = &wire {
            wire.end_answer();
            wire.linger(patience);
            wire.close();
        }
        let lies = match wire {
            Err(error) => Some(format!("its connection is not found: {error}")),
            Ok(_) if !could_be_allocated(length) => {
                Some("its body is larger than the memory".to_string())
            }
            Ok(_) => None,
        };
        let is_left = lies.is_some();
        match lies {
            None => {
                // What tiny_http has read already is of the body, and must not be taken for another request.
                while let Ok(1..) = stream.read(&mut [0; 1024]) {}
                drop(stream);
            }
            // A little memory, a thread and two descriptors, for good: tiny_http would not survive the end of it, or wait for ever.
            Some(why) => {
                std::mem::forget(stream);
                self.count_left_lying(&why);
            }
        }
        self.end_last_turn(turn, unread, is_left);
    }

    /// Ends the turn of a request behind which no other one of its connection can be answered.
    fn end_last_turn(&self, mut turn: Turn, unread: bool, lies: bool) {
        // Behind a body that was left unread tiny_http has found no other request. What waits is of another connection, whose client
        // came again from the same port.
        if unread {
            return drop(turn);
        }
        let waiting = turn.client.take().map(|client| self.turns.end(client));
        for request in waiting.unwrap_or_default() {
            self.under_way.fetch_sub(1, Ordering::SeqCst);
            match lies {
                true => std::mem::forget(request), // its answer would wait for the one that is left lying
                false => drop(request),
            }
        }
    }

    pub(super) fn count_left_lying(&self, why: &str) {
        log::warn!("a request is left lying: {why}");
        let left = self.left_lying.fetch_add(1, Ordering::SeqCst);
        if left >= LEFT_LYING_MAX {
            self.give_up(&format!("{left} requests were left lying"));
        }
    }
}

/// Whether the system would give so much memory. tiny_http asks for as much as is missing of a body before it lets go of it, even if
/// nothing more can come, and ends the process when it does not get it; it never uses it.
fn could_be_allocated(bytes: usize) -> bool {
    let mut memory: Vec<u8> = Vec::new();
    let given = memory.try_reserve_exact(bytes).is_ok();
    // Else the compiler may leave out the asking.
    std::hint::black_box(&memory);
    given
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_asked_for_and_not_taken_for_granted() {
        assert!(could_be_allocated(1024 * 1024));
        assert!(!could_be_allocated(1 << 60));
        assert!(!could_be_allocated(usize::MAX));
    }
}
