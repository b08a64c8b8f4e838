//! The drill: a backup is restored beside the masters, started, checked and removed again, and what came of it is kept with it.

use super::command::{GiveUp, Place};
use super::entry::{Entry, Verified};
use super::failure::{Class, Failure};
use crate::config::Config;

/// Tries one backup. The caller holds a [`super::runner::Claim`]. `told` hears one line about each step.
///
/// # Errors
/// Why it could not be tried. That it is bad is no error; the result says so.
pub fn run(
    place: &Place,
    _config: &Config,
    entry: &Entry,
    _give_up: GiveUp,
    _told: &mut dyn FnMut(&str),
) -> Result<Verified, Failure> {
    let _ = place;
    Err(Failure::new(
        Class::Other,
        entry.node,
        "try a backup of",
        "not there yet",
    ))
}
