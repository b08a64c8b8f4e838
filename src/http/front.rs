//! The front: one thread for each client. It reads a request with deadlines, answers what is wrong with it by itself, hands what is whole
//! and well-formed on to tiny_http, and carries the answer back. So whatever a client does, it keeps nobody else waiting.

use super::answer;
use super::chunked::Chunks;
use super::clients::{Seat, Standing};
use super::head::{self, Head, Length};
use super::inner::Failed;
use super::keyed;
use super::messages as msg;
use super::router::{self, Place, Route};
use super::server::{Shared, names_json};
use super::wire::{Wire, is_late};
use super::{Problem, Reply, Req};
use crate::limits;
use std::io::{Error, Write};
use std::sync::Arc;
use std::time::Instant;

/// One client and what is kept from one of its requests to the next.
struct Front {
    shared: Arc<Shared>,
    wire: Wire,
    body: Vec<u8>,
    /// As tiny_http gets it.
    request: Vec<u8>,
    answer: Vec<u8>,
}

/// A request that may be handed on.
struct Clean {
    route: &'static Route,
    id: Option<String>,
    /// The number of the file that came with it.
    file: Option<u64>,
}

/// Serves one client, one request after the other, until its connection ends.
pub(super) fn serve(shared: &Arc<Shared>, seat: &Seat) {
    // A socket that takes no time limit is over.
    let Ok(wire) = Wire::new(Arc::clone(&seat.client)) else {
        return;
    };
    let mut front = Front {
        shared: Arc::clone(shared),
        wire,
        body: Vec::new(),
        request: Vec::new(),
        answer: Vec::new(),
    };
    while front.turn() {
        front.wire.client.stands(Standing::Idle);
        if front.answer.capacity() > limits::KEPT_BYTES {
            front.answer = Vec::new();
        }
    }
    front.wire.end();
}

impl Front {
    /// Takes one request and answers it; returns whether another one may follow.
    fn turn(&mut self) -> bool {
        let head = match self.head() {
            Ok(Some(head)) => head,
            Ok(None) => return false,
            Err(problem) => return self.refuse(problem),
        };
        self.wire.client.stands(Standing::Busy);
        let (outcome, goes_on) = self.take(&head);
        self.wire.client.stands(Standing::Busy);
        let is_head = head.method == "HEAD";
        match outcome.and_then(|clean| match clean.route.place {
            Place::Front => Err(self.tell(&head, clean)),
            _ => self.hand_on(&head, &clean),
        }) {
            Ok(()) => {}
            Err(reply) => self.answer = answer::printed(&reply, is_head),
        }
        let is_last =
            !goes_on || !head.keeps || (self.shared.is_stopping() && !self.wire.has_more());
        answer::mark(&mut self.answer, is_last, head.is_old);
        // A client that has gone is no error of ours.
        self.wire.send(&self.answer).is_ok() && !is_last
    }

    /// Answers what is no request. Nothing that follows it is one.
    fn refuse(&mut self, problem: Problem) -> bool {
        self.wire.client.stands(Standing::Busy);
        let held = self.wire.held();
        let is_head = held.starts_with(b"HEAD ");
        let reply = problem.into_reply(head::language(held));
        self.answer = answer::printed(&reply, is_head);
        answer::mark(&mut self.answer, true, false);
        let _ = self.wire.send(&self.answer);
        false
    }

    /// The head of the next request; none when no other one comes.
    fn head(&mut self) -> Result<Option<Head>, Problem> {
        let mut until = None;
        let mut empty = 0;
        loop {
            while self.wire.held().starts_with(b"\r\n") {
                self.wire.used(2);
                empty += 1;
            }
            if empty > limits::EMPTY_LINES_MAX {
                return Err(head::invalid(
                    "CR LF",
                    "too many empty lines before a request",
                ));
            }
            let held = self.wire.held();
            let has_begun = !held.is_empty() && held != b"\r";
            if has_begun {
                if let Some(end) = head::end(held)? {
                    let head = head::parse(&held[..end])?;
                    self.wire.used(end);
                    return Ok(Some(head));
                }
            }
            if until.is_none() && (has_begun || empty > 0) {
                until = Some(Instant::now() + limits::CLIENT_SILENCE);
            }
            if until.is_some() {
                self.wire.client.stands(Standing::Reading);
            }
            match self.wire.fill(until) {
                Ok(1..) => {}
                Ok(0) | Err(_) if !has_begun => return Ok(None),
                Ok(0) => return Err(self.cut_off(head::invalid("CR LF", "the head is cut off"))),
                Err(error) if is_late(&error) => return Err(msg::REQUEST_TIMEOUT.into()),
                Err(_) => return Ok(None),
            }
        }
    }

