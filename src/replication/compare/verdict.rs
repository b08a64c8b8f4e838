//! What readings of rows say about them, decided purely.

use std::collections::HashMap;
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
    pub seen: Seen,
}

/// What a second look says, when everything that the first one saw has been replicated in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Equal,
    /// Whatever was seen first had its time to arrive, nothing was written since, and they differ.
    Differs,
    /// Somebody wrote in between, so what differs may be on its way.
    Moving,
}

/// Judges a key by what was seen of it before and after a barrier.
pub(super) fn verdict(before: &Seen, now: &Seen) -> Verdict {
    let content = |row: &Option<Version>| row.as_ref().map(|version| version.content.clone());
    if content(&now[0]) == content(&now[1]) {
        Verdict::Equal
    } else if before == now {
        Verdict::Differs
    } else {
        Verdict::Moving
    }
}

/// The keys of two readings of the same range whose rows are not the same.
pub(super) fn unlike(rows: [Vec<(Key, Version)>; 2]) -> Vec<Candidate> {
    let [first, second] = rows;
    let mut second: HashMap<Key, Version> = second.into_iter().collect();
    let mut found = Vec::new();
    for (key, here) in first {
        let there = second.remove(&key);
        if there.as_ref().map(|there| &there.content) != Some(&here.content) {
            let seen = [Some(here), there];
            found.push(Candidate { key, seen });
        }
    }
    let extra = second.into_iter().map(|(key, there)| Candidate {
        key,
        seen: [None, Some(there)],
    });
    found.extend(extra);
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
        let cases = [
            // A row in flight has arrived.
            (
                [row("a", "1"), None],
                [row("a", "1"), row("a", "9")],
                Verdict::Equal,
            ),
            // Both are gone.
            ([row("a", "1"), None], [None, None], Verdict::Equal),
            (differing.clone(), differing.clone(), Verdict::Differs),
            (
                [row("a", "1"), None],
                [row("a", "1"), None],
                Verdict::Differs,
            ),
            // Written again with the same values: another tuple, perhaps on its way.
            (
                differing.clone(),
                [row("a", "2"), row("b", "7")],
                Verdict::Moving,
            ),
            (
                differing.clone(),
                [row("c", "1"), row("b", "8")],
                Verdict::Moving,
            ),
            (differing.clone(), [None, row("b", "7")], Verdict::Moving),
        ];
        for (before, now, expected) in cases {
            assert_eq!(verdict(&before, &now), expected, "{before:?} {now:?}");
        }
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
