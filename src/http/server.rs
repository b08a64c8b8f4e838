//! From a request to a handler and back. What is in memory the front (`front.rs`) answers by itself; it hands the rest to tiny_http, and
//! workers that block on it take it there: they hand an insert to the write lane, or call a master. How many of the last kind there are
//! at a time is the business of the gates (`gate.rs`), so that some workers are always left for the inserts.

use super::access::{self, Caller};
use super::answer::printed;
use super::clients::Clients;
use super::gate::Gates;
use super::head::Head;
use super::inner::{self, Inner};
use super::keyed;
use super::listener::{self, Port};
use super::load::Files;
use super::messages::{self as msg, Language};
use super::router::{self, Access, Handler, Place, Route};
use super::stop::Ending;
use super::{App, Done, Problem, Reply, Req};
use crate::limits;
use anyhow::Context;
use crossbeam_channel::Sender;
use std::fs::File;
use std::io::Write;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tiny_http::{Method, Request};

/// Workers beyond those that the gates let a request have. They wait for nothing, so one would do on one processor.
const FREE_WORKERS: usize = 2;

/// Threads that send the answers of the write lane: those of a whole batch come at once, and the lane has the next one to do.
const ANSWERERS: usize = 2;

/// The running server.
pub struct Http {
    pub(super) shared: Arc<Shared>,
    pub(super) port: Port,
}

