//! Progress, on standard error: a bar on a terminal, and now and then a line elsewhere, where it takes long.

use crate::limits;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::cell::Cell;
use std::io::{IsTerminal, Write};
use std::time::Instant;

/// How far one thing is, counted in bytes.
pub struct Bar {
    what: String,
    bar: Option<ProgressBar>,
    /// When a line was printed, and of how many percent.
    told: Cell<(Instant, u64)>,
    silent: bool,
}

impl Bar {
    /// A bar for `what`; one that shows nothing when it is `silent`.
    pub fn new(what: &str, silent: bool) -> Bar {
        let bar = (!silent && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.set_style(style("{spinner} {prefix} {elapsed}"));
            bar.set_prefix(what.to_string());
            bar.enable_steady_tick(limits::BAR_TICK);
            bar
        });
        Bar {
            what: what.to_string(),
            bar,
            told: Cell::new((Instant::now(), 0)),
            silent,
        }
    }

    /// So much is done, of so much.
    pub fn set(&self, done: u64, all: u64) {
        if let Some(bar) = &self.bar {
            if bar.length() != Some(all) {
                bar.set_style(style(
                    "{spinner} {prefix} {bar:30} {bytes} of {total_bytes}, {eta} to go",
                ));
                bar.set_length(all);
            }
            bar.set_position(done);
            return;
        }
        let percent = (done * 100).checked_div(all).unwrap_or(0);
        let (at, told) = self.told.get();
        // What is over sooner has its outcome for a line, which a last figure below the end would belie.
        let due = percent > told && at.elapsed() >= limits::BAR_LINE;
        if due && !self.silent {
            self.say(&format!("{}: {percent} %", self.what));
            self.told.set((Instant::now(), percent));
        }
    }

    /// One line about it, which stays.
    pub fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            // Whoever listened may have gone, and that must not end the work half-way.
            None if !self.silent => drop(writeln!(std::io::stderr(), "{line}")),
            None => {}
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A template of ours, which a test tries.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_shown_beyond_what_is_new() {
        let bar = Bar::new("try", true);
        for done in [0, 5, 9, 55, 100, 100] {
            bar.set(done, 100);
        }
        assert_eq!(bar.told.get().1, 0, "a silent one tells nothing");
        let bar = Bar::new("try", false);
        bar.set(33, 100);
        assert_eq!(bar.told.get().1, 0, "it may be over in a moment");
        let Some(before) = Instant::now().checked_sub(limits::BAR_LINE) else {
            return;
        };
        bar.told.set((before, 0));
        bar.set(55, 100);
        bar.set(60, 100);
        assert_eq!(bar.told.get().1, 55);
        bar.set(1, 0);
    }
}
