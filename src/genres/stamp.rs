//! The stamps of changes. A request bears one, over all its tries, and by it a try recognises what an
//! earlier one has left: so no two requests of a process have the same, and each is exactly what the
//! database gives back, which counts microseconds where the system counts nanoseconds.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The next moment that no request of this process has had, in whole microseconds. It runs ahead of a
/// clock that was set back, until that has caught up.
pub(super) fn now() -> SystemTime {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let clock = SystemTime::now().duration_since(UNIX_EPOCH);
    next(&LAST, clock.map_or(0, |since| since.as_micros() as u64))
}

fn next(last: &AtomicU64, clock: u64) -> SystemTime {
    let after = |last: u64| clock.max(last + 1);
    let before = last.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |last| Some(after(last)));
    UNIX_EPOCH + Duration::from_micros(after(before.unwrap_or_else(|last| last)))
}

/// The moment right after a stamp that was read from the database.
pub(super) fn after(stamp: SystemTime) -> SystemTime {
    stamp + Duration::from_micros(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_whole_microseconds_and_never_the_same() {
        let threads: Vec<_> = (0..4)
            .map(|_| std::thread::spawn(|| (0..5_000).map(|_| now()).collect::<Vec<_>>()))
            .collect();
        let mut stamps = Vec::new();
        for thread in threads {
            let own = thread.join().expect("a thread");
            assert!(own.is_sorted_by(|one, other| one < other));
            stamps.extend(own);
        }
        stamps.sort_unstable();
        stamps.dedup();
        assert_eq!(stamps.len(), 20_000);
        for stamp in stamps {
            let since = stamp.duration_since(UNIX_EPOCH).expect("after 1970");
            assert_eq!(since.subsec_nanos() % 1_000, 0);
        }
    }

    #[test]
    fn a_clock_that_is_set_back_repeats_no_stamp() {
        let last = AtomicU64::new(0);
        let micros = [500, 400, 400, 900].map(|clock| {
            let since = next(&last, clock).duration_since(UNIX_EPOCH);
            since.expect("after 1970").as_micros()
        });
        assert_eq!(micros, [500, 501, 502, 900]);
    }
}
