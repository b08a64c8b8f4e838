//! What a run found: a line per fault while it runs, the sum at the end, and the exit code.

use crate::checker::Figures;
use crate::load::Failure;
use crate::schedule::Fault;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// A link that was cut must have made the masters equal within this time from its heal.
const EQUAL_GOAL_MS: u64 = 2_000;
/// Without a hand, and whatever it was.
const WELL_GOAL_MS: u64 = 30_000;
/// Failures that are shown of each fault.
const EXAMPLES: usize = 3;

/// What one fault came to. Ids of rows where it says so.
pub struct Outcome {
    pub fault: &'static Fault,
    /// The master that served when it struck.
    pub active: &'static str,
    /// What `/health` promised then.
    pub durability: String,
    pub figures: Figures,
    /// Acknowledged, and not on the survivor while the other master was away: lost if that never
    /// came back.
    pub lacking: BTreeSet<i64>,
    pub rest: Rest,
    /// From the heal until both masters held everything that had been acknowledged by then.
    pub equal_ms: Option<u64>,
    /// From the heal until all was well again.
    pub well_ms: u64,
    pub failures: Vec<Failure>,
}

/// What is wrong with the rows once all is well again and no request is under way.
#[derive(Default)]
pub struct Rest {
    /// Acknowledged, and not on one of the masters.
    pub missing: BTreeSet<i64>,
    /// There with a text that was replaced, or although it was deleted.
    pub wrong: BTreeSet<i64>,
    pub doubled: BTreeSet<i64>,
    pub differing: BTreeSet<i64>,
}

impl Outcome {
    /// The rows that break the promise: in zero-loss mode those that the survivor lacks as well.
    fn lost(&self) -> BTreeSet<i64> {
        let mut lost = self.rest.missing.clone();
        if self.durability == "zero-loss" {
            lost.extend(&self.lacking);
        }
        lost
    }

    fn misses_goal(&self) -> bool {
        let late = |goal: Option<u64>, took: u64| goal.is_some_and(|goal| took > goal);
        let equal_goal = self.fault.is_link_cut().then_some(EQUAL_GOAL_MS);
        late(self.fault.goal_ms, self.figures.stall_ms)
            || late(equal_goal, self.equal_ms.unwrap_or(u64::MAX))
            || late(Some(WELL_GOAL_MS), self.well_ms)
    }

    fn as_json(&self) -> Value {
        json!({
            "fault": self.fault.name,
            "active": self.active,
            "durability": self.durability,
            "stall_ms": self.figures.stall_ms,
            "goal_ms": self.fault.goal_ms,
            "missed_goal": self.misses_goal(),
            "slowest_ms": self.figures.slowest_ms,
            "acknowledged": self.figures.acknowledged,
            "failed": self.figures.failed,
            "refused": self.figures.refused,
            "unsure": self.figures.unsure,
            "lacking": self.lacking.len(),
            "missing": self.rest.missing.len(),
            "wrong": self.rest.wrong.len(),
            "doubled": self.rest.doubled.len(),
            "differing": self.rest.differing.len(),
            "equal_ms": self.equal_ms,
            "well_ms": self.well_ms,
            "examples": self.failures.iter().take(EXAMPLES).map(|one| &one.what).collect::<Vec<_>>(),
        })
    }

    fn as_text(&self) -> String {
        let figures = &self.figures;
        let goal = match self.fault.goal_ms {
            Some(goal) => goal.to_string(),
            None => "-".to_string(),
        };
        let equal = match self.equal_ms {
            Some(equal) => equal.to_string(),
            None => "never".to_string(),
        };
        format!(
            "{:<16} {:<9} {:>6} {:>5} {:>7} {:>6} {:>6} {:>7} {:>6} {:>7} {:>7} {:>5} {:>7} {:>6} {:>6} {:>6} {}",
            self.fault.name,
            self.durability,
            figures.stall_ms,
            goal,
            figures.slowest_ms,
            figures.acknowledged,
            figures.failed,
            figures.refused,
            figures.unsure,
            self.lacking.len(),
            self.rest.missing.len(),
            self.rest.wrong.len(),
            self.rest.doubled.len(),
            self.rest.differing.len(),
            equal,
            self.well_ms,
            if self.misses_goal() { "MISSED GOAL" } else { "" },
        )
        .trim_end()
        .to_string()
    }
}

