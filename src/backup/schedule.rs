//! What is to be done about the backups, and when. Everything follows from the backups that there are, the plan and what failed
//! so far, so a program that was away for a week finds what is overdue by looking.

use super::Kind;
use super::days;
use super::entry::Entry;
use super::task::{Aim, Setbacks, Task};
use super::wal::Hole;
use crate::cluster::NodeId;
use crate::config::Plan;
use crate::limits;
use serde_json::{Value, json};
use std::time::Duration;

/// What is decided on.
pub struct Situation<'a> {
    /// Seconds since 1970, as all times here.
    pub now: i64,
    pub plan: Plan,
    pub drill_every: Option<Duration>,
    /// The backups of the present data folder of each master, oldest first; none while they are not known.
    pub entries: [Option<&'a [Entry]>; 2],
    /// Since when each master may be backed up, or why not.
    pub able: [Result<i64, String>; 2],
    pub active: NodeId,
    pub setbacks: &'a Setbacks,
    /// WAL that is missing behind the newest backup of each master.
    pub holes: [Option<&'a Hole>; 2],
}

/// Something that will be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    pub node: NodeId,
    pub task: Task,
    pub at: i64,
    pub why: String,
    /// What is in its way beside time.
    pub held: Option<String>,
}

impl Due {
    pub fn as_json(&self) -> Value {
        json!({
            "node": self.node,
            "type": self.task.name(),
            "label": self.task.label(),
            "due": super::entry::rfc3339(self.at),
            "reason": self.why,
            "held": self.held,
        })
    }
}

/// A task with the time after which it is tried again at the latest, whatever its failure was.
struct Wish {
    task: Task,
    at: i64,
    why: String,
    again: Duration,
}

/// Everything that is to be done sooner or later, in the order of its turn.
pub fn agenda(situation: &Situation) -> Vec<Due> {
    let of_node = |node: NodeId| {
        let entries = situation.entries[node.index()]?;
        let wishes = [
            backup(situation, node, entries),
            seal(situation, entries),
            drill(situation, entries),
        ];
        let wishes = wishes.into_iter().flatten();
        Some(wishes.map(move |wish| due(situation, node, wish)))
    };
    let mut all: Vec<Due> = NodeId::BOTH
        .into_iter()
        .filter_map(of_node)
        .flatten()
        .collect();
    all.sort_by_key(|due| {
        let late = due.at <= situation.now;
        let yields = situation.now - due.at < seconds(limits::BACKUP_DRILL_YIELDS);
        let rank = match due.task.aim() {
            Aim::Seal => 0,
            Aim::Backup => 1,
            Aim::Drill if yields => 2,
            Aim::Drill => 0,
        };
        // The active master has the traffic to serve as well.
        (
            !late,
            if late { rank } else { 0 },
            due.at,
            due.node == situation.active,
        )
    });
    all
}

/// What is to be done now, if anything.
pub fn first(now: i64, agenda: &[Due]) -> Option<&Due> {
    agenda
        .iter()
        .find(|due| due.at <= now && due.held.is_none())
}

/// Whether anything is ever done without being asked for.
pub fn is_on(plan: Plan, drill_every: Option<Duration>) -> bool {
    plan != Plan::NONE || drill_every.is_some()
}

/// The shortest time between two backups of a plan.
pub fn shortest(plan: Plan) -> Option<Duration> {
    match plan {
        Plan::Every { full, diff, incr } => [full, diff, incr].into_iter().flatten().min(),
        Plan::Cycle(every) => Some(every),
    }
}

