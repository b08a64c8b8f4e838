//! The body of a request, which may come slowly, in pieces, or never; headers; and the bytes of an answer.

use super::messages as msg;
use super::{Body, Problem, Reply};
use crate::limits;
use std::io::{Cursor, ErrorKind, Read};
use std::time::Instant;
use tiny_http::{Header, Method, Request, Response};

/// tiny_http reads a body of up to this many bytes by itself before it hands out the request.
const READ_AHEAD_BYTES: usize = 1024;

/// Whether bytes of the body may still be on their way. tiny_http has read a short one by itself,
/// unless its client waits to be told to go on.
pub(super) fn has_unread_body(request: &Request) -> bool {
    let announced = request.body_length().unwrap_or(0);
    let chunked = headers(request, "Transfer-Encoding").next().is_some();
    let waits = header(request, "Expect").is_some();
    announced > READ_AHEAD_BYTES || chunked || (announced > 0 && waits)
}

/// Whether the client means to send a body at all. Some send none in chunks.
pub(super) fn is_meant(request: &Request) -> bool {
    header(request, "Content-Type").is_some() || request.body_length().unwrap_or(0) > 0
}

/// Whether the whole body is in memory, so that reading it waits for nobody. `Connection: upgrade` makes
/// tiny_http leave it on the connection.
pub(super) fn is_here(request: &Request) -> bool {
    let upgrade =
        headers(request, "Connection").any(|value| value.to_ascii_lowercase().contains("upgrade"));
    !upgrade && !has_unread_body(request)
}

/// Reads what is left of a body and throws it away; returns whether it came to its end, so that its connection can go on.
pub(super) fn discard_body(request: &mut Request) -> bool {
    let deadline = Instant::now() + limits::DRAIN_PATIENCE;
    let mut piece = [0; 16 * 1024];
    let mut discarded = 0;
    let reader = request.as_reader();
    while Instant::now() < deadline && discarded <= limits::DRAIN_MAX_BYTES {
        match reader.read(&mut piece) {
            Ok(0) => return true,
            Ok(count) => discarded += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // It broke, or it was silent past the limit of its socket. What comes yet may be the rest of it.
            Err(_) => return false,
        }
    }
    false
}

/// The body of a request, as far as it may be read.
///
/// # Errors
/// What is wrong with it, or with its type.
pub(super) fn read_body(request: &mut Request, deadline: Instant) -> Result<Vec<u8>, Problem> {
    let too_large = || Problem::new(msg::BODY_TOO_LARGE, limits::BODY_MAX_BYTES.to_string());
    {
        // A web page can send a request without a type to anywhere, unasked; one with this type it cannot.
        let kind = header(request, "Content-Type").ok_or(Problem::from(msg::TYPE_UNSUPPORTED))?;
        let mut parts = kind.split(';').map(|part| part.trim().to_ascii_lowercase());
        let json = parts.next().is_some_and(|kind| kind == "application/json");
        let utf8 = parts.all(|part| {
            part.strip_prefix("charset=")
                .is_none_or(|charset| charset.trim_matches('"') == "utf-8")
        });
        if !json || !utf8 {
            return Err(msg::TYPE_UNSUPPORTED.into());
        }
    }
    let announced = request.body_length();
    if announced.is_some_and(|length| length > limits::BODY_MAX_BYTES) {
        return Err(too_large());
    }
    let mut body = Vec::with_capacity(announced.unwrap_or(0));
    let mut piece = [0; 4096];
    // With `Connection: upgrade` tiny_http hands out the whole connection as the body.
    let most = announced.unwrap_or(limits::BODY_MAX_BYTES + 1);
    let mut reader = request.as_reader().take(most as u64);
    loop {
        if Instant::now() >= deadline {
            return Err(msg::BODY_INCOMPLETE.into());
        }
        match reader.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => body.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return Err(msg::BODY_INCOMPLETE.into()),
        }
        if body.len() > limits::BODY_MAX_BYTES {
            return Err(too_large());
        }
    }
    match announced {
        Some(length) if body.len() < length => Err(msg::BODY_INCOMPLETE.into()),
        _ => Ok(body),
    }
}

/// The text of an answer to this request; HEAD asks for none.
pub(super) fn text_for(request: &Request, reply: &Reply) -> String {
    match request.method() {
        Method::Head => String::new(),
        _ => written(reply).1,
    }
}

/// The type and the text of an answer.
fn written(reply: &Reply) -> (&'static str, String) {
    match &reply.body {
        Body::Json(value) => ("application/json; charset=utf-8", format!("{value}\n")),
        Body::Written(json) => ("application/json; charset=utf-8", format!("{json}\n")),
        Body::Text(text) => ("text/plain; version=0.0.4; charset=utf-8", text.clone()),
    }
}

/// An answer for tiny_http.
pub(super) fn response(reply: &Reply) -> Response<Cursor<Vec<u8>>> {
    let (kind, text) = written(reply);
    let mut response = Response::from_data(text).with_status_code(reply.status);
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

/// The bytes of an answer to this request, which may say that the connection ends with it. tiny_http lets nobody set that header.
pub(super) fn printed(request: &Request, reply: &Reply, ends: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    let is_head = *request.method() == Method::Head;
    // Memory takes everything.
    let _ = response(reply).raw_print(
        &mut bytes,
        request.http_version().clone(),
        request.headers(),
        is_head,
        None,
    );
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    if let Some(end) = head.filter(|_| ends) {
        bytes.splice(end..end, *b"\r\nConnection: close");
    }
    bytes
}

/// The values of a header.
pub(super) fn headers<'a>(
    request: &'a Request,
    name: &'static str,
) -> impl Iterator<Item = &'a str> {
    request
        .headers()
        .iter()
        .filter(move |header| header.field.equiv(name))
        .map(|header| header.value.as_str().trim())
}

/// The first of them.
pub(super) fn header<'a>(request: &'a Request, name: &'static str) -> Option<&'a str> {
    headers(request, name).next()
}
