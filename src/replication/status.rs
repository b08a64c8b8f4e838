//! What one master knows of the replication, read by the probes and by `replication status`.

use crate::cluster::identity::Said;
use crate::cluster::{Facts, Leader, Link, Mandate, NodeId, WaitsFor};
use crate::limits;
use crate::pg::identity;
use postgres::{Client, Row};
use serde::Serialize;

/// The replication as one master sees it: the way out to its peer, and the way in from it.
/// Positions are WAL positions in bytes, of this master unless said otherwise.
#[derive(Clone, Debug, Serialize)]
pub struct NodeReplication {
    /// Which server it is.
    #[serde(skip)]
    pub said: Said,
    /// End of the WAL that is safely on disk.
    pub wal_lsn: u64,
    pub publication: bool,
    pub out: WayOut,
    #[serde(rename = "in")]
    pub way_in: WayIn,
    /// What it remembers of both masters, by which an older copy of one is known.
    #[serde(skip)]
    pub memory: Memory,
    /// Conflicts in its log, which keeps the newest 10,000; none without a log.
    pub conflicts: Option<i64>,
    /// Which process decides, as it was told; none before anybody has.
    pub mandate: Option<Mandate>,
}

/// What a master remembers of both. Nothing is known of one that an earlier version has set up.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// How far it has applied its peer's WAL, as a position of the peer.
    pub applied_lsn: Option<u64>,
    /// How often it has begun to serve.
    pub starts: Option<u64>,
    /// How often its peer has, as far as it was told.
    pub peer_starts: Option<u64>,
}

/// The slot on this master, and the walsender that reads from it for the peer.
#[derive(Clone, Debug, Serialize)]
pub struct WayOut {
    #[serde(skip)]
    pub of: NodeId,
    pub slot: &'static str,
    pub exists: bool,
    pub active: bool,
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: Option<String>,
    pub restart_lsn: Option<u64>,
    /// WAL that is kept for the peer, from the oldest piece that it may still ask for.
    pub kept_bytes: Option<u64>,
    /// WAL that may be written before the slot is lost, if nobody reads from it; nothing without a bound.
    pub safe_bytes: Option<u64>,
    /// The bound on what is kept, `max_slot_wal_keep_size`; nothing when there is none.
    pub keep_max_bytes: Option<u64>,
    pub confirmed_lsn: Option<u64>,
    /// `streaming` when all is well.
    pub state: Option<String>,
    pub sync_state: Option<String>,
    /// WAL that the peer has not confirmed yet.
    pub lag_bytes: Option<u64>,
    /// Time from a change here to its confirmation by the peer; 0 when there is nothing to confirm.
    pub lag_ms: Option<u64>,
    /// Whose confirmation commits here wait for.
    pub waits_for: WaitsFor,
    /// Whether the checkpointer, which tells the commits so, is listening.
    #[serde(skip)]
    pub checkpointer_hears: bool,
    /// How long the one that has waited longest has waited.
    pub longest_wait_ms: Option<u64>,
}

/// The subscription on this master, and its apply worker.
#[derive(Clone, Debug, Serialize)]
pub struct WayIn {
    pub subscription: &'static str,
    pub exists: bool,
    pub enabled: bool,
    pub applying: bool,
    /// Whether the apply worker waits for the disk at each transaction (`synchronous_commit = local`).
    pub apply_strict: bool,
    pub link: Link,
    /// How long the apply worker has been running.
    pub worker_age_ms: Option<u64>,
    /// Its number, by which the server's log names it.
    #[serde(skip)]
    pub subid: Option<i64>,
    /// Why the apply worker keeps stopping, and what to do; see `apply.rs`.
    pub stopped: Option<String>,
    /// Who holds up the apply worker, and what to do; see `trial.rs`.
    pub blocked: Option<String>,
    /// How far the peer's WAL has been received, as a position of the peer.
    pub received_lsn: Option<u64>,
    /// How long ago the peer was last heard.
    pub heard_ms_ago: Option<u64>,
    /// Errors that stopped the apply worker since the statistics were reset.
    pub apply_errors: u64,
    /// A rejoin has begun to rebuild this master and has not ended.
    pub rejoining: bool,
}

/// The `synchronous_standby_names` with which the commits of `node` wait for its peer. PostgreSQL knows
/// the peer by the name of its subscription.
pub fn standby_names(node: NodeId) -> String {
    format!("FIRST 1 ({})", node.peer().subscription())
}