fn due(situation: &Situation, node: NodeId, wish: Wish) -> Due {
    let able = &situation.able[node.index()];
    let setback = situation.setbacks.of(node, wish.task.aim());
    let not_before = setback.and_then(|setback| {
        let back_since = able.as_ref().is_ok_and(|since| *since > setback.at);
        let pause = match setback.failure.class.row().retry {
            true if back_since => return None,
            true => pause(setback.times),
            // Nobody tells us when they have mended it.
            false => longest_pause().min(wish.again),
        };
        Some(after(setback.at, pause, situation.now))
    });
    let (at, why) = match (not_before, setback) {
        (Some(not_before), Some(setback)) if not_before > wish.at => {
            let name = setback.failure.class.row().name;
            let times = match setback.times {
                1 => String::new(),
                times => format!(", {times} times in a row"),
            };
            (
                not_before,
                format!("{}; the last try failed ({name}{times})", wish.why),
            )
        }
        _ => (wish.at, wish.why),
    };
    Due {
        node,
        task: wish.task,
        at,
        why,
        held: able.as_ref().err().cloned(),
    }
}

/// The pause after so many failures.
fn pause(times: u32) -> Duration {
    let pauses = limits::BACKUP_RETRY;
    let index = (times.max(1) as usize - 1).min(pauses.len() - 1);
    pauses[index]
}

fn seconds(time: Duration) -> i64 {
    time.as_secs() as i64
}

/// When something is due that was done last at `last`. What lies so far in the time to come was written by a clock that was wrong,
/// or this one is: nothing waits for that time, and when pgBackRest cannot work with it, a person hears of it.
fn after(last: i64, every: Duration, now: i64) -> i64 {
    match last - now > seconds(every) {
        true => now,
        false => last + seconds(every),
    }
}

fn backup(situation: &Situation, node: NodeId, entries: &[Entry]) -> Option<Wish> {
    let again = shortest(situation.plan)?;
    let at_once = |kind, why| {
        Some(Wish {
            task: Task::Backup { kind, day: None },
            at: situation.now,
            why,
            again,
        })
    };
    if let Some(failed) = failed_base(entries) {
        let label = &failed.label;
        let why = format!("{label} cannot be restored, and the next one would rest on it");
        return at_once(Kind::Full, why);
    }
    if let Some(hole) = situation.holes[node.index()] {
        let first = &hole.first;
        let why = format!("WAL from {first} on is missing, and no later moment can be restored");
        return at_once(Kind::Incr, why);
    }
    match situation.plan {
        Plan::Every { full, diff, incr } => every([full, diff, incr], entries, situation.now),
        Plan::Cycle(every) => {
            let next = days::next(entries);
            let (at, why) = match next.day_before {
                None if next.day == 1 => (situation.now, "the cycle begins".to_string()),
                None => (situation.now, format!("day {} goes on", next.day)),
                Some(begun) => (
                    after(begun, every, situation.now),
                    format!(
                        "day {} of the cycle, {} after the last",
                        next.day,
                        span(every)
                    ),
                ),
            };
            let day = Some(next.day);
            let task = Task::Backup {
                kind: next.kind,
                day,
            };
            Some(Wish {
                task,
                at,
                why,
                again: every,
            })
        }
    }
}

/// The backup that the next one would rest on and that cannot be restored. Where a full one that was made for this reason cannot
/// be either, more of them would not help, and a person is told.
fn failed_base(entries: &[Entry]) -> Option<&Entry> {
    let newest = entries.last()?;
    let failed = entries.iter().rfind(|entry| {
        entry.has_failed() && (entry.label == newest.label || newest.needs.contains(&entry.label))
    })?;
    let mut fulls = entries
        .iter()
        .rev()
        .filter(|entry| entry.kind == Kind::Full);
    let twice = fulls.next()?.has_failed() && fulls.next().is_some_and(Entry::has_failed);
    (!twice).then_some(failed)
}

