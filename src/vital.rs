//! Threads without which this program must not go on: without its supervisor or a probe it would
//! serve, and never fail over.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// Starts a named thread whose panic ends the process, so that whoever runs it starts it again.
///
/// # Errors
/// When the thread cannot be started.
pub fn spawn(name: String, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    let of_thread = name.clone();
    std::thread::Builder::new().name(of_thread).spawn(move || {
        if catch_unwind(AssertUnwindSafe(work)).is_err() {
            log::error!("thread {name} panicked; the process ends, please report it");
            crate::logging::flush(Duration::from_millis(500));
            std::process::exit(1);
        }
    })?;
    Ok(())
}
