//! What may expire. pgBackRest counts full backups and does not know which of them can be restored, so its counting is stopped
//! where it would take the one to go back to.

use super::Kind;
use super::command::{NEVER, Place};
use super::entry::Entry;
use crate::cluster::NodeId;
use crate::limits;

/// Whether pgBackRest may clear away by itself after the next backup. `full` tells that this will be one more full backup.
pub fn may_run(place: &Place, node: NodeId, entries: &[Entry], full: bool) -> bool {
    let option = |name: &str| place.option(node, name);
    let count = option("repo1-retention-full").and_then(|count| count.parse().ok());
    let by_time = option("repo1-retention-full-type").as_deref() == Some("time");
    spares(entries, stay(count, by_time, full))
}

/// How many of the full backups that there are stay in any case.
fn stay(count: Option<usize>, by_time: bool, full: bool) -> usize {
    match count {
        // It keeps them all.
        None => usize::MAX,
        // Days: how many of those that are older stay depends on their age, but the newest is among them.
        Some(_) if by_time => 1,
        Some(count) => count.saturating_sub(usize::from(full)),
    }
}

/// Whether the full backup to go back to is among the newest so many.
fn spares(entries: &[Entry], stay: usize) -> bool {
    let Some(precious) = precious(entries) else {
        return true;
    };
    newest_first(entries)
        .take(stay)
        .any(|full| full.label == precious.label)
}

/// The newest full backup that has been restored, or else the newest that may yet turn out to be good.
fn precious(entries: &[Entry]) -> Option<&Entry> {
    let of = |verdict| newest_first(entries).find(|full| full.verdict(entries) == verdict);
    of("good").or_else(|| of("untried"))
}

fn newest_first(entries: &[Entry]) -> impl Iterator<Item = &Entry> {
    let full = |entry: &&Entry| entry.kind == Kind::Full;
    entries.iter().rev().filter(full)
}

/// The full backup that goes when there are too many because nothing expired by itself: the oldest bad one, or else the oldest
/// untried one, or else the oldest; never the newest or the one to go back to.
fn too_many(entries: &[Entry]) -> Option<&Entry> {
    if newest_first(entries).count() <= limits::BACKUP_FULLS_KEPT {
        return None;
    }
    let precious = precious(entries).map(|entry| &entry.label);
    let rank = |full: &&Entry| match full.verdict(entries) {
        "bad" => 0,
        "untried" => 1,
        _ => 2,
    };
    let spare = newest_first(entries).skip(1);
    let spare = spare.filter(|full| Some(&full.label) != precious);
    // The last of equals is taken by `max_by_key`, and that is the oldest.
    spare.max_by_key(|full| std::cmp::Reverse(rank(full)))
}

/// Takes one full backup away, with those that depend on it, when there are too many. That it could not be done fails nothing: it
/// is tried again after the next backup.
pub fn thin_out(place: &Place, node: NodeId, entries: &[Entry]) {
    let Some(spare) = too_many(entries) else {
        return;
    };
    let verdict = spare.verdict(entries);
    log::warn!(
        "{node}: backup {} ({verdict}) expires, since there are more than {} full ones",
        spare.label,
        limits::BACKUP_FULLS_KEPT
    );
    let set = format!("--set={}", spare.label);
    // Else the WAL of those that stay would go along with it.
    let all = format!("--repo1-retention-full={}", limits::BACKUP_FULLS_KEPT);
    let arguments = [&set, &all, "--repo1-retention-full-type=count", "expire"];
    let doing = "expire a backup of";
    if let Err(failure) = place.run(node, doing, &arguments, limits::BACKUP_EXPIRE, NEVER) {
        log::warn!("{failure}");
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::Verified;
    use super::super::entry::tests::entry;
    use super::*;

    /// One full backup for each letter, oldest first: good, bad or untried.
    fn fulls(letters: &str) -> Vec<Entry> {
        let full = |(number, letter): (usize, char)| Entry {
            verified: (letter != 'u').then(|| Verified {
                ok: letter == 'g',
                at: String::new(),
                seconds: 1.0,
                checked: vec![],
                error: None,
            }),
            ..entry(&format!("{number}{letter}"), Kind::Full, 10, &[])
        };
        letters.chars().enumerate().map(full).collect()
    }

    #[test]
    fn the_newest_good_one_never_expires_by_itself() {
        let may = |letters, kept, full| spares(&fulls(letters), stay(Some(kept), false, full));
        assert!(may("", 2, true));
        assert!(may("g", 2, true));
        assert!(may("gg", 2, true));
        assert!(!may("gu", 2, true), "the good one would go");
        assert!(may("gu", 2, false), "and stays beside what is no full one");
        assert!(!may("gb", 2, true));
        assert!(!may("gbu", 2, false), "another kind clears away as well");
        assert!(may("gbug", 2, true));
        assert!(may("gb", 3, true));
        assert!(!may("g", 1, true) && may("ug", 1, false));
        // None was restored: what is left must not be bad ones alone.
        assert!(!may("ub", 2, true));
        assert!(may("uu", 2, true) && may("bu", 2, true));
        assert!(may("bb", 2, true), "nothing there is worth keeping");
    }

    #[test]
    fn an_incremental_one_proves_nothing_of_a_full_one() {
        let mut entries = fulls("gu");
        entries.push(Entry {
            kind: Kind::Incr,
            ..entries[0].clone()
        });
        assert!(!spares(&entries, 1));
    }

    #[test]
    fn other_ways_to_count_spare_it_too() {
        assert!(spares(&fulls("gbbb"), stay(None, false, true)));
        assert!(!spares(&fulls("gu"), stay(Some(30), true, true)));
        assert!(spares(&fulls("ug"), stay(Some(30), true, true)));
    }

    #[test]
    fn when_there_are_too_many_the_least_of_them_goes() {
        let gone = |letters| too_many(&fulls(letters)).map(|entry| entry.label.clone());
        let label = |label: &str| Some(label.to_string());
        assert_eq!(gone("gbbbbu"), None);
        assert_eq!(gone("gubbbbu"), label("2b"));
        assert_eq!(gone("uguuuuu"), label("0u"));
        assert_eq!(gone("guuuuuu"), label("1u"), "not the good one");
        assert_eq!(gone("ggggggu"), label("0g"));
        assert_eq!(gone("uuuuuub"), label("0u"));
        assert_eq!(gone("gbuuuuu"), label("1b"));
    }
}
