//! What to do about one direction of the replication: decided purely, from what was found.

use super::setup::PUBLICATION;
use crate::cluster::NodeId;

/// One direction of the replication: the changes of `from`, applied on `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub from: NodeId,
    pub to: NodeId,
}

/// What is there of a [`Link`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// On the subscriber.
    pub subscription: Option<Subscription>,
    /// On the publisher: nothing, or whether somebody reads from it.
    pub slot_active: Option<bool>,
    /// The slot is there by name only: WAL that it needs is gone.
    pub slot_lost: bool,
    /// Tables of the subscription whose rows are still being copied.
    pub copying: i64,
    /// The subscriber carries the mark of a rejoin that has not ended.
    pub unfinished: bool,
    /// On the publisher: the tables that it publishes, in order.
    pub published: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subscription {
    pub enabled: bool,
    pub slot: Option<String>,
    pub origin: String,
    pub synchronous_commit: String,
    /// One of the options that the set-up leaves as they are by default is set.
    pub other_options: bool,
    /// It takes just our publication.
    pub ours: bool,
    pub connection: String,
    /// The tables whose changes it takes, in order. PostgreSQL drops those of any other silently.
    pub tables: Vec<String>,
}

/// One change to a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Create {
        create_slot: bool,
    },
    /// Like [`Step::Create`] with a new slot, and every row of the publisher is copied first.
    CreateWithRows,
    AttachSlot,
    SetConnection,
    SetOptions,
    SetPublication,
    Enable,
    Refresh,
}

impl Step {
    /// What it does, for whoever ran the set-up.
    pub fn describe(self, link: Link) -> String {
        let (slot, from) = (link.from.slot(), link.from);
        match self {
            Step::Create { create_slot: true } => format!("created, with slot {slot} on {from}"),
            Step::Create { create_slot: false } => {
                format!("created, on the slot {slot} that was there on {from}")
            }
            Step::CreateWithRows => {
                format!("created, with slot {slot} on {from}; copying all its rows")
            }
            Step::AttachSlot => format!("attached to slot {slot} on {from}"),
            Step::SetConnection => format!("got the new address, password or CA of {from}"),
            Step::SetOptions => "got its options: origin = none, synchronous_commit = local, the others as by default".to_string(),
            Step::SetPublication => format!("takes {PUBLICATION} and nothing else"),
            Step::Enable => "enabled".to_string(),
            Step::Refresh => format!("takes the tables that {from} publishes now"),
        }
    }
}

/// What to do about one direction, or what a person has to do first.
pub(super) fn plan(link: Link, found: &Found, connection: &str) -> Result<Vec<Step>, String> {
    let (slot, subscription) = (link.from.slot(), link.to.subscription());
    let Some(existing) = &found.subscription else {
        return match found.slot_active {
            None => Ok(vec![Step::Create { create_slot: true }]),
            // Left behind by a set-up that was interrupted: it holds all changes since then.
            Some(false) => Ok(vec![Step::Create { create_slot: false }]),
            Some(true) => Err(format!(
                "{} has no subscription {subscription}, yet somebody reads from slot {slot} on {}; \
                 find out who (pg_replication_slots.active_pid) and end it",
                link.to, link.from
            )),
        };
    };
    if found.slot_active.is_none() {
        return Err(format!("{}; {}", lost_slot(link), hint(link.to)));
    }
    let mut steps = Vec::new();
    match existing.slot.as_deref() {
        Some(name) if name == slot => {}
        None => steps.push(Step::AttachSlot),
        Some(other) => {
            return Err(format!(
                "subscription {subscription} on {} reads from slot {other} and not from {slot}",
                link.to
            ));
        }
    }
    if existing.connection != connection {
        steps.push(Step::SetConnection);
    }
    // Off is how a running supervisor lets a master that is behind catch up; the others can make both
    // masters wait for each other for ever.
    let commit = existing.synchronous_commit.as_str();
    if existing.origin != "none" || !["local", "off"].contains(&commit) || existing.other_options {
        steps.push(Step::SetOptions);
    }
    if !existing.ours {
        steps.push(Step::SetPublication);
    }
    if !existing.enabled {
        steps.push(Step::Enable);
    }
    // After enabling, because PostgreSQL refuses it for a disabled subscription.
    if existing.tables != found.published {
        steps.push(Step::Refresh);
    }
    Ok(steps)
}

/// One or both masters must be rebuilt before the two can be joined. Whoever can go on with one master,
/// as `local up` does, finds it in the error of the set-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeedsRejoin {
    pub masters: Vec<(NodeId, String)>,
}

impl std::fmt::Display for NeedsRejoin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lines = self
            .masters
            .iter()
            .map(|(node, why)| format!("{why}; {}", hint(*node)));
        f.write_str(&lines.collect::<Vec<String>>().join("; or, "))
    }
}

impl std::error::Error for NeedsRejoin {}

