//! The routes of the loads, and the arrival of a file, which may be larger than the memory.

use super::front::ask_for_body;
use super::head::{Head, Length};
use super::input;
use super::messages as msg;
use super::server::Shared;
use super::wire::{Wire, is_late};
use super::{App, Problem, Reply, Req};
use crate::imdb::jobs::Refused;
use crate::imdb::load::Allow;
use crate::limits;
use serde_json::json;
use std::collections::HashMap;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
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
fn admit(app: &App, announced: Length) -> Result<u64, Problem> {
    // A part of a file would replace all the rows of its tables, so nobody must have to guess whether it is one.
    let Length::Exactly(length) = announced else {
        return Err(msg::LENGTH_REQUIRED.into());
    };
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
    // What comes behind it is another request.
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
            Err(error) if is_late(&error) => return Err(msg::REQUEST_TIMEOUT.into()),
            Err(_) => return incomplete(),
        }
    }
    Ok(())
}

/// Files that arrive, and those that have and are on their way to the handler: tiny_http carries their number.
#[derive(Default)]
pub(super) struct Files {
    arriving: AtomicUsize,
    last: AtomicU64,
    here: Mutex<HashMap<u64, File>>,
}

impl Files {
    fn put(&self, file: File) -> u64 {
        let number = self.last.fetch_add(1, Ordering::SeqCst);
        self.here().insert(number, file);
        number
    }

    pub(super) fn take(&self, number: u64) -> Option<File> {
        self.here().remove(&number)
    }

    fn here(&self) -> MutexGuard<'_, HashMap<u64, File>> {
        self.here.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of the files that may arrive at the same time.
struct Slot<'a>(&'a AtomicUsize);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Shared {
    /// Takes a file in, and returns its number. It is refused when as many are arriving as may: it would have to wait for as long as
    /// those take.
    ///
    /// # Errors
    /// Why it is not taken, or did not arrive.
    pub(super) fn take_file(&self, head: &Head, wire: &mut Wire) -> Result<u64, Problem> {
        const PACE: Pace = Pace {
            patience: limits::LOAD_BODY_PATIENCE,
            window: limits::LOAD_BODY_WINDOW,
            least: limits::LOAD_BODY_LEAST,
        };
        let arriving = self.files.arriving.fetch_add(1, Ordering::SeqCst);
        // Its place is free again before it is answered, so whoever is may come again at once.
        let _slot = Slot(&self.files.arriving);
        if arriving >= limits::HTTP_UPLOADS {
            return Err(msg::OVERLOADED.into());
        }
        let length = admit(&self.app, head.length)?;
        let mut file = self.app.loads.room().map_err(no_room)?;
        if head.waits && ask_for_body(wire).is_err() {
            return Err(msg::BODY_INCOMPLETE.into());
        }
        match receive(wire, length, &mut file, &PACE, || !self.is_stopping()) {
            // Whatever it says: it was not read to its end, and could not be loaded any more.
            Err(_) if self.is_stopping() => Err(msg::STOPPING.into()),
            received => received.map(|()| self.files.put(file)),
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
