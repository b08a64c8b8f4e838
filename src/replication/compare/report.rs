//! What a comparison tells: for people as text, for programs as JSON.

use super::tables::{Table, shown};
use super::verdict::{Candidate, Seen};
use super::walk::Found;
use crate::limits;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::fmt::Write;
use std::time::Duration;

/// What came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Equal,
    Differing,
    /// No difference is proven, and neither is that there is none.
    Unsettled,
    Failed,
}

impl State {
    /// Its name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            State::Equal => "equal",
            State::Differing => "differing",
            State::Unsettled => "unsettled",
            State::Failed => "failed",
        }
    }
}

/// The outcome of a comparison.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub state: State,
    /// When it began.
    pub at: String,
    pub seconds: f64,
    /// Rows compared, of the master that has more of them.
    pub rows: u64,
    pub differing: u64,
    pub unsettled: u64,
    pub tables: Vec<TableReport>,
    /// What keeps the masters from streaming to each other.
    pub troubles: Vec<String>,
    /// What was mended, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repair: Option<Repaired>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What a repair did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Repaired {
    /// The master whose rows were the truth.
    pub from: &'static str,
    pub inserted: u64,
    pub updated: u64,
    pub deleted: u64,
    /// Rows that were left alone, since somebody wrote or held them meanwhile; they were compared again.
    pub left_alone: u64,
    /// Why rows could not be mended; the first few reasons.
    pub refused: Vec<String>,
}

/// What became of one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum TableState {
    Equal,
    Differing,
    Unsettled,
    /// It is missing on one master, or has other columns there.
    Unlike,
    /// It cannot be compared.
    NoKey,
}

/// The outcome for one table.
#[derive(Clone, Debug, Serialize)]
pub struct TableReport {
    pub table: String,
    state: TableState,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    rows: Map<String, Value>,
    differing: u64,
    unsettled: u64,
    seconds: f64,
    /// The first keys that differ or have not settled.
    differences: Vec<Difference>,
    /// Whether there are more than those.
    cut: bool,
}

#[derive(Clone, Debug, Serialize)]
struct Difference {
    key: Map<String, Value>,
    what: &'static str,
    settled: bool,
}

impl Report {
    pub(super) fn begin() -> Report {
        Report {
            state: State::Equal,
            at: format!("{:.3}", jiff::Timestamp::now()),
            seconds: 0.0,
            rows: 0,
            differing: 0,
            unsettled: 0,
            tables: Vec::new(),
            troubles: Vec::new(),
            repair: None,
            error: None,
        }
    }

    /// A comparison that came to nothing.
    pub fn failed(error: String) -> Report {
        Report {
            state: State::Failed,
            error: Some(error),
            ..Report::begin()
        }
    }

    pub(super) fn add(&mut self, table: TableReport) {
        self.rows += table
            .rows
            .values()
            .filter_map(Value::as_u64)
            .max()
            .unwrap_or(0);
        self.differing += table.differing;
        self.unsettled += table.unsettled;
        self.tables.push(table);
    }

    /// Sums up. Masters that do not stream to each other are not settled even when all rows are the
    /// same at the moment.
    pub(super) fn end(&mut self, took: Duration, troubles: Vec<String>) {
        self.seconds = rounded(took);
        self.troubles = troubles;
        let has = |state: TableState| self.tables.iter().any(|table| table.state == state);
        self.state = if has(TableState::Differing) || has(TableState::Unlike) {
            State::Differing
        } else if has(TableState::Unsettled) || !self.troubles.is_empty() {
            State::Unsettled
        } else {
            State::Equal
        };
    }

    /// One line of JSON.
    pub fn as_json(&self) -> Value {
        let mut value = json!({ "ok": self.state == State::Equal });
        if let (Value::Object(value), Value::Object(own)) = (&mut value, json!(self)) {
            value.extend(own);
        }
        value
    }

    /// For people.
    pub fn as_text(&self) -> String {
        let mut text = String::new();
        let width = self.tables.iter().map(|table| table.table.len()).max();
        for table in &self.tables {
            table.write(&mut text, width.unwrap_or(0));
        }
        for trouble in &self.troubles {
            let _ = writeln!(text, "PROBLEM  {trouble}");
        }
        if let Some(repaired) = &self.repair {
            repaired.write(&mut text);
        }
        let verdict = match self.state {
            State::Equal => "the masters are equal".to_string(),
            State::Differing => "the masters DIFFER".to_string(),
            State::Unsettled if !self.troubles.is_empty() => {
                "NOT SETTLED: rows may be on their way, and not every direction streams".to_string()
            }
            State::Unsettled => {
                "NOT SETTLED: some rows were written too often or did not arrive in time"
                    .to_string()
            }
            State::Failed => format!("FAILED: {}", self.error.as_deref().unwrap_or("")),
        };
        let (rows, tables) = (self.rows, self.tables.len());
        let _ = writeln!(
            text,
            "{verdict} ({tables} table{}, {rows} rows, {} s)",
            if tables == 1 { "" } else { "s" },
            self.seconds
        );
        text
    }
}

