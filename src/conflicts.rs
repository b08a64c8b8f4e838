//! The conflicts that the masters have settled: each writes down its own, and here they are read
//! together, newest first.

use crate::cluster::NodeId;
use crate::config::Config;
use crate::limits;
use crate::output;
use crate::pg::{self, CallError, Session, Sessions};
use postgres::error::SqlState;
use serde_json::{Map, Value, json};
use std::process::ExitCode;
use std::time::{Duration, Instant};

const PAGE: &str = include_str!("../sql/conflicts_page.sql");

/// Reads the conflict logs of both masters.
pub struct Conflicts {
    sessions: [Sessions; 2],
}

/// Where a page ends: the id of the last entry seen of each master, or none yet. Each master counts for
/// itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor([Option<i64>; 2]);

/// A page of the two logs.
pub struct Page {
    pub entries: Vec<Value>,
    pub next: Option<Cursor>,
    /// The masters that could not be asked, with the reason.
    pub not_asked: Map<String, Value>,
}

struct Entry {
    id: i64,
    at_us: i64,
    value: Value,
}

impl Cursor {
    /// Reads it from the text of [`Cursor::text`].
    pub fn parse(text: &str) -> Option<Cursor> {
        let (first, second) = text.split_once('-')?;
        let part = |text: &str| match text {
            "" => Some(None),
            digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().ok().map(Some)
            }
            _ => None,
        };
        Some(Cursor([part(first)?, part(second)?]))
    }

    /// As a client sends it back, such as `120-97`: the id on master1, then that on master2.
    pub fn text(self) -> String {
        let [first, second] = self
            .0
            .map(|id| id.map(|id| id.to_string()).unwrap_or_default());
        format!("{first}-{second}")
    }
}

impl Conflicts {
    /// With `size` sessions of its own on each master: a log that somebody has locked must not hold up the sessions of others.
    ///
    /// # Errors
    /// When the sessions cannot be started.
    pub fn start(config: &Config, size: u32) -> anyhow::Result<Conflicts> {
        let open = |node: NodeId| -> anyhow::Result<Sessions> {
            let settings = pg::master_settings(config, node, limits::CONFLICTS_PATIENCE)?;
            Ok(Sessions::start(node, settings, size)?)
        };
        let sessions = [open(NodeId::Master1)?, open(NodeId::Master2)?];
        Ok(Conflicts { sessions })
    }

    /// Up to `limit` conflicts after `cursor`. A master for which `skip` has a reason is not asked; the
    /// others get `patience` together.
    pub fn page(
        &self,
        skip: [Option<String>; 2],
        cursor: Cursor,
        limit: usize,
        patience: Duration,
    ) -> Page {
        let deadline = Instant::now() + patience;
        let mut not_asked = Map::new();
        let calls = NodeId::BOTH.map(|node| {
            if let Some(reason) = &skip[node.index()] {
                return Err(reason.clone());
            }
            let before = cursor.0[node.index()];
            let rows = limit as i64 + 1;
            self.sessions[node.index()]
                .submit(move |session| read(session, node, before, rows))
                .map_err(|error| error.to_string())
        });
        let mut heads = calls.map(|call| {
            let call = call?;
            let left = deadline.saturating_duration_since(Instant::now());
            let answer = match call.reply().recv_timeout(left) {
                Ok(answer) => answer,
                Err(_) => call.give_up(&format!("no answer within {} ms", patience.as_millis())),
            };
            answer.map_err(|error| explain(&error))
        });
        for node in NodeId::BOTH {
            if let Err(reason) = &heads[node.index()] {
                not_asked.insert(node.name().to_string(), json!(reason));
            }
        }
        let lists = heads
            .each_mut()
            .map(|list| list.as_mut().map(std::mem::take).unwrap_or_default());
        let (entries, next) = merge(lists, cursor, limit);
        Page {
            entries,
            next,
            not_asked,
        }
    }
}

/// Why a master could not be asked, in words.
fn explain(error: &CallError) -> String {
    match error {
        CallError::Verdict(verdict) if verdict.code() == Some(&SqlState::UNDEFINED_TABLE) => {
            "it has no conflict log yet; run `imdb-ha replication setup`".to_string()
        }
        other => other.to_string(),
    }
}

