//! What a load has left that died in the middle of its exchange, and being the only one that mends it.

use super::exchange::Exchange;
use super::masters::Masters;
use super::stage;
use crate::cluster::NodeId;
use crate::limits;
use crate::output;
use crate::replication::setup::{self, Reach, begin};
use anyhow::{Context, bail};
use std::time::Instant;

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

/// Finishes a load that died between the two masters.
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
        take_tables(reach)?;
    }
    Ok(())
}

/// Lets the masters replicate the exchanged tables.
///
/// # Errors
/// When a master cannot be asked.
pub(super) fn take_tables(reach: &Reach) -> anyhow::Result<()> {
    setup::take_tables(reach)
        .context("the rows are loaded, but the masters do not replicate them yet; run `imdb-ha replication setup`")
}
