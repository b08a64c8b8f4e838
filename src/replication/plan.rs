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
    /// On the publisher: the tables that it publishes, in order.
    pub published: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subscription {
    pub enabled: bool,
    pub slot: Option<String>,
    pub origin: String,
    pub synchronous_commit: String,
    pub connection: String,
    /// The tables whose changes it takes, in order. PostgreSQL drops those of any other silently.
    pub tables: Vec<String>,
}

/// One change to a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Create { create_slot: bool },
    AttachSlot,
    SetConnection,
    SetOptions,
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
            Step::AttachSlot => format!("attached to slot {slot} on {from}"),
            Step::SetConnection => format!("got the new address or password of {from}"),
            Step::SetOptions => "got origin = none and synchronous_commit = local".to_string(),
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
        return Err(format!(
            "subscription {subscription} on {} has lost its slot {slot} on {}: changes are missing \
             that a new slot would not bring back, so {} must be rebuilt from {}",
            link.to, link.from, link.to, link.from
        ));
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
    if existing.origin != "none" || existing.synchronous_commit != "local" {
        steps.push(Step::SetOptions);
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

/// The statement of a step. `synchronous_commit = local` makes the apply worker confirm what is on
/// disk; with the default `off` a synchronous master would wait 220 ms for each commit (measured).
pub(super) fn statement(step: Step, link: Link, connection: &str) -> String {
    let name = link.to.subscription();
    let slot = link.from.slot();
    let connection = literal(connection);
    match step {
        Step::Create { create_slot } => format!(
            "CREATE SUBSCRIPTION {name} CONNECTION {connection} PUBLICATION {PUBLICATION} \
             WITH (create_slot = {create_slot}, slot_name = '{slot}', copy_data = false, \
             origin = none, synchronous_commit = 'local')"
        ),
        Step::AttachSlot => format!("ALTER SUBSCRIPTION {name} SET (slot_name = '{slot}')"),
        Step::SetConnection => format!("ALTER SUBSCRIPTION {name} CONNECTION {connection}"),
        Step::SetOptions => {
            format!("ALTER SUBSCRIPTION {name} SET (origin = none, synchronous_commit = 'local')")
        }
        Step::Enable => format!("ALTER SUBSCRIPTION {name} ENABLE"),
        Step::Refresh => {
            format!("ALTER SUBSCRIPTION {name} REFRESH PUBLICATION WITH (copy_data = false)")
        }
    }
}

/// A string as an SQL literal, whatever `standard_conforming_strings` says.
pub(super) fn literal(text: &str) -> String {
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
                connection: "host=a".to_string(),
                tables: vec!["public.generos".to_string()],
            }),
            slot_active: Some(true),
            published: vec!["public.generos".to_string()],
        }
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
        let none = Found {
            subscription: None,
            slot_active: None,
            ..healthy()
        };
        assert_eq!(
            plan(LINK, &none, ""),
            Ok(vec![Step::Create { create_slot: true }])
        );
        let interrupted = Found {
            subscription: None,
            slot_active: Some(false),
            ..healthy()
        };
        assert_eq!(
            plan(LINK, &interrupted, ""),
            Ok(vec![Step::Create { create_slot: false }])
        );
        let strangers = Found {
            subscription: None,
            slot_active: Some(true),
            ..healthy()
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
