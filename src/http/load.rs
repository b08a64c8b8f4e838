//! The routes of the loads, and the arrival of a file, which may be larger than the memory.

use super::ending;
use super::input;
use super::messages as msg;
use super::router::Handler;
use super::server::{Shared, Work};
use super::wire::{Watched, Wire};
use super::{App, Problem, Reply, Req};
use crate::imdb::jobs::Refused;
use crate::limits;
use serde_json::json;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;
use std::time::Instant;

/// `POST /load`: loads the file that has arrived, and says where to follow it.
pub fn begin(app: &App, req: &Req, file: File) -> Result<Reply, Problem> {
    input::no_parameters(&req.query)?;
    let (id, job) = app.loads.begin(file).map_err(problem_of)?;
    let mut reply = Reply::ok(202, json!({ "ok": true, "job": job }));
    reply.headers.push(("Location", format!("/load/{id}")));
    Ok(reply)
}

/// `GET /load/{id}`: how far a load is, or what came of it.
pub fn job(app: &App, req: &Req) -> Result<Reply, Problem> {
    input::no_parameters(&req.query)?;
    let id = req.id.as_deref().and_then(|id| id.parse().ok());
    let job = id.and_then(|id| app.loads.job(id));
    let job = job.ok_or_else(|| Problem::from(msg::JOB_NOT_FOUND))?;
    Ok(Reply::ok(200, json!({ "ok": true, "job": job })))
}

fn problem_of(refused: Refused) -> Problem {
    match refused {
        Refused::Busy(job) => {
            let mut problem = Problem::from(msg::LOAD_BUSY);
            problem.fields.push(("job", job));
            problem
        }
        Refused::Invalid(why) => Problem::from(msg::LOAD_INVALID).because(why),
        Refused::Failed(why) => Problem::from(msg::INTERNAL).because(why),
    }
}

/// Takes a file in; `announced` is how long it says it is, and `go_on` ends the waiting.
///
/// # Errors
/// When another load is running, or it does not arrive in full, in time or at all.
fn receive(
    app: &App,
    body: &mut dyn Read,
    announced: Option<u64>,
    go_on: impl Fn() -> bool,
) -> Result<File, Problem> {
    let too_large = || Problem::new(msg::BODY_TOO_LARGE, limits::LOAD_BODY_MAX_BYTES.to_string());
    let no_room =
        |error: std::io::Error| Problem::from(msg::LOAD_NO_ROOM).because(error.to_string());
    app.loads.check_free().map_err(problem_of)?;
    if announced.is_some_and(|length| length > limits::LOAD_BODY_MAX_BYTES) {
        return Err(too_large());
    }
    let deadline = Instant::now() + limits::LOAD_BODY_PATIENCE;
    let mut file = app.loads.room().map_err(no_room)?;
    let mut piece = vec![0; limits::LOAD_READ_BYTES];
    let mut arrived = 0;
    // With `Connection: upgrade` tiny_http hands out the whole connection as the body.
    let mut body = body.take(announced.unwrap_or(limits::LOAD_BODY_MAX_BYTES + 1));
    loop {
        if Instant::now() >= deadline || !go_on() {
            return Err(msg::BODY_INCOMPLETE.into());
        }
        match body.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => {
                arrived += count as u64;
                file.write_all(&piece[..count]).map_err(no_room)?;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return Err(msg::BODY_INCOMPLETE.into()),
        }
        if arrived > limits::LOAD_BODY_MAX_BYTES {
            return Err(too_large());
        }
    }
    match announced {
        Some(length) if arrived < length => Err(msg::BODY_INCOMPLETE.into()),
        _ => Ok(file),
    }
}

impl Shared {
    /// Takes a file in and hands it on.
    pub(super) fn take_upload(self: &Arc<Shared>, work: Work) {
        let Work {
            mut guest,
            route,
            req,
        } = work;
        let Handler::File(handler) = route.handler else {
            return self.hand_back(guest, Problem::from(msg::INTERNAL).into_reply(req.language));
        };
        let announced = guest.request.body_length().map(|length| length as u64);
        // Some of a shorter one may have come along with its request.
        let long = announced.is_some_and(|length| length > limits::DRAIN_MAX_BYTES as u64);
        let client = guest.turn.client.filter(|_| long);
        let mut body = Watched {
            wire: client.and_then(|client| Wire::find(client, self.app.config.port)),
            body: guest.request.as_reader(),
        };
        let file = receive(&self.app, &mut body, announced, || !self.is_stopping());
        guest.body_read = file.is_ok();
        guest.hang_up = file.as_ref().is_err_and(ending::ends_connection);
        let reply = file.and_then(|file| handler(&self.app, &req, file));
        let reply = reply.unwrap_or_else(|problem| problem.into_reply(req.language));
        self.hand_back(guest, reply);
    }
}