/// Reads the replication status of `node` over a connection to it.
///
/// # Errors
/// Those of the driver.
pub fn read(client: &mut Client, node: NodeId) -> Result<NodeReplication, postgres::Error> {
    let row = client.query_one(
        include_str!("../../sql/replication_status.sql"),
        &[&node.subscription(), &node.slot()],
    )?;
    // Asked by itself, since a query that names the table fails where it is missing; and a figure that
    // cannot be read is no reason to think the master dead.
    let conflicts = match row.try_get("conflict_log")? {
        true => count_conflicts(client).ok(),
        false => None,
    };
    let mandate = match row.try_get("mandate_log")? {
        true => read_mandate(client).ok().flatten(),
        false => None,
    };
    let memory = match row.try_get("remembers")? {
        true => remember(client, node).unwrap_or_default(),
        false => Memory::default(),
    };
    let wal_lsn = position(&row, "wal_lsn")?.unwrap_or(0);
    Ok(NodeReplication {
        memory,
        said: identity::said(&row)?,
        wal_lsn,
        publication: row.try_get("publication")?,
        out: way_out(&row, node, wal_lsn)?,
        way_in: way_in(&row, node)?,
        conflicts,
        mandate,
    })
}

/// Which process decides, as this master knows it.
fn read_mandate(client: &mut Client) -> Result<Option<Mandate>, postgres::Error> {
    let silence = limits::SEAT_SILENCE_MS as i64;
    let row = client.query_opt(include_str!("../../sql/mandate_seen.sql"), &[&silence])?;
    let Some(row) = row else { return Ok(None) };
    let active: Option<String> = row.try_get("activo")?;
    Ok(Some(Mandate {
        term: position(&row, "termino")?.unwrap_or(0),
        holder: row.try_get("titular")?,
        leader: Leader {
            address: row.try_get("direccion")?,
            active: NodeId::BOTH
                .into_iter()
                .find(|node| active.as_deref() == Some(node.name())),
            paused_for_ms: position(&row, "pausa_ms")?,
        },
        lives: row.try_get("vive")?,
    }))
}

/// Reads what a master remembers.
///
/// # Errors
/// Those of the driver.
pub fn remember(client: &mut Client, node: NodeId) -> Result<Memory, postgres::Error> {
    let sql = "SELECT aplicado, propios, del_otro FROM imdb_ha.memoria($1)";
    let row = client.query_one(sql, &[&node.subscription()])?;
    Ok(Memory {
        applied_lsn: position(&row, "aplicado")?,
        starts: position(&row, "propios")?,
        peer_starts: position(&row, "del_otro")?,
    })
}

fn position(row: &Row, name: &str) -> Result<Option<u64>, postgres::Error> {
    let value: Option<i64> = row.try_get(name)?;
    Ok(value.map(|value| value.max(0) as u64))
}

fn way_out(row: &Row, node: NodeId, wal_lsn: u64) -> Result<WayOut, postgres::Error> {
    let position = |name: &str| position(row, name);
    let names: String = row.try_get("standby_names")?;
    let waits_for = match names.as_str() {
        "" => WaitsFor::Nobody,
        names if names == standby_names(node) => WaitsFor::Peer,
        _ => WaitsFor::Other,
    };
    let confirmed_lsn = position("slot_confirmed_lsn")?;
    let lag_bytes = confirmed_lsn.map(|confirmed| wal_lsn.saturating_sub(confirmed));
    let restart_lsn = position("slot_restart_lsn")?;
    let state: Option<String> = row.try_get("sender_state")?;
    let lag_ms = match (
        position("sender_replay_lag_ms")?,
        state.as_deref(),
        lag_bytes,
    ) {
        (Some(lag_ms), ..) => Some(lag_ms),
        // PostgreSQL forgets the figure when both sides are idle.
        (None, Some("streaming"), Some(0)) => Some(0),
        _ => None,
    };
    Ok(WayOut {
        of: node,
        slot: node.slot(),
        exists: row.try_get("slot")?,
        active: row.try_get("slot_active")?,
        wal_status: row.try_get("slot_wal_status")?,
        restart_lsn,
        kept_bytes: restart_lsn.map(|restart| wal_lsn.saturating_sub(restart)),
        safe_bytes: position("slot_safe_bytes")?,
        // A negative setting is no bound, and none at all is no alarm either.
        keep_max_bytes: position("slot_keep_bytes")?.filter(|bytes| *bytes > 0),
        confirmed_lsn,
        state,
        sync_state: row.try_get("sender_sync_state")?,
        lag_bytes,
        lag_ms,
        waits_for,
        checkpointer_hears: row.try_get("checkpointer_hears")?,
        longest_wait_ms: position("longest_wait_ms")?,
    })
}

