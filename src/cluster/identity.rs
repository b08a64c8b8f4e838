//! Which server is which: decided purely, from what a server says of itself. An address and a password prove nothing, since every
//! cluster of this program has the same ones by default; a server's `system_identifier` and the record that the set-up has left on it do.

use super::NodeId;
use serde::{Deserialize, Serialize};

/// What the set-up writes down on each master: which cluster it belongs to, which master of it this is, and which servers the two are.
/// Both masters get the same record but for the number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub cluster: String,
    /// 1 or 2.
    pub node: i16,
    /// The `system_identifier` of master1's server and of master2's.
    pub systems: [u64; 2],
    /// When it was written, in ms since 1970. Of two records of one cluster the later one holds.
    pub written: u64,
}

impl Record {
    /// How it is kept on a master.
    pub fn as_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads it back; nothing when it is something else.
    pub fn parse(text: &str) -> Option<Record> {
        serde_json::from_str(text).ok()
    }

    /// The same for another master.
    pub fn of(&self, node: NodeId) -> Record {
        let node = node.number();
        Record {
            node,
            ..self.clone()
        }
    }
}

/// What a server says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Its `system_identifier`.
    pub system: u64,
    /// When it was started, in µs since 1970, and the database: by them two addresses are known to lead to one place.
    pub started: i64,
    pub database: String,
    pub record: Option<Record>,
}

impl Said {
    /// Its record, unless that was copied there from another server, as by a dump.
    fn own_record(&self, node: NodeId) -> Option<&Record> {
        let of_this = |record: &&Record| record.systems[node.index()] == self.system;
        self.record.as_ref().filter(of_this)
    }

    fn is_same_place(&self, other: &Said) -> bool {
        (self.system, self.started, &self.database)
            == (other.system, other.started, &other.database)
    }
}

/// What came of looking at a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the master that it should be, or nothing is known by which it could be told.
    Ours,
    /// It is another one, and why that is known.
    Stranger(String),
    /// Nothing is known yet, and the other master has not been asked: what that says decides.
    AskOther,
}

/// What is known of the masters of this cluster.
#[derive(Clone, Debug, Default)]
pub struct Known {
    cluster: Option<String>,
    systems: Option<[u64; 2]>,
    written: u64,
    /// What answered last at the address of each master.
    heard: [Option<Said>; 2],
    /// The two contradicted each other before anything was known. From then on neither is believed alone, since the wrong one may stay.
    disputed: bool,
}

const SAME: &str = "MASTER1_URL and MASTER2_URL lead to the same server";

impl Known {
    /// What is known before anybody was asked: the cluster, if that is configured.
    pub fn new(cluster: Option<String>) -> Known {
        Known {
            cluster,
            ..Known::default()
        }
    }

    /// The cluster's id, once it is known.
    pub fn cluster(&self) -> Option<&str> {
        self.cluster.as_deref()
    }

    /// Takes over which cluster this is.
    pub fn name(&mut self, cluster: &str) {
        self.cluster = Some(cluster.to_string());
    }

    /// What is known, as a record, if it is enough for one.
    pub fn record(&self) -> Option<Record> {
        Some(Record {
            cluster: self.cluster.clone()?,
            node: 0,
            systems: self.systems?,
            written: self.written,
        })
    }

    /// Takes over what has just been written down.
    pub fn adopt(&mut self, record: &Record) {
        self.cluster = Some(record.cluster.clone());
        self.systems = Some(record.systems);
        self.written = record.written;
        self.disputed = false;
    }

    /// Judges what answers at the address of `node`. `other_asked` says that its peer has been asked, whether it answered or not.
    pub fn judge(&mut self, node: NodeId, said: &Said, other_asked: bool) -> Verdict {
        self.heard[node.index()] = Some(said.clone());
        if self.cluster.is_none() {
            match self.learn(node, other_asked) {
                Verdict::Ours => {}
                other => return other,
            }
        }
        match self.mismatch(node, said) {
            Some(why) => Verdict::Stranger(why),
            None => {
                if let Some(record) = &said.record {
                    if record.written > self.written {
                        self.adopt(&record.clone());
                    }
                }
                Verdict::Ours
            }
        }
    }