impl Repaired {
    fn write(&self, text: &mut String) {
        let Repaired {
            from,
            inserted,
            updated,
            deleted,
            left_alone,
            ..
        } = self;
        let _ = writeln!(
            text,
            "repair from {from}: {inserted} inserted, {updated} updated, {deleted} deleted, \
             {left_alone} left alone for the time being"
        );
        for reason in &self.refused {
            let _ = writeln!(text, "  not mended: {reason}");
        }
    }
}

impl TableReport {
    pub(super) fn not_compared(name: &str, state: TableState, reason: String) -> TableReport {
        TableReport {
            table: shown(name).to_string(),
            state,
            reason: Some(reason),
            rows: Map::new(),
            differing: 0,
            unsettled: 0,
            seconds: 0.0,
            differences: Vec::new(),
            cut: false,
        }
    }

    pub(super) fn compared(
        name: &str,
        table: &Table,
        found: &Found,
        took: Duration,
    ) -> TableReport {
        let state = if found.differing > 0 {
            TableState::Differing
        } else if found.unsettled > 0 {
            TableState::Unsettled
        } else {
            TableState::Equal
        };
        let told = |candidates: &[Candidate], settled: bool| -> Vec<Difference> {
            let each = candidates.iter().map(|candidate| Difference {
                key: named_key(table, &candidate.key),
                what: what(&candidate.seen),
                settled,
            });
            each.collect()
        };
        let mut differences = told(&found.differences, true);
        differences.extend(told(&found.moving, false));
        TableReport {
            table: shown(name).to_string(),
            state,
            reason: found.trouble.clone(),
            rows: Map::from_iter([
                ("master1".to_string(), json!(found.rows[0])),
                ("master2".to_string(), json!(found.rows[1])),
            ]),
            differing: found.differing,
            unsettled: found.unsettled,
            seconds: rounded(took),
            cut: differences.len() as u64 != found.differing + found.unsettled,
            differences,
        }
    }

    fn write(&self, text: &mut String, width: usize) {
        let verdict = match self.state {
            TableState::Equal => "equal".to_string(),
            TableState::Differing | TableState::Unsettled => {
                let mut counts = Vec::new();
                if self.differing > 0 {
                    counts.push(format!("{} DIFFER", self.differing));
                }
                if self.unsettled > 0 {
                    counts.push(format!("{} not settled", self.unsettled));
                }
                counts.join(", ")
            }
            TableState::Unlike => "DIFFERS".to_string(),
            TableState::NoKey => "not comparable".to_string(),
        };
        let _ = write!(text, "{:width$}  {verdict}", self.table);
        match self.rows.values().filter_map(Value::as_u64).max() {
            Some(rows) => drop(writeln!(text, ", {rows} rows, {} s", self.seconds)),
            None => drop(writeln!(text, ": {}", self.reason.as_deref().unwrap_or(""))),
        }
        for difference in self.differences.iter().take(limits::COMPARE_KEYS_SHOWN) {
            let key = Value::Object(difference.key.clone());
            let settled = if difference.settled {
                ""
            } else {
                " (not settled)"
            };
            let _ = writeln!(text, "  {key}  {}{settled}", difference.what);
        }
        let all = self.differing + self.unsettled;
        let shown = self.differences.len().min(limits::COMPARE_KEYS_SHOWN) as u64;
        if all > shown {
            let _ = writeln!(text, "  and {} more", all - shown);
        }
    }
}

fn named_key(table: &Table, key: &[String]) -> Map<String, Value> {
    let names = table.key_names().map(str::to_string);
    names.zip(key.iter().map(|part| json!(part))).collect()
}

fn what(seen: &Seen) -> &'static str {
    match seen {
        [None, _] => "missing on master1",
        [_, None] => "missing on master2",
        _ => "not the same",
    }
}

/// To the millisecond.
fn rounded(took: Duration) -> f64 {
    took.as_millis() as f64 / 1000.0
}