/// One backup stands for all kinds that hold less, so the strongest of those that are due is made.
fn every(intervals: [Option<Duration>; 3], entries: &[Entry], now: i64) -> Option<Wish> {
    let has_full = entries.iter().any(|entry| entry.kind == Kind::Full);
    let wish = |(kind, every): (Kind, Option<Duration>)| {
        let every = every?;
        let last = entries.iter().rfind(|entry| entry.kind >= kind);
        let (kind, at, why) = match last {
            // pgBackRest would make a full one in any case.
            _ if !has_full => (Kind::Full, now, "there is no full one yet".to_string()),
            None => (kind, now, "there is none yet".to_string()),
            Some(last) => (
                kind,
                after(last.start, every, now),
                format!("{} after {}", span(every), last.label),
            ),
        };
        let task = Task::Backup { kind, day: None };
        Some(Wish {
            task,
            at,
            why,
            again: every,
        })
    };
    let mut wishes: Vec<Wish> = Kind::ALL
        .into_iter()
        .zip(intervals)
        .filter_map(wish)
        .collect();
    let strongest = wishes.iter().position(|wish| wish.at <= now);
    let earliest = || {
        let all = wishes.iter().enumerate();
        all.min_by_key(|(_, wish)| wish.at).map(|(index, _)| index)
    };
    let index = strongest.or_else(earliest)?;
    Some(wishes.swap_remove(index))
}

/// Our own backups are looked after at once, those of others when they have had time for more of them.
fn settled(entry: &Entry, now: i64) -> i64 {
    let pause = match entry.because.as_deref() {
        Some("schedule") => Duration::ZERO,
        _ => limits::BACKUP_SETTLE,
    };
    after(entry.stop, pause, now)
}

fn seal(situation: &Situation, entries: &[Entry]) -> Option<Wish> {
    let newest = entries.last()?;
    let wanted =
        is_on(situation.plan, situation.drill_every) && newest.seal.is_none() && !newest.unsealable;
    wanted.then(|| Wish {
        task: Task::Seal {
            label: newest.label.clone(),
        },
        at: settled(newest, situation.now),
        why: "what it must hold has not been recorded".to_string(),
        again: longest_pause(),
    })
}

fn longest_pause() -> Duration {
    limits::BACKUP_RETRY[limits::BACKUP_RETRY.len() - 1]
}

/// Each full backup is tried, and the newest backup, whatever it is, on a schedule of its own.
fn drill(situation: &Situation, entries: &[Entry]) -> Option<Wish> {
    if !is_on(situation.plan, situation.drill_every) {
        return None;
    }
    let newest = entries.last()?;
    let full = entries.iter().rfind(|entry| entry.kind == Kind::Full);
    let untried = full
        .filter(|full| full.verified.is_none())
        .map(|full| Wish {
            task: Task::Drill {
                label: full.label.clone(),
            },
            at: settled(full, situation.now),
            why: "a full backup that has not been restored yet".to_string(),
            again: longest_pause(),
        });
    let tried = entries.iter().filter_map(tried_at).max();
    let regular = situation.drill_every.map(|every| Wish {
        task: Task::Drill {
            label: newest.label.clone(),
        },
        at: match tried {
            Some(at) => after(at, every, situation.now).max(settled(newest, situation.now)),
            None => settled(newest, situation.now),
        },
        why: format!("a trial restore every {}", span(every)),
        again: every,
    });
    let both = [untried, regular];
    both.into_iter().flatten().min_by_key(|wish| wish.at)
}

/// When a backup was restored last, in seconds since 1970.
pub fn tried_at(entry: &Entry) -> Option<i64> {
    let at: jiff::Timestamp = entry.verified.as_ref()?.at.parse().ok()?;
    Some(at.as_second())
}

