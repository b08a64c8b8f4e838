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