    /// The other master did not answer, so nothing that it has said holds any more.
    pub fn forget(&mut self, node: NodeId) {
        self.heard[node.index()] = None;
    }

    /// Learns which cluster this is, from the masters themselves: by both when both bear a record, by one when the other bears none or does
    /// not answer.
    fn learn(&mut self, node: NodeId, other_asked: bool) -> Verdict {
        let record = |node: NodeId| {
            let said = self.heard[node.index()].as_ref();
            said.and_then(|said| said.record.as_ref())
        };
        let (own, other) = (record(node).cloned(), record(node.peer()).cloned());
        match (own, other) {
            (Some(own), Some(other)) if own.cluster != other.cluster => {
                self.disputed = true;
                Verdict::Stranger(contradiction(node, &own, &other))
            }
            (Some(own), Some(other)) => {
                self.adopt(if own.written >= other.written { &own } else { &other });
                Verdict::Ours
            }
            _ if !other_asked && self.heard[node.peer().index()].is_none() => Verdict::AskOther,
            (Some(_), None) | (None, Some(_)) if self.disputed => Verdict::Stranger(
                "the servers at MASTER1_URL and MASTER2_URL have said that they belong to different clusters, and only both together or \
                 CLUSTER_ID can tell which one this is"
                    .to_string(),
            ),
            (Some(one), None) | (None, Some(one)) => {
                self.adopt(&one);
                Verdict::Ours
            }
            // Set up by an earlier version, or not at all.
            (None, None) => Verdict::Ours,
        }
    }

    /// Why what answers at the address of `node` is not that master; nothing when it is.
    fn mismatch(&self, node: NodeId, said: &Said) -> Option<String> {
        let same = self.heard[node.peer().index()]
            .as_ref()
            .is_some_and(|other| other.is_same_place(said));
        let Some(cluster) = &self.cluster else {
            return same.then(|| SAME.to_string());
        };
        let index = node.index();
        let Some(record) = &said.record else {
            return match self.systems {
                Some(systems) if systems[index] == said.system => same.then(|| SAME.to_string()),
                Some(systems) => Some(format!(
                    "it was never joined to this cluster: it is server {} and {node} is server {}. If it is new and in the place of one \
                     that was lost, run `imdb-ha rejoin {node}`",
                    said.system, systems[index]
                )),
                None => Some(format!(
                    "it was never joined to cluster {cluster}; `imdb-ha replication setup` joins new masters, and `imdb-ha rejoin {node}` \
                     rebuilds one that has lost its data"
                )),
            };
        };
        if record.cluster != *cluster {
            return Some(format!(
                "it belongs to cluster {}, and this is cluster {cluster}",
                record.cluster
            ));
        }
        if record.node != node.number() {
            return Some(misplaced(node, same));
        }
        if record.systems[index] != said.system {
            return Some(format!(
                "its database was copied from server {}, and it is server {}; run `imdb-ha rejoin {node}` if it is to be {node}",
                record.systems[index], said.system
            ));
        }
        let replaced = self
            .systems
            .is_some_and(|systems| systems[index] != said.system);
        (replaced && record.written <= self.written).then(|| {
            format!("another server has taken its place since; run `imdb-ha rejoin {node}` if it is to be {node} again")
        })
    }
}

fn misplaced(node: NodeId, same: bool) -> String {
    match same {
        true => format!("it is {} itself: {SAME}", node.peer()),
        false => format!(
            "it is {} of this cluster: MASTER1_URL and MASTER2_URL are exchanged",
            node.peer()
        ),
    }
}

fn contradiction(node: NodeId, own: &Record, other: &Record) -> String {
    format!(
        "it belongs to cluster {} and {} to cluster {}; set CLUSTER_ID to the one that is meant. Neither is changed until that is known",
        own.cluster,
        node.peer(),
        other.cluster
    )
}

/// What a set-up finds before it changes anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pair {
    /// Both are what their records say.
    Joined(Record),
    /// They bear no record yet, or one of them has lost the chance to get it. The cluster's id, if there is one already.
    New(Option<String>),
    /// One of them is another server than the one that was joined.
    Replaced(NodeId),
}