fn hint(node: NodeId) -> String {
    format!(
        "{node} must be rebuilt from {}: `imdb-ha rejoin {node}` does it",
        node.peer()
    )
}

fn lost_slot(link: Link) -> String {
    format!(
        "subscription {} on {} has lost its slot {} on {}, and a new slot would not bring back what was in it",
        link.to.subscription(),
        link.to,
        link.from.slot(),
        link.from
    )
}

/// Which masters lack changes that no set-up brings back. `found` has the direction away from each
/// master, in the order of [`NodeId::BOTH`].
pub(super) fn in_need(found: &[Found; 2]) -> Option<NeedsRejoin> {
    let way_in = |node: NodeId| &found[node.peer().index()];
    let way_out = |node: NodeId| &found[node.index()];
    // A new, empty server in the place of one that its peer knows.
    let bare = |node: NodeId| {
        way_in(node).subscription.is_none()
            && way_out(node).slot_active.is_none()
            && way_out(node).subscription.is_some()
    };
    let why = |node: NodeId| {
        let link = Link {
            from: node.peer(),
            to: node,
        };
        let known = way_in(node).subscription.is_some();
        let complete = known && way_in(node).copying == 0;
        if way_in(node).unfinished && !complete {
            Some(format!("a rejoin of {node} has not ended"))
        } else if bare(node) {
            Some(format!(
                "{node} has lost its data: it knows nothing of {}, which was joined to it",
                node.peer()
            ))
        } else if bare(node.peer()) {
            None
        } else if known && (way_in(node).slot_active.is_none() || way_in(node).slot_lost) {
            Some(lost_slot(link))
        } else {
            None
        }
    };
    let masters: Vec<(NodeId, String)> = NodeId::BOTH
        .into_iter()
        .filter_map(|node| Some((node, why(node)?)))
        .collect();
    (!masters.is_empty()).then_some(NeedsRejoin { masters })
}

/// Said in full, because a later version of PostgreSQL has other defaults. With `streaming` a large transaction would be applied by other workers, or
/// while it may still be rolled back; `disable_on_error` would end what is tried again by itself; `run_as_owner` would
/// apply with the rights of the subscription's owner instead of those of the table's.
const OPTIONS: &str = "origin = none, synchronous_commit = 'local', disable_on_error = false, streaming = off, \
    binary = false, run_as_owner = false";

/// The statement of a step. `synchronous_commit = local` makes the apply worker confirm what is on
/// disk; with the default `off` a synchronous master would wait 220 ms for each commit (measured).
pub(super) fn statement(step: Step, link: Link, connection: &str) -> String {
    let name = link.to.subscription();
    let slot = link.from.slot();
    let connection = literal(connection);
    let create = |create_slot: bool, copy_data: bool| {
        format!(
            "CREATE SUBSCRIPTION {name} CONNECTION {connection} PUBLICATION {PUBLICATION} \
             WITH (create_slot = {create_slot}, slot_name = '{slot}', copy_data = {copy_data}, \
             {OPTIONS})"
        )
    };
    match step {
        Step::Create { create_slot } => create(create_slot, false),
        Step::CreateWithRows => create(true, true),
        Step::AttachSlot => format!("ALTER SUBSCRIPTION {name} SET (slot_name = '{slot}')"),
        // A worker that is connecting to the old address waits for as long as whoever has that now is silent, so it is ended. It
        // begins again by itself.
        Step::SetConnection => format!(
            "ALTER SUBSCRIPTION {name} CONNECTION {connection}; \
             SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_subscription \
             WHERE subname = '{name}' AND pid IS NOT NULL \
             AND (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user)"
        ),
        Step::SetOptions => {
            format!("ALTER SUBSCRIPTION {name} SET ({OPTIONS})")
        }
        Step::SetPublication => {
            format!(
                "ALTER SUBSCRIPTION {name} SET PUBLICATION {PUBLICATION} WITH (refresh = false)"
            )
        }
        Step::Enable => format!("ALTER SUBSCRIPTION {name} ENABLE"),
        Step::Refresh => {
            format!("ALTER SUBSCRIPTION {name} REFRESH PUBLICATION WITH (copy_data = false)")
        }
    }
}

