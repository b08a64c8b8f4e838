//! What a master is before it is rebuilt: decided purely, from what was found.

use crate::cluster::NodeId;
use crate::replication::plan::Found;

/// What there is to rebuild.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// A rejoin has cleared it and did not fill it: what is on it is nobody's only copy.
    Cleared,
    /// A rejoin has filled it and joined both ways, and ended before its last words.
    AlmostDone,
    /// It gets what its peer writes, or will as soon as it is told to; and why that is known.
    Whole(String),
    /// It lacks changes of its peer that nothing but a rejoin brings back; and why.
    Broken(String),
}

/// Judges `node` by its way in (the changes of its peer) and its way out (its own, on its peer).
pub(super) fn judge(node: NodeId, way_in: &Found, way_out: &Found) -> Condition {
    let peer = node.peer();
    let (subscription, slot) = (node.subscription(), peer.slot());
    let has_slot = |found: &Found| found.slot_active.is_some() && !found.slot_lost;
    let complete = way_in.subscription.is_some() && way_in.copying == 0;
    if way_in.unfinished && !complete {
        return Condition::Cleared;
    }
    let joined = complete && has_slot(way_in);
    let joined_back = way_out.subscription.is_some() && has_slot(way_out);
    if way_in.unfinished && joined && joined_back {
        return Condition::AlmostDone;
    }
    let Some(existing) = &way_in.subscription else {
        return Condition::Broken(format!("it has no subscription {subscription}"));
    };
    if !complete {
        return Condition::Broken(format!("{subscription} has not copied all tables"));
    }
    if way_in.slot_active.is_none() {
        return Condition::Broken(format!("{subscription} has lost its slot {slot} on {peer}"));
    }
    if way_in.slot_lost {
        return Condition::Broken(format!(
            "{peer} no longer has the WAL of slot {slot}, from which {subscription} reads"
        ));
    }
    let reads = match (existing.enabled, way_in.slot_active) {
        (false, _) => "is disabled, and `imdb-ha replication setup` enables it",
        (true, Some(true)) => "is streaming",
        (true, _) => "is enabled",
    };
    let back = match joined_back {
        true => String::new(),
        false => format!(
            "; it is {peer} that does not get the changes of {node}, and may need `imdb-ha rejoin {peer}`"
        ),
    };
    Condition::Whole(format!(
        "{subscription} {reads}, and its slot {slot} on {peer} is intact{back}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::plan::Subscription;

    fn whole() -> Found {
        Found {
            subscription: Some(Subscription {
                enabled: true,
                slot: Some("slot_1_to_2".to_string()),
                origin: "none".to_string(),
                synchronous_commit: "local".to_string(),
                other_options: false,
                ours: true,
                connection: String::new(),
                tables: vec![],
            }),
            slot_active: Some(true),
            slot_lost: false,
            copying: 0,
            unfinished: false,
            published: vec![],
        }
    }

    fn of(way_in: Found, way_out: Found) -> Condition {
        judge(NodeId::Master2, &way_in, &way_out)
    }

    #[test]
    fn what_still_gets_everything_is_whole() {
        let idle = Found {
            slot_active: Some(false),
            ..whole()
        };
        for way_in in [whole(), idle] {
            assert!(matches!(of(way_in, whole()), Condition::Whole(_)));
        }
        // The peer is the one that lost something: rebuilding this one would lose its changes.
        let lost = Found {
            slot_lost: true,
            ..whole()
        };
        let Condition::Whole(why) = of(whole(), lost) else {
            panic!("it gets everything")
        };
        assert!(why.contains("may need `imdb-ha rejoin master1`"), "{why}");
    }

    #[test]
    fn what_lacks_changes_is_broken() {
        let none = Found {
            subscription: None,
            ..whole()
        };
        let dropped = Found {
            slot_active: None,
            ..whole()
        };
        let lost = Found {
            slot_lost: true,
            ..whole()
        };
        let half = Found {
            copying: 1,
            ..whole()
        };
        for way_in in [none, dropped, lost, half] {
            assert!(matches!(of(way_in, whole()), Condition::Broken(_)));
        }
    }

    #[test]
    fn the_mark_counts_only_while_the_copy_is_incomplete_or_everything_is_joined() {
        let marked = |found: Found| Found {
            unfinished: true,
            ..found
        };
        let none = Found {
            subscription: None,
            ..whole()
        };
        let half = Found {
            copying: 1,
            ..whole()
        };
        assert_eq!(of(marked(none), whole()), Condition::Cleared);
        assert_eq!(of(marked(half), whole()), Condition::Cleared);
        assert_eq!(of(marked(whole()), whole()), Condition::AlmostDone);
        // It was complete, served, and was away for too long: its rows are looked at again.
        let lost = Found {
            slot_lost: true,
            ..whole()
        };
        assert!(matches!(of(marked(lost), whole()), Condition::Broken(_)));
        let back = Found {
            slot_active: None,
            ..whole()
        };
        assert!(matches!(of(marked(whole()), back), Condition::Whole(_)));
    }
}
