//! The catalogue of the backups in Redis, under the manual's keys. All of it follows from what pgBackRest knows, so it can be
//! written again at any time: Redis may be gone, empty or restarted, and nothing is lost or doubled.

use super::Kind;
use super::entry::{Entry, rfc3339};
use super::info::Stanza;
use super::stanza;
use crate::cluster::NodeId;
use crate::config::{Config, SecretUrl};
use crate::limits;
use crate::redis_link;
use anyhow::anyhow;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

/// Writes the catalogue.
pub struct Catalog {
    url: SecretUrl,
    prefix: String,
}

/// What there is to tell about one master.
pub struct Known {
    pub node: NodeId,
    pub stanza: Stanza,
    /// Oldest first.
    pub entries: Vec<Entry>,
}

/// Everything that Redis should hold of the masters that could be asked.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
struct Keys {
    values: BTreeMap<String, String>,
    hashes: BTreeMap<String, Vec<(String, String)>>,
    /// By key: label and value, newest first. What has expired stays in these.
    histories: BTreeMap<String, Vec<(String, String)>>,
    /// Whether that is everything, so that what is not in it is no longer there.
    whole: bool,
}

impl Catalog {
    /// A catalogue in the Redis of the configuration; connects to nothing yet.
    pub fn new(config: &Config) -> Catalog {
        Catalog {
            url: config.redis_url.clone(),
            prefix: config.backups.key_prefix.clone(),
        }
    }

    /// Sees that Redis has everything that is known, and nothing that is no longer there; returns whether anything had to be written.
    ///
    /// # Errors
    /// Those of Redis, within its time limits.
    pub fn publish(&mut self, known: &[Known]) -> anyhow::Result<bool> {
        let keys = keys(&self.prefix, known);
        self.write(&keys).map_err(|error| {
            let address = self.url.address();
            // The driver's errors repeat themselves among their causes.
            let cause = crate::pg::explain_any(&error);
            anyhow!("write the catalogue of the backups to redis {address}: {cause}")
        })
    }

    fn write(&self, keys: &Keys) -> redis::RedisResult<bool> {
        let mut redis = redis_link::connect(&self.url)?;
        let mark = format!("{}:fingerprint", self.prefix);
        // All that we ever wrote and did not remove, so that nothing is searched for and nobody else's is touched.
        let index = format!("{}:keys", self.prefix);
        let ours: BTreeSet<&String> = keys.values.keys().chain(keys.hashes.keys()).collect();
        let fingerprint = fingerprint(keys);
        let expected: Vec<(&String, &str)> = [(&mark, "string"), (&index, "set")]
            .into_iter()
            .chain(keys.values.keys().map(|key| (key, "string")))
            .chain(keys.hashes.keys().map(|key| (key, "hash")))
            .chain(keys.histories.keys().map(|key| (key, "list")))
            .collect();
        let sound = sound(&mut redis, &expected)?;
        let seen: Option<String> = match sound.contains(&mark) {
            true => redis::cmd("GET").arg(&mark).query(&mut redis)?,
            false => None,
        };
        if sound.len() == expected.len() && seen.as_ref() == Some(&fingerprint) {
            return Ok(false);
        }
        let indexed: BTreeSet<String> = match sound.contains(&index) {
            true => redis::cmd("SMEMBERS").arg(&index).query(&mut redis)?,
            false => BTreeSet::new(),
        };
        let mut histories = Vec::new();
        for (key, newest_first) in &keys.histories {
            let old: Vec<String> = match sound.contains(key) {
                true => {
                    let mut command = redis::cmd("LRANGE");
                    command
                        .arg(key)
                        .arg(0)
                        .arg(limits::HISTORY_OF_BACKUPS_MAX - 1)
                        .query(&mut redis)?
                }
                false => Vec::new(),
            };
            histories.push((key, merged(newest_first, old)));
        }
        let mut all = redis::pipe();
        all.atomic();
        if !sound.contains(&index) {
            all.cmd("DEL").arg(&index).ignore();
        }
        // What is said about a master that could not be asked stays.
        let gone = |key: &&String| keys.whole && !ours.contains(key);
        for key in indexed.iter().filter(gone) {
            all.cmd("DEL").arg(key).ignore();
            all.cmd("SREM").arg(&index).arg(key).ignore();
        }
        for (key, value) in &keys.values {
            all.cmd("SET").arg(key).arg(value).ignore();
        }
        for (key, fields) in &keys.hashes {
            all.cmd("DEL").arg(key).ignore();
            all.cmd("HSET").arg(key).arg(fields).ignore();
        }
        for (key, values) in &histories {
            all.cmd("DEL").arg(key).ignore();
            all.cmd("RPUSH").arg(key).arg(values).ignore();
        }
        for key in &ours {
            all.cmd("SADD").arg(&index).arg(key).ignore();
        }
        all.cmd("SET").arg(&mark).arg(&fingerprint).ignore();
        all.query::<()>(&mut redis)?;
        Ok(true)
    }
}

