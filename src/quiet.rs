//! Keeps a repeated error from filling the log: one line when it changes, then one in
//! [`crate::limits::REPEATED_ERROR`].

use crate::limits;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// What was said last, when, and how often it was swallowed since.
#[derive(Debug, Default)]
pub struct Quiet(Mutex<Option<(String, Instant, u64)>>);

impl Quiet {
    /// Whether `text` should be logged now; if so, how often it was swallowed before.
    pub fn admit(&self, text: &str) -> Option<u64> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match last.as_mut() {
            Some((said, at, swallowed))
                if said == text && at.elapsed() < limits::REPEATED_ERROR =>
            {
                *swallowed += 1;
                None
            }
            other => {
                let swallowed = other.map_or(0, |(.., swallowed)| *swallowed);
                *last = Some((text.to_string(), Instant::now(), 0));
                Some(swallowed)
            }
        }
    }

    /// Forgets what was said; returns whether there was anything.
    pub fn clear(&self) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
            .is_some()
    }
}

/// Logs which alarms there are now that were none when it was `told` last, and which of those are over. `of` is what they have
/// in common.
pub fn tell_alarms(of: &str, told: &[String], alarms: &[String]) {
    for alarm in alarms.iter().filter(|alarm| !told.contains(alarm)) {
        log::warn!("ALARM: {of}{alarm}");
    }
    for alarm in told.iter().filter(|alarm| !alarms.contains(alarm)) {
        log::info!("the alarm is over: {of}{alarm}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_error_is_said_once_and_another_at_once() {
        let quiet = Quiet::default();
        assert_eq!(quiet.admit("a"), Some(0));
        assert_eq!(quiet.admit("a"), None);
        assert_eq!(quiet.admit("a"), None);
        assert_eq!(quiet.admit("b"), Some(2));
        assert!(quiet.clear());
        assert_eq!(quiet.admit("b"), Some(0));
    }
}
