//! What a load has left that died in the middle of its exchange, and being the only one that mends it.

use super::exchange::Exchange;
use super::masters::Masters;
use super::stage;
use crate::cluster::NodeId;
use crate::config::Config;
use crate::limits;
use crate::output;
use crate::replication::setup::{self, Reach, begin};
use anyhow::{Context, bail};
use std::time::Instant;

/// Finishes a load that died in the middle of its exchange, for a start or a set-up. When a master is away or must
/// be rebuilt first, there is nothing to finish.
///
/// # Errors
/// Why it could not be finished.
pub fn finish(config: &Config) -> anyhow::Result<()> {
    let masters = Masters::new(config, NodeId::BOTH.to_vec())?;
    if NodeId::BOTH
        .iter()
        .any(|node| masters.is_alive(*node).is_err())
    {
        return Ok(());
    }
    let reach = Reach::new(config)?;
    match setup::lacks_tables(&reach)? {
        None => return Ok(()),
        Some(false) if half_done(&masters)?.is_none() => return Ok(()),
        Some(_) => {}
    }
    alone(&masters, &reach)?;
    let now = jiff::Timestamp::now().as_millisecond();
    finish_earlier(&masters, &reach, &format!("imdb_ha_carga_{now}"))
}

/// Sees that nobody joins or rebuilds masters, nor loads, for as long as `reach` is there.
///
/// # Errors
/// When somebody does. One that was killed holds its lock until its server has noticed.
pub(super) fn alone(masters: &Masters, reach: &Reach) -> anyhow::Result<()> {
    let deadline = Instant::now() + limits::SETUP_ALONE;
    for node in &masters.nodes {
        while !reach.run(*node, "begin the load", begin)? {
            if Instant::now() >= deadline {
                bail!(
                    "a set-up, a rejoin or another load is running on {node}; try again when it has ended"
                );
            }
            std::thread::sleep(limits::LOAD_ALONE_PAUSE);
        }
    }
    Ok(())
}

/// The master that has yet to exchange its tables, with the load and its statements.
fn half_done(masters: &Masters) -> anyhow::Result<Option<(NodeId, i64, String)>> {
    let mut left = Vec::new();
    for node in &masters.nodes {
        left.push((*node, stage::left(masters, *node)?));
    }
    Ok(stage::unfinished(&left))
}

/// Finishes a load that died between the two masters, or before they were told to replicate its tables.
///
/// # Errors
/// Why it could not be finished.
pub(super) fn finish_earlier(masters: &Masters, reach: &Reach, origin: &str) -> anyhow::Result<()> {
    if let Some((node, load, script)) = half_done(masters)? {
        output::say(&format!(
            "{node}: finishing load {load}, which {} has already",
            node.peer()
        ));
        let exchange = Exchange {
            masters,
            load,
            scripts: &[(node, script)],
            origin,
            settle: &|| Ok(()),
            check: &|| Ok(()),
        };
        exchange.run().map_err(|failed| failed.error)?;
    }
    match masters.nodes.len() == 2 && setup::lacks_tables(reach)? == Some(true) {
        true => take_tables(reach),
        false => Ok(()),
    }
}

/// Lets the masters replicate the exchanged tables.
///
/// # Errors
/// When a master cannot be asked.
pub(super) fn take_tables(reach: &Reach) -> anyhow::Result<()> {
    setup::take_tables(reach)
        .context("the rows are loaded, but the masters do not replicate them yet; run `imdb-ha replication setup`")
}