/// The keys that are there and are what they should be. Another one holds nothing of ours, and to ask it for a value is an error
/// that would come again for ever.
fn sound<'a>(
    redis: &mut redis::Connection,
    expected: &[(&'a String, &str)],
) -> redis::RedisResult<BTreeSet<&'a String>> {
    let mut look = redis::pipe();
    for (key, _) in expected {
        look.cmd("TYPE").arg(key);
    }
    let types: Vec<String> = look.query(redis)?;
    let both = expected.iter().zip(types);
    let sound = both.filter(|((_, expected), found)| expected == found);
    Ok(sound.map(|((key, _), _)| *key).collect())
}

/// Tells one content of the catalogue from another.
fn fingerprint(keys: &Keys) -> String {
    let mut hasher = DefaultHasher::new();
    keys.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// All keys for what is known. Of a master that could not be asked there are none, and of what is said about both of them neither.
fn keys(prefix: &str, known: &[Known]) -> Keys {
    let mut keys = Keys::default();
    let all: Vec<Entry> = known
        .iter()
        .flat_map(|known| known.entries.clone())
        .collect();
    for known in known {
        of_master(prefix, known, &all, &mut keys);
    }
    if known.len() == NodeId::BOTH.len() {
        of_both(prefix, &all, &mut keys);
        keys.whole = true;
    }
    keys
}

fn of_master(prefix: &str, known: &Known, all: &[Entry], keys: &mut Keys) {
    let stanza = stanza(known.node);
    for entry in &known.entries {
        let at = rfc3339(entry.start);
        let value = entry.as_json(all).to_string();
        keys.values
            .insert(format!("{prefix}:backup:{stanza}:{at}"), value);
    }
    for kind in Kind::ALL {
        if let Some(entry) = known.entries.iter().rfind(|entry| entry.kind == kind) {
            let value = entry.as_json(all).to_string();
            keys.values
                .insert(format!("{prefix}:latest:{kind}:{stanza}"), value);
        }
    }
    let raw = &known.stanza.raw;
    keys.values
        .insert(format!("{prefix}:last:{stanza}"), raw.to_string());
    let newest_first = known.entries.iter().rev().map(|entry| {
        let alone = reduced(raw, |label| label == entry.label);
        (entry.label.clone(), alone.to_string())
    });
    let newest_first: Vec<_> = newest_first.collect();
    // Redis has no empty lists.
    if !newest_first.is_empty() {
        keys.histories
            .insert(format!("{prefix}:history:{stanza}"), newest_first);
    }
    let mut days = Vec::new();
    for (day, entry) in days_of(&known.entries) {
        let until = reduced(raw, |label| {
            let of_label = known.entries.iter().find(|other| other.label == label);
            of_label.is_some_and(|other| other.stop <= entry.stop)
        });
        keys.values
            .insert(format!("{prefix}:day{day}:{stanza}"), until.to_string());
        let simple = simple(day, entry).to_string();
        keys.values
            .insert(format!("{prefix}:simple:day{day}:{stanza}"), simple);
        days.push((format!("day{day}_type"), entry.kind.to_string()));
        days.push((format!("day{day}_timestamp"), local(entry.stop)));
        days.push((format!("day{day}_label"), entry.label.clone()));
    }
    if !days.is_empty() {
        keys.hashes
            .insert(format!("{prefix}:metadata:{stanza}"), days);
    }
}

/// The manual's keys that name no stanza: of two backups that began in the same second neither has the one with the time.
fn of_both(prefix: &str, all: &[Entry], keys: &mut Keys) {
    for entry in all {
        if all
            .iter()
            .filter(|other| other.start == entry.start)
            .count()
            == 1
        {
            let at = rfc3339(entry.start);
            let value = entry.as_json(all).to_string();
            keys.values.insert(format!("{prefix}:backup:{at}"), value);
        }
    }
    for kind in Kind::ALL {
        let of_kind = all.iter().filter(|entry| entry.kind == kind);
        if let Some(entry) = of_kind.max_by_key(|entry| entry.stop) {
            let value = entry.as_json(all).to_string();
            keys.values.insert(format!("{prefix}:latest:{kind}"), value);
        }
    }
}

/// What pgBackRest says, with some of the backups alone.
fn reduced(raw: &Value, wanted: impl Fn(&str) -> bool) -> Value {
    let mut raw = raw.clone();
    for stanza in raw.as_array_mut().into_iter().flatten() {
        if let Some(backups) = stanza["backup"].as_array_mut() {
            backups.retain(|backup| backup["label"].as_str().is_some_and(&wanted));
        }
    }
    raw
}

/// The last backup of each day of the newest cycle.
fn days_of(entries: &[Entry]) -> BTreeMap<u8, &Entry> {
    let in_cycle: Vec<(u8, &Entry)> = entries
        .iter()
        .filter_map(|entry| Some((entry.day?, entry)))
        .collect();
    // A cycle begins where the day is less than that before.
    let begins = in_cycle.windows(2).rposition(|pair| pair[1].0 < pair[0].0);
    let newest = begins.map_or(0, |at| at + 1);
    in_cycle[newest..].iter().copied().collect()
}

/// The manual's short form (9.4), in its own words.
fn simple(day: u8, entry: &Entry) -> Value {
    let seconds = entry.stop - entry.start;
    let megabytes = |bytes: u64| format!("{:.2} MB", bytes as f64 / 1024.0 / 1024.0);
    json!({
        "day": day,
        "label": entry.label,
        "type": entry.kind,
        "fecha_inicio": local(entry.start),
        "fecha_fin": local(entry.stop),
        "duracion": format!("{}m {}s", seconds / 60, seconds % 60),
        "tamano_total": megabytes(entry.size),
        "datos_copiados": megabytes(entry.copied),
        "espacio_repositorio": megabytes(entry.stored),
        "timestamp_unix": { "inicio": entry.start, "fin": entry.stop },
    })
}

/// A time as the manual's scripts write it.
fn local(seconds: i64) -> String {
    let at =
        jiff::Timestamp::from_second(seconds).map(|at| at.to_zoned(jiff::tz::TimeZone::system()));
    at.map_or_else(
        |_| seconds.to_string(),
        |at| at.strftime("%Y-%m-%d %H:%M:%S").to_string(),
    )
}

/// A history with what is known now and what has expired, newest first. A value that is not understood stays, at the end.
fn merged(newest_first: &[(String, String)], old: Vec<String>) -> Vec<String> {
    let known: BTreeSet<&str> = newest_first
        .iter()
        .map(|(label, _)| label.as_str())
        .collect();
    let mut all: Vec<(i64, String)> = newest_first
        .iter()
        .map(|(_, value)| {
            (
                about(value).map_or(i64::MAX, |(_, stop)| stop),
                value.clone(),
            )
        })
        .collect();
    let mut seen = BTreeSet::new();
    for value in old {
        match about(&value) {
            Some((label, _)) if known.contains(label.as_str()) || !seen.insert(label.clone()) => {}
            Some((_, stop)) => all.push((stop, value)),
            None => all.push((i64::MIN, value)),
        }
    }
    // Stable, so that those of one second keep their order.
    all.sort_by_key(|(stop, _)| std::cmp::Reverse(*stop));
    all.truncate(limits::HISTORY_OF_BACKUPS_MAX);
    all.into_iter().map(|(_, value)| value).collect()
}

/// The label and the end of the newest backup in an element of a history.
fn about(value: &str) -> Option<(String, i64)> {
    let value: Value = serde_json::from_str(value).ok()?;
    let backup = value[0]["backup"].as_array()?.last()?;
    let label = backup["label"].as_str()?.to_string();
    Some((label, backup["timestamp"]["stop"].as_i64()?))
}

#[cfg(test)]
mod tests {
    use super::super::entry::tests::entry;
    use super::super::info::State;
    use super::*;

    fn known(node: NodeId, entries: Vec<Entry>) -> Known {
        let backups: Vec<Value> = entries
            .iter()
            .map(|entry| json!({ "label": entry.label, "timestamp": { "start": entry.start, "stop": entry.stop } }))
            .collect();
        let raw = json!([{ "name": stanza(node), "backup": backups, "db": [{ "system-id": 7711551302494088529_u64 }] }]);
        let entries = entries.into_iter().map(|entry| Entry { node, ..entry });
        Known {
            node,
            stanza: Stanza {
                state: State::Ready,
                backups: vec![],
                progress: None,
                raw,
            },
            entries: entries.collect(),
        }
    }

    fn of_day(day: u8, label: &str, kind: Kind, stop: i64) -> Entry {
        Entry {
            day: Some(day),
            ..entry(label, kind, stop, &[])
        }
    }

    #[test]
    fn a_key_without_a_stanza_is_there_only_when_it_means_one_backup() {
        let first = known(
            NodeId::Master1,
            vec![
                entry("A", Kind::Full, 100, &[]),
                entry("B", Kind::Full, 200, &[]),
            ],
        );
        let second = known(NodeId::Master2, vec![entry("A", Kind::Full, 100, &[])]);
        let both = keys("p", &[first, second]);
        let has = |key: &str| both.values.contains_key(key);
        assert!(has("p:backup:imdb-master1:1970-01-01T00:01:38Z"));
        assert!(has("p:backup:imdb-master2:1970-01-01T00:01:38Z"));
        assert!(!has("p:backup:1970-01-01T00:01:38Z"));
        assert!(has("p:backup:1970-01-01T00:03:18Z"));
        let latest: Value = serde_json::from_str(&both.values["p:latest:full"]).expect("JSON");
        assert_eq!(
            (&latest["label"], &latest["stanza"]),
            (&json!("B"), &json!("imdb-master1"))
        );
        assert!(has("p:latest:full:imdb-master2") && !has("p:latest:diff"));
        // Digits beyond 2^53 stay.
        assert!(both.values["p:last:imdb-master1"].contains("7711551302494088529"));

        let alone = known(NodeId::Master1, vec![entry("A", Kind::Full, 100, &[])]);
        let alone = keys("p", &[alone]);
        let expected = [
            "p:backup:imdb-master1:1970-01-01T00:01:38Z",
            "p:last:imdb-master1",
            "p:latest:full:imdb-master1",
        ];
        assert_eq!(alone.values.keys().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_day_is_that_of_the_newest_cycle_and_its_last_backup_counts() {
        let entries = vec![
            of_day(1, "old1", Kind::Full, 100),
            of_day(6, "old6", Kind::Full, 200),
            of_day(1, "F", Kind::Full, 300),
            entry("between", Kind::Incr, 350, &[]),
            of_day(3, "I", Kind::Incr, 400),
            of_day(3, "D", Kind::Diff, 500),
        ];
        let keys = keys("p", &[known(NodeId::Master1, entries)]);
        let metadata = &keys.hashes["p:metadata:imdb-master1"];
        let labels: Vec<&str> = metadata
            .iter()
            .filter(|(name, _)| name.ends_with("_label"))
            .map(|(_, value)| value.as_str())
            .collect();
        assert_eq!(labels, ["F", "D"]);
        let day: Value = serde_json::from_str(&keys.values["p:day1:imdb-master1"]).expect("JSON");
        assert_eq!(
            day[0]["backup"].as_array().map(Vec::len),
            Some(3),
            "as it was then"
        );
        let simple: Value =
            serde_json::from_str(&keys.values["p:simple:day3:imdb-master1"]).expect("JSON");
        assert_eq!(simple["tamano_total"], "30.01 MB");
        assert_eq!(simple["duracion"], "0m 2s");
        assert!(
            !keys.values.contains_key("p:day6:imdb-master1"),
            "that was another cycle"
        );
    }

    #[test]
    fn a_history_keeps_what_has_expired_and_doubles_nothing() {
        let one = |label: &str, stop: i64| {
            json!([{ "backup": [{ "label": label, "timestamp": { "stop": stop } }] }]).to_string()
        };
        let now = [
            ("C".to_string(), one("C", 30)),
            ("B".to_string(), one("B", 20)),
        ];
        let first = merged(&now, vec![]);
        assert_eq!(first, [one("C", 30), one("B", 20)]);
        let old = vec![
            one("B", 20),
            "garbage".to_string(),
            one("A", 10),
            one("A", 10),
        ];
        let second = merged(&now, old);
        assert_eq!(
            second,
            [
                one("C", 30),
                one("B", 20),
                one("A", 10),
                "garbage".to_string()
            ]
        );
        assert_eq!(merged(&now, second.clone()), second);
    }
}
