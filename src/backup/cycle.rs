//! `imdb-ha backup cycle`: the manual's six days one after the other, with five rows before each backup, to see what a week of
//! backups looks like.

use super::command::Place;
use super::days::DAYS;
use super::entry::{Entry, human, notes};
use super::make;
use super::report::line;
use super::runner::Wanted;
use crate::bars::Bar;
use crate::cluster::NodeId;
use crate::config::Config;
use crate::limits;
use crate::output;
use crate::output::say;
use crate::pg::{self, Sessions};
use anyhow::{Context, bail};
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Makes the nine backups.
///
/// # Errors
/// The first that could not be made; those before it stay.
pub fn report(
    place: &Place,
    config: &Config,
    node: NodeId,
    delay: Duration,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    let settings = pg::master_settings(config, node, limits::SETUP_CALL)?;
    let sessions = Sessions::start_patient(node, settings)?;
    // For all of them, so that the API tries none in between.
    let _claim = place.claim_when_free(node, "make a cycle of backups of", &mut say)?;
    let mut made: Vec<Entry> = Vec::new();
    let all = (1_u8..)
        .zip(DAYS)
        .flat_map(|(day, kinds)| kinds.iter().map(move |kind| (day, *kind)));
    for (day, kind) in all {
        if !made.is_empty() {
            std::thread::sleep(delay);
        }
        insert(&sessions)
            .with_context(|| format!("day {day}, {kind}: insert five rows on {node}"))?;
        let wanted = Wanted {
            node,
            kind,
            notes: &[
                (notes::BECAUSE, "cycle".to_string()),
                (notes::DAY, day.to_string()),
            ],
        };
        let bar = Bar::new(&format!("day {day}: {kind} backup of {node}"), json);
        let one = make::make(place, config, &wanted, &bar)
            .with_context(|| format!("day {day}, {kind}"))?;
        for warning in &one.warnings {
            bar.say(&format!("warning: {warning}"));
        }
        drop(bar);
        if one.entry.kind != kind {
            bail!(
                "day {day}: backup {} of {node} is {}, where {kind} was asked for",
                one.entry.label,
                one.entry.kind
            );
        }
        if !json {
            output::print(format_args!(
                "day {day}  {kind:<4}  {:<33}  {} s, {} copied",
                one.entry.label,
                one.entry.stop - one.entry.start,
                human(one.entry.copied)
            ));
        }
        made.push(one.entry);
    }
    tell(place, node, &made, began.elapsed(), json)
}

/// Five rows, so that there is something new in each backup. Their ids come from the sequence, so they are nobody else's.
fn insert(sessions: &Sessions) -> anyhow::Result<()> {
    let sql = include_str!("../../sql/cycle_rows.sql");
    Ok(sessions.run(limits::SETUP_CALL, move |session| {
        session.client().batch_execute(sql)
    })?)
}

fn tell(
    place: &Place,
    node: NodeId,
    made: &[Entry],
    took: Duration,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let all = place.entries(node)?;
    let gone = made
        .iter()
        .find(|one| !all.iter().any(|entry| entry.label == one.label));
    if let Some(gone) = gone {
        bail!(
            "backup {} of {node} was made and is not there any more",
            gone.label
        );
    }
    let of_cycle = all
        .iter()
        .filter(|entry| made.iter().any(|one| one.label == entry.label));
    let seconds = took.as_secs_f64();
    if json {
        let list: Vec<Value> = of_cycle.map(|entry| entry.as_json(&all)).collect();
        let seconds = (seconds * 10.0).round() / 10.0;
        output::print(json!({ "ok": true, "seconds": seconds, "backups": list }));
        return Ok(ExitCode::SUCCESS);
    }
    output::print(format_args!(
        "\n{} backups of {node} in {seconds:.1} s:",
        made.len()
    ));
    for entry in of_cycle {
        output::print(line(entry, &all));
    }
    Ok(ExitCode::SUCCESS)
}
