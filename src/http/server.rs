//! From bytes to a handler and back. The fronts (`listener.rs`) only sort requests: what needs no
//! master is answered by the answer threads from memory, an insert goes to the write lane, and the rest
//! through bounded queues to the workers and writers; a body that is still on its way is read by threads
//! of its own, and one that nobody read is ended by the drains. So no client and no master can keep
//! anybody else waiting.

use super::access::{self, Caller};
use super::body::{self, has_unread_body, header, headers, response};
use super::deadlines::Deadlines;
use super::ending;
use super::listener::{self, Port};
use super::messages::{self as msg, Language};
use super::router::{self, Access, Handler, Place, Route};
use super::stop::Ending;
use super::turns::{Admission, Turns};
use super::{App, Done, Problem, Reply, Req};
use crate::limits;
use anyhow::Context;
use crossbeam_channel::{Receiver, Sender, TrySendError};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::Builder;
use std::time::{Duration, Instant};
use tiny_http::Request;

/// What a proxy adds to a request.
const FORWARDED: &[&str] = &["Forwarded", "X-Forwarded-For", "Via"];

/// Threads that send answers which are ready. A client can hold one, by not reading.
const ANSWERERS: usize = 8;

/// Threads that end requests with an unread body. A client can hold one, by sending slowly.
const DRAINS: usize = 4;

/// The running server.
pub struct Http {
    pub(super) shared: Arc<Shared>,
    pub(super) port: Port,
}

/// What the threads of the server share.
pub(super) struct Shared {
    pub(super) app: App,
    pub(super) stopping: AtomicBool,
    /// Asks for the end of the process, and says why.
    end: Sender<Ending>,
    /// Requests that have been received and not answered.
    pub(super) under_way: AtomicUsize,
    pub(super) left_lying: AtomicUsize,
    pub(super) turns: Turns<Request>,
    pub(super) deadlines: Deadlines,
    work: Sender<Work>,
    write: Sender<Work>,
    aside: Sender<Work>,
    body: Sender<Work>,
    pub(super) upload: Sender<Work>,
    /// Files that are arriving, or about to.
    pub(super) arriving: AtomicUsize,
    answer: Sender<(Guest, Reply)>,
    drain: Sender<(Guest, Reply)>,
}

/// A request that is being served. When it is dropped, in whatever way, the connection's next one is.
pub(super) struct Guest {
    pub(super) request: Request,
    pub(super) body_read: bool,
    /// Whether its connection ends with it, whatever is still to come.
    pub(super) hang_up: bool,
    pub(super) turn: Turn,
}

pub(super) struct Turn {
    shared: Arc<Shared>,
    pub(super) client: Option<SocketAddr>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.shared.under_way.fetch_sub(1, Ordering::SeqCst);
        let next = self
            .client
            .and_then(|client| self.shared.turns.next(client));
        if let Some(request) = next {
            self.shared.sort(self.shared.guest(request));
        }
    }
}

pub(super) struct Work {
    pub(super) guest: Guest,
    pub(super) route: &'static Route,
    pub(super) req: Req,
}

