//! The routes of the loads, and the arrival of a file, which may be larger than the memory.

use super::ending;
use super::input;
use super::messages as msg;
use super::router::Handler;
use super::server::{Guest, Shared, Work};
use super::wire::Watched;
use super::{App, Problem, Reply, Req};
use crate::imdb::jobs::Refused;
use crate::imdb::load::Allow;
use crate::limits;
use serde_json::json;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// `POST /load`: loads the file that has arrived, and says where to follow it.
pub fn begin(app: &App, req: &Req, file: File) -> Result<Reply, Problem> {
    let [empty, shrink] = input::parameters(&req.query, ["allow_empty", "allow_shrink"])?;
    let allow = Allow {
        empty: input::flag("allow_empty", empty.as_deref())?,
        shrink: input::flag("allow_shrink", shrink.as_deref())?,
    };
    let (id, job) = app.loads.begin(file, allow).map_err(problem_of)?;
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

/// How a body has to come.
struct Pace {
    /// All of it within this time.
    patience: Duration,
    /// So many bytes in each time like this.
    window: Duration,
    least: u64,
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
    pace: &Pace,
    go_on: impl Fn() -> bool,
) -> Result<(), Problem> {
    let incomplete = || Err(Problem::from(msg::BODY_INCOMPLETE));
    let deadline = Instant::now() + pace.patience;
    let mut piece = vec![0; limits::LOAD_READ_BYTES];
    let mut arrived = 0;
    let (mut since, mut before) = (Instant::now(), 0);
    // With `Connection: upgrade` tiny_http hands out the whole connection as the body.
    let mut body = body.take(length);
    while arrived < length {
        if Instant::now() >= deadline || !go_on() {
            return incomplete();
        }
        if since.elapsed() >= pace.window {
            if arrived - before < pace.least {
                return incomplete();
            }
            (since, before) = (Instant::now(), arrived);
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

/// One of the files that may arrive at the same time.
struct Slot<'a>(&'a AtomicUsize);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Shared {
    /// Hands on a request that brings a file, or refuses it when as many are arriving as may: it would have to wait for as long as
    /// those take.
    pub(super) fn pass_upload(&self, work: Work) {
        if self.arriving.fetch_add(1, Ordering::SeqCst) < limits::HTTP_UPLOADS {
            return self.pass(&self.upload, work);
        }
        drop(Slot(&self.arriving));
        let reply = Problem::from(msg::OVERLOADED).into_reply(work.req.language);
        self.hand_back(work.guest, reply);
    }

    /// Takes a file in and hands it on.
    pub(super) fn take_upload(self: &Arc<Shared>, work: Work) {
        let slot = Slot(&self.arriving);
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
        let reply = file.and_then(|file| match self.is_stopping() {
            true => Err(Problem::from(msg::STOPPING)),
            false => handler(&self.app, &req, file),
        });
        let reply = reply.unwrap_or_else(|problem| problem.into_reply(req.language));
        drop(slot); // whoever gets the answer may come again at once
        self.hand_back(guest, reply);
    }

    fn file_of(&self, guest: &mut Guest) -> Result<File, Problem> {
        const PACE: Pace = Pace {
            patience: limits::LOAD_BODY_PATIENCE,
            window: limits::LOAD_BODY_WINDOW,
            least: limits::LOAD_BODY_LEAST,
        };
        let length = admit(&self.app, guest.request.body_length())?;
        let mut file = self.app.loads.room().map_err(no_room)?;
        let client = guest.turn.client;
        // Some of a shorter one may have come along with its request.
        let client = client.filter(|_| length > limits::DRAIN_MAX_BYTES as u64);
        let mut body = Watched {
            wire: client.and_then(|client| self.wire_of(client).ok().flatten()),
            body: guest.request.as_reader(),
        };
        let received = receive(&mut body, length, &mut file, &PACE, || !self.is_stopping());
        match received {
            // Whatever it says: it was not read to its end, and could not be loaded any more.
            Err(_) if self.is_stopping() => Err(msg::STOPPING.into()),
            received => received.map(|()| file),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace {
        patience: Duration::from_millis(500),
        window: Duration::from_millis(100),
        least: 20,
    };

    /// A body that comes in pieces, each of which takes its time.
    struct Pieces(usize, Duration);

    impl Read for Pieces {
        fn read(&mut self, piece: &mut [u8]) -> std::io::Result<usize> {
            std::thread::sleep(self.1);
            let count = self.0.min(piece.len());
            piece[..count].fill(b'x');
            Ok(count)
        }
    }

    fn took(mut body: impl Read, length: u64, mut file: File) -> (Duration, Option<&'static str>) {
        let began = Instant::now();
        let received = receive(&mut body, length, &mut file, &PACE, || true);
        let code = received.err().map(|problem| problem.fault.message.code);
        (began.elapsed(), code)
    }

    fn file() -> File {
        tempfile::tempfile().expect("a file")
    }

    #[test]
    fn a_body_is_taken_in_whole_and_in_time_or_not_at_all() {
        let whole = Pieces(1_000, Duration::ZERO);
        assert_eq!(took(whole, 2_500, file()).1, None);
        let cut = &[b'x'; 2_499][..];
        assert_eq!(took(cut, 2_500, file()).1, Some("body_incomplete"));
        // A byte now and then.
        let (time, code) = took(Pieces(1, Duration::from_millis(10)), 2_500, file());
        assert_eq!(code, Some("body_incomplete"));
        assert!(time < PACE.patience, "{time:?}");
        // Just as much as it must be, and so never all of it.
        let (time, code) = took(Pieces(10, Duration::from_millis(10)), 2_500, file());
        assert_eq!(code, Some("body_incomplete"));
        assert!(time >= PACE.patience, "{time:?}");
    }

    #[test]
    fn a_full_disk_is_told() {
        let full = File::options().write(true).open("/dev/full");
        let body = Pieces(1_000, Duration::ZERO);
        assert_eq!(
            took(body, 2_500, full.expect("a device")).1,
            Some("load_no_room")
        );
    }
}
