//! From bytes to a handler and back. The fronts (`listener.rs`) only sort requests: what needs no
//! master is answered by the answer threads from memory, what does goes through a bounded queue to the
//! workers, and a request whose body nobody read is ended by the drains. So no client and no master
//! can keep anybody else waiting.

use super::access::{self, Caller};
use super::listener;
use super::messages::{self as msg, Language};
use super::router::{self, Access, Place, Route};
use super::{App, Problem, Reply, Req};
use crate::limits;
use anyhow::Context;
use crossbeam_channel::{Receiver, Sender, TrySendError};
use std::io::{Cursor, ErrorKind, Read};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::Builder;
use std::time::{Duration, Instant};
use tiny_http::{Header, Request, Response};

/// What a proxy adds to a request.
const FORWARDED: &[&str] = &["Forwarded", "X-Forwarded-For", "Via"];

/// Threads that send answers which are ready. A client can hold one, by not reading.
const ANSWERERS: usize = 8;

/// Threads that end requests with an unread body. A client can hold one, by sending slowly.
const DRAINS: usize = 4;

/// tiny_http reads a body of up to this many bytes by itself before it hands out the request.
const READ_AHEAD_BYTES: usize = 1024;

/// A body announced longer than this is never read: tiny_http would allocate its whole length to
/// throw it away, and end the process when it cannot.
const ABSURD_BODY_BYTES: usize = 64 * 1024 * 1024;

/// Requests that had to be left lying before the process ends, to be started again by whoever runs it.
const LEFT_LYING_MAX: usize = 1_000;

/// The running server.
pub struct Http {
    shared: Arc<Shared>,
}

/// What the threads of the server share.
pub(super) struct Shared {
    app: App,
    stopping: AtomicBool,
    /// Requests that have been received and not answered.
    under_way: AtomicUsize,
    left_lying: AtomicUsize,
    work: Sender<Work>,
    answer: Sender<(Request, Reply)>,
    drain: Sender<(Request, Reply)>,
}

struct Work {
    request: Request,
    route: &'static Route,
    req: Req,
}

/// Opens the port and starts all threads of the server.
///
/// # Errors
/// When the port cannot be opened or a thread not be started.
pub fn start(app: App) -> anyhow::Result<Http> {
    let address = SocketAddr::new(app.config.bind, app.config.port);
    let listener = listener::open(address).with_context(|| format!("listen on {address}"))?;
    let workers = app.config.http_workers;
    let (work, works) = crossbeam_channel::bounded(limits::CALL_QUEUE);
    let (answer, answers) = crossbeam_channel::bounded(limits::CALL_QUEUE);
    let (drain, drains) = crossbeam_channel::bounded(limits::DRAIN_QUEUE);
    let shared = Arc::new(Shared {
        app,
        stopping: AtomicBool::new(false),
        under_way: AtomicUsize::new(0),
        left_lying: AtomicUsize::new(0),
        work,
        answer,
        drain,
    });
    crew("http-worker", workers, &shared, &works, Shared::serve)?;
    crew("http-answer", ANSWERERS, &shared, &answers, Shared::respond)?;
    crew("http-drain", DRAINS, &shared, &drains, Shared::drain)?;
    listener::start(&shared, address, listener).context("start the listener")?;
    Ok(Http { shared })
}

/// Threads that do the same to whatever comes out of a queue. A panic ends one request, not a thread.
fn crew<T: Send + 'static>(
    name: &str,
    size: usize,
    shared: &Arc<Shared>,
    queue: &Receiver<T>,
    act: fn(&Shared, T),
) -> std::io::Result<()> {
    for index in 0..size {
        let (shared, queue) = (Arc::clone(shared), queue.clone());
        Builder::new()
            .name(format!("{name}-{index}"))
            .spawn(move || {
                for item in queue {
                    if catch_unwind(AssertUnwindSafe(|| act(&shared, item))).is_err() {
                        log::error!("a thread of the HTTP server panicked; please report it");
                    }
                    shared.under_way.fetch_sub(1, Ordering::SeqCst);
                }
            })?;
    }
    Ok(())
}

