//! Whether the end of what runs in the foreground was asked for, and waiting that stops when it is.

use anyhow::{Context, bail};
use crossbeam_channel::{Receiver, RecvTimeoutError};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::IsTerminal;
use std::time::Duration;

/// The start was broken off by whoever asked for it.
#[derive(Debug)]
pub struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// Hears that the end is asked for. The word stays where it is, for everyone who asks.
pub struct Interrupt {
    told: Receiver<()>,
}

impl Interrupt {
    /// Listens for signals and, for a cluster that is `tied`, for the end of standard input, so that it
    /// does not outlive whoever started it.
    ///
    /// # Errors
    /// When the signals or a thread for them cannot be had.
    pub fn listen(tied: bool) -> anyhow::Result<Interrupt> {
        let (tell, told) = crossbeam_channel::bounded(1);
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("listen for signals")?;
        // Asked for now: a terminal that was closed is none any more by the time its SIGHUP is read.
        let on_a_terminal = std::io::stdin().is_terminal();
        let by_signal = tell.clone();
        std::thread::Builder::new()
            .name("signals".to_string())
            .spawn(move || {
                for signal in signals.forever() {
                    // Whoever logs out leaves a detached cluster running.
                    if signal != SIGHUP || on_a_terminal {
                        let _ = by_signal.try_send(());
                    }
                }
            })?;
        if tied {
            std::thread::Builder::new()
                .name("stdin".to_string())
                .spawn(move || {
                    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
                    let _ = tell.try_send(());
                })?;
        }
        Ok(Interrupt { told })
    }

    /// Whether the end was asked for.
    pub fn is_asked(&self) -> bool {
        !self.told.is_empty()
    }

    /// Goes on unless the end was asked for.
    ///
    /// # Errors
    /// [`Interrupted`], when it was.
    pub fn check(&self) -> anyhow::Result<()> {
        match self.is_asked() {
            true => bail!(Interrupted),
            false => Ok(()),
        }
    }

    /// Waits for `time`, and says whether the end was asked for within it. That ends the waiting, and is
    /// told once.
    pub fn within(&self, time: Duration) -> bool {
        self.told.recv_timeout(time) != Err(RecvTimeoutError::Timeout)
    }

    /// Does what may wait for a master, unless the end is asked for meanwhile. Then it is left alone
    /// with its own deadline, and ends at the latest with this process.
    ///
    /// # Errors
    /// Those of `work`, and [`Interrupted`].
    pub fn unless<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let (tell, told) = crossbeam_channel::bounded(1);
        std::thread::Builder::new()
            .name("start".to_string())
            .spawn(move || drop(tell.send(work())))
            .context("start a thread")?;
        loop {
            self.check()?;
            match told.recv_timeout(Duration::from_millis(20)) {
                Ok(outcome) => return outcome,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => bail!("a step of the start panicked"),
            }
        }
    }
}
