//! The set-up as a part of a start that nobody watches: it waits for both masters, and where a person has to decide about one of them it does
//! not keep the other from serving.

use super::setup::{self, NeedsRejoin, Reach};
use super::status;
use crate::cluster::NodeId;
use crate::config::Config;
use crate::limits;
use crate::output::say_with_time as say;
use anyhow::Context;
use std::time::{Duration, Instant};

/// Sets the replication up and returns what was done, a line each.
///
/// # Errors
/// What could not be done, unless a master that was joined before is left to serve.
pub fn run(config: &Config) -> anyhow::Result<Vec<String>> {
    let began = Instant::now();
    let mut told = String::new();
    let error = loop {
        let error = match setup::run(config) {
            Ok(mut done) => {
                // They are joined; what keeps one from applying is for the API to tell while the other serves.
                if let Err(error) = setup::wait_until_streaming(config, limits::SETUP_OTHER) {
                    done.push(format!("ALARM: {error:#}"));
                }
                return Ok(done);
            }
            Err(error) => error,
        };
        let waited = began.elapsed();
        let enough = waited >= limits::SETUP_OTHER && was_joined(config)?.is_some();
        if error.is::<NeedsRejoin>() || enough || waited >= limits::SETUP_BOTH {
            break error;
        }
        let said = format!("{error:#}");
        if said != told {
            say(&format!("not yet: {said}"));
            told = said;
        }
        std::thread::sleep(Duration::from_millis(500));
    };
    match was_joined(config)? {
        None => Err(error).context("no master that was joined before is left to serve"),
        Some(node) => Ok(vec![format!("ALARM: {error:#}; {node} is left to serve")]),
    }
}

/// A master that answers and was joined by an earlier set-up.
fn was_joined(config: &Config) -> anyhow::Result<Option<NodeId>> {
    let reach = Reach::new(config)?;
    let joined = |node: &NodeId| {
        let node = *node;
        let seen = reach.run(node, "read the replication status", move |session| {
            status::read(session.client(), node)
        });
        seen.is_ok_and(|seen| seen.publication && seen.way_in.exists)
    };
    Ok(NodeId::BOTH.into_iter().find(joined))
}