fn way_in(row: &Row, node: NodeId) -> Result<WayIn, postgres::Error> {
    let rejoining = row.try_get("rejoining")?;
    Ok(WayIn {
        subscription: node.subscription(),
        exists: row.try_get("subscription")?,
        enabled: row.try_get("subscription_enabled")?,
        applying: row.try_get("applying")?,
        apply_strict: row.try_get("apply_strict")?,
        link: match (row.try_get("subscription")?, row.try_get("copying")?) {
            // It has been cleared, or is about to be: it has less to serve than one that was never joined.
            (false, _) if rejoining => Link::Copying,
            (false, _) => Link::Missing,
            (true, true) => Link::Copying,
            (true, false) => Link::Ready,
        },
        worker_age_ms: position(row, "worker_age_ms")?,
        subid: row.try_get("subid")?,
        stopped: None,
        blocked: None,
        received_lsn: position(row, "received_lsn")?,
        heard_ms_ago: position(row, "heard_ms_ago")?,
        apply_errors: position(row, "apply_errors")?.unwrap_or(0),
        rejoining,
    })
}

impl WayIn {
    /// Whether the apply worker runs and has gone on running. Its age is hidden from a role that may not
    /// see the sessions of others; then it is taken for settled.
    pub fn settled(&self) -> bool {
        let settled_ms = limits::APPLY_SETTLED.as_millis() as u64;
        self.applying && self.worker_age_ms.is_none_or(|age_ms| age_ms >= settled_ms)
    }

    /// One that is enabled and whose worker does not run.
    #[cfg(test)]
    pub fn of(node: NodeId, subid: i64) -> WayIn {
        WayIn {
            subscription: node.subscription(),
            exists: true,
            enabled: true,
            applying: false,
            apply_strict: true,
            link: Link::Ready,
            worker_age_ms: None,
            subid: Some(subid),
            stopped: None,
            blocked: None,
            received_lsn: None,
            heard_ms_ago: None,
            apply_errors: 0,
            rejoining: false,
        }
    }
}

fn count_conflicts(client: &mut Client) -> Result<i64, postgres::Error> {
    let count = client.query_one("SELECT count(*) FROM imdb_ha.conflictos", &[])?;
    count.try_get(0)
}

impl NodeReplication {
    /// What a person has to look at, in words.
    pub fn alarms(&self) -> Vec<String> {
        let WayIn {
            stopped, blocked, ..
        } = &self.way_in;
        let of_apply = stopped.iter().chain(blocked).cloned();
        let ahead = self.slot_ahead().into_iter();
        of_apply.chain(self.slot_alarm()).chain(ahead).collect()
    }

    /// The part on which the cluster's decisions rest.
    pub fn facts(&self) -> Facts {
        Facts {
            wal_lsn: self.wal_lsn,
            peer_confirmed_lsn: self.out.confirmed_lsn,
            peer_streaming: self.streaming(),
            peer_lag_ms: self.out.lag_ms,
            applying: self.way_in.applying,
            apply_strict: self.way_in.apply_strict,
            link: self.way_in.link,
            waits_for: self.out.waits_for,
            peer_synchronous: self.out.sync_state.as_deref() == Some("sync"),
            checkpointer_hears: self.out.checkpointer_hears,
            longest_wait_ms: self.out.longest_wait_ms,
            applied_lsn: self.memory.applied_lsn,
            starts: self.memory.starts,
            peer_starts: self.memory.peer_starts,
            written: self.said.record.as_ref().map_or(0, |record| record.written),
        }
    }

    /// Whether this master's changes are on their way to its peer right now.
    pub fn streaming(&self) -> bool {
        self.out.active && self.out.state.as_deref() == Some("streaming")
    }

    /// What to do before, or because, the peer cannot catch up any more. The words stay the same while
    /// nothing changes, so that they are logged once; the figures are beside them.
    pub fn slot_alarm(&self) -> Option<String> {
        let (out, peer) = (&self.out, self.out.of.peer());
        let slot = out.slot;
        let scarce = out
            .safe_bytes
            .zip(out.keep_max_bytes)
            .is_some_and(|(safe, max)| safe < max / 100 * limits::SLOT_ALARM_PERCENT);
        match out.wal_status.as_deref() {
            Some("lost") => Some(self.lost()),
            Some("unreserved") => Some(format!(
                "slot {slot} keeps more than max_slot_wal_keep_size allows and is lost at the next checkpoint \
                 unless {peer} reads on; once it is lost, run `imdb-ha rejoin {peer}`"
            )),
            _ if scarce => Some(format!(
                "less than {} % of the {} MB that slot {slot} may keep for {peer} are left; past that {peer} \
                 cannot catch up and must be rebuilt with `imdb-ha rejoin {peer}`",
                limits::SLOT_ALARM_PERCENT,
                out.keep_max_bytes.unwrap_or(0) / (1024 * 1024)
            )),
            _ => None,
        }
    }

