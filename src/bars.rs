//! Progress, on standard error: a bar on a terminal, and now and then a line elsewhere, where it takes long.
//! Counted in bytes, or in rows with their rate.

use crate::limits;
use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use std::cell::Cell;
use std::io::{IsTerminal, Write};
use std::time::Instant;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Bytes,
    Rows,
}

/// How far one thing is.
pub struct Bar {
    what: String,
    unit: Unit,
    began: Instant,
    bar: Option<ProgressBar>,
    /// When a line was printed, and of how many percent.
    told: Cell<(Instant, u64)>,
    silent: bool,
}

impl Bar {
    /// A bar for `what`; one that shows nothing when it is `silent`.
    pub fn new(what: &str, silent: bool) -> Bar {
        Bar::counting(Unit::Bytes, what, silent)
    }

    /// A bar that counts rows.
    pub fn of_rows(what: &str) -> Bar {
        Bar::counting(Unit::Rows, what, false)
    }

    fn counting(unit: Unit, what: &str, silent: bool) -> Bar {
        let bar = (!silent && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.set_style(style("{spinner} {prefix} {elapsed}"));
            bar.set_prefix(what.to_string());
            bar.enable_steady_tick(limits::BAR_TICK);
            bar
        });
        Bar {
            what: what.to_string(),
            unit,
            began: Instant::now(),
            bar,
            told: Cell::new((Instant::now(), 0)),
            silent,
        }
    }

    /// So much is done, of so much.
    pub fn set(&self, done: u64, all: u64) {
        if let Some(bar) = &self.bar {
            if all > 0 && bar.length() != Some(all) {
                bar.set_style(style(self.unit.template()));
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
            self.say(&format!(
                "{}: {percent} %{}",
                self.what,
                self.pace(done, all)
            ));
            self.told.set((Instant::now(), percent));
        }
    }

    /// How fast it goes and how long it will take, for those whose rows have a rate.
    fn pace(&self, done: u64, all: u64) -> String {
        let seconds = self.began.elapsed().as_secs_f64();
        if self.unit == Unit::Bytes || done == 0 || seconds <= 0.0 {
            return String::new();
        }
        let rate = done as f64 / seconds;
        let left = all.saturating_sub(done) as f64 / rate;
        format!(", {rate:.0} rows/s, {left:.0} s to go")
    }

    /// Leaves a finished bar where it is.
    pub fn end(self) {
        if let Some(bar) = self.bar.as_ref().filter(|bar| bar.length().is_some()) {
            bar.set_position(bar.length().unwrap_or(0));
            bar.abandon();
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
        if let Some(bar) = self.bar.as_ref().filter(|bar| !bar.is_finished()) {
            bar.finish_and_clear();
        }
    }
}

impl Unit {
    fn template(self) -> &'static str {
        match self {
            Unit::Bytes => "{spinner} {prefix} {bar:30} {bytes} of {total_bytes}, {eta} to go",
            Unit::Rows => {
                "{spinner} {prefix:24} {bar:30} {human_pos} of {human_len} rows, {rate} rows/s, {eta} to go"
            }
        }
    }
}

/// A template of ours, which a test tries.
fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template);
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    // The library's own rate has four places behind the point.
    style.with_key(
        "rate",
        |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            let _ = write!(out, "{}", HumanCount(state.per_sec() as u64));
        },
    )
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