fn read(
    session: &mut Session,
    node: NodeId,
    before: Option<i64>,
    rows: i64,
) -> Result<Vec<Entry>, postgres::Error> {
    let entry = |row: &postgres::Row| -> Result<Entry, postgres::Error> {
        let text: String = row.try_get("entry")?;
        let mut value = json!({ "master": node });
        if let (Value::Object(all), Ok(Value::Object(entry))) =
            (&mut value, serde_json::from_str(&text))
        {
            all.extend(entry);
        }
        Ok(Entry {
            id: row.try_get("id")?,
            at_us: row.try_get("at_us")?,
            value,
        })
    };
    session
        .query(PAGE, &[&before, &rows])?
        .iter()
        .map(entry)
        .collect()
}

/// The newest of two lists, each of which is newest first, and where to go on.
fn merge(lists: [Vec<Entry>; 2], cursor: Cursor, limit: usize) -> (Vec<Value>, Option<Cursor>) {
    let mut lists = lists.map(|list| list.into_iter().peekable());
    let mut cursor = cursor;
    let mut entries = Vec::new();
    loop {
        let times = lists
            .each_mut()
            .map(|list| list.peek().map(|entry| entry.at_us));
        let index = usize::from(times[1] > times[0]);
        if times[index].is_none() {
            return (entries, None);
        }
        if entries.len() == limit {
            return (entries, Some(cursor));
        }
        if let Some(entry) = lists[index].next() {
            cursor.0[index] = Some(entry.id);
            entries.push(entry.value);
        }
    }
}

/// `imdb-ha conflicts`: exit code 1 when a master could not be asked.
///
/// # Errors
/// When the sessions cannot be started.
pub fn report(config: &Config, limit: usize, json: bool) -> anyhow::Result<ExitCode> {
    let conflicts = Conflicts::start(config, 1)?;
    let page = conflicts.page(
        [None, None],
        Cursor::default(),
        limit,
        limits::CONFLICTS_PATIENCE,
    );
    let all = page.not_asked.is_empty();
    if json {
        output::print(json!({ "ok": all, "data": page.entries, "not_asked": page.not_asked }));
    } else {
        page.entries
            .iter()
            .for_each(|entry| output::print(line(entry)));
        if page.entries.is_empty() && all {
            output::print("no conflicts");
        }
        for (master, reason) in &page.not_asked {
            let reason = reason.as_str().unwrap_or_default();
            output::print(format_args!("{master} could not be asked: {reason}"));
        }
    }
    Ok(if all {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// One conflict as a line for people.
fn line(entry: &Value) -> String {
    let text = |name: &str| entry[name].as_str().unwrap_or_default();
    let (kept, other) = match text("won") {
        "local" => ("local", "remote"),
        _ => ("remote", "local"),
    };
    format!(
        "{} {} {} {} {}: kept {}, not {}",
        text("at"),
        text("master"),
        text("table"),
        text("key"),
        text("kind"),
        entry[kept],
        entry[other]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_its_text() {
        for text in ["-", "12-", "-7", "12-7"] {
            assert_eq!(Cursor::parse(text).expect(text).text(), text);
        }
        for bad in [
            "",
            "12",
            "a-b",
            "1-2-3",
            "-1-",
            "1--2",
            "99999999999999999999-",
        ] {
            assert_eq!(Cursor::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn pages_follow_on_each_other_without_gaps_or_repeats() {
        let list = |times: &[i64], from: i64| -> Vec<Entry> {
            let entry = |(index, at): (usize, &i64)| Entry {
                id: from - index as i64,
                at_us: *at,
                value: json!(at),
            };
            times.iter().enumerate().map(entry).collect()
        };
        let (page, next) = merge(
            [list(&[9, 5, 1], 30), list(&[8, 6], 70)],
            Cursor::default(),
            3,
        );
        assert_eq!(page, [json!(9), json!(8), json!(6)]);
        assert_eq!(next.map(Cursor::text).as_deref(), Some("30-69"));
        let (page, next) = merge([list(&[5, 1], 29), list(&[], 0)], next.expect("more"), 3);
        assert_eq!((page, next), (vec![json!(5), json!(1)], None));
    }
}
