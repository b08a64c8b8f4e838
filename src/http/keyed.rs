//! `Idempotency-Key`: writes that are done once however often they are sent, and answered alike each time.

use super::handlers::{is_in_use, problem_of, written};
use super::messages as msg;
use super::{App, Done, Problem, Reply, Req};
use crate::cluster::NodeId;
use crate::genres::{Action, KeyedWrite, Outcome, Written};
use crate::limits;
use crate::quiet::Quiet;
use serde_json::json;
use std::sync::Arc;

/// The key of a request, of the values that it gives; none if there is none.
///
/// # Errors
/// One that cannot be a key, or several.
pub(super) fn key(given: &[String]) -> Result<Option<&str>, Problem> {
    let why = match given {
        [] => return Ok(None),
        [key] => match key.trim() {
            "" => "it is empty".to_string(),
            key if key.len() > limits::KEY_MAX_CHARS => {
                format!("it is longer than {} characters", limits::KEY_MAX_CHARS)
            }
            key if !key.bytes().all(|byte| matches!(byte, 0x20..=0x7e)) => {
                "it has characters other than the visible ones of ASCII".to_string()
            }
            key => return Ok(Some(key)),
        },
        _ => "it is there more than once".to_string(),
    };
    Err(Problem::from(msg::IDEMPOTENCY_KEY_INVALID).because(why))
}

/// How a write is answered that has been done.
struct Answer {
    status: u16,
    /// The id that the request names.
    id: Option<i32>,
    /// Fields of the body that mean nothing.
    ignored: Vec<String>,
    verdicts: Arc<Quiet>,
}

/// Inserts a genre; never waits.
pub(super) fn create(
    app: &App,
    req: &Req,
    key: String,
    (id, genero): (Option<i32>, String),
    ignored: Vec<String>,
    done: Done,
) {
    let write = KeyedWrite {
        key,
        request: json!(["POST", id, genero, ignored]).to_string(),
        action: Action::Create { id, genero },
    };
    let answer = Answer {
        status: 201,
        id,
        ignored,
        verdicts: Arc::clone(&app.verdicts),
    };
    let then = move |outcome| done(answer.of(outcome));
    app.store.create_keyed(write, req.deadline, Box::new(then));
}

/// Renames a genre, or deletes it if it gets no name.
pub(super) fn change(
    app: &App,
    req: &Req,
    key: String,
    (id, genero): (i32, Option<String>),
    ignored: Vec<String>,
) -> Result<Reply, Problem> {
    let (request, action) = match genero {
        Some(genero) => (
            json!(["PUT", id, genero, ignored]),
            Action::Rename { id, genero },
        ),
        None => (json!(["DELETE", id]), Action::Remove { id }),
    };
    let write = KeyedWrite {
        key,
        request: request.to_string(),
        action,
    };
    let answer = Answer {
        status: 200,
        id: Some(id),
        ignored,
        verdicts: Arc::clone(&app.verdicts),
    };
    answer.of(app.store.change_keyed(write, req.deadline))
}

impl Answer {
    fn of(self, outcome: Outcome<Written>) -> Result<Reply, Problem> {
        let id = || self.id.map(|id| id.to_string()).unwrap_or_default();
        let (what, answered_by) = outcome.map_err(|failed| match is_in_use(&failed) {
            true => Problem::new(msg::GENERO_IN_USE, id()),
            false => problem_of(&self.verdicts, &failed),
        })?;
        match what {
            Written::Done {
                row,
                nodo,
                replayed,
            } => {
                // That of the first time, whoever answers now.
                let done_by = NodeId::BOTH.into_iter().find(|node| node.number() == nodo);
                let body = written(json!(row), done_by.unwrap_or(answered_by), self.ignored);
                let mut reply = Reply::ok(self.status, body);
                if replayed {
                    let header = ("Idempotency-Replayed", "true".to_string());
                    reply.headers.push(header);
                }
                Ok(reply)
            }
            Written::Busy => {
                let mut problem = Problem::from(msg::IDEMPOTENCY_KEY_BUSY);
                let after = ("Retry-After", limits::RETRY_AFTER_S.to_string());
                problem.headers.push(after);
                Err(problem)
            }
            Written::Reused => Err(msg::IDEMPOTENCY_KEY_REUSED.into()),
            Written::NotThere => Err(Problem::new(msg::GENERO_NOT_FOUND, id())),
            Written::Duplicate => Err(Problem::new(msg::ID_TAKEN, id())),
            Written::NoSequence => Err(msg::NO_SEQUENCE.into()),
            Written::NoFreeId => Err(msg::NO_FREE_ID.into()),
            Written::Unknown => Err(msg::OUTCOME_UNKNOWN.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_one_short_visible_text() {
        let of = |keys: &[&str]| {
            let keys: Vec<String> = keys.iter().map(|key| key.to_string()).collect();
            let key = key(&keys).map(|key| key.map(str::to_string));
            key.map_err(|problem| problem.fault.message.code)
        };
        let long = "k".repeat(limits::KEY_MAX_CHARS);
        assert_eq!(of(&[]), Ok(None));
        for usable in ["a", "\"8e03978e-40d5\"", "a b", &long] {
            assert_eq!(of(&[usable]), Ok(Some(usable.to_string())));
        }
        assert_eq!(of(&[" a\t"]), Ok(Some("a".to_string())));
        let longer = format!("{long}k");
        for wrong in [
            &[""][..],
            &["  "],
            &["a", "a"],
            &["a\u{7f}"],
            &["a\tb"],
            &["ñ"],
            &[&longer],
        ] {
            assert_eq!(of(wrong), Err("idempotency_key_invalid"), "{wrong:?}");
        }
    }
}