    /// A slot can only confirm what was written. One that is beyond the end of the WAL was moved by somebody who reads another server's, or is of
    /// a time that this server has lost.
    fn slot_ahead(&self) -> Option<String> {
        let (out, peer) = (&self.out, self.out.of.peer());
        let ahead = out.confirmed_lsn? > self.wal_lsn;
        ahead.then(|| {
            format!(
                "slot {} has confirmed more than this server has written, so changes are not sent to {peer}: another server has read from it, \
                 or this one has lost its newest WAL; compare the masters and run `imdb-ha rejoin` for the one that is behind",
                out.slot
            )
        })
    }

    fn lost(&self) -> String {
        let (slot, peer) = (self.out.slot, self.out.of.peer());
        format!("slot {slot} is lost, so {peer} cannot catch up: run `imdb-ha rejoin {peer}`")
    }

    /// What is wrong on this master, in words; empty when both ways work.
    pub fn troubles(&self) -> Vec<String> {
        let mut troubles = Vec::new();
        let (out, way_in) = (&self.out, &self.way_in);
        if !self.publication {
            troubles.push("it has no publication pub_imdb".to_string());
        }
        if !out.exists {
            troubles.push(format!("it has no slot {}", out.slot));
        } else if out.wal_status.as_deref() == Some("lost") {
            troubles.push(self.lost());
        } else if !self.streaming() {
            troubles.push(format!("nobody is streaming from slot {}", out.slot));
        }
        if !way_in.exists {
            troubles.push(format!("it has no subscription {}", way_in.subscription));
        } else if !way_in.enabled {
            troubles.push(format!("subscription {} is disabled", way_in.subscription));
        } else if let Some(stopped) = &way_in.stopped {
            troubles.push(stopped.clone());
        } else if !way_in.applying {
            troubles.push(format!(
                "the apply worker of {} is not running",
                way_in.subscription
            ));
        }
        troubles
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1024 * 1024;

    fn seen(
        wal_status: &str,
        safe_bytes: Option<u64>,
        keep_max_bytes: Option<u64>,
    ) -> NodeReplication {
        NodeReplication {
            said: Said {
                system: 1,
                started: 1,
                database: String::new(),
                record: None,
            },
            memory: Memory::default(),
            conflicts: None,
            mandate: None,
            wal_lsn: 0,
            publication: true,
            out: WayOut {
                of: NodeId::Master1,
                slot: "slot_1_to_2",
                exists: true,
                active: false,
                wal_status: Some(wal_status.to_string()),
                restart_lsn: None,
                kept_bytes: None,
                safe_bytes,
                keep_max_bytes,
                confirmed_lsn: None,
                state: None,
                sync_state: None,
                lag_bytes: None,
                lag_ms: None,
                waits_for: WaitsFor::Nobody,
                checkpointer_hears: true,
                longest_wait_ms: None,
            },
            way_in: WayIn::of(NodeId::Master1, 1),
        }
    }

    #[test]
    fn a_slot_that_nears_its_bound_is_an_alarm() {
        let alarms = |status, safe, max| seen(status, safe, max).alarms();
        assert!(alarms("reserved", Some(4096 * MB), Some(4096 * MB)).is_empty());
        assert!(alarms("extended", Some(1024 * MB), Some(4096 * MB)).is_empty());
        let scarce = alarms("extended", Some(1023 * MB), Some(4096 * MB));
        assert!(scarce[0].contains("25 % of the 4096 MB"), "{scarce:?}");
        // Without a bound nothing is lost.
        assert!(alarms("extended", None, None).is_empty());
    }

    #[test]
    fn a_slot_that_is_lost_names_the_cure() {
        for status in ["unreserved", "lost"] {
            let alarms = seen(status, Some(0), Some(64 * MB)).alarms();
            assert_eq!(alarms.len(), 1);
            assert!(alarms[0].contains("`imdb-ha rejoin master2`"), "{alarms:?}");
        }
        assert!(seen("lost", None, None).troubles()[0].contains("rejoin master2"));
    }
}