/// The line above the table.
pub fn heading() -> String {
    format!(
        "{:<16} {:<9} {:>6} {:>5} {:>7} {:>6} {:>6} {:>7} {:>6} {:>7} {:>7} {:>5} {:>7} {:>6} {:>6} {:>6}",
        "fault",
        "writes",
        "stall",
        "goal",
        "slowest",
        "acked",
        "failed",
        "refused",
        "unsure",
        "lacking",
        "missing",
        "wrong",
        "doubled",
        "differ",
        "equal",
        "well",
    )
}

/// Tells one fault.
pub fn tell(outcome: &Outcome, json: bool) {
    if json {
        println!("{}", outcome.as_json());
        return;
    }
    println!("{}", outcome.as_text());
    for failure in outcome.failures.iter().take(EXAMPLES) {
        println!("    failed at {} ms: {}", failure.at_ms, failure.what);
    }
    let kinds = [
        ("lacking", &outcome.lacking),
        ("missing", &outcome.rest.missing),
        ("wrong", &outcome.rest.wrong),
        ("doubled", &outcome.rest.doubled),
        ("differing", &outcome.rest.differing),
    ];
    for (kind, ids) in kinds.iter().filter(|(_, ids)| !ids.is_empty()) {
        let some: Vec<String> = ids.iter().take(5).map(i64::to_string).collect();
        println!("    {kind}: id {}", some.join(", "));
    }
}

/// The sum of a run. A row that several faults complain of counts once.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sum {
    pub faults: usize,
    /// Over the faults that leave somebody who could serve.
    pub longest_stall_ms: u64,
    pub failed: usize,
    pub acknowledged: usize,
    /// Acknowledged changes that are not in effect are among them.
    pub missing: usize,
    pub doubled: usize,
    pub differing: usize,
    pub missed_goals: usize,
}

impl Sum {
    /// Sums up the faults; `whole` is the whole run, the times between the faults included.
    pub fn of(outcomes: &[Outcome], whole: &Figures) -> Sum {
        let rows = |of: &dyn Fn(&Outcome) -> BTreeSet<i64>| {
            outcomes
                .iter()
                .flat_map(of)
                .collect::<BTreeSet<i64>>()
                .len()
        };
        let survivable = outcomes.iter().filter(|one| one.fault.is_survivable());
        Sum {
            faults: outcomes.len(),
            longest_stall_ms: survivable
                .map(|one| one.figures.stall_ms)
                .max()
                .unwrap_or(0),
            failed: whole.failed,
            acknowledged: whole.acknowledged,
            missing: rows(&|one| one.lost().union(&one.rest.wrong).copied().collect()),
            doubled: rows(&|one| one.rest.doubled.clone()),
            differing: rows(&|one| one.rest.differing.clone()),
            missed_goals: outcomes.iter().filter(|one| one.misses_goal()).count(),
        }
    }

    /// Whether the promises were kept.
    pub fn is_clean(&self) -> bool {
        [self.failed, self.missing, self.doubled, self.differing] == [0; 4]
    }

    pub fn as_json(&self) -> Value {
        json!({
            "faults": self.faults,
            "longest_stall_ms": self.longest_stall_ms,
            "failed": self.failed,
            "acknowledged": self.acknowledged,
            "missing": self.missing,
            "doubled": self.doubled,
            "differing": self.differing,
        })
    }

    pub fn as_text(&self) -> String {
        format!(
            "{} faults, longest stall {} ms, {} goals missed: {} writes acknowledged, {} requests failed, \
             {} rows missing or wrong, {} doubled, {} differing",
            self.faults,
            self.longest_stall_ms,
            self.missed_goals,
            self.acknowledged,
            self.failed,
            self.missing,
            self.doubled,
            self.differing,
        )
    }
}