    /// What is wrong when nothing more comes: at a stop it is that which ends the reading.
    fn cut_off(&self, problem: Problem) -> Problem {
        match self.shared.is_stopping() {
            true => msg::STOPPING.into(),
            false => problem,
        }
    }

    /// Decides on a request and takes its body; returns whether the connection can go on behind it.
    fn take(&mut self, head: &Head) -> (Result<Clean, Reply>, bool) {
        let reply = |problem: Problem| problem.into_reply(head.language);
        let address = self.wire.client.address.ip();
        let admitted = self.shared.admit(head, address);
        let has_body = !matches!(head.length, Length::Nothing | Length::Exactly(0));
        match admitted {
            Ok((route, id)) if route.place == Place::Upload => {
                match self.shared.take_file(head, &mut self.wire) {
                    Ok(file) => {
                        let file = Some(file);
                        (Ok(Clean { route, id, file }), true)
                    }
                    Err(problem) => (Err(reply(problem)), !has_body),
                }
            }
            // Who waits to be asked for a body need not send one that is not wanted, and a file would come for long.
            Err(refused) if has_body && (head.waits || is_upload(head)) => (Err(refused), false),
            admitted => match self.take_body(head) {
                Ok(()) => match (admitted, self.is_nameless(head)) {
                    (Ok((route, _)), true) if route.place == Place::AsideMaybeWithBody => {
                        (Err(reply(msg::TYPE_UNSUPPORTED.into())), true)
                    }
                    (admitted, _) => {
                        let file = None;
                        (admitted.map(|(route, id)| Clean { route, id, file }), true)
                    }
                },
                Err(problem) if problem.fault.message == msg::BODY_TOO_LARGE => {
                    (Err(admitted.err().unwrap_or_else(|| reply(problem))), false)
                }
                Err(problem) => (Err(reply(problem)), false),
            },
        }
    }

    /// Whether there is a body, and nothing says what it is.
    fn is_nameless(&self, head: &Head) -> bool {
        !self.body.is_empty() && !head.content_type.as_deref().is_some_and(names_json)
    }

    /// Reads a body that fits the memory, whether it is wanted or not: behind it comes the next request.
    fn take_body(&mut self, head: &Head) -> Result<(), Problem> {
        self.body.clear();
        let most = limits::BODY_MAX_BYTES;
        if matches!(head.length, Length::Exactly(length) if length > most as u64) {
            return Err(Problem::new(msg::BODY_TOO_LARGE, most.to_string()));
        }
        let until = Instant::now() + limits::CLIENT_SILENCE;
        let mut chunks = Chunks::default();
        let mut asked = false;
        loop {
            let held = self.wire.held();
            let (count, done) = match head.length {
                Length::Nothing => return Ok(()),
                Length::Exactly(length) => {
                    let missing = length as usize - self.body.len();
                    let count = missing.min(held.len());
                    self.body.extend_from_slice(&held[..count]);
                    (count, count == missing)
                }
                Length::Chunked => {
                    let count = chunks.take(held, &mut self.body)?;
                    (count, chunks.is_done())
                }
            };
            self.wire.used(count);
            if done {
                return Ok(());
            }
            if head.waits && !asked {
                asked = true;
                self.go_on()?;
            }
            self.wire.client.stands(Standing::Reading);
            match self.wire.fill(Some(until)) {
                Ok(1..) => {}
                Err(error) if is_late(&error) => return Err(msg::REQUEST_TIMEOUT.into()),
                Ok(_) | Err(_) => return Err(self.cut_off(msg::BODY_INCOMPLETE.into())),
            }
        }
    }

