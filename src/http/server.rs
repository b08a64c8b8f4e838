//! Threads and bytes. Two front threads take requests from tiny_http, answer what needs no master at
//! once, and hand the rest to the workers through a bounded queue. What tiny_http lacks is here:
//! time limits on its connections, a listener that survives a failed `accept`, a bound on the
//! requests that wait, and care with bodies that are announced and not read.

use super::access::{self, Caller};
use super::messages::{self as msg, Language};
use super::router::{self, Access, Place, Route};
use super::{App, Problem, Reply, Req};
use crate::limits;
use anyhow::Context;
use crossbeam_channel::{Sender, TrySendError};
use socket2::{Domain, Socket, Type};
use std::io::{Cursor, ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::Builder;
use std::time::{Duration, Instant};
use tiny_http::{Header, Request, Response, Server};

/// Threads that receive requests. They never wait for a master or a client; two, so that one slow
/// write to a client's socket does not stop the other.
const FRONTS: usize = 2;

/// tiny_http reads a body of up to this many bytes by itself before it hands out the request.
const READ_AHEAD_BYTES: usize = 1024;

/// A body announced longer than this is never read: tiny_http would allocate its whole length to
/// throw it away, and end the process when it cannot.
const ABSURD_BODY_BYTES: usize = 64 * 1024 * 1024;

/// The running server.
pub struct Http {
    shared: Arc<Shared>,
}

struct Shared {
    app: App,
    stopping: AtomicBool,
    /// Requests that have been received and not answered.
    under_way: AtomicUsize,
    work: Sender<Work>,
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
    let listener = open(address).with_context(|| format!("listen on {address}"))?;
    let workers = app.config.http_workers;
    let (work, queue) = crossbeam_channel::bounded::<Work>(limits::CALL_QUEUE);
    let (drain, to_drain) = crossbeam_channel::bounded::<(Request, Reply)>(limits::DRAIN_QUEUE);
    let shared = Arc::new(Shared {
        app,
        stopping: AtomicBool::new(false),
        under_way: AtomicUsize::new(0),
        work,
        drain,
    });
    for index in 0..workers {
        let (shared, queue) = (Arc::clone(&shared), queue.clone());
        Builder::new()
            .name(format!("http-worker-{index}"))
            .spawn(move || queue.iter().for_each(|work| shared.serve(work)))?;
    }
    Builder::new()
        .name("http-drain".to_string())
        .spawn(move || {
            for (mut request, reply) in to_drain {
                discard_chunks(&mut request);
                // A length beyond what can be allocated panics in tiny_http; here it ends one request.
                let _ = catch_unwind(AssertUnwindSafe(|| respond(request, reply)));
            }
        })?;
    let of_listener = Arc::clone(&shared);
    Builder::new()
        .name("http-listener".to_string())
        .spawn(move || keep_listening(&of_listener, &listener))?;
    Builder::new()
        .name("http-pulse".to_string())
        .spawn(move || beat(address))?;
    Ok(Http { shared })
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

/// A listener whose time limits every accepted socket inherits (as Linux does it): tiny_http has
/// none of its own, and a client that sends half a request would hold a thread for ever. Nagle's
/// algorithm is off, because tiny_http writes an answer in pieces.
fn open(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_read_timeout(Some(limits::CLIENT_SILENCE))?;
    socket.set_write_timeout(Some(limits::CLIENT_SILENCE))?;
    socket.set_tcp_nodelay(true)?;
    socket.set_keepalive(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

/// The time limit of the listener holds for its own `accept` too, and tiny_http stops listening for
/// good at the first `accept` that fails. So somebody connects more often than that: this thread,
/// which thereby also notices when nobody accepts any more.
fn beat(address: SocketAddr) {
    let reachable = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    let target = SocketAddr::new(reachable, address.port());
    loop {
        if let Err(error) = TcpStream::connect_timeout(&target, limits::CONNECT_TIMEOUT) {
            log::warn!("the API does not accept connections on {target}: {error}");
        }
        std::thread::sleep(limits::PULSE_INTERVAL);
    }
}

/// Runs tiny_http on the listener, and again when its `accept` has failed. The port stays open
/// throughout, because each server gets a copy of the same socket.
fn keep_listening(shared: &Arc<Shared>, listener: &TcpListener) {
    while !shared.stopping.load(Ordering::SeqCst) {
        if let Err(error) = listen_once(shared, listener) {
            log::error!("the listener failed and is built again: {error:#}");
        }
        std::thread::sleep(limits::LISTENER_RETRY);
    }
}

/// One life of tiny_http's listener; returns when it has failed. Its front threads stay a while, for
/// the connections that it has accepted.
fn listen_once(shared: &Arc<Shared>, listener: &TcpListener) -> anyhow::Result<()> {
    let server = Server::from_listener(listener.try_clone()?, None)
        .map_err(|error| anyhow::anyhow!("build the server: {error}"))?;
    let server = Arc::new(server);
    let (failed, failure) = crossbeam_channel::bounded(FRONTS);
    for index in 0..FRONTS {
        let (shared, server, failed) = (Arc::clone(shared), Arc::clone(&server), failed.clone());
        Builder::new()
            .name(format!("http-front-{index}"))
            .spawn(move || front(&shared, &server, &failed))?;
    }
    drop(failed);
    // The first of them that meets the failure tells it.
    let error: std::io::Error = match failure.recv() {
        Ok(error) => error,
        Err(_) => return Ok(()),
    };
    Err(error).context("accept")
}

/// Life of a front thread. After the failure of its listener it goes on until no request has come
/// for longer than an idle connection lives.
fn front(shared: &Shared, server: &Server, failed: &Sender<std::io::Error>) {
    let mut retired = false;
    while !shared.stopping.load(Ordering::SeqCst) {
        match server.recv_timeout(limits::CLIENT_SILENCE + Duration::from_secs(1)) {
            Ok(Some(request)) => {
                shared.under_way.fetch_add(1, Ordering::SeqCst);
                shared.receive(request);
            }
            Ok(None) if retired => return,
            Ok(None) => {}
            Err(error) => {
                retired = true;
                let _ = failed.try_send(error);
            }
        }
    }
}

impl Shared {
    /// Takes in one request: answers it, or hands it to a worker.
    fn receive(&self, request: Request) {
        let language =
            header(&request, "Accept-Language").map_or(Language::Spanish, Language::preferred);
        let (route, id) = match self.admit(&request) {
            Ok(found) => found,
            Err(problem) => return self.finish(request, problem.into_reply(language)),
        };
        let req = Req {
            language,
            deadline: Instant::now() + self.app.config.request_deadline,
            id,
            query: request
                .url()
                .split_once('?')
                .map_or(String::new(), |(_, query)| query.to_string()),
            body: Vec::new(),
        };
        if route.place == Place::Front {
            let reply = self.handle(route, &req);
            return self.finish(request, reply);
        }
        if let Err(error) = self.work.try_send(Work {
            request,
            route,
            req,
        }) {
            let (TrySendError::Full(work) | TrySendError::Disconnected(work)) = error;
            let reply = Problem::from(msg::OVERLOADED).into_reply(work.req.language);
            self.finish(work.request, reply);
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
        if route.access == Access::Admin {
            let caller = Caller {
                address: request.remote_addr().map(SocketAddr::ip),
                authorization: header(request, "Authorization"),
                origin: header(request, "Origin"),
                host: header(request, "Host"),
            };
            access::may_administer(self.app.config.admin_token.as_ref(), &caller)?;
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
        if route.place == Place::WorkerWithBody {
            match read_body(&mut request, req.deadline) {
                Ok(body) => req.body = body,
                Err(problem) => {
                    let reply = problem.into_reply(req.language);
                    return self.finish(request, reply);
                }
            }
        }
        let reply = self.handle(route, &req);
        self.finish(request, reply);
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

    /// Sends the answer. tiny_http reads what is left of a body before it goes on, which can take as
    /// long as the client likes; so those requests are ended by a thread of their own.
    fn finish(&self, request: Request, reply: Reply) {
        let announced = request.body_length().unwrap_or(0);
        let chunked = headers(&request, "Transfer-Encoding").next().is_some();
        if announced > ABSURD_BODY_BYTES {
            refuse_absurd(request, &reply);
        } else if announced <= READ_AHEAD_BYTES && !chunked {
            respond(request, reply);
        } else if let Err(
            TrySendError::Full((request, reply)) | TrySendError::Disconnected((request, reply)),
        ) = self.drain.try_send((request, reply))
        {
            respond(request, reply);
        }
        self.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The body of a request, as far as it may be read.
fn read_body(request: &mut Request, deadline: Instant) -> Result<Vec<u8>, Problem> {
    let too_large = || Problem::new(msg::BODY_TOO_LARGE, limits::BODY_MAX_BYTES.to_string());
    if let Some(kind) = header(request, "Content-Type") {
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
    let reader = request.as_reader();
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

/// Reads what is left of a chunked body, up to a bound. tiny_http leaves it on the connection, where it
/// would be taken for the next request. A client that waits to be told to go on sends none.
fn discard_chunks(request: &mut Request) {
    let chunked = headers(request, "Transfer-Encoding").next().is_some();
    if chunked && header(request, "Expect").is_none() {
        let mut left = request.as_reader().take(ABSURD_BODY_BYTES as u64);
        let _ = std::io::copy(&mut left, &mut std::io::sink());
    }
}

fn respond(request: Request, reply: Reply) {
    // A client that has gone is no error of ours.
    let _ = request.respond(response(&reply));
}

/// Answers a request whose body must not be touched. Its connection cannot be used or closed after
/// that, so what tiny_http holds of it is left alone for good: a little memory and a thread, against
/// the whole process.
fn refuse_absurd(request: Request, reply: &Reply) {
    log::warn!(
        "a request announced a body of {:?} bytes",
        request.body_length()
    );
    std::mem::forget(request.upgrade("none", response(reply)));
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