impl Http {
    /// Takes no more requests and waits for those under way, up to [`limits::STOP_DRAIN`].
    pub fn stop(&self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        let deadline = Instant::now() + limits::STOP_DRAIN;
        while self.shared.under_way.load(Ordering::SeqCst) > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Shared {
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Sorts one request; never waits for its client.
    pub(super) fn receive(&self, request: Request) {
        self.under_way.fetch_add(1, Ordering::SeqCst);
        let language =
            header(&request, "Accept-Language").map_or(Language::Spanish, Language::preferred);
        let (route, id) = match self.admit(&request) {
            Ok(found) => found,
            Err(problem) => return self.hand_back(request, problem.into_reply(language)),
        };
        let query = request
            .url()
            .split_once('?')
            .map_or("", |(_, query)| query)
            .to_string();
        let deadline = Instant::now() + self.app.config.request_deadline;
        let req = Req {
            language,
            deadline,
            id,
            query,
            body: Vec::new(),
        };
        if route.place == Place::Front {
            let reply = self.handle(route, &req);
            return self.hand_back(request, reply);
        }
        if let Err(error) = self.work.try_send(Work {
            request,
            route,
            req,
        }) {
            let (TrySendError::Full(work) | TrySendError::Disconnected(work)) = error;
            let reply = Problem::from(msg::OVERLOADED).into_reply(work.req.language);
            self.hand_back(work.request, reply);
        }
    }

    /// Hands an answer to the threads that send it.
    fn hand_back(&self, request: Request, reply: Reply) {
        let queue = if has_unread_body(&request) {
            &self.drain
        } else {
            &self.answer
        };
        if let Err(error) = queue.try_send((request, reply)) {
            // Too many clients that neither read nor send. Waiting for them here would stop everyone.
            let (TrySendError::Full((request, reply))
            | TrySendError::Disconnected((request, reply))) = error;
            self.leave_lying(request, &reply);
            self.under_way.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// The route of a request, if it is well-formed and its caller may use it.
    fn admit(&self, request: &Request) -> Result<(&'static Route, Option<String>), Problem> {
        // tiny_http takes any Transfer-Encoding for chunked and forgets a Content-Length beside it;
        // a proxy in front may not, and the two would disagree about where the request ends.
        let encodings: Vec<&str> = headers(request, "Transfer-Encoding").collect();
        let chunked = encodings
            .iter()
            .all(|encoding| encoding.eq_ignore_ascii_case("chunked"));
        let lengths = headers(request, "Content-Length").count();
        if !chunked || encodings.len() + lengths > 1 {
            return Err(msg::FRAMING_INVALID.into());
        }
        let path = request.url().split('?').next().unwrap_or_default();
        let (route, id) = router::find(request.method().as_str(), path)?;
        let caller = Caller {
            address: request.remote_addr().map(SocketAddr::ip),
            authorization: header(request, "Authorization"),
            origin: header(request, "Origin"),
            host: header(request, "Host"),
            forwarded: FORWARDED.iter().any(|name| header(request, name).is_some()),
        };
        // Without a token nobody has said who may come here; with one there may be a proxy in front,
        // with a name of its own.
        let token = self.app.config.admin_token.as_ref();
        if route.method != "GET" && token.is_none() && self.app.config.bind.is_loopback() {
            access::check_host(&caller)?;
        }
        if route.access == Access::Admin {
            access::may_administer(token, &caller)?;
        }
        Ok((route, id))
    }

    /// A worker's part: the body, the handler, the answer.
    fn serve(&self, work: Work) {
        let Work {
            mut request,
            route,
            mut req,
        } = work;
        let takes_body = match route.place {
            Place::WorkerWithBody => true,
            Place::WorkerMaybeWithBody => {
                header(&request, "Content-Type").is_some() || request.body_length().unwrap_or(0) > 0
            }
            Place::Worker | Place::Front => false,
        };
        if takes_body {
            match read_body(&mut request, req.deadline) {
                Ok(body) => req.body = body,
                // The rest of the body is still to come, so this is not for a worker to end.
                Err(problem) => {
                    self.under_way.fetch_add(1, Ordering::SeqCst);
                    return self.hand_back(request, problem.into_reply(req.language));
                }
            }
        } else if has_unread_body(&request) {
            let reply = self.handle(route, &req);
            self.under_way.fetch_add(1, Ordering::SeqCst);
            return self.hand_back(request, reply);
        }
        let reply = self.handle(route, &req);
        self.respond((request, reply));
    }

    fn handle(&self, route: &Route, req: &Req) -> Reply {
        // Handlers only read what they share, so a panic in one leaves nothing half-done behind.
        let handled = catch_unwind(AssertUnwindSafe(|| (route.handler)(&self.app, req)));
        match handled {
            Ok(Ok(reply)) => reply,
            Ok(Err(problem)) => problem.into_reply(req.language),
            Err(_) => {
                log::error!("{} {} panicked; please report it", route.method, route.path);
                Problem::from(msg::INTERNAL).into_reply(req.language)
            }
        }
    }

    /// Sends an answer, and the rest of the connection is tiny_http's.
    fn respond(&self, (request, reply): (Request, Reply)) {
        // A client that has gone is no error of ours.
        let _ = request.respond(response(&reply));
    }

    /// Ends a request with a body that nobody read. What has been announced must be read before the
    /// connection can go on, and tiny_http would do so without a limit in time or memory.
    fn drain(&self, (mut request, reply): (Request, Reply)) {
        let absurd = request
            .body_length()
            .is_some_and(|length| length > ABSURD_BODY_BYTES);
        if absurd || !discard_body(&mut request) {
            self.leave_lying(request, &reply);
        } else {
            self.respond((request, reply));
        }
    }

    /// Answers a request whose connection cannot be brought to an end: tiny_http shows no way to close
    /// it. What it holds of it is left alone for good, a little memory, a thread and two descriptors;
    /// before that adds up, the process ends and is started again.
    fn leave_lying(&self, request: Request, reply: &Reply) {
        log::warn!(
            "a request from {:?} is left lying: its body does not end",
            request.remote_addr()
        );
        std::mem::forget(request.upgrade("none", response(reply)));
        let left = self.left_lying.fetch_add(1, Ordering::SeqCst);
        if left >= LEFT_LYING_MAX {
            log::error!("{left} requests were left lying; the process ends");
            crate::logging::flush(Duration::from_millis(500));
            std::process::exit(1);
        }
    }
}

/// Whether bytes of the body may still be on their way. tiny_http has read a short one by itself,
/// unless its client waits to be told to go on.
fn has_unread_body(request: &Request) -> bool {
    let announced = request.body_length().unwrap_or(0);
    let chunked = headers(request, "Transfer-Encoding").next().is_some();
    let waits = header(request, "Expect").is_some();
    announced > READ_AHEAD_BYTES || chunked || (announced > 0 && waits)
}

/// Reads what is left of a body and throws it away; returns whether it ended in time.
fn discard_body(request: &mut Request) -> bool {
    let deadline = Instant::now() + limits::DRAIN_PATIENCE;
    let mut piece = [0; 16 * 1024];
    let reader = request.as_reader();
    while Instant::now() < deadline {
        match reader.read(&mut piece) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // It broke, or it was silent past the limit of its socket: the connection is over.
            Err(_) => return true,
        }
    }
    false
}

/// The body of a request, as far as it may be read.
fn read_body(request: &mut Request, deadline: Instant) -> Result<Vec<u8>, Problem> {
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

fn response(reply: &Reply) -> Response<Cursor<Vec<u8>>> {
    let mut body = reply.body.to_string().into_bytes();
    body.push(b'\n');
    let mut response = Response::from_data(body).with_status_code(reply.status);
    let fixed = [
        ("Content-Type", "application/json; charset=utf-8"),
        ("Cache-Control", "no-store"),
    ];
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

fn headers<'a>(request: &'a Request, name: &'static str) -> impl Iterator<Item = &'a str> {
    request
        .headers()
        .iter()
        .filter(move |header| header.field.equiv(name))
        .map(|header| header.value.as_str().trim())
}

fn header<'a>(request: &'a Request, name: &'static str) -> Option<&'a str> {
    headers(request, name).next()
}
