//! `imdb-ha backup drill`: tries backups, and names what can be restored instead of a bad one.

use super::command::{NEVER, Place};
use super::drill;
use super::entry::{Entry, Verified};
use super::failure::Failure;
use crate::cluster::NodeId;
use crate::config::Config;
use crate::output;
use crate::output::say;
use anyhow::bail;
use serde_json::{Value, json};
use std::process::ExitCode;

/// Tries the backup with this label, or the newest of each master.
///
/// # Errors
/// When there is nothing to try, or none can be tried.
pub fn report(
    place: &Place,
    config: &Config,
    label: Option<&str>,
    nodes: &[NodeId],
    json: bool,
) -> anyhow::Result<ExitCode> {
    let mut chosen = Vec::new();
    for node in nodes {
        let entries = place.entries(*node)?;
        let wanted = |entry: &&Entry| label.is_none_or(|label| entry.label == label);
        chosen.extend(entries.iter().rfind(wanted).cloned());
    }
    if chosen.is_empty() {
        match label {
            Some(label) => {
                bail!("there is no backup {label}; `imdb-ha backup info` shows what there is")
            }
            None => bail!("there is no backup yet; `imdb-ha backup run` makes one"),
        }
    }
    let mut all_good = true;
    let mut told = Vec::new();
    for entry in &chosen {
        if !json {
            output::print(format_args!("{} {}", entry.node, entry.label));
        }
        let outcome = try_one(place, config, entry, json);
        all_good &= matches!(&outcome, Ok(tried) if tried.verified.ok);
        match (json, outcome) {
            (true, outcome) => told.push(as_json(entry, outcome)),
            (false, Ok(tried)) => output::print(format_args!("  {}", tried.sentence())),
            (false, Err(failure)) => output::print(format_args!("  NOT TRIED: {failure}")),
        }
    }
    if json {
        output::print(json!({ "ok": all_good, "drills": told }));
    }
    Ok(match all_good {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

struct Tried {
    verified: Verified,
    /// What can be restored instead, if it is bad, and whether that has been tried.
    instead: Option<(String, bool)>,
}

fn try_one(place: &Place, config: &Config, entry: &Entry, json: bool) -> Result<Tried, Failure> {
    let _claim = place.claim_when_free(entry.node, "try a backup of", &mut say)?;
    let mut told = |line: &str| {
        if !json {
            output::print(format_args!("  {line}"));
        }
    };
    let verified = drill::run(place, config, entry, NEVER, &mut told)?;
    let instead = match verified.ok {
        true => None,
        false => instead(entry, &place.entries(entry.node)?),
    };
    Ok(Tried { verified, instead })
}

/// The newest older backup of the same master that is good; one that nobody has tried, if there is none.
pub fn instead(bad: &Entry, all: &[Entry]) -> Option<(String, bool)> {
    let newest = |verdict: &str| {
        let mut older = all
            .iter()
            .filter(|entry| entry.node == bad.node && entry.stop < bad.stop);
        older
            .rfind(|entry| entry.verdict(all) == verdict)
            .map(|entry| entry.label.clone())
    };
    newest("good")
        .map(|label| (label, true))
        .or_else(|| newest("untried").map(|label| (label, false)))
}

impl Tried {
    fn sentence(&self) -> String {
        let Verified { seconds, error, .. } = &self.verified;
        let Some(error) = error else {
            return format!("good, after {seconds:.1} s");
        };
        let instead = match &self.instead {
            Some((label, true)) => format!("the newest older one that is good: {label}"),
            Some((label, false)) => format!("no older one has been tried yet; the newest: {label}"),
            None => "there is no older one; make a full backup".to_string(),
        };
        format!("BAD: {error}\n  {instead}")
    }
}

fn as_json(entry: &Entry, outcome: Result<Tried, Failure>) -> Value {
    let mut told = json!({ "master": entry.node, "label": entry.label });
    match outcome {
        Ok(tried) => {
            told["verified"] = json!(tried.verified);
            told["restore_point"] = json!(tried.instead.as_ref().map(|(label, _)| label));
            told["restore_point_verdict"] = json!(tried.instead.map(|(_, good)| match good {
                true => "good",
                false => "untried",
            }));
        }
        Err(failure) => told["failure"] = json!(failure),
    }
    told
}

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use super::super::entry::tests::entry;
    use super::*;

    #[test]
    fn the_newest_older_good_one_is_named() {
        let verified = |ok| {
            Some(Verified {
                ok,
                at: String::new(),
                seconds: 1.0,
                checked: vec![],
                error: None,
            })
        };
        let mut all = [
            entry("A", Kind::Full, 10, &[]),
            entry("B", Kind::Full, 20, &[]),
            entry("C", Kind::Incr, 30, &["B"]),
            entry("D", Kind::Full, 40, &[]),
        ];
        let named = |all: &[Entry]| instead(&all[3], all);
        assert_eq!(named(&all), Some(("C".to_string(), false)));
        all[0].verified = verified(true);
        assert_eq!(named(&all), Some(("A".to_string(), true)));
        all[2].verified = verified(true);
        assert_eq!(named(&all), Some(("C".to_string(), true)));
        // What C needs has been found bad since C was tried.
        all[1].verified = verified(false);
        assert_eq!(named(&all), Some(("A".to_string(), true)));
        assert_eq!(instead(&all[0], &all), None);
    }
}
