//! Several API processes may serve the same pair. One of them decides for all: where the traffic goes
//! and whether commits wait. The others follow it, and decide for themselves only what their own
//! requests need when they cannot reach the master that it chose. Also here: the pause, in which nobody
//! moves the traffic but a person.

use super::{Change, Cluster, Effect, NodeId};

/// What this process is among those that serve the same pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Whether there are others is being asked.
    Unknown,
    /// This one decides.
    Leader,
    /// Another one does.
    Follower(Leader),
    /// Another one did, and whether it still does cannot be asked.
    Orphan,
}

/// What is known of the process that decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// Where it is reached.
    pub address: String,
    /// The master that it serves from, if it serves.
    pub active: Option<NodeId>,
    /// For how long it still holds the traffic where it is, in ms.
    pub paused_for_ms: Option<u64>,
}

impl Role {
    /// Its name in JSON, logs and the documentation.
    pub const fn name(&self) -> &'static str {
        match self {
            Role::Unknown => "unknown",
            Role::Leader => "leader",
            Role::Follower(_) => "follower",
            Role::Orphan => "orphan",
        }
    }

    /// Why it came to this, for whoever does not lead.
    const fn why(&self) -> &'static str {
        match self {
            Role::Unknown | Role::Leader => "whether there are others is being asked",
            Role::Follower(_) => "another process decides",
            Role::Orphan => "neither redis nor a lock on the masters says which process decides",
        }
    }
}

impl Cluster {
    /// Takes in what this process is now.
    pub(super) fn set_role(&mut self, now: u64, role: Role, out: &mut Vec<Effect>) {
        if let Role::Follower(leader) = &role {
            let until = leader.paused_for_ms.map(|for_ms| now + for_ms);
            if until.is_some() != self.paused_until_ms.is_some() {
                self.pause(now, until, out);
            }
            self.paused_until_ms = until;
        }
        // That a lone process decides is no news.
        let news = self.role != Role::Unknown || role != Role::Leader;
        if news && self.role.name() != role.name() {
            out.push(Effect::Record(Change {
                what: "lease",
                node: self.active,
                from: self.role.name(),
                to: role.name(),
                why: match role {
                    Role::Leader => self.leads.1,
                    _ => role.why(),
                },
                cause: match &role {
                    Role::Follower(leader) => Some(leader.address.clone()),
                    _ => None,
                },
                duration_ms: now - self.role_since_ms,
                stall_ms: None,
            }));
        }
        if self.role.name() != role.name() {
            self.role_since_ms = now;
        }
        self.role = role;
    }

    /// Ends the deciding when its time is over and nobody has said that it goes on: Redis or the masters cannot be reached, or this
    /// whole process stood still, and another one may decide by now.
    pub(super) fn end_leading(&mut self, now: u64, out: &mut Vec<Effect>) {
        if self.role == Role::Leader && now >= self.leads.0 {
            self.set_role(now, Role::Orphan, out);
        }
    }

    /// Whether this process decides for all.
    pub fn leads(&self) -> bool {
        self.role.leads()
    }

    /// Whether the changes that this process sees belong into the history that all share; nothing while it cannot tell.
    pub fn writes_history(&self) -> Option<bool> {
        match self.role {
            Role::Leader | Role::Unknown => Some(true),
            Role::Follower(_) => Some(false),
            Role::Orphan => None,
        }
    }

    /// Where the process that decides serves from, if this one follows and can serve from there too.
    pub(super) fn led_to(&self) -> Option<NodeId> {
        match &self.role {
            Role::Follower(leader) => leader.active.filter(|id| self.state(*id).serves()),
            _ => None,
        }
    }

    /// Begins a pause that lasts until then, or ends it.
    pub(super) fn pause(&mut self, now: u64, until: Option<u64>, out: &mut Vec<Effect>) {
        let (from, to, why) = match until {
            Some(_) => (
                "running",
                "paused",
                "a person holds the traffic where it is",
            ),
            None => ("paused", "running", "the pause is over"),
        };
        let was = self.paused_until_ms.is_some();
        self.paused_until_ms = until;
        if was || until.is_some() {
            out.push(Effect::Record(Change {
                what: "pause",
                node: self.active,
                from,
                to,
                why,
                cause: until.map(|until| format!("for {} s", (until - now).div_ceil(1_000))),
                duration_ms: 0,
                stall_ms: None,
            }));
        }
    }

    /// Ends a pause whose time is over.
    pub(super) fn end_pause(&mut self, now: u64, out: &mut Vec<Effect>) {
        if self.paused_until_ms.is_some_and(|until| now >= until) {
            self.pause(now, None, out);
        }
    }
}
