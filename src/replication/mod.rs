//! The replication between the masters: setting it up and looking at it.

pub mod apply;
pub mod compare;
mod conninfo;
pub mod drift;
mod equal;
mod fit;
pub(crate) mod identity;
mod migrations;
mod password;
mod plan;
mod publication;
mod reach;
pub mod rejoin;
pub mod setup;
mod start;
pub mod status;

use crate::cluster::NodeId;
use crate::config::Config;
use crate::output;
pub use plan::literal;
use serde_json::{Map, Value, json};
use status::NodeReplication;
use std::process::ExitCode;

/// `imdb-ha replication setup`.
///
/// # Errors
/// What could not be done.
pub fn report_setup(config: &Config, at_start: bool, json: bool) -> anyhow::Result<ExitCode> {
    let done = match at_start {
        true => start::run(config)?,
        false => setup::run(config)?,
    };
    if json {
        output::print(json!({ "ok": true, "done": done }));
    } else if done.is_empty() {
        output::print("nothing to do: the masters are joined");
    } else {
        done.iter()
            .for_each(|line| output::print(format_args!("{line}")));
    }
    Ok(ExitCode::SUCCESS)
}

/// `imdb-ha replication status`: exit code 1 when a direction is not streaming.
///
/// # Errors
/// None of its own: a master that cannot be asked is part of the report.
pub fn report_status(config: &Config, json: bool) -> anyhow::Result<ExitCode> {
    let reach = setup::Reach::new(config)?;
    let mut seen = NodeId::BOTH.map(|node| {
        reach
            .run(node, "read the replication status", move |session| {
                status::read(session.client(), node)
            })
            .map_err(|error| format!("{error:#}"))
    });
    // Without its peer a master has nothing to apply.
    if seen.iter().all(Result::is_ok) {
        seen = NodeId::BOTH.map(|node| {
            reach
                .run(node, "look at the apply worker", move |session| {
                    apply::examine(session.client(), node)
                })
                .map_err(|error| format!("{error:#}"))
        });
    }
    let drifted = drift_of(&reach);
    let well = seen
        .iter()
        .all(|seen| seen.as_ref().is_ok_and(|seen| seen.troubles().is_empty()));
    if json {
        output::print(as_json(&seen, &drifted, well));
    } else {
        for node in NodeId::BOTH {
            output::print(as_text(node, config, &seen[node.index()]));
        }
        for alarm in &drifted {
            output::print(format_args!("ALARM: {alarm}"));
        }
        output::print(format_args!(
            "{}",
            if well {
                "both directions are streaming"
            } else {
                "NOT streaming in both directions"
            }
        ));
    }
    Ok(if well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What somebody has changed by hand, on the masters that answer.
fn drift_of(reach: &setup::Reach) -> Vec<String> {
    let seen = NodeId::BOTH.map(|node| {
        let asked = reach.run(node, "look for what has changed", move |session| {
            drift::read(session.client(), node)
        });
        asked.ok().filter(|seen| !seen.changing)
    });
    drift::alarms([seen[0].as_ref(), seen[1].as_ref()])
}

type Seen = Result<NodeReplication, String>;

fn as_json(seen: &[Seen; 2], drifted: &[String], well: bool) -> Value {
    let masters: Map<String, Value> = NodeId::BOTH
        .into_iter()
        .map(|node| {
            let of_node = match &seen[node.index()] {
                Ok(seen) => {
                    json!({ "replication": seen, "troubles": seen.troubles(), "alarms": seen.alarms() })
                }
                Err(error) => json!({ "troubles": [error] }),
            };
            (node.name().to_string(), of_node)
        })
        .collect();
    json!({ "ok": well, "masters": masters, "alarms": drifted })
}

fn as_text(node: NodeId, config: &Config, seen: &Seen) -> String {
    let mut text = format!("{node} ({})\n", config.master(node).address());
    let seen = match seen {
        Ok(seen) => seen,
        Err(error) => return format!("{text}  PROBLEM      {error}\n"),
    };
    let (out, way_in) = (&seen.out, &seen.way_in);
    let yes = |is: bool, yes: &'static str, no: &'static str| if is { yes } else { no };
    let figure = |value: Option<u64>, unit: &str| match value {
        Some(value) => format!("{value} {unit}"),
        None => "unknown".to_string(),
    };
    text.push_str(&format!(
        "  publication  pub_imdb: {}\n",
        yes(seen.publication, "there", "MISSING")
    ));
    text.push_str(&format!(
        "  sends to     {}: slot {} {}, {}, lag {}, {}\n",
        node.peer(),
        out.slot,
        yes(out.exists, yes(out.active, "active", "INACTIVE"), "MISSING"),
        out.state.as_deref().unwrap_or("NOT streaming"),
        figure(out.lag_bytes, "bytes"),
        figure(out.lag_ms, "ms"),
    ));
    text.push_str(&format!(
        "  takes from   {}: {} {}, apply worker {}, last heard {} ago\n",
        node.peer(),
        way_in.subscription,
        yes(
            way_in.exists,
            yes(way_in.enabled, "enabled", "DISABLED"),
            "MISSING"
        ),
        yes(way_in.applying, "running", "NOT running"),
        figure(way_in.heard_ms_ago, "ms"),
    ));
    if let Some(conflicts) = seen.conflicts {
        text.push_str(&format!("  conflicts    {conflicts} in its log\n"));
    }
    for alarm in seen.alarms() {
        text.push_str(&format!("  ALARM        {alarm}\n"));
    }
    for trouble in seen.troubles() {
        text.push_str(&format!("  PROBLEM      {trouble}\n"));
    }
    text
}
