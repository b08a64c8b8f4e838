//! Waits until everything that can be seen on each master has been applied on the other.

use super::reach::Masters;
use crate::cluster::NodeId;
use crate::limits;
use crate::replication::status;
use std::time::Instant;

/// Where each master's WAL ends. The end of what is written, not of what is on disk: a commit that
/// does not wait for the disk can be seen before it is there.
const POSITION: &str = "SELECT (pg_catalog.pg_current_wal_insert_lsn() - '0/0')::bigint";

const CONFIRMED: &str = "SELECT (confirmed_flush_lsn - '0/0')::bigint, active \
     FROM pg_catalog.pg_replication_slots WHERE slot_name = $1";

/// Nobody decodes it, but it moves the position past anything that a link has nothing to send for.
const NUDGE: &str = "SELECT pg_catalog.pg_logical_emit_message(true, 'imdb-ha', '')";

/// Passes both directions. `Err` inside says which one does not stream.
///
/// # Errors
/// When a master cannot be asked.
pub(super) fn pass(masters: &Masters) -> anyhow::Result<Result<(), String>> {
    let [first, second] = masters.both("read the end of the WAL", |_| {
        |session| session.query(POSITION, &[])?[0].try_get::<_, i64>(0)
    })?;
    let began = Instant::now();
    let mut waiting = vec![(NodeId::Master1, first), (NodeId::Master2, second)];
    let mut nudged = began;
    loop {
        let mut broken = false;
        let mut left = Vec::new();
        for (node, target) in waiting {
            let (confirmed, active) = confirmed(masters, node)?;
            if confirmed < target {
                broken |= !active;
                left.push((node, target));
            }
        }
        if left.is_empty() {
            return Ok(Ok(()));
        }
        let patience = match broken {
            true => limits::BARRIER_BROKEN,
            false => limits::BARRIER,
        };
        if began.elapsed() > patience {
            let stuck: Vec<NodeId> = left.iter().map(|(node, _)| *node).collect();
            return Ok(Err(why(masters, &stuck)?));
        }
        if nudged.elapsed() > limits::BARRIER_NUDGE {
            nudged = Instant::now();
            for (node, _) in &left {
                masters.run(*node, "send a message down the link", |session| {
                    session.query(NUDGE, &[]).map(drop)
                })?;
            }
        }
        waiting = left;
        std::thread::sleep(limits::BARRIER_POLL);
    }
}

/// What is wrong with the links, as both masters see it; empty when both stream.
///
/// # Errors
/// When a master cannot be asked.
pub(super) fn troubles(masters: &Masters) -> anyhow::Result<Vec<String>> {
    let seen = masters.both("read the replication status", |node| {
        move |session: &mut crate::pg::Session| status::read(session.client(), node)
    })?;
    let told = NodeId::BOTH.into_iter().zip(seen).flat_map(|(node, seen)| {
        let of_node = seen.troubles().into_iter();
        of_node.map(move |trouble| format!("{node}: {trouble}"))
    });
    Ok(told.collect())
}

/// Up to where the peer has applied what `node` sends; nothing counts as applied without a slot.
fn confirmed(masters: &Masters, node: NodeId) -> anyhow::Result<(i64, bool)> {
    masters.run(node, "read how far its peer is", move |session| {
        let rows = session.query(CONFIRMED, &[&node.slot()])?;
        let Some(row) = rows.first() else {
            return Ok((-1, false));
        };
        let confirmed: Option<i64> = row.try_get(0)?;
        Ok((confirmed.unwrap_or(-1), row.try_get(1)?))
    })
}

fn why(masters: &Masters, stuck: &[NodeId]) -> anyhow::Result<String> {
    let troubles = troubles(masters)?;
    if !troubles.is_empty() {
        return Ok(troubles.join("; "));
    }
    let behind: Vec<String> = stuck
        .iter()
        .map(|node| format!("{} is behind {node}", node.peer()))
        .collect();
    Ok(behind.join("; "))
}