/// A time as people write it.
pub fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let units = [(86_400, "d"), (3_600, "h"), (60, "min")];
    let fits = units
        .iter()
        .find(|(unit, _)| seconds > 0 && seconds % unit == 0);
    match fits {
        Some((unit, name)) => format!("{} {name}", seconds / unit),
        None => format!("{seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::tests::entry;
    use super::super::entry::{Seal, Verified, rfc3339};
    use super::super::failure::{Class, Failure};
    use super::*;

    const HOUR: i64 = 3_600;
    const NOW: i64 = 1_000 * 24 * HOUR;

    fn hours(hours: i64) -> Option<Duration> {
        Some(Duration::from_secs((hours * HOUR) as u64))
    }

    fn usual() -> Plan {
        Plan::Every {
            full: hours(168),
            diff: hours(24),
            incr: hours(6),
        }
    }

    /// Sealed and tried, so that only backups are due.
    fn done(label: &str, kind: Kind, hours_ago: i64) -> Entry {
        let stop = NOW - hours_ago * HOUR;
        let seal = Seal {
            point: String::new(),
            at: String::new(),
            tables: Default::default(),
        };
        let verified = Verified {
            ok: true,
            at: rfc3339(stop),
            seconds: 1.0,
            checked: vec![],
            error: None,
        };
        Entry {
            because: Some("schedule".to_string()),
            seal: Some(seal),
            verified: Some(verified),
            ..entry(label, kind, stop + 2, &[])
        }
    }

    struct Case {
        plan: Plan,
        drill_every: Option<Duration>,
        entries: [Vec<Entry>; 2],
        able: [Result<i64, String>; 2],
        setbacks: Setbacks,
        hole: Option<Hole>,
        now: i64,
    }

    impl Case {
        fn new(first: &[Entry], second: &[Entry]) -> Case {
            Case {
                plan: usual(),
                drill_every: None,
                entries: [first.to_vec(), second.to_vec()],
                able: [Ok(0), Ok(0)],
                setbacks: Setbacks::default(),
                hole: None,
                now: NOW,
            }
        }

        fn agenda(&self) -> Vec<Due> {
            agenda(&Situation {
                now: self.now,
                plan: self.plan,
                drill_every: self.drill_every,
                entries: [Some(&self.entries[0]), Some(&self.entries[1])],
                able: self.able.clone(),
                active: NodeId::Master1,
                setbacks: &self.setbacks,
                holes: [self.hole.as_ref(), None],
            })
        }

        fn first(&self) -> Option<(NodeId, &'static str)> {
            let agenda = self.agenda();
            first(self.now, &agenda).map(|due| (due.node, due.task.name()))
        }

        fn fail(&mut self, class: Class, ago: i64) {
            let failure = Failure::new(class, NodeId::Master1, "make a backup of", "it is so");
            self.setbacks
                .add(NodeId::Master1, Aim::Backup, failure, self.now - ago);
        }
    }

    #[test]
    fn the_first_full_one_is_due_at_once_and_the_passive_master_comes_first() {
        let mut case = Case::new(&[], &[]);
        assert_eq!(case.first(), Some((NodeId::Master2, "full")));
        case.entries[1] = vec![done("F", Kind::Full, 0)];
        assert_eq!(case.first(), Some((NodeId::Master1, "full")));
        case.entries[0] = vec![done("F", Kind::Full, 0)];
        assert_eq!(case.first(), None);
        assert_eq!(case.agenda()[0].at, NOW + 6 * HOUR);
        assert_eq!(case.agenda()[0].task.name(), "incr");
        // Without a full one there is nothing that an incremental one could rest on.
        case.plan = Plan::Every {
            full: None,
            diff: None,
            incr: hours(6),
        };
        case.entries[0].clear();
        assert_eq!(case.first(), Some((NodeId::Master1, "full")));
    }

    #[test]
    fn a_stronger_one_counts_for_the_weaker_and_the_strongest_of_those_due_is_made() {
        let fresh = done("x", Kind::Full, 0);
        let of = |entries: &[Entry]| {
            Case::new(entries, std::slice::from_ref(&fresh))
                .first()
                .map(|(_, name)| name)
        };
        let full = |ago| done("F", Kind::Full, ago);
        assert_eq!(of(&[full(5)]), None);
        assert_eq!(of(&[full(7)]), Some("incr"));
        assert_eq!(of(&[full(25)]), Some("diff"));
        assert_eq!(of(&[full(25), done("I", Kind::Incr, 1)]), Some("diff"));
        assert_eq!(of(&[full(100), done("D", Kind::Diff, 7)]), Some("incr"));
        assert_eq!(of(&[full(100), done("D", Kind::Diff, 1)]), None);
        assert_eq!(of(&[full(169), done("D", Kind::Diff, 1)]), Some("full"));
        // Away for a month: one backup, not a month's.
        assert_eq!(of(&[full(700)]), Some("full"));
    }

    #[test]
    fn the_most_overdue_master_comes_first_and_one_that_is_away_holds_nobody_up() {
        let mut case = Case::new(&[done("F", Kind::Full, 9)], &[done("F", Kind::Full, 8)]);
        assert_eq!(case.first(), Some((NodeId::Master1, "incr")));
        case.able[0] = Err("master1 is down".to_string());
        assert_eq!(case.first(), Some((NodeId::Master2, "incr")));
        case.able[1] = Err("master2 is catching-up".to_string());
        assert_eq!(case.first(), None);
        assert_eq!(case.agenda()[0].held.as_deref(), Some("master1 is down"));
    }

    #[test]
    fn a_wrong_clock_does_not_end_the_backups() {
        let fresh = [done("x", Kind::Full, 0)];
        let mut case = Case::new(&[done("F", Kind::Full, -10_000)], &fresh);
        assert_eq!(case.first(), Some((NodeId::Master1, "full")));
        // It did not work, and the clock is set back once more: that is no time to wait for either.
        case.fail(Class::Other, 0);
        assert_eq!(case.first(), None);
        case.now -= HOUR;
        assert_eq!(case.first(), Some((NodeId::Master1, "full")));
        // A backup of somebody else's is looked after, and tried, as well.
        let theirs = Entry {
            because: None,
            seal: None,
            ..done("F", Kind::Full, -10)
        };
        let mut case = Case::new(&[theirs], &fresh);
        assert_eq!(case.first(), Some((NodeId::Master1, "seal")));
        case.drill_every = hours(1);
        let agenda = case.agenda();
        let drill = agenda.iter().find(|due| due.task.name() == "drill");
        assert!(drill.is_some_and(|due| due.at <= NOW));
        // A moment ahead is only a clock that was put right.
        let case = Case::new(&[done("F", Kind::Full, -1)], &fresh);
        assert_eq!(case.first(), None);
    }

    #[test]
    fn after_missing_wal_moments_can_be_restored_again_from_a_new_backup_on() {
        let fresh = [done("F", Kind::Full, 0)];
        let mut case = Case::new(&fresh, &fresh);
        case.hole = Some(Hole {
            first: "000000010000000000000002".to_string(),
            segments: 1,
        });
        assert_eq!(case.first(), Some((NodeId::Master1, "incr")));
        case.fail(Class::ArchiveBroken, 10);
        assert_eq!(case.first(), None, "WAL does not get there yet");
        case.setbacks.clear(NodeId::Master1, Aim::Backup);
        case.plan = Plan::NONE;
        assert_eq!(case.first(), None, "nothing is scheduled");
    }

    #[test]
    fn what_a_person_may_have_mended_is_tried_again_before_long() {
        let fresh = [done("F", Kind::Full, 0)];
        let mut case = Case::new(&[done("F", Kind::Full, 200)], &fresh);
        case.fail(Class::WrongUser, 59 * 60);
        assert_eq!(case.first(), None);
        case.now += 60;
        assert_eq!(case.first(), Some((NodeId::Master1, "full")));
        // Not later than the next one would be.
        case.plan = Plan::Every {
            full: Some(Duration::from_secs(30)),
            diff: None,
            incr: None,
        };
        case.fail(Class::WrongUser, 30);
        let agenda = case.agenda();
        let due = agenda.iter().find(|due| due.node == NodeId::Master1);
        assert_eq!(due.map(|due| due.at), Some(case.now));
    }

    #[test]
    fn a_failure_is_tried_again_after_a_growing_pause_where_that_can_help() {
        let fresh = [done("F", Kind::Full, 0)];
        let mut case = Case::new(&[], &fresh);
        case.fail(Class::DiskFull, 59);
        assert_eq!(case.first(), None);
        case.now += 1;
        assert_eq!(case.first(), Some((NodeId::Master1, "full")));
        case.fail(Class::DiskFull, 0);
        case.now += 119;
        assert_eq!(case.first(), None);
        case.now += 1;
        assert_eq!(case.first(), Some((NodeId::Master1, "full")));
        for _ in 0..30 {
            case.fail(Class::DiskFull, 0);
        }
        assert_eq!(case.agenda()[0].at, case.now + HOUR);
        assert!(
            case.agenda()[0].why.contains("32 times"),
            "{:?}",
            case.agenda()[0]
        );
        // What trying does not mend waits for as long from the first time on.
        case.setbacks.clear(NodeId::Master1, Aim::Backup);
        case.fail(Class::Passphrase, 0);
        let agenda = case.agenda();
        let due = agenda.iter().find(|due| due.node == NodeId::Master1);
        assert_eq!(due.map(|due| due.at), Some(case.now + HOUR));
    }

    #[test]
    fn a_master_that_came_back_is_not_made_to_wait_for_what_failed_before() {
        let mut case = Case::new(&[], &[done("F", Kind::Full, 0)]);
        case.fail(Class::NodeDown, 10);
        assert_eq!(case.first(), None);
        case.able[0] = Ok(NOW - 5);
        assert_eq!(case.first(), Some((NodeId::Master1, "full")));
        case.fail(Class::WrongUser, 10);
        assert_eq!(case.first(), None);
    }

    #[test]
    fn backups_that_cannot_be_read_are_not_taken_for_none() {
        let setbacks = Setbacks::default();
        let none = agenda(&Situation {
            now: NOW,
            plan: usual(),
            drill_every: None,
            entries: [None, None],
            able: [Ok(0), Ok(0)],
            active: NodeId::Master1,
            setbacks: &setbacks,
            holes: [None, None],
        });
        assert_eq!(none, []);
    }

    #[test]
    fn nothing_is_built_on_a_backup_that_cannot_be_restored() {
        let failed = |entry: Entry| {
            let verified = entry.verified.clone().map(|verified| Verified {
                ok: false,
                ..verified
            });
            Entry { verified, ..entry }
        };
        let fresh = [done("x", Kind::Full, 0)];
        let of = |entries: &[Entry]| {
            let case = Case::new(entries, &fresh);
            case.first().map(|(_, name)| name)
        };
        let (good, bad) = (done("G", Kind::Full, 3), failed(done("B", Kind::Full, 2)));
        let on = |needs: &str| Entry {
            needs: vec![needs.to_string()],
            ..done("I", Kind::Incr, 1)
        };
        assert_eq!(of(&[good.clone(), bad.clone()]), Some("full"));
        assert_eq!(of(&[good.clone(), bad.clone(), on("B")]), Some("full"));
        assert_eq!(of(&[good.clone(), failed(on("G"))]), Some("full"));
        assert_eq!(of(&[bad.clone(), good.clone(), on("G")]), None);
        // The one that was made instead, untried and then bad as well: that is for a person.
        assert_eq!(
            of(&[good.clone(), bad.clone(), done("N", Kind::Full, 0)]),
            None
        );
        assert_eq!(of(&[good, bad.clone(), bad]), None);
    }

    #[test]
    fn the_cycle_takes_its_days_from_the_backups() {
        let day = |day: u8, kind, ago| Entry {
            day: Some(day),
            ..done("x", kind, ago)
        };
        let fresh = [day(1, Kind::Full, 0)];
        let of = |entries: &[Entry]| {
            let mut case = Case::new(entries, &fresh);
            case.plan = Plan::Cycle(Duration::from_secs(24 * 3_600));
            let agenda = case.agenda();
            first(NOW, &agenda).map(|due| due.task.clone())
        };
        let task = |kind, day| {
            Some(Task::Backup {
                kind,
                day: Some(day),
            })
        };
        assert_eq!(of(&[]), task(Kind::Full, 1));
        assert_eq!(of(&[day(1, Kind::Full, 23)]), None);
        assert_eq!(of(&[day(1, Kind::Full, 25)]), task(Kind::Incr, 2));
        assert_eq!(of(&[day(3, Kind::Incr, 1)]), task(Kind::Diff, 3));
        assert_eq!(of(&[day(6, Kind::Full, 30)]), task(Kind::Full, 1));
    }

    #[test]
    fn a_full_one_is_tried_after_it_and_the_newest_now_and_then() {
        let untried = |label: &str, kind, ago| Entry {
            verified: None,
            ..done(label, kind, ago)
        };
        let drilled = |entries: &[Entry], every| {
            let mut case = Case::new(entries, &[]);
            case.plan = Plan::Every {
                full: hours(1_000),
                diff: None,
                incr: None,
            };
            case.drill_every = every;
            case.entries[1] = vec![done("F", Kind::Full, 0)];
            let agenda = case.agenda();
            first(NOW, &agenda).and_then(|due| due.task.label().map(str::to_string))
        };
        let full = untried("F", Kind::Full, 1);
        let label = |label: &str| Some(label.to_string());
        assert_eq!(drilled(std::slice::from_ref(&full), None), label("F"));
        assert_eq!(drilled(&[done("F", Kind::Full, 1)], None), None);
        let incr = untried("I", Kind::Incr, 1);
        assert_eq!(
            drilled(&[done("F", Kind::Full, 30), incr.clone()], None),
            None
        );
        assert_eq!(
            drilled(&[done("F", Kind::Full, 30), incr.clone()], hours(24)),
            label("I")
        );
        assert_eq!(drilled(&[done("F", Kind::Full, 20), incr], hours(24)), None);
        // The same one again: disks rot.
        assert_eq!(drilled(&[done("F", Kind::Full, 30)], hours(24)), label("F"));
        // Without a schedule, somebody else looks after the backups.
        let mut case = Case::new(&[full], &[]);
        case.plan = Plan::NONE;
        assert_eq!(case.agenda(), []);
    }

    #[test]
    fn a_trial_lets_backups_go_first_for_a_while_and_waits_after_it_could_not_be_made() {
        let full = |ago| Entry {
            verified: None,
            ..done("F", Kind::Full, ago)
        };
        let mut case = Case::new(&[done("F", Kind::Full, 7)], &[full(0)]);
        assert_eq!(case.first(), Some((NodeId::Master1, "incr")));
        case.entries[1] = vec![full(2)];
        assert_eq!(case.first(), Some((NodeId::Master2, "drill")));
        let failure = Failure::new(Class::Other, NodeId::Master2, "try a backup of", "no port");
        case.setbacks
            .add(NodeId::Master2, Aim::Drill, failure, NOW - 10);
        assert_eq!(case.first(), Some((NodeId::Master1, "incr")));
    }

    #[test]
    fn the_newest_one_is_sealed_later_but_not_while_somebody_may_be_at_it() {
        let unsealed = |because: &str| Entry {
            seal: None,
            because: Some(because.to_string()),
            ..done("F", Kind::Full, 0)
        };
        let fresh = [done("F", Kind::Full, 0)];
        let mut case = Case::new(&[unsealed("schedule")], &fresh);
        case.now += 2;
        assert_eq!(case.first(), Some((NodeId::Master1, "seal")));
        case.entries[0] = vec![unsealed("asked")];
        assert_eq!(case.first(), None);
        case.now += 60;
        assert_eq!(case.first(), Some((NodeId::Master1, "seal")));
    }
}