/// A string as an SQL literal, whatever `standard_conforming_strings` says.
pub fn literal(text: &str) -> String {
    let escaped = text.replace('\'', "''");
    match escaped.contains('\\') {
        true => format!("E'{}'", escaped.replace('\\', "\\\\")),
        false => format!("'{escaped}'"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: Link = Link {
        from: NodeId::Master1,
        to: NodeId::Master2,
    };

    fn healthy() -> Found {
        Found {
            subscription: Some(Subscription {
                enabled: true,
                slot: Some("slot_1_to_2".to_string()),
                origin: "none".to_string(),
                synchronous_commit: "local".to_string(),
                other_options: false,
                ours: true,
                connection: "host=a".to_string(),
                tables: vec!["public.generos".to_string()],
            }),
            slot_active: Some(true),
            slot_lost: false,
            copying: 0,
            unfinished: false,
            published: vec!["public.generos".to_string()],
        }
    }

    fn bare() -> Found {
        Found {
            subscription: None,
            slot_active: None,
            ..healthy()
        }
    }

    fn who(found: [Found; 2]) -> Vec<NodeId> {
        let masters = in_need(&found).map_or(vec![], |need| need.masters);
        masters.into_iter().map(|(node, _)| node).collect()
    }

    fn changed(change: impl FnOnce(&mut Subscription)) -> Found {
        let mut found = healthy();
        change(found.subscription.as_mut().expect("it has one"));
        found
    }

    #[test]
    fn a_healthy_link_is_left_alone() {
        assert_eq!(plan(LINK, &healthy(), "host=a"), Ok(vec![]));
    }

    #[test]
    fn a_missing_link_is_made_with_the_slot_that_is_there() {
        assert_eq!(
            plan(LINK, &bare(), ""),
            Ok(vec![Step::Create { create_slot: true }])
        );
        let interrupted = Found {
            slot_active: Some(false),
            ..bare()
        };
        assert_eq!(
            plan(LINK, &interrupted, ""),
            Ok(vec![Step::Create { create_slot: false }])
        );
        let strangers = Found {
            slot_active: Some(true),
            ..bare()
        };
        assert!(plan(LINK, &strangers, "").is_err());
    }

    #[test]
    fn a_lost_slot_is_never_made_anew() {
        let lost = Found {
            slot_active: None,
            ..healthy()
        };
        let reason = plan(LINK, &lost, "host=a").expect_err("a person must decide");
        assert!(reason.contains("must be rebuilt"), "{reason}");
    }

    #[test]
    fn the_master_that_lost_something_is_the_one_to_rebuild() {
        use NodeId::{Master1, Master2};
        assert_eq!(who([healthy(), healthy()]), []);
        // Both as new as each other: a first set-up.
        assert_eq!(who([bare(), bare()]), []);
        // master2 is a new server. Its slot is gone, and master1 must not be taken for the one that lost.
        let kept_slot = Found {
            subscription: None,
            slot_active: Some(false),
            ..healthy()
        };
        let lost_slot = Found {
            slot_active: None,
            ..healthy()
        };
        assert_eq!(who([kept_slot, lost_slot.clone()]), [Master2]);
        assert_eq!(who([bare(), lost_slot.clone()]), [Master2]);
        // master2 was away for too long.
        let outdated = Found {
            slot_lost: true,
            slot_active: Some(false),
            ..healthy()
        };
        assert_eq!(who([outdated, healthy()]), [Master2]);
        assert_eq!(who([lost_slot.clone(), lost_slot]), [Master1, Master2]);
    }

    #[test]
    fn a_rejoin_that_was_interrupted_is_one_to_repeat() {
        let marked = |found: Found| Found {
            unfinished: true,
            ..found
        };
        assert_eq!(who([marked(bare()), bare()]), [NodeId::Master2]);
        let copying = Found {
            copying: 1,
            ..marked(healthy())
        };
        assert_eq!(who([copying, healthy()]), [NodeId::Master2]);
        // Everything is there; only the last words were not said.
        assert_eq!(who([marked(healthy()), healthy()]), []);
    }

    #[test]
    fn what_differs_is_changed_and_nothing_else() {
        assert_eq!(
            plan(LINK, &healthy(), "host=b"),
            Ok(vec![Step::SetConnection])
        );
        assert_eq!(
            plan(LINK, &changed(|s| s.enabled = false), "host=a"),
            Ok(vec![Step::Enable])
        );
        assert_eq!(
            plan(LINK, &changed(|s| s.slot = None), "host=a"),
            Ok(vec![Step::AttachSlot])
        );
        let any = changed(|s| s.origin = "any".to_string());
        assert_eq!(plan(LINK, &any, "host=a"), Ok(vec![Step::SetOptions]));
        let streaming = changed(|s| s.other_options = true);
        assert_eq!(plan(LINK, &streaming, "host=a"), Ok(vec![Step::SetOptions]));
        let others = changed(|s| s.ours = false);
        assert_eq!(
            plan(LINK, &others, "host=a"),
            Ok(vec![Step::SetPublication])
        );
        let older = changed(|s| {
            s.enabled = false;
            s.tables.clear();
        });
        assert_eq!(
            plan(LINK, &older, "host=a"),
            Ok(vec![Step::Enable, Step::Refresh])
        );
    }

    #[test]
    fn a_password_with_quotes_survives_both_quotings() {
        assert_eq!(literal("a'b"), "'a''b'");
        assert_eq!(literal(r"a\'b"), r"E'a\\''b'");
    }
}
