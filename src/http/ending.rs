//! Requests that end before they were read: the rest of their body, and the connections that cannot be brought to an end.

use super::Reply;
use super::body::{self, has_unread_body, response};
use super::server::{Guest, Shared};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A body announced longer than this is never read: tiny_http would allocate its whole length to
/// throw it away, and end the process when it cannot.
const ABSURD_BODY_BYTES: usize = 64 * 1024 * 1024;

/// Requests that had to be left lying before the process ends, to be started again by whoever runs it.
const LEFT_LYING_MAX: usize = 1_000;

impl Shared {
    /// Ends a request with a body that nobody read. What has been announced must be read before the
    /// connection can go on, and tiny_http would do so without a limit in time or memory.
    pub(super) fn drain(self: &Arc<Shared>, (mut guest, reply): (Guest, Reply)) {
        let absurd = guest
            .request
            .body_length()
            .is_some_and(|length| length > ABSURD_BODY_BYTES);
        if absurd || !body::discard_body(&mut guest.request) {
            self.leave_lying(guest, &reply);
        } else {
            self.respond((guest, reply));
        }
    }

    /// Answers a request whose connection cannot be brought to an end: tiny_http shows no way to close
    /// it. What it holds of it is left alone for good, a little memory, a thread and two descriptors;
    /// before that adds up, the process ends and is started again.
    pub(super) fn leave_lying(&self, guest: Guest, reply: &Reply) {
        // Behind a body that is left unread tiny_http finds no other request, so the connection is over, and
        // its client may come again from the same port. Else its turn does not end, since an answer to
        // the next request could not be sent.
        let is_last = !guest.body_read && has_unread_body(&guest.request);
        let Guest { request, turn, .. } = guest;
        std::mem::forget(request.upgrade("none", response(reply)));
        if let Some(client) = turn.client.filter(|_| is_last) {
            self.turns.end(client);
        }
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        std::mem::forget(turn);
        self.count_left_lying("its body does not end");
    }

    pub(super) fn count_left_lying(&self, why: &str) {
        log::warn!("a request is left lying: {why}");
        let left = self.left_lying.fetch_add(1, Ordering::SeqCst);
        if left >= LEFT_LYING_MAX {
            log::error!("{left} requests were left lying; the process ends");
            crate::logging::flush(Duration::from_millis(500));
            std::process::exit(1);
        }
    }
}