/// Judges both masters for a set-up, which may join servers that bear no record, and for a rejoin.
///
/// # Errors
/// Why these two must not be touched.
pub fn judge_pair(said: &[Said; 2], configured: Option<&str>) -> Result<Pair, String> {
    if said[0].is_same_place(&said[1]) {
        return Err(SAME.to_string());
    }
    let mut cluster = configured;
    for node in NodeId::BOTH {
        let Some(record) = &said[node.index()].record else {
            continue;
        };
        match cluster {
            Some(cluster) if cluster != record.cluster && configured.is_some() => {
                return Err(format!(
                    "{node}: another server answers: it belongs to cluster {}, and this is cluster {cluster}",
                    record.cluster
                ));
            }
            Some(cluster) if cluster != record.cluster => {
                return Err(format!(
                    "another server answers at one of the two addresses: master1 belongs to cluster {cluster} and master2 to cluster {}",
                    record.cluster
                ));
            }
            _ => cluster = Some(&record.cluster),
        }
        if record.node != node.number() {
            return Err(format!(
                "{node}: another server answers: {}",
                misplaced(node, false)
            ));
        }
    }
    let own = NodeId::BOTH.map(|node| said[node.index()].own_record(node));
    let newest = own
        .into_iter()
        .flatten()
        .max_by_key(|record| record.written);
    let Some(newest) = newest else {
        return Ok(Pair::New(cluster.map(str::to_string)));
    };
    for node in NodeId::BOTH {
        if newest.systems[node.index()] != said[node.index()].system {
            return Ok(Pair::Replaced(node));
        }
    }
    let whole = own
        .iter()
        .all(|record| record.is_some_and(|record| record.written == newest.written));
    Ok(match whole {
        true => Pair::Joined(newest.clone()),
        // The set-up died between the two, or one of them has lost its schema.
        false => Pair::New(Some(newest.cluster.clone())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use NodeId::{Master1, Master2};

    fn record(cluster: &str, node: NodeId, systems: [u64; 2], written: u64) -> Option<Record> {
        let (cluster, node) = (cluster.to_string(), node.number());
        Some(Record {
            cluster,
            node,
            systems,
            written,
        })
    }

    fn said(system: u64, record: Option<Record>) -> Said {
        Said {
            system,
            started: system as i64,
            database: "imdb".to_string(),
            record,
        }
    }

    fn of(cluster: &str, node: NodeId, systems: [u64; 2]) -> Said {
        said(systems[node.index()], record(cluster, node, systems, 5))
    }

    fn why(verdict: Verdict) -> String {
        match verdict {
            Verdict::Stranger(why) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn two_that_agree_are_ours_and_a_third_is_not() {
        let mut known = Known::default();
        let (first, second) = (of("a", Master1, [1, 2]), of("a", Master2, [1, 2]));
        assert_eq!(known.judge(Master1, &first, false), Verdict::AskOther);
        assert_eq!(known.judge(Master2, &second, false), Verdict::Ours);
        assert_eq!(known.judge(Master1, &first, false), Verdict::Ours);
        let third = of("b", Master1, [7, 8]);
        assert!(why(known.judge(Master1, &third, true)).contains("cluster b"));
        // A server without any record, whoever it is.
        assert!(why(known.judge(Master1, &said(9, None), true)).contains("rejoin master1"));
        // Its own server without its schema is still that server.
        assert_eq!(known.judge(Master1, &said(1, None), true), Verdict::Ours);
        assert_eq!(known.cluster(), Some("a"));
    }

    #[test]
    fn two_that_contradict_each_other_are_both_left_alone_until_it_is_known_which_is_meant() {
        let (ours, other) = (of("a", Master2, [1, 2]), of("b", Master1, [7, 8]));
        for (first, second) in [(Master1, Master2), (Master2, Master1)] {
            let of = |node| if node == Master1 { &other } else { &ours };
            let mut known = Known::default();
            assert_eq!(known.judge(first, of(first), false), Verdict::AskOther);
            assert!(why(known.judge(second, of(second), true)).contains("CLUSTER_ID"));
            assert!(why(known.judge(first, of(first), true)).contains("CLUSTER_ID"));
            // The wrong one stays and the right one leaves: still nobody is believed.
            known.forget(Master2);
            assert!(why(known.judge(Master1, &other, true)).contains("CLUSTER_ID"));
            known.judge(Master2, &ours, true);
            let back = super::tests::of("a", Master1, [1, 2]);
            assert_eq!(known.judge(Master1, &back, true), Verdict::Ours);
        }
        let mut told = Known::new(Some("a".to_string()));
        assert_eq!(told.judge(Master2, &ours, false), Verdict::Ours);
        assert!(why(told.judge(Master1, &other, false)).contains("cluster b"));
    }

    #[test]
    fn exchanged_addresses_and_one_server_under_two_names_are_told_apart() {
        let mut known = Known::default();
        let (first, second) = (of("a", Master1, [1, 2]), of("a", Master2, [1, 2]));
        known.judge(Master1, &second, false);
        assert!(why(known.judge(Master2, &first, true)).contains("exchanged"));
        assert!(why(known.judge(Master1, &second, true)).contains("exchanged"));
        let mut known = Known::default();
        known.judge(Master1, &first, false);
        assert!(why(known.judge(Master2, &first, true)).contains("same server"));
        assert_eq!(known.judge(Master1, &first, true), Verdict::Ours);
        // The same before anything was set up.
        let bare = said(1, None);
        let mut known = Known::default();
        known.judge(Master1, &bare, true);
        assert!(why(known.judge(Master2, &bare, true)).contains("same server"));
    }

    #[test]
    fn the_newest_record_holds() {
        let mut known = Known::default();
        known.judge(Master1, &of("a", Master1, [1, 2]), true);
        // A rejoin has put server 3 in the place of master2.
        let newer = said(1, record("a", Master1, [1, 3], 9));
        assert_eq!(known.judge(Master1, &newer, true), Verdict::Ours);
        assert_eq!(known.judge(Master2, &said(3, None), true), Verdict::Ours);
        let old = of("a", Master2, [1, 2]);
        assert!(why(known.judge(Master2, &old, true)).contains("taken its place"));
        // A restore has brought back an older server of master2, and says so on it.
        let restored = said(2, record("a", Master2, [1, 2], 12));
        assert_eq!(known.judge(Master2, &restored, true), Verdict::Ours);
        assert_eq!(known.judge(Master1, &newer, true), Verdict::Ours);
        let dumped = said(6, record("a", Master2, [1, 2], 20));
        assert!(why(known.judge(Master2, &dumped, true)).contains("copied"));
    }

    #[test]
    fn a_set_up_touches_only_masters_that_belong_together() {
        let pair =
            |first: &Said, second: &Said, id| judge_pair(&[first.clone(), second.clone()], id);
        let (first, second) = (of("a", Master1, [1, 2]), of("a", Master2, [1, 2]));
        assert!(matches!(pair(&first, &second, None), Ok(Pair::Joined(_))));
        let bare = |system| said(system, None);
        assert_eq!(
            pair(&bare(1), &bare(2), Some("c")),
            Ok(Pair::New(Some("c".to_string())))
        );
        // The set-up died between the two.
        assert_eq!(
            pair(&first, &bare(2), None),
            Ok(Pair::New(Some("a".to_string())))
        );
        assert_eq!(pair(&first, &bare(3), None), Ok(Pair::Replaced(Master2)));
        let refused = |first: &Said, second: &Said, id, why: &str| {
            let error = pair(first, second, id).expect_err("they must not be touched");
            assert!(error.contains(why), "{error}");
        };
        refused(&first, &first, None, "the same server");
        refused(&second, &first, None, "exchanged");
        refused(
            &of("b", Master1, [7, 8]),
            &second,
            None,
            "another server answers at one",
        );
        refused(
            &of("b", Master1, [7, 8]),
            &second,
            Some("a"),
            "master1: another server",
        );
        refused(
            &first,
            &of("b", Master2, [7, 8]),
            Some("a"),
            "master2: another server",
        );
    }
}
