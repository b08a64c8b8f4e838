//! What the API has acknowledged, and whether the masters hold exactly that. Pure: rows come in as
//! they were read.

use std::collections::{HashMap, HashSet};

/// Which rows are those of the load: the database may hold others, and what an earlier run left
/// behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// How the text of each begins. Each text is used once.
    pub prefix: String,
    /// Where the ids begin that the load chooses by itself, far from those that the sequences draw.
    pub ids_from: i64,
}

/// What a row may be: a text, or nothing when it may be deleted.
pub type State = Option<String>;

/// A row of `generos` on one master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub id: i64,
    pub text: String,
    /// The whole row, with the columns that no client sees.
    pub whole: String,
}

/// Everything that the API has said about the rows of the load.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    entries: HashMap<i64, Entry>,
    /// Texts of inserts whose outcome nobody knows: there once, or not at all.
    unsure: HashSet<String>,
    /// Ids that were acknowledged for two different rows.
    clashes: Vec<i64>,
}

#[derive(Clone, Debug)]
struct Entry {
    /// More than one while a change is under way, and for good when its outcome was never told.
    allowed: Vec<State>,
    /// Grows with each step of each change, so that a row that is being changed is not judged by
    /// what it was.
    steps: u64,
}

impl Ledger {
    /// An insert was acknowledged.
    pub fn inserted(&mut self, id: i64, text: String) {
        let allowed = vec![Some(text)];
        if self
            .entries
            .insert(id, Entry { allowed, steps: 0 })
            .is_some()
        {
            self.clashes.push(id);
        }
    }

    /// An insert ended without a word of what came of it.
    pub fn insert_unknown(&mut self, text: String) {
        self.unsure.insert(text);
    }

    /// An update or deletion is about to be sent. If its outcome stays unknown, nothing follows.
    pub fn change_begins(&mut self, id: i64, to: State) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.allowed.push(to);
            entry.steps += 1;
        }
    }

    /// It was acknowledged.
    pub fn change_done(&mut self, id: i64, now: State) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.allowed = vec![now];
            entry.steps += 1;
        }
    }
}

/// What is wrong with the rows of one master. Ids, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Acknowledged, and not there.
    pub missing: Vec<i64>,
    /// There with a text that was replaced, or although it was deleted.
    pub wrong: Vec<i64>,
}

impl Findings {
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.wrong.is_empty()
    }
}

/// Judges the rows of one master by what was acknowledged before they were read. `after` is the ledger
/// as it stands once they have been read: a row that was changed in between is left out. At rest
/// both are the same.
pub fn judge(before: &Ledger, after: &Ledger, rows: &[Row]) -> Findings {
    let there: HashMap<i64, &Row> = rows.iter().map(|row| (row.id, row)).collect();
    let mut findings = Findings::default();
    for (id, entry) in &before.entries {
        let row = there.get(id);
        let is_allowed = |state: &State| state.as_deref() == row.map(|row| row.text.as_str());
        let changed = after.entries.get(id).map(|entry| entry.steps) != Some(entry.steps);
        if changed || entry.allowed.iter().any(is_allowed) {
            continue;
        }
        match row {
            None => findings.missing.push(*id),
            Some(_) => findings.wrong.push(*id),
        }
    }
    findings.wrong.extend(&before.clashes);
    findings.missing.sort_unstable();
    findings.wrong.sort_unstable();
    findings
}

/// Writes that were applied twice, as ids: a text that is in more than one row, and a row of the load
/// under an id that nobody was told. Only at rest, since an insert under way is such a row too.
pub fn doubled(ledger: &Ledger, rows: &[Row], mark: &Mark) -> Vec<i64> {
    let mut of_text: HashMap<&str, Vec<i64>> = HashMap::new();
    for row in rows.iter().filter(|row| row.text.starts_with(&mark.prefix)) {
        of_text.entry(&row.text).or_default().push(row.id);
    }
    let mut found: Vec<i64> = Vec::new();
    for (text, ids) in of_text {
        let told = |id: &i64| ledger.entries.contains_key(id);
        let strays = ids
            .iter()
            .filter(|id| !told(id) && !ledger.unsure.contains(text));
        match ids.len() {
            1 => found.extend(strays),
            // One of them is right; which one does not matter.
            _ => found.extend(ids.iter().skip(1)),
        }
    }
    found.sort_unstable();
    found
}

/// Ids whose rows are not the same on both masters, hidden columns included.
pub fn differing(first: &[Row], second: &[Row]) -> Vec<i64> {
    let index = |rows: &[Row]| -> HashMap<i64, String> {
        rows.iter().map(|row| (row.id, row.whole.clone())).collect()
    };
    let (first, second) = (index(first), index(second));
    let ids: HashSet<&i64> = first.keys().chain(second.keys()).collect();
    let mut found: Vec<i64> = ids
        .into_iter()
        .copied()
        .filter(|id| first.get(id) != second.get(id))
        .collect();
    found.sort_unstable();
    found
}

/// What came of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A write was acknowledged.
    Acknowledged,
    /// A row was read as it must be.
    Read,
    /// Anything that no client should see.
    Failed,
    /// A 503 while no master was left.
    Refused,
    /// Cut off with the API that was killed.
    Unsure,
}

/// One request, in milliseconds since the start.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    pub began_ms: u64,
    pub ended_ms: u64,
    pub verdict: Verdict,
}

/// Figures of the requests that ended in a span of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    pub acknowledged: usize,
    pub failed: usize,
    pub refused: usize,
    pub unsure: usize,
    /// The longest time without an acknowledged write.
    pub stall_ms: u64,
    pub slowest_ms: u64,
}

/// Sums up what ended from `from_ms` on and before `to_ms`.
pub fn figures(requests: &[Request], from_ms: u64, to_ms: u64) -> Figures {
    let within = |request: &&Request| (from_ms..to_ms).contains(&request.ended_ms);
    let inside: Vec<&Request> = requests.iter().filter(within).collect();
    let count = |verdict| inside.iter().filter(|one| one.verdict == verdict).count();
    let acknowledged = inside
        .iter()
        .filter(|request| request.verdict == Verdict::Acknowledged);
    let mut marks: Vec<u64> = acknowledged.map(|request| request.ended_ms).collect();
    marks.extend([from_ms, to_ms]);
    marks.sort_unstable();
    let gaps = marks.windows(2).map(|pair| pair[1] - pair[0]);
    let took = inside.iter().map(|one| one.ended_ms - one.began_ms);
    Figures {
        acknowledged: count(Verdict::Acknowledged),
        failed: count(Verdict::Failed),
        refused: count(Verdict::Refused),
        unsure: count(Verdict::Unsure),
        stall_ms: gaps.max().unwrap_or(0),
        slowest_ms: took.max().unwrap_or(0),
    }
}
