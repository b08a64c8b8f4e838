//! The bytes of an answer.

use super::{Body, Reply};
use std::io::Cursor;
use tiny_http::{HTTPVersion, Header, Response};

/// The type and the text of an answer.
fn written(reply: &Reply) -> (&'static str, String) {
    match &reply.body {
        Body::Json(value) => ("application/json; charset=utf-8", format!("{value}\n")),
        Body::Written(json) => ("application/json; charset=utf-8", format!("{json}\n")),
        Body::Text(text) => ("text/plain; version=0.0.4; charset=utf-8", text.clone()),
    }
}

/// An answer for tiny_http, never in chunks: the front looks for its length.
fn response(reply: &Reply) -> Response<Cursor<Vec<u8>>> {
    let (kind, text) = written(reply);
    let mut response = Response::from_data(text)
        .with_status_code(reply.status)
        .with_chunked_threshold(usize::MAX);
    let fixed = [("Content-Type", kind), ("Cache-Control", "no-store")];
    let own = reply
        .headers
        .iter()
        .map(|(name, value)| (*name, value.as_str()));
    for (name, value) in fixed.into_iter().chain(own) {
        if let Ok(header) = Header::from_bytes(name, value) {
            response.add_header(header);
        }
    }
    response
}

/// The bytes of an answer, as tiny_http would send them in many pieces.
pub(super) fn printed(reply: &Reply, is_head: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Memory takes everything.
    let _ = response(reply).raw_print(&mut bytes, HTTPVersion(1, 1), &[], is_head, None);
    bytes
}

/// Says in an answer whether its connection goes on, where the client would not take that for granted.
pub(super) fn mark(answer: &mut Vec<u8>, is_last: bool, is_old: bool) {
    let line: &[u8] = match (is_last, is_old) {
        (true, _) => b"Connection: close\r\n",
        (false, true) => b"Connection: keep-alive\r\n",
        (false, false) => return,
    };
    if let Some(end) = memchr::memmem::find(answer, b"\r\n\r\n") {
        answer.splice(end + 2..end + 2, line.iter().copied());
    }
}
