//! `imdb-ha backup`: what its commands do and print.

use super::command::{NEVER, Place};
use super::cycle;
use super::entry::{Entry, human, notes, rfc3339};
use super::info::State;
use super::make;
use super::restore::Servers;
use super::runner::Wanted;
use super::{Kind, stanza};
use crate::bars::Bar;
use crate::cli::{Backup, Node};
use crate::cluster::NodeId;
use crate::config::Config;
use crate::limits;
use crate::output;
use crate::output::say;
use serde_json::{Value, json};
use std::process::ExitCode;

/// Runs one of the commands. A restore stops and starts the masters by way of `servers`.
///
/// # Errors
/// What could not be done.
pub fn run(
    command: Backup,
    config: &Config,
    place: &Place,
    servers: &dyn Servers,
) -> anyhow::Result<ExitCode> {
    match command {
        Backup::Run { node, kind, json } => make(place, config, node.id(), kind, json),
        Backup::Info { node, json, raw } => show(place, node, json, raw),
        Backup::Bootstrap { json } => bootstrap(place, json),
        Backup::Restore(wanted) => super::restore::report(place, config, &wanted, servers),
        Backup::Drill { label, node, json } => {
            super::drill_report::report(place, config, label.as_deref(), &nodes(node), json)
        }
        Backup::Cycle { node, delay, json } => cycle::report(place, config, node.id(), delay, json),
        Backup::Publish => publish(place, config),
    }
}

/// The masters that are meant.
fn nodes(named: Option<Node>) -> Vec<NodeId> {
    named.map_or(NodeId::BOTH.to_vec(), |node| vec![node.id()])
}

fn make(
    place: &Place,
    config: &Config,
    node: NodeId,
    kind: Kind,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let _claim = place.claim_when_free(node, "make a backup of", &mut say)?;
    let wanted = Wanted {
        node,
        kind,
        notes: &[(notes::BECAUSE, "asked".to_string())],
    };
    let bar = Bar::new(&format!("{kind} backup of {node}"), json);
    let made = make::make(place, config, &wanted, &bar)?;
    drop(bar);
    for warning in &made.warnings {
        say(&format!("warning: {warning}"));
    }
    let entry = made.entry;
    let all = place.entries(node)?;
    match json {
        true => output::print(
            json!({ "ok": true, "backup": entry.as_json(&all), "warnings": made.warnings }),
        ),
        false => output::print(line(&entry, &all)),
    }
    Ok(ExitCode::SUCCESS)
}

fn show(place: &Place, node: Option<Node>, json: bool, raw: bool) -> anyhow::Result<ExitCode> {
    if raw {
        let answers = nodes(node)
            .into_iter()
            .map(|node| Ok(place.info(node)?.raw));
        let answers: Vec<Value> = answers.collect::<anyhow::Result<_>>()?;
        let all: Vec<Value> = answers
            .into_iter()
            .filter_map(|answer| match answer {
                Value::Array(stanzas) => Some(stanzas),
                _ => None,
            })
            .flatten()
            .collect();
        output::print(Value::Array(all));
        return Ok(ExitCode::SUCCESS);
    }
    let mut all = Vec::new();
    for node in nodes(node) {
        all.extend(place.entries(node)?);
    }
    if json {
        let list: Vec<Value> = all.iter().map(|entry| entry.as_json(&all)).collect();
        output::print(json!({ "ok": true, "backups": list }));
    } else if all.is_empty() {
        output::print("no backup yet");
    } else {
        for entry in &all {
            output::print(line(entry, &all));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// One backup in one line.
pub fn line(entry: &Entry, all: &[Entry]) -> String {
    format!(
        "{}  {:<4}  {:<33}  {}  {:>4} s  {:>6} of {:>6}  {}",
        entry.node,
        entry.kind.name(),
        entry.label,
        rfc3339(entry.stop),
        entry.stop - entry.start,
        human(entry.stored),
        human(entry.size),
        entry.verdict(all)
    )
}

fn publish(place: &Place, config: &Config) -> anyhow::Result<ExitCode> {
    let address = config.redis_url.address();
    output::print(match make::publish(place, config)? {
        true => format!("the catalogue is in redis {address} now"),
        false => format!("the catalogue was in redis {address} already"),
    });
    Ok(ExitCode::SUCCESS)
}

fn bootstrap(place: &Place, json: bool) -> anyhow::Result<ExitCode> {
    for node in NodeId::BOTH {
        if place.info(node)?.state == State::Missing {
            super::stanza::ensure(place, node, true)?;
        }
        let doing = "check the archive of";
        place.run(node, doing, &["check"], limits::BACKUP_STANZA, NEVER)?;
        if !json {
            output::print(format_args!("{}: WAL reaches the repository", stanza(node)));
        }
    }
    if json {
        output::print(json!({ "ok": true, "stanzas": NodeId::BOTH.map(stanza) }));
    }
    Ok(ExitCode::SUCCESS)
}
