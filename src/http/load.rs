//! The routes of the loads, and the arrival of a file, which may be larger than the memory.

use super::ending;
use super::input;
use super::messages as msg;
use super::router::Handler;
use super::server::{Guest, Shared, Work};
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

/// Whether a file may come, and how long it will be.
///
/// # Errors
/// When it does not say, is too long, or another load is running.
fn admit(app: &App, announced: Option<usize>) -> Result<u64, Problem> {
    // tiny_http takes a connection that was cut inside a chunk for the end of the body, and a part of a file would replace all the rows
    // of its tables.
    let length = announced.ok_or(Problem::from(msg::LENGTH_REQUIRED))? as u64;
    app.loads.check_free().map_err(problem_of)?;
    match length > limits::LOAD_BODY_MAX_BYTES {
        true => Err(Problem::new(
            msg::BODY_TOO_LARGE,
            limits::LOAD_BODY_MAX_BYTES.to_string(),
        )),
        false => Ok(length),
    }
}

fn no_room(error: std::io::Error) -> Problem {
    Problem::from(msg::LOAD_NO_ROOM).because(error.to_string())
}

/// Takes in a body of this length; `go_on` ends the waiting.
///
/// # Errors
/// When it does not arrive in full and in time, or cannot be kept.
fn receive(
    body: &mut dyn Read,
    length: u64,
    file: &mut File,
    go_on: impl Fn() -> bool,
) -> Result<(), Problem> {
    let incomplete = || Err(Problem::from(msg::BODY_INCOMPLETE));
    let deadline = Instant::now() + limits::LOAD_BODY_PATIENCE;
    let mut piece = vec![0; limits::LOAD_READ_BYTES];
    let mut arrived = 0;
    // With `Connection: upgrade` tiny_http hands out the whole connection as the body.
    let mut body = body.take(length);
    while arrived < length {
        if Instant::now() >= deadline || !go_on() {
            return incomplete();
        }
        match body.read(&mut piece) {
            Ok(0) => return incomplete(),
            Ok(count) => {
                arrived += count as u64;
                file.write_all(&piece[..count]).map_err(no_room)?;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return incomplete(),
        }
    }
    Ok(())
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
        let file = self.file_of(&mut guest);
        guest.body_read = file.is_ok();
        guest.hang_up = file.as_ref().is_err_and(ending::ends_connection);
        let reply = file.and_then(|file| handler(&self.app, &req, file));
        let reply = reply.unwrap_or_else(|problem| problem.into_reply(req.language));
        self.hand_back(guest, reply);
    }

    fn file_of(&self, guest: &mut Guest) -> Result<File, Problem> {
        let length = admit(&self.app, guest.request.body_length())?;
        let mut file = self.app.loads.room().map_err(no_room)?;
        let client = guest.turn.client;
        // Some of a shorter one may have come along with its request.
        let client = client.filter(|_| length > limits::DRAIN_MAX_BYTES as u64);
        let mut body = Watched {
            wire: client.and_then(|client| Wire::find(client, self.app.config.port)),
            body: guest.request.as_reader(),
        };
        receive(&mut body, length, &mut file, || !self.is_stopping())?;
        Ok(file)
    }
}
