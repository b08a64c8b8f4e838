//! The log goes to standard error through a thread of its own. Whoever reads it may have stopped (a
//! pager, Ctrl-S in a terminal), and that must stop neither the supervisor nor a request.

use crossbeam_channel::{Receiver, Sender};
use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Lines that may wait to be written; more are dropped and counted.
const QUEUE: usize = 4_096;

static WAITING: AtomicUsize = AtomicUsize::new(0);
static DROPPED: AtomicU64 = AtomicU64::new(0);
static LINES: OnceLock<Sender<Vec<u8>>> = OnceLock::new();

/// Starts logging what `filter` lets through.
///
/// # Errors
/// When the thread cannot be started.
pub fn start(filter: &str) -> io::Result<()> {
    let (lines, queue) = crossbeam_channel::bounded(QUEUE);
    std::thread::Builder::new()
        .name("log".to_string())
        .spawn(move || write(&queue))?;
    let _ = LINES.set(lines);
    env_logger::Builder::new()
        // What it says there is said by whoever builds its listener again, and at a stop it is no error.
        .filter_module("tiny_http", log::LevelFilter::Off)
        .parse_filters(filter)
        .target(env_logger::Target::Pipe(Box::new(Queue)))
        .init();
    Ok(())
}

/// Waits until everything has been written, but not longer than `patience`.
pub fn flush(patience: Duration) {
    let deadline = Instant::now() + patience;
    while WAITING.load(Ordering::SeqCst) > 0 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn write(queue: &Receiver<Vec<u8>>) {
    for line in queue {
        let dropped = DROPPED.swap(0, Ordering::SeqCst);
        let mut stderr = io::stderr().lock();
        if dropped > 0 {
            let _ = writeln!(stderr, "({dropped} lines of the log were dropped)");
        }
        let _ = stderr.write_all(&line);
        WAITING.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Where env_logger writes: one call for each line.
struct Queue;

impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Some(lines) = LINES.get() {
            WAITING.fetch_add(1, Ordering::SeqCst);
            if lines.try_send(line.to_vec()).is_err() {
                WAITING.fetch_sub(1, Ordering::SeqCst);
                DROPPED.fetch_add(1, Ordering::SeqCst);
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
