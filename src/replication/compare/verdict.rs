//! What readings of rows say about them, decided purely.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// The columns of a primary key as texts, in the order of the key.
pub(super) type Key = Vec<String>;

/// One version of a row on one master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version {
    /// Checksum over all columns: the same on both masters when the rows are.
    pub content: String,
    /// Which stored tuple it is: another one after each write, even when the same values came back.
    pub tuple: String,
}

/// A row as it was seen on master1 and on master2; nothing where it is missing.
pub(super) type Seen = [Option<Version>; 2];

/// A key whose rows were not seen equal yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub key: Key,
    /// As it was seen last.
    pub seen: Seen,
    /// What it held on each master when it was looked at before, since the comparison began.
    pub past: [VecDeque<Option<String>>; 2],
}

/// What another look says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The rows are the same, or one master has just come to hold what the other one held at an earlier
    /// look: it follows. A row that is written all the time is never seen the same on both at once.
    Equal,
    /// Whatever was seen first had its time to arrive, nothing was written since, and they differ.
    Differs,
    /// Nobody wrote it, but nothing says yet that it is not on its way.
    Standing,
    /// Somebody wrote it since the last look.
    Moving,
}

/// Looks that a candidate remembers. A master that lags further behind a row which is written all the
/// time is not seen to follow.
const PAST_MAX: usize = 64;

impl Candidate {
    pub fn new(key: Key, seen: Seen) -> Candidate {
        let past = Default::default();
        Candidate { key, seen, past }
    }

    /// Judges by what is seen now; `settled` when both directions have passed a barrier since the last
    /// look. What is left to be looked at is as of now.
    pub fn look(&mut self, now: Seen, settled: bool) -> Verdict {
        let contents = now.each_ref().map(content);
        let follows = |here: usize, there: usize| {
            let came = now[here] != self.seen[here];
            came && self.past[there].contains(&contents[here])
        };
        let equal = contents[0] == contents[1] || follows(0, 1) || follows(1, 0);
        let verdict = match (equal, now == self.seen) {
            (true, _) => Verdict::Equal,
            (_, true) if settled => Verdict::Differs,
            (_, true) => Verdict::Standing,
            _ => Verdict::Moving,
        };
        for (past, content) in self.past.iter_mut().zip(contents) {
            if past.back() != Some(&content) {
                past.push_back(content);
            }
            if past.len() > PAST_MAX {
                past.pop_front();
            }
        }
        self.seen = now;
        verdict
    }
}

fn content(row: &Option<Version>) -> Option<String> {
    row.as_ref().map(|version| version.content.clone())
}

/// The keys of two readings of the same range whose rows are not the same.
pub(super) fn unlike(rows: [Vec<(Key, Version)>; 2]) -> Vec<Candidate> {
    let [first, second] = rows;
    let mut second: HashMap<Key, Version> = second.into_iter().collect();
    let mut found = Vec::new();
    for (key, here) in first {
        let there = second.remove(&key);
        if there.as_ref().map(|there| &there.content) != Some(&here.content) {
            found.push(Candidate::new(key, [Some(here), there]));
        }
    }
    let extra = second.into_iter();
    found.extend(extra.map(|(key, there)| Candidate::new(key, [None, Some(there)])));
    found.sort_by(|one, other| one.key.cmp(&other.key));
    found
}

/// How many rows the next chunk should have, so that it takes about `target`.
pub(super) fn next_rows(rows: i64, took: Duration, target: Duration, most: i64) -> i64 {
    let least = 100.min(most);
    // By at most a factor of two: one slow answer says little.
    let wanted = if took > target * 2 {
        rows / 2
    } else if took < target / 2 {
        rows * 2
    } else {
        rows
    };
    wanted.clamp(least, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(content: &str, tuple: &str) -> Option<Version> {
        Some(Version {
            content: content.to_string(),
            tuple: tuple.to_string(),
        })
    }

    #[test]
    fn only_what_differs_and_stands_still_is_a_difference() {
        let differing = [row("a", "1"), row("b", "7")];
        let missing = [row("a", "1"), None];
        let cases = [
            // A row in flight has arrived.
            (&missing, [row("a", "1"), row("a", "9")], Verdict::Equal),
            // Both are gone.
            (&missing, [None, None], Verdict::Equal),
            (&differing, differing.clone(), Verdict::Differs),
            (&missing, missing.clone(), Verdict::Differs),
            // Written again with the same values: another tuple, perhaps on its way.
            (&differing, [row("a", "2"), row("b", "7")], Verdict::Moving),
            (&differing, [row("c", "1"), row("b", "8")], Verdict::Moving),
            (&differing, [None, row("b", "7")], Verdict::Moving),
        ];
        for (before, now, expected) in cases {
            let mut candidate = Candidate::new(vec![], before.clone());
            assert_eq!(
                candidate.look(now.clone(), true),
                expected,
                "{before:?} {now:?}"
            );
        }
        let mut candidate = Candidate::new(vec![], missing.clone());
        assert_eq!(candidate.look(missing.clone(), false), Verdict::Standing);
        assert_eq!(candidate.look(missing, true), Verdict::Differs);
    }

    #[test]
    fn a_master_that_comes_to_hold_what_the_other_held_follows_it() {
        let looks = |looks: &[(&str, &str)]| {
            let pair = |(one, other): &(&str, &str)| [row(one, one), row(other, other)];
            let mut candidate = Candidate::new(vec![], pair(&looks[0]));
            let rest = looks[1..].iter();
            rest.map(|seen| candidate.look(pair(seen), true))
                .collect::<Vec<_>>()
        };
        let (equal, moving) = (Verdict::Equal, Verdict::Moving);
        assert_eq!(
            looks(&[("5", "1"), ("6", "2"), ("7", "3"), ("8", "6")]),
            [moving, moving, equal]
        );
        assert_eq!(
            looks(&[("1", "5"), ("2", "6"), ("6", "7")]),
            [moving, equal]
        );
        // One that stands still does not, even if the other once held the same.
        assert_eq!(
            looks(&[("1", "9"), ("3", "9"), ("4", "9")]),
            [moving, moving]
        );
    }

    #[test]
    fn a_changed_a_missing_and_an_extra_row_are_found_by_key() {
        let list = |rows: &[(&str, &str)]| {
            rows.iter()
                .filter_map(|(key, content)| Some((vec![key.to_string()], row(content, key)?)))
                .collect::<Vec<_>>()
        };
        let first = list(&[("1", "a"), ("2", "b"), ("3", "c")]);
        let second = list(&[("1", "a"), ("3", "C"), ("4", "d")]);
        let found = unlike([first, second]);
        let seen: Vec<_> = found
            .iter()
            .map(|candidate| {
                (
                    candidate.key[0].as_str(),
                    candidate.seen.each_ref().map(Option::is_some),
                )
            })
            .collect();
        assert_eq!(
            seen,
            [
                ("2", [true, false]),
                ("3", [true, true]),
                ("4", [false, true])
            ]
        );
        assert!(unlike([vec![], vec![]]).is_empty());
    }

    #[test]
    fn chunks_follow_the_speed_of_the_masters_within_bounds() {
        let target = Duration::from_millis(100);
        let next = |rows, took_ms| next_rows(rows, Duration::from_millis(took_ms), target, 10_000);
        assert_eq!(next(1_000, 10), 2_000);
        assert_eq!(next(1_000, 100), 1_000);
        assert_eq!(next(1_000, 500), 500);
        assert_eq!(next(8_000, 1), 10_000);
        assert_eq!(next(150, 5_000), 100);
    }
}
