//! What everyone but its owner sees of the cluster.

use super::{Cluster, DurabilityView, Facts, Level, Node, NodeId, NodeState, Role};

/// An immutable picture of the cluster, for everyone who is not its owner. Times are in ms since
/// the start of the program.
#[derive(Clone, Debug)]
pub struct ClusterView {
    /// The master that serves, or served last.
    pub active: NodeId,
    pub serving: bool,
    /// Since when this master serves, or nobody does.
    pub route_since_ms: u64,
    /// Whether writes wait for a handover to end.
    pub holding_writes: bool,
    /// See [`ClusterView::durability_at`].
    pub(super) durability: DurabilityView,
    /// When the active master was asked for what it said last.
    said_ms: u64,
    silence_deadline_ms: u64,
    /// See [`ClusterView::role_at`].
    pub(super) role: Role,
    leads_until_ms: u64,
    /// Until when a person holds the traffic where it is.
    pub paused_until_ms: Option<u64>,
    pub nodes: [NodeView; 2],
}

/// One master in a [`ClusterView`].
#[derive(Clone, Debug)]
pub struct NodeView {
    pub state: NodeState,
    pub since_ms: u64,
    /// Why it is in this state, and what is still missing while it catches up.
    pub reason: String,
    pub heard_ms: u64,
    pub facts: Option<Facts>,
    /// What a person has to see to.
    pub alarm: Option<String>,
}

impl ClusterView {
    /// One master of it.
    pub fn node(&self, node: NodeId) -> &NodeView {
        &self.nodes[node.index()]
    }

    /// What this process is at a time: a picture of one that stood still says what it was before.
    pub fn role_at(&self, now_ms: u64) -> &Role {
        match &self.role {
            Role::Leader if now_ms >= self.leads_until_ms => &Role::Orphan,
            role => role,
        }
    }

    /// What holds for a write that is acknowledged at a time: what the active master said so long ago that it counts as down by
    /// now proves nothing.
    pub fn durability_at(&self, now_ms: u64) -> DurabilityView {
        let silent = now_ms.saturating_sub(self.said_ms);
        match self.durability.level {
            Level::ZeroLoss if silent >= self.silence_deadline_ms => DurabilityView {
                level: Level::Degraded,
                since_ms: self.said_ms,
                why: "the active master has not said for long that it waits for its peer",
            },
            _ => self.durability.clone(),
        }
    }

    /// Whether whoever decides by this picture decides the same by the other one.
    pub fn decides_as(&self, other: &ClusterView) -> bool {
        let route = |view: &ClusterView| {
            let paused = view.paused_until_ms.is_some();
            (view.active, view.serving, view.holding_writes, paused)
        };
        let states = |view: &ClusterView| [view.nodes[0].state, view.nodes[1].state];
        route(self) == route(other) && states(self) == states(other)
    }

    /// Whether a write can be taken now.
    pub fn takes_writes(&self) -> bool {
        self.serving && self.node(self.active).state != NodeState::Unfit
    }

    /// Why nobody serves, naming both masters; only meaningful while that is so.
    pub fn outage_reason(&self) -> String {
        let of = |node: NodeId| {
            let view = self.node(node);
            format!("{node} is {} ({})", view.state, view.reason)
        };
        let paused = match self.paused_until_ms {
            Some(_) => format!(
                "; a pause holds the traffic on {}: POST /resume or a switch moves it",
                self.active
            ),
            None => String::new(),
        };
        let (first, second) = (of(NodeId::Master1), of(NodeId::Master2));
        format!("{first}; {second}{paused}")
    }
}

impl Node {
    /// What a person has to see to: a server that is not this master, or not any more what it was.
    fn alarm(&self, id: NodeId) -> Option<String> {
        if self.stranger {
            let cause = self.cause.as_deref().unwrap_or_default();
            return Some(format!(
                "{}: {cause}. Nothing is read or changed there",
                self.why
            ));
        }
        let older = self.past.older.as_ref()?;
        let then = match self.past.forced {
            true => "it may serve because a person forced it".to_string(),
            false => format!(
                "it does not serve; rebuild it from {} with `imdb-ha rejoin {id}`",
                id.peer()
            ),
        };
        Some(format!(
            "an older copy of {id} answers ({older}), so what it had acknowledged since is missing there: {then}"
        ))
    }
}

impl Cluster {
    /// A picture of now.
    pub fn view(&self) -> ClusterView {
        ClusterView {
            active: self.active,
            serving: self.serving,
            route_since_ms: self.route_since_ms,
            holding_writes: self.holding_writes(),
            durability: self.durability.view(),
            role: self.role.clone(),
            leads_until_ms: self.leads.0,
            said_ms: self
                .node(self.active)
                .facts
                .as_ref()
                .map_or(0, |(_, asked)| *asked),
            silence_deadline_ms: self.settings.silence_deadline_ms,
            paused_until_ms: self.paused_until_ms,
            nodes: NodeId::BOTH.map(|node| self.node_view(node)),
        }
    }

    pub(super) fn node_view(&self, id: NodeId) -> NodeView {
        let node = self.node(id);
        let detail = match node.state {
            NodeState::CatchingUp => Some(self.missing_to_current(id)),
            _ => node.cause.clone(),
        };
        NodeView {
            state: node.state,
            since_ms: node.since_ms,
            reason: match detail {
                Some(detail) => format!("{}: {detail}", node.why),
                None => node.why.to_string(),
            },
            heard_ms: node.heard_ms,
            facts: node.facts.as_ref().map(|(facts, _)| facts.clone()),
            alarm: node.alarm(id),
        }
    }
}
