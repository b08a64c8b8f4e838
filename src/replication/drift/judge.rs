//! From what two masters say of themselves to alarms, each with what to do. Pure.

use super::{Publication, Seen, tables};
use crate::cluster::NodeId;
use crate::limits;

/// What a person has to look at. A master that could not be asked is not judged, nor are the two against each other then.
pub fn alarms(seen: [Option<&Seen>; 2]) -> Vec<String> {
    let both = NodeId::BOTH.map(|node| (node, seen[node.index()]));
    let of_all = |judge: &dyn Fn(NodeId, &Seen) -> Vec<String>| {
        let of_each = both
            .iter()
            .filter_map(|(node, seen)| Some((*node, (*seen)?)));
        of_each
            .flat_map(|(node, seen)| judge(node, seen))
            .collect::<Vec<_>>()
    };
    // A master that is being rebuilt lacks what it lacks, and so does its peer.
    let rebuilt = of_all(&|node, seen| match seen.rejoining {
        true => vec![format!(
            "{node}: a rejoin has begun to rebuild it and has not ended: run `imdb-ha rejoin {node}`, which goes on from there"
        )],
        false => vec![],
    });
    if !rebuilt.is_empty() {
        return rebuilt;
    }
    let mut alarms = of_all(&|node, seen| {
        let of_node = match seen.prepared {
            true => of_master(node, seen, both[node.peer().index()].1),
            false => vec!["it has not been set up: run `imdb-ha replication setup`".to_string()],
        };
        let named = of_node.into_iter();
        named.map(|alarm| format!("{node}: {alarm}")).collect()
    });
    if let [Some(first), Some(second)] = seen {
        if first.prepared && second.prepared {
            alarms.extend(bounded(tables::alarms([first, second])));
        }
    }
    alarms
}

/// What is wrong on one master, whatever its peer is like.
fn of_master(node: NodeId, seen: &Seen, of_peer: Option<&Seen>) -> Vec<String> {
    let (peer, mut alarms) = (node.peer(), Vec::new());
    let name = node.subscription();
    match seen.subscription {
        None => alarms.push(format!(
            "subscription {name} is missing, so it takes no changes of {peer}: run `imdb-ha replication setup`, which makes it \
             anew as long as nothing is missing, and else says which master to rejoin"
        )),
        Some(false) => alarms.push(format!(
            "subscription {name} is disabled, so it takes no changes of {peer}, which keeps them until its slot is full: run \
             `imdb-ha replication setup`, which enables it"
        )),
        Some(true) => {}
    }
    if !seen.options.is_empty() {
        alarms.push(format!(
            "subscription {name} has options that are not those of the set-up ({}): run `imdb-ha replication setup`, which sets them",
            seen.options.join(", ")
        ));
    }
    match seen.publication {
        Publication::Missing => alarms.push(format!(
            "publication pub_imdb is missing, so nothing that is written here reaches {peer}: run `imdb-ha replication setup` \
             on the spot; if {peer} does not take changes after that, run `imdb-ha rejoin {peer}`"
        )),
        Publication::Other => alarms.push(
            "publication pub_imdb does not publish what the set-up makes it publish, so changes are left out or too much is sent: run \
             `imdb-ha replication setup`, and `imdb-ha compare` for what was left out"
                .to_string(),
        ),
        Publication::Ours => {}
    }
    // Where the peer has no subscription either, that is what is missing.
    if !seen.slot && of_peer.is_some_and(|peer| peer.subscription.is_some()) {
        alarms.push(format!(
            "slot {} is missing, and with it the changes that {peer} had not taken: run `imdb-ha rejoin {peer}`",
            node.slot()
        ));
    }
    if !seen.role {
        alarms.push(format!(
            "role replicator is missing or may not log in and replicate, so {peer} cannot connect again: run \
             `imdb-ha replication setup`, which mends it"
        ));
    }
    if !seen.triggers.is_empty() {
        alarms.push(format!(
            "triggers without which conflicts are not settled: {}; run `imdb-ha replication setup`, which mends them, and \
             `imdb-ha compare` for what has happened meanwhile",
            seen.triggers.join(", ")
        ));
    }
    if !seen.functions.is_empty() {
        alarms.push(format!(
            "functions of schema imdb_ha that are missing or not those of this version: {}; run `imdb-ha replication setup`, \
             which makes them anew",
            seen.functions.join(", ")
        ));
    }
    alarms
}

/// Somebody may have made a thousand tables.
fn bounded(mut alarms: Vec<String>) -> Vec<String> {
    let all = alarms.len();
    alarms.truncate(limits::DRIFT_SHOWN);
    if all > alarms.len() {
        alarms.push(format!(
            "and {} more like these about tables of schema public",
            all - alarms.len()
        ));
    }
    alarms
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn healthy() -> Seen {
        Seen {
            prepared: true,
            rejoining: false,
            changing: false,
            subscription: Some(true),
            options: vec![],
            publication: Publication::Ours,
            slot: true,
            role: true,
            triggers: vec![],
            functions: vec![],
            tables: vec![],
        }
    }

    fn changed(change: impl FnOnce(&mut Seen)) -> Seen {
        let mut seen = healthy();
        change(&mut seen);
        seen
    }

    fn of(first: &Seen, second: &Seen) -> Vec<String> {
        alarms([Some(first), Some(second)])
    }

    #[test]
    fn masters_that_are_as_the_set_up_made_them_are_no_alarm() {
        assert_eq!(of(&healthy(), &healthy()), [""; 0]);
        assert_eq!(alarms([None, Some(&healthy())]), [""; 0]);
        assert_eq!(alarms([None, None]), [""; 0]);
    }

    #[test]
    fn each_thing_that_is_wrong_is_one_alarm_with_its_cure() {
        type Change = fn(&mut Seen);
        let cases: [(Change, &str, &str); 10] = [
            (
                |s| s.prepared = false,
                "not been set up",
                "replication setup",
            ),
            (|s| s.rejoining = true, "has not ended", "rejoin master2"),
            (
                |s| s.subscription = None,
                "sub_from_master1 is missing",
                "replication setup",
            ),
            (
                |s| s.subscription = Some(false),
                "is disabled",
                "replication setup",
            ),
            (
                |s| s.options.push("origin = any".into()),
                "(origin = any)",
                "replication setup",
            ),
            (
                |s| s.publication = Publication::Missing,
                "pub_imdb is missing",
                "rejoin master1",
            ),
            (
                |s| s.publication = Publication::Other,
                "does not publish",
                "imdb-ha compare",
            ),
            (
                |s| s.slot = false,
                "slot_2_to_1 is missing",
                "rejoin master1",
            ),
            (|s| s.role = false, "may not log in", "replication setup"),
            (
                |s| s.triggers.push("generos.x is disabled".into()),
                "generos.x is disabled",
                "setup",
            ),
        ];
        for (change, what, cure) in cases {
            let told = of(&healthy(), &changed(change));
            assert_eq!(told.len(), 1, "{told:?}");
            assert!(
                told[0].starts_with("master2: ")
                    && told[0].contains(what)
                    && told[0].contains(cure),
                "{told:?}"
            );
        }
        // Both sides of a link that nobody has made.
        let neither = changed(|s| (s.subscription, s.slot) = (None, false));
        let told = of(&neither, &neither);
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(
            told.iter().all(|alarm| alarm.contains("subscription")),
            "{told:?}"
        );
    }
}
