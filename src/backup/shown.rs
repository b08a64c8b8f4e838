//! What the API shows of the backups, from memory.

use super::alarms::{Alarm, restore_point};
use super::entry::{Entry, is_good, rfc3339};
use super::keeper::{Keeper, Shared, State, now};
use super::schedule::{self, tried_at};
use super::task::Aim;
use super::worker::failure_as_json;
use crate::cluster::NodeId;
use serde_json::{Map, Value, json};

impl Keeper {
    /// Every backup with everything around it, for `GET /backups`.
    pub fn details(&self) -> Value {
        let shared = match &self.shared {
            Ok(shared) => shared,
            Err(why) => {
                return json!({
                    "ok": true, "state": "off", "reason": why, "running": null, "next": null, "agenda": [], "alarms": [],
                    "last_failure": null, "unreadable": {}, "backups": [],
                });
            }
        };
        let state = shared.lock();
        let (name, reason) = shared.state_of(&state);
        let all: Vec<Entry> = state.all.iter().flatten().flatten().cloned().collect();
        let mut newest_first: Vec<&Entry> = all.iter().collect();
        newest_first.sort_by_key(|entry| std::cmp::Reverse(entry.stop));
        let backups: Vec<Value> = newest_first
            .iter()
            .map(|entry| entry.as_json(&all))
            .collect();
        let agenda: Vec<Value> = state.agenda.iter().map(|due| due.as_json()).collect();
        let unreadable = NodeId::BOTH.into_iter().filter_map(|node| {
            let failure = state.unreadable[node.index()].as_ref()?;
            Some((node.name().to_string(), failure_as_json(failure)))
        });
        json!({
            "ok": true,
            "state": name,
            "reason": reason,
            "running": state.running.as_ref().map(|job| job.as_json()),
            "next": next(&state),
            "agenda": agenda,
            "alarms": state.alarms,
            "last_failure": last_failure(&state),
            "unreadable": unreadable.collect::<Map<_, _>>(),
            "backups": backups,
        })
    }

    /// The figures of them, for `/status`.
    pub fn summary(&self) -> Value {
        let shared = match &self.shared {
            Ok(shared) => shared,
            Err(why) => {
                return json!({
                    "state": "off", "reason": why, "running": null, "next": null, "last_failure": null, "last_drill": null,
                    "masters": {},
                });
            }
        };
        let state = shared.lock();
        let (name, reason) = shared.state_of(&state);
        let of_node = |node: NodeId| {
            let entries = state.all[node.index()].as_deref()?;
            Some((node.name().to_string(), of_master(entries)))
        };
        let drills = state.all.iter().flatten().flatten();
        let last = drills
            .filter(|entry| entry.verified.is_some())
            .max_by_key(|entry| tried_at(entry));
        json!({
            "state": name,
            "reason": reason,
            "running": state.running.as_ref().map(|job| job.as_json()),
            "next": next(&state),
            "last_failure": last_failure(&state),
            "last_drill": last.map(|entry| json!({ "node": entry.node, "label": entry.label, "verified": entry.verified })),
            "masters": NodeId::BOTH.into_iter().filter_map(of_node).collect::<Map<_, _>>(),
        })
    }

    /// One job, running or ended; none for one that is not known any more.
    pub fn job(&self, id: u64) -> Option<Value> {
        let state = self.shared.as_ref().ok()?.lock();
        let running = state.running.as_ref().filter(|job| job.id == id);
        let ended = || state.ended.iter().rfind(|ended| ended.id() == id);
        running
            .map(|job| job.as_json())
            .or_else(|| ended().map(|ended| ended.as_json()))
    }

    /// What somebody should look at.
    pub fn alarms(&self) -> Vec<Alarm> {
        let shared = self.shared.as_ref();
        shared
            .map(|shared| shared.lock().alarms.clone())
            .unwrap_or_default()
    }
}

impl Shared {
    /// The word for all of it, and why it is so where that is not plain.
    fn state_of(&self, state: &State) -> (&'static str, Option<String>) {
        let backups = &self.config.backups;
        let failing = NodeId::BOTH.map(|node| state.setbacks.of(node, Aim::Backup));
        let failing = failing.into_iter().flatten().next();
        match (&state.running, failing) {
            (Some(_), _) => ("running", None),
            (None, Some(setback)) => ("failing", Some(setback.failure.to_string())),
            (None, None) if schedule::is_on(backups.plan, backups.drill_every) => ("waiting", None),
            (None, None) => (
                "off",
                Some("nothing is scheduled; backups are made when somebody asks".to_string()),
            ),
        }
    }
}

/// What is to be done next, and when.
fn next(state: &State) -> Option<Value> {
    let soonest = state.agenda.iter().min_by_key(|due| due.at);
    soonest.map(|due| due.as_json())
}

fn last_failure(state: &State) -> Option<Value> {
    let setback = state.setbacks.last()?;
    let mut shown = failure_as_json(&setback.failure);
    shown["at"] = json!(rfc3339(setback.at));
    shown["times"] = json!(setback.times);
    Some(shown)
}

fn of_master(entries: &[Entry]) -> Value {
    let bad = entries
        .iter()
        .filter(|entry| !is_good(entry, entries))
        .count();
    let newest = entries
        .iter()
        .rfind(|entry| is_good(entry, entries))
        .map(|entry| {
            json!({
                "label": entry.label,
                "type": entry.kind,
                "finished": rfc3339(entry.stop),
                "age_seconds": now() - entry.stop,
                "size_bytes": entry.size,
                "stored_bytes": entry.stored,
                "verdict": entry.verdict(entries),
            })
        });
    json!({
        "backups": entries.len(),
        "bad": bad,
        "newest_good": newest,
        "restore_point": restore_point(entries).map(|entry| &entry.label),
    })
}
