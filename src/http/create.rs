//! `POST /generos`: the one route whose answer comes later, from the write lane.

use super::handlers::{problem_of, written};
use super::input::{self, GenreInput};
use super::messages as msg;
use super::{App, Done, Problem, Reply, Req, keyed};
use crate::genres::{Answered, Created};
use crate::quiet::Quiet;
use serde_json::json;
use std::sync::Arc;

/// Hands the genre to the lane, or to the threads for what bears a key; never waits.
pub fn create(app: &App, req: &Req, done: Done) {
    let checked = input::no_parameters(&req.query).and_then(|()| input::genre(&req.body));
    let GenreInput {
        id,
        genero,
        ignored,
    } = match checked {
        Ok(input) => input,
        Err(fault) => return done(Err(fault.into())),
    };
    if let Some(key) = req.idempotency_key.clone() {
        return keyed::create(app, req, key, (id, genero), ignored, done);
    }
    let verdicts = Arc::clone(&app.verdicts);
    let then = move |answered| done(answer(answered, id, ignored, &verdicts));
    app.store.create(id, genero, req.deadline, Box::new(then));
}

fn answer(
    answered: Answered,
    id: Option<i32>,
    ignored: Vec<String>,
    verdicts: &Quiet,
) -> Result<Reply, Problem> {
    let (created, node) = answered.map_err(|failed| problem_of(verdicts, &failed))?;
    match created {
        Created::Row(row) => Ok(Reply::ok(201, written(json!(row), node, ignored))),
        Created::Duplicate => Err(Problem::new(
            msg::ID_TAKEN,
            id.map(|id| id.to_string()).unwrap_or_default(),
        )),
        Created::NoSequence => Err(msg::NO_SEQUENCE.into()),
        Created::NoFreeId => Err(msg::NO_FREE_ID.into()),
        Created::Superseded => Err(msg::OUTCOME_UNKNOWN.into()),
    }
}