/// Listens on the port and starts all threads of the server; `end` is asked when it cannot go on.
///
/// # Errors
/// When the port cannot be listened on or a thread not be started.
pub fn start(app: App, port: Port, end: Sender<Ending>) -> anyhow::Result<Http> {
    let workers = app.config.http_workers;
    let writers = (app.config.pool_size as usize / limits::SESSIONS_PER_WRITER).max(1);
    let (work, works) = crossbeam_channel::bounded(limits::CALL_QUEUE);
    let (write, writes) = crossbeam_channel::bounded(limits::CALL_QUEUE);
    let (aside, asides) = crossbeam_channel::bounded(limits::ASIDE_QUEUE);
    let (body, bodies) = crossbeam_channel::bounded(limits::CALL_QUEUE);
    let (upload, uploads) = crossbeam_channel::bounded(limits::HTTP_UPLOADS);
    let (answer, answers) = crossbeam_channel::bounded(limits::ANSWER_QUEUE);
    let (drain, drains) = crossbeam_channel::bounded(limits::DRAIN_QUEUE);
    let shared = Arc::new(Shared {
        app,
        stopping: AtomicBool::new(false),
        end,
        under_way: AtomicUsize::new(0),
        left_lying: AtomicUsize::new(0),
        turns: Turns::new(),
        deadlines: Deadlines::default(),
        work,
        write,
        aside,
        body,
        upload,
        arriving: AtomicUsize::new(0),
        answer,
        drain,
    });
    crew("http-worker", workers, &shared, &works, Shared::serve)?;
    crew("http-writer", writers, &shared, &writes, Shared::serve)?;
    crew(
        "http-aside",
        limits::HTTP_ASIDE,
        &shared,
        &asides,
        Shared::serve,
    )?;
    crew(
        "http-body",
        limits::HTTP_BODIES,
        &shared,
        &bodies,
        Shared::take_body,
    )?;
    crew(
        "http-upload",
        limits::HTTP_UPLOADS,
        &shared,
        &uploads,
        Shared::take_upload,
    )?;
    crew("http-answer", ANSWERERS, &shared, &answers, Shared::respond)?;
    crew("http-drain", DRAINS, &shared, &drains, Shared::drain)?;
    let watching = Arc::clone(&shared);
    crate::vital::spawn("http-deadlines".to_string(), move || {
        loop {
            watching.deadlines.look();
            std::thread::sleep(limits::DEADLINES_LOOK);
        }
    })?;
    port.listen()?;
    listener::start(&shared, &port).context("start the listener")?;
    Ok(Http { shared, port })
}

/// Threads that do the same to whatever comes out of a queue. A panic ends one request, not a thread.
fn crew<T: Send + 'static>(
    name: &str,
    size: usize,
    shared: &Arc<Shared>,
    queue: &Receiver<T>,
    act: fn(&Arc<Shared>, T),
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
                }
            })?;
    }
    Ok(())
}

impl Shared {
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Asks for an orderly end of the process, so that whoever runs it starts it again.
    pub(super) fn give_up(&self, why: &str) {
        log::error!("{why}; the process ends");
        // If nobody takes it, the end has been asked for already.
        let _ = self.end.try_send(Ending::Broken);
    }

    /// Takes in one request, in the order in which they come; none, if it is not its turn yet.
    pub(super) fn receive(self: &Arc<Shared>, request: Request) -> Option<Guest> {
        let request = match request.remote_addr().copied() {
            Some(client) => match self.turns.ask(client, request) {
                Admission::Go(request) => request,
                Admission::Parked => {
                    self.under_way.fetch_add(1, Ordering::SeqCst);
                    return None;
                }
                Admission::Refused(request) => {
                    std::mem::forget(request); // its answer would wait for those before it
                    self.count_left_lying("too many requests wait for the one before them");
                    return None;
                }
                Admission::Over(request) => {
                    std::mem::forget(request); // for as long as the process still lives
                    return None;
                }
            },
            None => request,
        };
        self.under_way.fetch_add(1, Ordering::SeqCst);
        Some(self.guest(request))
    }

    fn guest(self: &Arc<Shared>, request: Request) -> Guest {
        let client = request.remote_addr().copied();
        Guest {
            request,
            body_read: false,
            hang_up: false,
            turn: Turn {
                shared: Arc::clone(self),
                client,
            },
        }
    }

