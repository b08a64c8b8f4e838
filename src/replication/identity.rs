//! The records by which the masters are told from other servers: looked at before anything is changed, and written down.

use super::plan::{NeedsRejoin, literal};
use super::reach::Reach;
use crate::cluster::NodeId;
use crate::cluster::identity::{Pair, Record, Said, judge_pair};
use crate::config::Config;
use crate::limits;
use crate::pg::identity;
use anyhow::{Context, anyhow, bail};

/// What both masters say of themselves.
pub(super) fn ask(reach: &Reach, node: NodeId) -> anyhow::Result<Said> {
    reach.run_within(limits::REJOIN_ASK, node, "ask who it is", |session| {
        identity::ask(session.client())
    })
}

/// Sees that a set-up may touch these two servers, and returns what they are.
///
/// # Errors
/// Why it may not; [`NeedsRejoin`] when one of them is in the place of one that was lost.
pub(super) fn may_join(reach: &Reach, config: &Config) -> anyhow::Result<Found> {
    let said = [ask(reach, NodeId::Master1)?, ask(reach, NodeId::Master2)?];
    let found = Found::new(said, reach, config)?;
    match found.pair {
        Pair::Replaced(node) => Err(NeedsRejoin {
            masters: vec![(node, lost(node))],
        }
        .into()),
        _ => Ok(found),
    }
}

fn lost(node: NodeId) -> String {
    format!(
        "{node} has lost its data: another server is in its place, which knows nothing of {}",
        node.peer()
    )
}

/// The masters, as they were found.
pub(super) struct Found {
    said: [Said; 2],
    pair: Pair,
    cluster: String,
}

impl Found {
    /// Judges what was found; see [`judge_pair`]. From then on this process goes by the cluster's id, which is drawn if there is none.
    pub(super) fn new(said: [Said; 2], reach: &Reach, config: &Config) -> anyhow::Result<Found> {
        let known = config.roster.cluster();
        let pair = judge_pair(&said, known.as_deref());
        let pair = pair.map_err(|why| anyhow!("{why}; nothing was changed"))?;
        let mut found = Found {
            said,
            pair,
            cluster: String::new(),
        };
        let newest = found.newest().map(|record| record.cluster.clone());
        found.cluster = match known.or(newest) {
            Some(cluster) => cluster,
            None => draw(reach, found.first())?,
        };
        config.roster.name(&found.cluster);
        Ok(found)
    }

    fn newest(&self) -> Option<&Record> {
        let records = self.said.iter().filter_map(|said| said.record.as_ref());
        records.max_by_key(|record| record.written)
    }

    /// Whether this one is another server than the one that was joined.
    pub(super) fn is_replaced(&self, node: NodeId) -> bool {
        self.pair == Pair::Replaced(node)
    }

    /// Who gets a new record first: a master that has one.
    pub(super) fn first(&self) -> NodeId {
        let has_record = |node: &NodeId| self.said[node.index()].record.is_some();
        NodeId::BOTH
            .into_iter()
            .find(has_record)
            .unwrap_or(NodeId::Master1)
    }

    /// Writes down on both masters which servers they are, unless a set-up finds that there already; says what it did.
    pub(super) fn write_down_once(
        &self,
        reach: &Reach,
        config: &Config,
    ) -> anyhow::Result<Option<String>> {
        if let Pair::Joined(record) = &self.pair {
            config.roster.adopt(record);
            return Ok(None);
        }
        self.write_down(reach, config, self.first()).map(Some)
    }

    /// Writes down on both masters which servers they are now. `first` gets it before the other: whoever reads in between finds the newer
    /// record there, and by it knows the other one.
    pub(super) fn write_down(
        &self,
        reach: &Reach,
        config: &Config,
        first: NodeId,
    ) -> anyhow::Result<String> {
        let now = jiff::Timestamp::now().as_millisecond().max(0) as u64;
        let record = Record {
            cluster: self.cluster.clone(),
            node: 0,
            systems: [self.said[0].system, self.said[1].system],
            // Whatever the clocks say.
            written: now.max(self.newest().map_or(0, |record| record.written + 1)),
        };
        for node in [first, first.peer()] {
            write(reach, node, &record.of(node))?;
        }
        config.roster.adopt(&record);
        let [first, second] = record.systems;
        let cluster = &record.cluster;
        Ok(format!(
            "cluster {cluster}: master1 is server {first}, master2 is server {second}"
        ))
    }
}

/// Sees that a server is none of another cluster, for whoever takes it out of service whatever else it is.
pub(super) fn is_not_foreign(reach: &Reach, config: &Config, node: NodeId) -> anyhow::Result<()> {
    let record = ask(reach, node)?.record;
    match (record, config.roster.cluster()) {
        (Some(record), Some(known)) if record.cluster != known => bail!(
            "{node}: another server answers: it belongs to cluster {}, and this is cluster {known}; nothing was changed there",
            record.cluster
        ),
        _ => Ok(()),
    }
}

/// A new id, as random as PostgreSQL's.
fn draw(reach: &Reach, node: NodeId) -> anyhow::Result<String> {
    reach.run(node, "draw the cluster's id", |session| {
        let row = session
            .client()
            .query_one("SELECT pg_catalog.gen_random_uuid()::text", &[])?;
        row.try_get(0)
    })
}

/// The statement that writes a record down.
pub(crate) fn statement(record: &Record) -> String {
    format!(
        "COMMENT ON FUNCTION imdb_ha.este_nodo() IS {}",
        literal(&record.as_text())
    )
}

fn write(reach: &Reach, node: NodeId, record: &Record) -> anyhow::Result<()> {
    let text = statement(record);
    let written = reach.run(node, "write down which master it is", move |session| {
        session.client().batch_execute(&text)
    });
    written.context("the masters are known only when both have it; run it again")
}
