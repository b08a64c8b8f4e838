//! The room of the slots. A load's changes are not sent to the peer, and still its slot holds on to the WAL of each transaction from the
//! beginning of that until its end. A load of millions of rows would write more than a master may keep (`max_slot_wal_keep_size`),
//! the slot would be lost at the next checkpoint, and the peer would have to be rebuilt. So no transaction of a load is big, and
//! none begins before there is room for it.

use super::masters::Masters;
use crate::cluster::NodeId;
use crate::limits;
use postgres::{Client, Error};
use std::time::{Duration, Instant};

const ROOM: &str = include_str!("../../../sql/load_room.sql");

/// Writes down which transactions run, which is what lets a slot go on. A server does so by itself every 15 s, in which time a load can
/// write more than there is room for.
const LET_GO: &str = "SELECT pg_catalog.pg_log_standby_snapshot()";

/// Bytes of rows after which a COPY is committed and begun again, so that several in a row are well within what each master may keep.
///
/// # Errors
/// When a master cannot be asked.
pub fn batch_bytes(masters: &Masters) -> anyhow::Result<usize> {
    let mut batch = limits::LOAD_COMMIT_BYTES;
    for node in &masters.nodes {
        let node = *node;
        let kept = masters.run(node, "ask how much WAL it may keep", move |session| {
            let row = session.client().query_opt(ROOM, &[&node.slot()])?;
            row.map(|row| row.try_get::<_, i64>(1)).transpose()
        })?;
        if let Some(kept) = kept {
            batch = batch.min((kept / limits::LOAD_BATCHES_IN_ROOM).max(1) as usize);
        }
    }
    Ok(batch)
}

/// Waits until the slot of the peer of `node` has half of its room, before something big begins there.
///
/// # Errors
/// Of what it returns: that there is no room, with the reason.
pub fn wait(
    client: &mut Client,
    node: NodeId,
    patience: Duration,
) -> Result<Result<(), String>, Error> {
    let deadline = Instant::now() + patience;
    loop {
        client.batch_execute(LET_GO)?;
        let Some(row) = client.query_opt(ROOM, &[&node.slot()])? else {
            return Ok(Ok(()));
        };
        let (left, kept): (Option<i64>, i64) = (row.try_get(0)?, row.try_get(1)?);
        // A slot that is lost has none left.
        let left = left.unwrap_or(0);
        if left >= kept / 2 {
            return Ok(Ok(()));
        }
        if Instant::now() >= deadline {
            return Ok(Err(format!(
                "{} has read so little of the WAL of {node} that slot {} has {left} of {kept} bytes left after {} s; \
                 more may be kept by max_slot_wal_keep_size",
                node.peer(),
                node.slot(),
                patience.as_secs()
            )));
        }
        std::thread::sleep(limits::LOAD_ROOM_PAUSE);
    }
}
