//! The manual's cycle of six days. Which day it is follows from the backups themselves.

use super::Kind;
use super::entry::Entry;

/// The backups of each day, in their order.
pub const DAYS: [&[Kind]; 6] = [
    &[Kind::Full],
    &[Kind::Incr],
    &[Kind::Incr, Kind::Diff],
    &[Kind::Incr],
    &[Kind::Incr, Kind::Diff],
    &[Kind::Diff, Kind::Full],
];

/// The next backup of the cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    /// 1 to 6.
    pub day: u8,
    pub kind: Kind,
    /// When the day before it began, in seconds since 1970; none for what follows at once.
    pub day_before: Option<i64>,
}

/// What comes after these backups of one master, oldest first. Those that belong to no day do not count.
pub fn next(entries: &[Entry]) -> Next {
    let first = Next {
        day: 1,
        kind: Kind::Full,
        day_before: None,
    };
    let of_day = |day: u8| DAYS.get(usize::from(day).wrapping_sub(1)).copied();
    let in_cycle: Vec<(&Entry, u8)> = entries
        .iter()
        .filter_map(|entry| {
            entry
                .day
                .filter(|day| of_day(*day).is_some())
                .zip(Some(entry))
        })
        .map(|(day, entry)| (entry, day))
        .collect();
    let Some((newest, day)) = in_cycle.last().copied() else {
        return first;
    };
    let today = in_cycle.iter().rev().take_while(|(_, of)| *of == day);
    let (begun, made) = today.fold((newest.start, 0), |(_, made), (entry, _)| {
        (entry.start, made + 1)
    });
    let kinds = of_day(day).unwrap_or_default();
    // The kind tells how far the day is, since its first backup may have expired with its second. Where pgBackRest had to make
    // another kind than was asked, their number does.
    let at = kinds.iter().rposition(|kind| *kind == newest.kind);
    let at = at.unwrap_or(made - 1);
    match kinds.get(at + 1) {
        Some(kind) => Next {
            day,
            kind: *kind,
            day_before: None,
        },
        None => {
            let day = day % DAYS.len() as u8 + 1;
            Next {
                day,
                kind: of_day(day).unwrap_or_default()[0],
                day_before: Some(begun),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::tests::entry;
    use super::*;

    fn of(day: u8, kind: Kind, stop: i64) -> Entry {
        Entry {
            day: Some(day),
            ..entry(&format!("{day}-{stop}"), kind, stop, &[])
        }
    }

    #[test]
    fn the_days_follow_each_other_and_begin_again() {
        let mut entries = Vec::new();
        let mut made = Vec::new();
        for turn in 0..11 {
            let next = next(&entries);
            made.push((next.day, next.kind));
            entries.push(of(next.day, next.kind, 100 * (turn + 1)));
        }
        let (full, diff, incr) = (Kind::Full, Kind::Diff, Kind::Incr);
        let expected = [
            (1, full),
            (2, incr),
            (3, incr),
            (3, diff),
            (4, incr),
            (5, incr),
            (5, diff),
            (6, diff),
            (6, full),
            (1, full),
            (2, incr),
        ];
        assert_eq!(made, expected);
    }

    #[test]
    fn a_day_counts_from_its_first_backup_and_its_second_follows_at_once() {
        let first = of(3, Kind::Incr, 100);
        let second = of(3, Kind::Diff, 200);
        assert_eq!(next(std::slice::from_ref(&first)).day_before, None);
        assert_eq!(next(&[first, second]).day_before, Some(98));
    }

    #[test]
    fn the_cycle_goes_on_after_expiry_foreign_backups_and_kinds_that_were_not_asked_for() {
        // Of day 6 only the full one is left, and making it again for ever would be the end of the cycle.
        assert_eq!(next(&[of(6, Kind::Full, 100)]).day, 1);
        // Somebody's own backup, and a day that there is not.
        let other = entry("x", Kind::Incr, 300, &[]);
        let strange = of(9, Kind::Incr, 400);
        assert_eq!(next(&[of(1, Kind::Full, 100), other, strange]).day, 2);
        // A full one where an incremental one was asked: the day goes on with its second.
        let next = next(&[of(3, Kind::Full, 100)]);
        assert_eq!((next.day, next.kind), (3, Kind::Diff));
    }
}