    /// Sorts one request; never waits for its client.
    pub(super) fn sort(self: &Arc<Shared>, guest: Guest) {
        let request = &guest.request;
        let language =
            header(request, "Accept-Language").map_or(Language::Spanish, Language::preferred);
        let (route, id) = match self.admit(request) {
            Ok((route, _)) if self.is_stopping() && route.begins_a_job() => {
                return self.hand_back(guest, Problem::from(msg::STOPPING).into_reply(language));
            }
            Ok(found) => found,
            Err(problem) => return self.hand_back(guest, problem.into_reply(language)),
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
        let here = body::is_here(request);
        let work = Work { guest, route, req };
        match route.place {
            Place::Front => {
                let (guest, reply) = self.handle(work);
                self.hand_back(guest, reply);
            }
            Place::Worker => self.pass(&self.work, work),
            Place::Upload => self.pass_upload(work),
            Place::Writer => self.pass(&self.write, work),
            Place::Aside => self.pass(&self.aside, work),
            Place::AsideMaybeWithBody if !body::is_meant(&work.guest.request) => {
                self.pass(&self.aside, work);
            }
            _ if here => self.take_body(work),
            _ => self.pass(&self.body, work),
        }
    }

    /// Puts a request into a queue, or refuses it when that is full.
    pub(super) fn pass(&self, queue: &Sender<Work>, work: Work) {
        if let Err(TrySendError::Full(work) | TrySendError::Disconnected(work)) =
            queue.try_send(work)
        {
            let mut problem = Problem::from(msg::OVERLOADED);
            if work.route.place.is_aside() {
                let all = limits::HTTP_ASIDE + limits::ASIDE_QUEUE;
                problem = problem.because(format!(
                    "{all} requests for the history, the conflicts, comparisons or backups are waiting"
                ));
            }
            self.hand_back(work.guest, problem.into_reply(work.req.language));
        }
    }

    /// Reads the body and hands the request on to where it is served.
    fn take_body(self: &Arc<Shared>, mut work: Work) {
        let watch = self.watch(&work.guest, work.req.deadline);
        let read = body::read_body(&mut work.guest.request, work.req.deadline);
        drop(watch);
        match read {
            Ok(body) => work.req.body = body,
            // The rest of the body may still be to come.
            Err(problem) => {
                work.guest.hang_up = ending::ends_connection(&problem);
                return self.hand_back(work.guest, problem.into_reply(work.req.language));
            }
        }
        work.guest.body_read = true;
        match work.route.handler {
            Handler::Now(_) if work.route.place.is_aside() => self.pass(&self.aside, work),
            Handler::Now(_) | Handler::File(_) => self.pass(&self.write, work),
            Handler::Later(handler) => self.handle_later(handler, work),
        }
    }

    /// Hands an answer to the threads that send it.
    pub(super) fn hand_back(&self, guest: Guest, reply: Reply) {
        let queue = match !guest.body_read && has_unread_body(&guest.request) {
            true => &self.drain,
            false => &self.answer,
        };
        if let Err(
            TrySendError::Full((guest, reply)) | TrySendError::Disconnected((guest, reply)),
        ) = queue.try_send((guest, reply))
        {
            // Too many clients that neither read nor send. Waiting for them here would stop everyone.
            self.hang_up(guest, &reply, Duration::ZERO);
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

    /// The part of a worker or writer: the handler and the answer.
    fn serve(self: &Arc<Shared>, work: Work) {
        let (guest, reply) = self.handle(work);
        match !guest.body_read && has_unread_body(&guest.request) {
            true => self.hand_back(guest, reply),
            false => self.respond((guest, reply)),
        }
    }

    fn handle(&self, work: Work) -> (Guest, Reply) {
        let Work { guest, route, req } = work;
        let Handler::Now(handler) = route.handler else {
            return (guest, Problem::from(msg::INTERNAL).into_reply(req.language));
        };
        // Handlers only read what they share, so a panic in one leaves nothing half-done behind.
        let reply = match catch_unwind(AssertUnwindSafe(|| handler(&self.app, &req))) {
            Ok(Ok(reply)) => reply,
            Ok(Err(problem)) => problem.into_reply(req.language),
            Err(_) => {
                log::error!("{} {} panicked; please report it", route.method, route.path);
                Problem::from(msg::INTERNAL).into_reply(req.language)
            }
        };
        (guest, reply)
    }

    /// Runs a handler whose answer comes later. If it panics, or loses its [`Done`], the guest is dropped
    /// with that, and tiny_http answers 500.
    fn handle_later(self: &Arc<Shared>, handler: fn(&App, &Req, Done), work: Work) {
        let Work { guest, route, req } = work;
        let (shared, language) = (Arc::clone(self), req.language);
        let done: Done = Box::new(move |result| {
            let reply = result.unwrap_or_else(|problem| problem.into_reply(language));
            shared.hand_back(guest, reply);
        });
        if catch_unwind(AssertUnwindSafe(|| handler(&self.app, &req, done))).is_err() {
            log::error!("{} {} panicked; please report it", route.method, route.path);
        }
    }

    /// Sends an answer, and the rest of the connection is tiny_http's.
    pub(super) fn respond(self: &Arc<Shared>, (guest, reply): (Guest, Reply)) {
        if self.is_stopping() {
            return self.respond_and_end(guest, &reply);
        }
        let Guest { request, turn, .. } = guest;
        // A client that has gone is no error of ours.
        let _ = request.respond(response(&reply));
        drop(turn); // only now may the next request of this connection be answered
    }
}
