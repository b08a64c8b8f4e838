//! What one master knows of the replication, read by the probes and by `replication status`.

use crate::cluster::{Facts, Link, NodeId, WaitsFor};
use crate::limits;
use postgres::Client;
use serde::Serialize;

/// The replication as one master sees it: the way out to its peer, and the way in from it.
/// Positions are WAL positions in bytes, of this master unless said otherwise.
#[derive(Clone, Debug, Serialize)]
pub struct NodeReplication {
    /// End of the WAL that is safely on disk.
    pub wal_lsn: u64,
    pub publication: bool,
    pub out: WayOut,
    #[serde(rename = "in")]
    pub way_in: WayIn,
    /// Conflicts in its log, which keeps the newest 10,000; none without a log.
    pub conflicts: Option<i64>,
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
    pub link: Link,
    /// How long the apply worker has been running.
    pub worker_age_ms: Option<u64>,
    /// Its number, by which the server's log names it.
    #[serde(skip)]
    pub subid: Option<i64>,
    /// Why the apply worker keeps stopping, and what to do; see `apply.rs`.
    pub stopped: Option<String>,
    /// How far the peer's WAL has been received, as a position of the peer.
    pub received_lsn: Option<u64>,
    /// How long ago the peer was last heard.
    pub heard_ms_ago: Option<u64>,
    /// Errors that stopped the apply worker since the statistics were reset.
    pub apply_errors: u64,
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
    let position = |name: &str| -> Result<Option<u64>, postgres::Error> {
        Ok(row
            .try_get::<_, Option<i64>>(name)?
            .map(|value| value.max(0) as u64))
    };
    let names: String = row.try_get("standby_names")?;
    let waits_for = match names.as_str() {
        "" => WaitsFor::Nobody,
        names if names == standby_names(node) => WaitsFor::Peer,
        _ => WaitsFor::Other,
    };
    let wal_lsn = position("wal_lsn")?.unwrap_or(0);
    let confirmed_lsn = position("slot_confirmed_lsn")?;
    let lag_bytes = confirmed_lsn.map(|confirmed| wal_lsn.saturating_sub(confirmed));
    // Asked by itself, since a query that names the table fails where it is missing; and a figure that
    // cannot be read is no reason to think the master dead.
    let conflicts = match row.try_get("conflict_log")? {
        true => count_conflicts(client).ok(),
        false => None,
    };
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
    Ok(NodeReplication {
        wal_lsn,
        publication: row.try_get("publication")?,
        out: WayOut {
            of: node,
            slot: node.slot(),
            exists: row.try_get("slot")?,
            active: row.try_get("slot_active")?,
            wal_status: row.try_get("slot_wal_status")?,
            restart_lsn: position("slot_restart_lsn")?,
            confirmed_lsn,
            state,
            sync_state: row.try_get("sender_sync_state")?,
            lag_bytes,
            lag_ms,
            waits_for,
            longest_wait_ms: position("longest_wait_ms")?,
        },
        way_in: WayIn {
            subscription: node.subscription(),
            exists: row.try_get("subscription")?,
            enabled: row.try_get("subscription_enabled")?,
            applying: row.try_get("applying")?,
            link: match (row.try_get("subscription")?, row.try_get("copying")?) {
                (false, _) => Link::Missing,
                (true, true) => Link::Copying,
                (true, false) => Link::Ready,
            },
            worker_age_ms: position("worker_age_ms")?,
            subid: row.try_get("subid")?,
            stopped: None,
            received_lsn: position("received_lsn")?,
            heard_ms_ago: position("heard_ms_ago")?,
            apply_errors: position("apply_errors")?.unwrap_or(0),
        },
        conflicts,
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
            link: Link::Ready,
            worker_age_ms: None,
            subid: Some(subid),
            stopped: None,
            received_lsn: None,
            heard_ms_ago: None,
            apply_errors: 0,
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
        self.way_in.stopped.iter().cloned().collect()
    }

    /// The part on which the cluster's decisions rest.
    pub fn facts(&self) -> Facts {
        Facts {
            wal_lsn: self.wal_lsn,
            peer_confirmed_lsn: self.out.confirmed_lsn,
            peer_streaming: self.streaming(),
            peer_lag_ms: self.out.lag_ms,
            applying: self.way_in.applying,
            link: self.way_in.link,
            waits_for: self.out.waits_for,
            peer_synchronous: self.out.sync_state.as_deref() == Some("sync"),
            longest_wait_ms: self.out.longest_wait_ms,
        }
    }

    /// Whether this master's changes are on their way to its peer right now.
    pub fn streaming(&self) -> bool {
        self.out.active && self.out.state.as_deref() == Some("streaming")
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
            troubles.push(format!(
                "slot {} is lost: its peer must be rebuilt",
                out.slot
            ));
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
