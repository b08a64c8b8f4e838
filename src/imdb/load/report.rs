//! What is told of a load, while it runs and when it has ended.

use super::cells::Reason;
use crate::imdb::format::Layout;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What is being done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    #[default]
    Waiting,
    Preflight,
    Rows,
    Keys,
    Swap,
    Done,
    Failed,
}

impl Phase {
    /// In one word.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Waiting => "waiting",
            Phase::Preflight => "preflight",
            Phase::Rows => "rows",
            Phase::Keys => "keys",
            Phase::Swap => "swap",
            Phase::Done => "done",
            Phase::Failed => "failed",
        }
    }
}

/// How far one file is.
#[derive(Clone, Debug, Serialize)]
pub struct OfFile {
    pub file: String,
    #[serde(skip)]
    pub layout: &'static Layout,
    pub phase: Phase,
    /// Rows of the whole file, as far as they have been counted.
    pub rows: u64,
    pub read: u64,
    pub loaded: u64,
    pub rejected: u64,
    /// Columns that were rejected of rows that were loaded.
    pub parts_rejected: u64,
    pub seconds: f64,
}

/// How far a load is, or what came of it.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Its number in the table `cargas`.
    pub load: i64,
    pub phase: Phase,
    pub files: Vec<OfFile>,
    /// Rows and columns that were rejected, by reason.
    pub reasons: BTreeMap<Reason, u64>,
    /// Rows of earlier loads that belong to nothing any more and became rejects, by the file that they came from.
    pub orphans: BTreeMap<String, u64>,
    /// Seconds that each phase took.
    pub phases: Vec<(Phase, f64)>,
    pub seconds: f64,
}

impl OfFile {
    fn new(file: &str, layout: &'static Layout) -> OfFile {
        OfFile {
            file: file.to_string(),
            layout,
            phase: Phase::Waiting,
            rows: 0,
            read: 0,
            loaded: 0,
            rejected: 0,
            parts_rejected: 0,
            seconds: 0.0,
        }
    }
}

impl Progress {
    /// Of a load that has not begun.
    pub fn of<'a>(files: impl IntoIterator<Item = (&'a str, &'static Layout)>) -> Progress {
        let files = files
            .into_iter()
            .map(|(name, layout)| OfFile::new(name, layout));
        Progress {
            files: files.collect(),
            ..Progress::default()
        }
    }

    fn sum(&self, of: impl Fn(&OfFile) -> u64) -> u64 {
        self.files.iter().map(of).sum()
    }

    /// As JSON.
    pub fn as_json(&self) -> Value {
        let reasons: BTreeMap<String, u64> = self
            .reasons
            .iter()
            .map(|(reason, count)| (reason.to_string(), *count))
            .collect();
        let phases: serde_json::Map<String, Value> = self
            .phases
            .iter()
            .map(|(phase, seconds)| (phase.name().to_string(), json!(round(*seconds))))
            .collect();
        let files: Vec<Value> = self
            .files
            .iter()
            .map(|file| {
                json!(OfFile {
                    seconds: round(file.seconds),
                    ..file.clone()
                })
            })
            .collect();
        json!({
            "load": self.load,
            "phase": self.phase,
            "seconds": round(self.seconds),
            "rows_read": self.sum(|file| file.read),
            "rows_loaded": self.sum(|file| file.loaded),
            "rows_rejected": self.sum(|file| file.rejected),
            "parts_rejected": self.sum(|file| file.parts_rejected),
            "reasons": reasons,
            "rows_orphaned": self.orphans.values().sum::<u64>(),
            "orphans": self.orphans,
            "files": files,
            "phases": phases,
        })
    }

    /// The outcome, a line per file and a sum.
    pub fn as_text(&self) -> String {
        let mut text = String::new();
        let width = self
            .files
            .iter()
            .map(|file| file.file.len())
            .max()
            .unwrap_or(0)
            .max(4);
        let line = |name: &str, file: [String; 4]| {
            format!(
                "{name:width$}  {:>11}  {:>11}  {:>8}  {:>8}\n",
                file[0], file[1], file[2], file[3]
            )
        };
        text.push_str(&line(
            "file",
            ["read", "loaded", "rejected", "parts"].map(String::from),
        ));
        for file in &self.files {
            let figures = [file.read, file.loaded, file.rejected, file.parts_rejected];
            text.push_str(&line(&file.file, figures.map(|figure| figure.to_string())));
        }
        let all = [
            self.sum(|f| f.read),
            self.sum(|f| f.loaded),
            self.sum(|f| f.rejected),
            self.sum(|f| f.parts_rejected),
        ];
        text.push_str(&line("all", all.map(|figure| figure.to_string())));
        for (reason, count) in &self.reasons {
            text.push_str(&format!("rejected: {count} times {reason}\n"));
        }
        for (file, count) in &self.orphans {
            text.push_str(&format!(
                "orphaned: {count} rows of {file}, loaded earlier, have lost their title or person\n"
            ));
        }
        if !self.reasons.is_empty() || !self.orphans.is_empty() {
            text.push_str(&format!(
                "each is kept, with its line: SELECT * FROM rechazos WHERE id_carga = {}\n",
                self.load
            ));
        }
        text.push_str(&format!("load {}: {}", self.load, self.sentence()));
        text
    }

    /// The outcome in one sentence.
    pub fn sentence(&self) -> String {
        let (read, loaded, rejected) = (
            self.sum(|f| f.read),
            self.sum(|f| f.loaded),
            self.sum(|f| f.rejected),
        );
        let rate = if self.seconds > 0.0 {
            read as f64 / self.seconds
        } else {
            0.0
        };
        let orphaned = match self.orphans.values().sum::<u64>() {
            0 => String::new(),
            rows => format!("; {rows} rows of earlier loads became rejects"),
        };
        format!(
            "{read} rows read = {loaded} loaded + {rejected} rejected, in {:.1} s ({rate:.0} rows/s){orphaned}",
            self.seconds
        )
    }
}

fn round(seconds: f64) -> f64 {
    (seconds * 1_000.0).round() / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_became_of_earlier_rows_is_told_beside_what_became_of_the_file() {
        let layout = &crate::imdb::format::LAYOUTS[0];
        let mut progress = Progress::of([("title.basics.tsv", layout)]);
        assert!(!progress.as_text().contains("orphaned"));
        assert_eq!(progress.as_json()["rows_orphaned"], 0);
        progress.orphans = [("title.akas", 5), ("title.crew", 2)]
            .map(|(file, count)| (file.to_string(), count))
            .into();
        let text = progress.as_text();
        for part in [
            "orphaned: 5 rows of title.akas",
            "0 rejected",
            "7 rows of earlier loads became rejects",
            "SELECT * FROM rechazos",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let json = progress.as_json();
        assert_eq!(
            (&json["rows_orphaned"], &json["orphans"]["title.crew"]),
            (&json!(7), &json!(2))
        );
    }
}
