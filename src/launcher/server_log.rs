//! Shows what a server writes into its log, wherever that is at the moment: its log collector begins a new file each day.

use crossbeam_channel::{RecvTimeoutError, Sender};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// At most so much is shown at once, so that a log of gigabytes needs no memory.
const PIECE_BYTES: u64 = 1 << 20;

/// A file that is read on as it grows.
struct Reading {
    path: PathBuf,
    file: File,
}

/// The file that a server in `data` writes to now; its collector writes the name down.
fn current(data: &Path) -> Option<PathBuf> {
    let text = fs::read_to_string(data.join("current_logfiles")).ok()?;
    let name = text.lines().find_map(|line| line.strip_prefix("stderr "))?;
    Some(data.join(name))
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

/// Shows on standard error what is added to the log of the server in `data` from now on, until the result is dropped.
///
/// # Errors
/// When a thread cannot be started.
pub fn follow(data: &Path) -> std::io::Result<Sender<()>> {
    let (keep, ended) = crossbeam_channel::bounded::<()>(0);
    let data = data.to_path_buf();
    let mut reading = current(&data).and_then(|path| Reading::begin(path, SeekFrom::End(0)));
    std::thread::Builder::new()
        .name("server-log".to_string())
        .spawn(move || {
            let mut show = move || {
                loop {
                    let added = reading.as_mut().map(Reading::added).unwrap_or_default();
                    let _ = std::io::stderr().write_all(&added);
                    if added.len() as u64 == PIECE_BYTES {
                        continue;
                    }
                    // The old one has been read to its end; is there another by now?
                    let now = current(&data);
                    let same = reading.as_ref().map(|reading| &reading.path) == now.as_ref();
                    if same || now.is_none() {
                        return;
                    }
                    let next = now.and_then(|path| Reading::begin(path, SeekFrom::Start(0)));
                    if next.is_none() {
                        return;
                    }
                    reading = next;
                }
            };
            while let Err(RecvTimeoutError::Timeout) =
                ended.recv_timeout(Duration::from_millis(200))
            {
                show();
            }
            show();
        })?;
    Ok(keep)
}