    fn go_on(&self) -> Result<(), Problem> {
        ask_for_body(&self.wire).map_err(|_| msg::BODY_INCOMPLETE.into())
    }

    /// What is answered from memory is answered here, so that it does not depend on how the rest is.
    fn tell(&self, head: &Head, clean: Clean) -> Reply {
        let req = Req {
            deadline: Instant::now() + self.shared.app.config.request_deadline,
            id: clean.id,
            query: head.target.query.clone(),
            body: Vec::new(),
            idempotency_key: None,
        };
        self.shared.run(clean.route, &req, None, head.language)
    }

    /// Hands a request on, rewritten: nothing of its head goes along but what is looked at there. The answer is in `self.answer` then.
    fn hand_on(&mut self, head: &Head, clean: &Clean) -> Result<(), Reply> {
        self.request.clear();
        let due = Instant::now() + self.shared.app.config.request_deadline;
        let place = clean.route.place;
        let entered = self.shared.gates.enter(place, due);
        let pass = entered.map_err(|problem| {
            self.forget(clean);
            problem.into_reply(head.language)
        })?;
        let number = pass.map(|pass| self.shared.gates.hand_on(pass));
        // Memory takes everything.
        let _ = self.write_request(head, clean, self.shared.as_number(due), number);
        let is_head = head.method == "HEAD";
        let asked = self
            .shared
            .inner
            .ask(&self.request, &mut self.answer, is_head);
        let Err(failed) = asked else {
            return Ok(());
        };
        if self.shared.inner.is_broken() {
            self.shared.give_up("tiny_http does not answer");
        }
        self.forget(clean);
        let problem = match failed {
            Failed::NotAsked(error) => {
                drop(number.and_then(|number| self.shared.gates.take(number)));
                Problem::from(msg::OVERLOADED).because(error.to_string())
            }
            Failed::NoAnswer(error) => {
                log::error!(
                    "{} {} got no answer: {error}",
                    head.method,
                    head.target.path
                );
                match clean.route.method {
                    "GET" => msg::INTERNAL.into(),
                    _ => msg::OUTCOME_UNKNOWN.into(),
                }
            }
        };
        Err(problem.into_reply(head.language))
    }

    /// Lets go of the file of a request that nobody got.
    fn forget(&self, clean: &Clean) {
        drop(clean.file.and_then(|number| self.shared.files.take(number)));
    }

    fn write_request(
        &mut self,
        head: &Head,
        clean: &Clean,
        due: u64,
        pass: Option<u64>,
    ) -> std::io::Result<()> {
        let to = &mut self.request;
        write!(to, "{} {}", head.method, head.target.path)?;
        if !head.target.query.is_empty() {
            write!(to, "?{}", head.target.query)?;
        }
        write!(to, " HTTP/1.1\r\nDue: {due}\r\n")?;
        if head.language == msg::Language::English {
            to.write_all(b"Accept-Language: en\r\n")?;
        }
        if let Ok(Some(key)) = keyed::key(&head.keys) {
            write!(to, "Idempotency-Key: {key}\r\n")?;
        }
        if let Some(number) = pass {
            write!(to, "Pass: {number}\r\n")?;
        }
        if let Some(number) = clean.file {
            write!(to, "File: {number}\r\n")?;
        }
        if clean.route.place.takes_body() {
            write!(to, "Content-Length: {}\r\n\r\n", self.body.len())?;
            return to.write_all(&self.body);
        }
        to.write_all(b"\r\n")
    }
}

/// Tells a client that waits for it to send its body.
///
/// # Errors
/// Those of the socket.
pub(super) fn ask_for_body(wire: &Wire) -> Result<(), Error> {
    wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
}

/// Whether a request that was refused would have brought a file.
fn is_upload(head: &Head) -> bool {
    let found = router::find(head.method, &head.target.path);
    found.is_ok_and(|(route, _)| route.place == Place::Upload)
}
