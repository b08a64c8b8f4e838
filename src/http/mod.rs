//! The HTTP API. `front.rs` faces the clients and hands clean requests to tiny_http (`inner.rs`), which no other module knows;
//! `server.rs` takes them there and has the threads, `router.rs` the table of routes, `handlers.rs` and `create.rs` what each does,
//! `input.rs` what it accepts, and `messages.rs` every error text. `head.rs`, `target.rs` and `chunked.rs` are RFC 9110 and 9112, purely.

mod access;
mod answer;
mod backups;
mod chunked;
mod clients;
mod commands;
mod compare;
mod conflicts;
mod create;
mod front;
mod gate;
mod handlers;
mod head;
mod inner;
pub mod input;
mod keyed;
pub mod listener;
mod load;
pub mod messages;
mod metrics;
pub mod router;
pub mod server;
pub mod stop;
mod target;
mod titulos;
mod wire;

use crate::backup::keeper::Keeper;
use crate::board::Board;
use crate::comparer::Comparer;
use crate::config::Config;
use crate::conflicts::Conflicts;
use crate::genres::Store;
use crate::history::History;
use crate::imdb::jobs::Jobs;
use crate::imdb::queries::Films;
use crate::limits;
use crate::privileges::Privileges;
use crate::quiet::Quiet;
use crate::supervisor::Supervisor;
use crate::watch::Watch;
use input::Fault;
use messages::{Language, Message};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Instant;

/// What the handlers work with.
pub struct App {
    pub board: Arc<Board>,
    pub supervisor: Supervisor,
    pub store: Store,
    pub films: Films,
    pub conflicts: Conflicts,
    pub history: History,
    pub config: Arc<Config>,
    pub backups: Keeper,
    pub privileges: Privileges,
    pub loads: Jobs,
    /// Verdicts of the database that became a 500.
    pub comparer: Comparer,
    pub watch: Watch,
    pub verdicts: Arc<Quiet>,
}

/// A request, as a handler sees it.
pub struct Req {
    /// When the answer must be out.
    pub deadline: Instant,
    /// The `{id}` of the route's path, if it has one.
    pub id: Option<String>,
    pub query: String,
    pub body: Vec<u8>,
    /// Its `Idempotency-Key`, which has been checked.
    pub idempotency_key: Option<String>,
}

/// An answer. Headers never carry anything that came from a client.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub body: Body,
    pub headers: Vec<(&'static str, String)>,
}

/// The body of an answer.
#[derive(Debug)]
pub enum Body {
    Json(Value),
    /// JSON that is written already.
    Written(String),
    Text(String),
}

/// Takes the answer of a request that is answered later, by whichever thread has it then.
pub type Done = Box<dyn FnOnce(Result<Reply, Problem>) + Send>;

/// An error on its way to becoming a [`Reply`].
#[derive(Debug)]
pub struct Problem {
    pub fault: Fault,
    /// The cause in the words of the log, for whoever wants to know more.
    pub reason: Option<String>,
    /// More fields of the answer.
    pub fields: Vec<(&'static str, Value)>,
    pub headers: Vec<(&'static str, String)>,
}

impl Reply {
    /// A success.
    pub fn ok(status: u16, body: Value) -> Reply {
        Reply {
            status,
            body: Body::Json(body),
            headers: Vec::new(),
        }
    }

    /// A success in JSON that is written already: PostgreSQL's, which need not be read here to be sent.
    pub fn written(body: String) -> Reply {
        Reply {
            status: 200,
            body: Body::Written(body),
            headers: Vec::new(),
        }
    }

    /// A success in plain text.
    pub fn text(status: u16, body: String) -> Reply {
        Reply {
            status,
            body: Body::Text(body),
            headers: Vec::new(),
        }
    }
}

impl Problem {
    pub fn new(message: &'static Message, detail: impl Into<String>) -> Problem {
        Problem::from(Fault::new(message, detail))
    }

    /// The same, with the cause.
    pub fn because(mut self, reason: impl Into<String>) -> Problem {
        self.reason = Some(reason.into());
        self
    }

    /// The answer, in the client's language.
    pub fn into_reply(self, language: Language) -> Reply {
        let message = self.fault.message;
        let mut body = Map::from_iter([
            ("ok".to_string(), json!(false)),
            (
                "error".to_string(),
                json!(message.text(language, &self.fault.detail)),
            ),
            ("code".to_string(), json!(message.code)),
        ]);
        if let Some(reason) = self.reason {
            body.insert("reason".to_string(), json!(reason));
        }
        body.extend(
            self.fields
                .into_iter()
                .map(|(name, value)| (name.to_string(), value)),
        );
        let mut headers = self.headers;
        if message.status == 503 {
            headers.push(("Retry-After", limits::RETRY_AFTER_S.to_string()));
        }
        if message.status == 401 {
            headers.push(("WWW-Authenticate", "Bearer".to_string()));
        }
        Reply {
            status: message.status,
            body: Body::Json(Value::Object(body)),
            headers,
        }
    }
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Problem {
        Problem {
            fault,
            reason: None,
            fields: Vec::new(),
            headers: Vec::new(),
        }
    }
}

impl From<&'static Message> for Problem {
    fn from(message: &'static Message) -> Problem {
        Problem::from(Fault::from(message))
    }
}