/// A route and the `{id}` of the path that leads to it.
pub(super) type Found = (&'static Route, Option<String>);

/// What the threads of the server share.
pub(super) struct Shared {
    pub(super) app: App,
    pub(super) stopping: AtomicBool,
    /// Asks for the end of the process, and says why.
    end: Sender<Ending>,
    pub(super) clients: Clients,
    pub(super) inner: Inner,
    pub(super) files: Files,
    /// What times on their way through tiny_http are counted from.
    began: Instant,
    pub(super) gates: Gates,
    answers: Sender<(Request, Reply)>,
}

/// Listens on the port and starts all threads of the server; `end` is asked when it cannot go on.
///
/// # Errors
/// When the port cannot be listened on or a thread not be started.
pub fn start(app: App, port: Port, end: Sender<Ending>) -> anyhow::Result<Http> {
    let writers = (app.config.pool_size as usize / limits::SESSIONS_PER_WRITER).max(1);
    let gates = Gates::new(app.config.http_workers, writers);
    let workers = gates.size() + FREE_WORKERS;
    let (answers, waiting) = crossbeam_channel::bounded(limits::LANE_QUEUE);
    let shared = Arc::new(Shared {
        app,
        stopping: AtomicBool::new(false),
        end,
        clients: Clients::new(clients_max()),
        inner: Inner::start()?,
        files: Files::default(),
        began: Instant::now(),
        gates,
        answers,
    });
    for index in 0..workers {
        let shared = Arc::clone(&shared);
        crate::vital::spawn(format!("http-worker-{index}"), move || shared.work())?;
    }
    for index in 0..ANSWERERS {
        let waiting = waiting.clone();
        crate::vital::spawn(format!("http-answer-{index}"), move || {
            for (request, reply) in waiting {
                respond(request, &reply);
            }
        })?;
    }
    port.listen()?;
    listener::start(&shared, &port).context("start the listener")?;
    Ok(Http { shared, port })
}

/// How many clients the limit of open files allows, each with a connection of its own to tiny_http in the worst case.
fn clients_max() -> usize {
    use nix::sys::resource::{Resource, getrlimit};
    let (files, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    let files = usize::try_from(files).unwrap_or(usize::MAX);
    let room = files.saturating_sub(limits::FILES_OF_OTHERS) / (1 + inner::DESCRIPTORS);
    room.clamp(limits::HTTP_CLIENTS_LEAST, limits::HTTP_CLIENTS)
}

/// Whether a type is that of JSON in UTF-8.
pub(super) fn names_json(kind: &str) -> bool {
    let mut parts = kind.split(';').map(|part| part.trim().to_ascii_lowercase());
    let json = parts.next().is_some_and(|kind| kind == "application/json");
    let utf8 = |part: String| {
        part.strip_prefix("charset=")
            .is_none_or(|charset| ["utf-8", "utf8"].contains(&charset.trim_matches('"')))
    };
    json && parts.all(utf8)
}

fn header<'a>(request: &'a Request, name: &'static str) -> Option<&'a str> {
    let mut headers = request.headers().iter();
    let found = headers.find(|header| header.field.equiv(name));
    found.map(|header| header.value.as_str())
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

    /// A time as it goes through tiny_http, in ms.
    pub(super) fn as_number(&self, time: Instant) -> u64 {
        time.duration_since(self.began).as_millis() as u64
    }

    /// The route of a request, if its caller may use it, and its body is of a type that can be read; else what to answer.
    pub(super) fn admit(&self, head: &Head, address: IpAddr) -> Result<Found, Reply> {
        if head.method == "OPTIONS" {
            return Err(router::options(&head.target.path)
                .unwrap_or_else(|problem| problem.into_reply(head.language)));
        }
        self.check(head, address)
            .map_err(|problem| problem.into_reply(head.language))
    }

    fn check(&self, head: &Head, address: IpAddr) -> Result<Found, Problem> {
        let (route, id) = router::find(head.method, &head.target.path)?;
        let caller = Caller {
            address: Some(address),
            authorization: head.authorization.as_deref(),
            origin: head.origin.as_deref(),
            host: head.host.as_deref(),
            forwarded: head.forwarded,
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
        if route.takes_key() {
            keyed::key(&head.keys)?;
        }
        if self.is_stopping() && route.begins_a_job() {
            return Err(msg::STOPPING.into());
        }
        // A web page can send a request without a type to anywhere, unasked; one with this type it cannot.
        let kind = head.content_type.as_deref();
        let may_lack = route.place == Place::AsideMaybeWithBody && kind.is_none();
        if route.place.takes_body() && !may_lack {
            if let Some(coding) = &head.coding {
                let coding: String = coding.chars().take(40).collect();
                let mut problem = Problem::new(msg::CODING_UNSUPPORTED, coding);
                problem.headers.push(("Accept-Encoding", "identity".into()));
                return Err(problem);
            }
            if !kind.is_some_and(names_json) {
                return Err(msg::TYPE_UNSUPPORTED.into());
            }
        }
        Ok((route, id))
    }

    /// Life of a worker. A panic ends one request, not a thread.
    fn work(&self) {
        loop {
            match self.inner.receive() {
                Ok(request) => {
                    if catch_unwind(AssertUnwindSafe(|| self.serve(request))).is_err() {
                        log::error!("a request panicked; please report it");
                    }
                }
                Err(error) => return self.give_up(&format!("tiny_http accepts nothing: {error}")),
            }
        }
    }

    /// Serves one request, as the front has written it.
    fn serve(&self, mut request: Request) {
        let language =
            header(&request, "Accept-Language").map_or(Language::Spanish, |_| Language::English);
        let number = |name| header(&request, name).and_then(|value| value.parse::<u64>().ok());
        let due = number("Due").unwrap_or_default();
        let _pass = number("Pass").and_then(|number| self.gates.take(number));
        let file = number("File").and_then(|number| self.files.take(number));
        let (path, query) = request.url().split_once('?').unwrap_or((request.url(), ""));
        let (route, id) = match router::find(request.method().as_str(), path) {
            Ok(found) => found,
            Err(problem) => return respond(request, &problem.into_reply(language)),
        };
        let mut req = Req {
            deadline: self.began + Duration::from_millis(due),
            id,
            query: query.to_string(),
            body: Vec::new(),
            idempotency_key: header(&request, "Idempotency-Key").map(str::to_string),
        };
        // The front sends all of it without waiting for anybody.
        if route.place.takes_body() && request.as_reader().read_to_end(&mut req.body).is_err() {
            return respond(request, &Problem::from(msg::INTERNAL).into_reply(language));
        }
        if let Handler::Later(handler) = route.handler {
            return handler(&self.app, &req, self.done(request, language));
        }
        respond(request, &self.run(route, &req, file, language));
    }

    /// Runs a handler that returns the answer.
    pub(super) fn run(
        &self,
        route: &'static Route,
        req: &Req,
        file: Option<File>,
        language: Language,
    ) -> Reply {
        let run = || match (route.handler, file) {
            (Handler::Now(handler), _) => handler(&self.app, req),
            (Handler::File(handler), Some(file)) => handler(&self.app, req, file),
            (Handler::File(_), None) | (Handler::Later(_), _) => Err(msg::INTERNAL.into()),
        };
        // Handlers only read what they share, so a panic in one leaves nothing half-done behind.
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(Ok(reply)) => reply,
            Ok(Err(problem)) => problem.into_reply(language),
            Err(_) => {
                log::error!("{} {} panicked; please report it", route.method, route.path);
                Problem::from(msg::INTERNAL).into_reply(language)
            }
        }
    }

    /// What takes an answer that comes later. If it is lost, the request is dropped with it, and tiny_http answers 500.
    fn done(&self, request: Request, language: Language) -> Done {
        let answers = self.answers.clone();
        Box::new(move |result| {
            let reply = result.unwrap_or_else(|problem| problem.into_reply(language));
            if let Err(full) = answers.try_send((request, reply)) {
                let (request, reply) = full.into_inner();
                respond(request, &reply);
            }
        })
    }
}

/// Answers, in one piece. It waits for nobody: the front reads all of it at once, however slow its client is.
fn respond(request: Request, reply: &Reply) {
    let bytes = printed(reply, *request.method() == Method::Head);
    let mut stream = request.into_writer();
    // A front that has given up is told by its own clock.
    let _ = stream.write_all(&bytes).and_then(|()| stream.flush());
}
