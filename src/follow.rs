//! Shows what is added to a log, also when its writer goes on in another file.

use crossbeam_channel::{RecvTimeoutError, Sender};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::time::Duration;

/// At most so much is shown at once, so that a log of gigabytes needs no memory.
const PIECE_BYTES: u64 = 1 << 20;

/// A file that is read on as it grows.
struct Reading {
    path: PathBuf,
    file: File,
}

impl Reading {
    fn begin(path: PathBuf, from: SeekFrom) -> Option<Reading> {
        let mut file = File::open(&path).ok()?;
        file.seek(from).ok()?;
        Some(Reading { path, file })
    }

    /// What has been added; nothing more is there when it is shorter than a piece.
    fn added(&mut self) -> Vec<u8> {
        let mut piece = Vec::new();
        // A file that was begun anew is shorter than what was read of it.
        let length = self.file.metadata().map_or(0, |file| file.len());
        if self.file.stream_position().is_ok_and(|at| at > length) {
            let _ = self.file.rewind();
        }
        let _ = (&mut self.file).take(PIECE_BYTES).read_to_end(&mut piece);
        piece
    }
}

/// Shows on standard error what is added from now on to the file that `current` names at the moment, until the result is dropped.
///
/// # Errors
/// When a thread cannot be started.
pub fn follow(
    current: impl Fn() -> Option<PathBuf> + Send + 'static,
) -> std::io::Result<Sender<()>> {
    let (keep, ended) = crossbeam_channel::bounded::<()>(0);
    let mut reading = current().and_then(|path| Reading::begin(path, SeekFrom::End(0)));
    std::thread::Builder::new()
        .name("follow".to_string())
        .spawn(move || {
            let mut show = move || {
                loop {
                    let added = reading.as_mut().map(Reading::added).unwrap_or_default();
                    let _ = std::io::stderr().write_all(&added);
                    if added.len() as u64 == PIECE_BYTES {
                        continue;
                    }
                    // The old one has been read to its end; is there another by now?
                    let now = current();
                    let same = reading.as_ref().map(|reading| &reading.path) == now.as_ref();
                    let next = now.and_then(|path| Reading::begin(path, SeekFrom::Start(0)));
                    if same || next.is_none() {
                        return;
                    }
                    reading = next;
                }
            };
            while let Err(RecvTimeoutError::Timeout) =
                ended.recv_timeout(Duration::from_millis(100))
            {
                show();
            }
            show();
        })?;
    Ok(keep)
}
