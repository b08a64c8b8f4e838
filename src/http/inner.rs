//! tiny_http, behind the front: it listens on a Unix socket that has no name any more, and knows nobody but the threads of this process
//! that keep connections to it. It gets whole requests that are well-formed, one at a time on each connection, so that what it lacks
//! (time limits, bounds, a strict parser) is never asked of it.

use crate::limits;
use anyhow::Context;
use nix::fcntl::OFlag;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{Error, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use tiny_http::{Request, Response, Server};

/// What a new connection asks first; see [`Inner::open`].
const GREETING: &str = "*";

/// New connections in a row that may fail before tiny_http is taken for dead.
const MISSES_MAX: usize = 3;

/// Requests in a row that may get no answer at all before the process ends, to be started again by whoever runs it.
const LOST_MAX: usize = 100;

/// Descriptors that a new connection takes: one here, and two that tiny_http makes of the other end.
pub(super) const DESCRIPTORS: usize = 3;

/// tiny_http and the connections to it that are kept.
pub(super) struct Inner {
    server: Server,
    /// The socket, which no path leads to.
    door: File,
    kept: Mutex<Vec<UnixStream>>,
    /// Requests that got no answer since the last one that did: what lies weeks apart has nothing to do with each other.
    lost: AtomicUsize,
    opening: Mutex<()>,
    misses: AtomicUsize,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failed {
    /// The request was not handed on.
    NotAsked(Error),
    /// It was, and nobody knows what became of it.
    NoAnswer(Error),
}

impl Inner {
    /// # Errors
    /// When there is no place for its socket.
    pub(super) fn start() -> anyhow::Result<Inner> {
        let (listener, door) = listen().context("make the socket that tiny_http listens on")?;
        let server = Server::from_listener(listener, None)
            .map_err(|error| anyhow::anyhow!("start tiny_http: {error}"))?;
        Ok(Inner {
            server,
            door,
            kept: Mutex::default(),
            lost: AtomicUsize::new(0),
            opening: Mutex::default(),
            misses: AtomicUsize::new(0),
        })
    }

    /// The next request that was handed on.
    ///
    /// # Errors
    /// When tiny_http accepts no connections any more.
    pub(super) fn receive(&self) -> std::io::Result<Request> {
        loop {
            let request = self.server.recv()?;
            if request.url() != GREETING {
                return Ok(request);
            }
            // Whoever asks this waits for the answer.
            let _ = request.respond(Response::empty(204));
        }
    }

    /// Hands a whole request on and waits for its answer, which comes into `answer`.
    ///
    /// # Errors
    /// When it cannot be handed on, or is not answered.
    pub(super) fn ask(
        &self,
        request: &[u8],
        answer: &mut Vec<u8>,
        is_head: bool,
    ) -> Result<(), Failed> {
        let kept = lock(&self.kept).pop();
        let stream = match kept {
            Some(stream) => stream,
            None => self.open().map_err(Failed::NotAsked)?,
        };
        match exchange(&stream, request, answer, is_head) {
            Ok(()) => {
                self.lost.store(0, Ordering::SeqCst);
                let mut kept = lock(&self.kept);
                if kept.len() < limits::INNER_KEPT {
                    kept.push(stream);
                }
                Ok(())
            }
            Err(error) => {
                self.lost.fetch_add(1, Ordering::SeqCst);
                Err(Failed::NoAnswer(error))
            }
        }
    }

    /// Whether tiny_http has to be taken for dead.
    pub(super) fn is_broken(&self) -> bool {
        self.misses.load(Ordering::SeqCst) >= MISSES_MAX
            || self.lost.load(Ordering::SeqCst) > LOST_MAX
    }

    /// Another connection, on which tiny_http has answered once. It counts a thread as idle until that has woken up, so of two
    /// connections that are made at the same moment one could wait for a thread until another connection ends.
    fn open(&self) -> std::io::Result<UnixStream> {
        let _one_at_a_time = lock(&self.opening);
        // tiny_http stops accepting for good when it gets no descriptor.
        let spare: Result<Vec<File>, Error> =
            (0..DESCRIPTORS).map(|_| self.door.try_clone()).collect();
        drop(spare?);
        let door = format!("/proc/self/fd/{}", self.door.as_raw_fd());
        let greet = || -> std::io::Result<UnixStream> {
            let stream = UnixStream::connect(door)?;
            stream.set_write_timeout(Some(limits::INNER_GREETING))?;
            stream.set_read_timeout(Some(limits::INNER_GREETING))?;
            let greeting = format!("GET {GREETING} HTTP/1.1\r\n\r\n");
            exchange(&stream, greeting.as_bytes(), &mut Vec::new(), true)?;
            stream.set_read_timeout(Some(limits::INNER_ANSWER))?;
            Ok(stream)
        };
        let greeted = greet();
        match &greeted {
            Ok(_) => self.misses.store(0, Ordering::SeqCst),
            Err(_) => _ = self.misses.fetch_add(1, Ordering::SeqCst),
        }
        greeted
    }
}

/// A socket in a folder that nobody else may enter, and the way to it that is left when both are gone: a process that is killed leaves
/// nothing behind, and nobody but this one can connect.
fn listen() -> std::io::Result<(UnixListener, File)> {
    let try_in = |place: &Path| -> std::io::Result<(UnixListener, File)> {
        let folder = tempfile::Builder::new()
            .prefix("imdb-ha-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(place)?;
        let opened = File::open(folder.path())?;
        // Short, however long the name of the folder is: the system takes 107 bytes.
        let path = PathBuf::from(format!("/proc/self/fd/{}/api", opened.as_raw_fd()));
        let listener = UnixListener::bind(&path)?;
        let door = OpenOptions::new()
            .read(true)
            .custom_flags(OFlag::O_PATH.bits())
            .open(&path)?;
        folder.close()?;
        Ok((listener, door))
    };
    try_in(&std::env::temp_dir()).or_else(|error| {
        log::warn!("no socket in {}: {error}", std::env::temp_dir().display());
        try_in(Path::new("/dev/shm"))
    })
}

fn exchange(
    mut stream: &UnixStream,
    request: &[u8],
    answer: &mut Vec<u8>,
    is_head: bool,
) -> std::io::Result<()> {
    stream.write_all(request)?;
    answer.clear();
    let mut piece = [0; 16 * 1024];
    let mut length = None;
    while length.is_none_or(|length| answer.len() < length) {
        match stream.read(&mut piece) {
            Ok(0) => return Err(Error::from(ErrorKind::UnexpectedEof)),
            Ok(count) => answer.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        length = length.or_else(|| length_of(answer, is_head));
    }
    Ok(())
}

/// The length of an answer whose head has come.
fn length_of(answer: &[u8], is_head: bool) -> Option<usize> {
    let end = memchr::memmem::find(answer, b"\r\n\r\n")? + 4;
    let body = answer[..end].split(|byte| *byte == b'\n').find_map(|line| {
        let digits = line.strip_prefix(b"Content-Length: ")?.trim_ascii();
        std::str::from_utf8(digits).ok()?.parse::<usize>().ok()
    });
    Some(end + body.filter(|_| !is_head).unwrap_or(0))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn many_connections_that_are_made_at_once_are_all_answered() {
        let inner = Arc::new(Inner::start().expect("tiny_http"));
        let serving = Arc::clone(&inner);
        std::thread::spawn(move || {
            while let Ok(request) = serving.receive() {
                let url = request.url().to_string();
                let _ = request.respond(Response::from_string(url));
            }
        });
        std::thread::scope(|scope| {
            for number in 0..100 {
                let inner = &inner;
                scope.spawn(move || {
                    let mut answer = Vec::new();
                    let request = format!("GET /{number} HTTP/1.1\r\n\r\n");
                    let asked = inner.ask(request.as_bytes(), &mut answer, false);
                    asked.expect("an answer");
                    let answer = String::from_utf8(answer).expect("text");
                    assert!(answer.ends_with(&format!("\r\n\r\n/{number}")), "{answer}");
                });
            }
        });
        assert!(!inner.is_broken());
        assert_eq!(inner.lost.load(Ordering::SeqCst), 0);
    }
}
