//! What the commands print for whoever called them.

use std::fmt::Display;
use std::io::Write;

/// Prints a line on standard output. A reader who has left, as `head` does, is no error.
pub fn print(line: impl Display) {
    let mut stdout = std::io::stdout();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// Prints a line about one step on standard error. Whoever listened may have gone, and that must not end the work half-way.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// The same with the time in front, for what runs for long.
pub fn say_with_time(line: &str) {
    let now = jiff::Zoned::now();
    say(&format!("{} {line}", now.strftime("%H:%M:%S")));
}
