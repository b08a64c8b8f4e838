//! The pure core: what is held of the two masters, and what follows from each event. No clock, no
//! I/O, no log: time comes in as an argument, and what is to be done goes out as [`Effect`]s. So the
//! simulator in `sim.rs` can run ten thousand fault schedules over exactly this code.

mod alarms;
mod catching_up;
mod durability;
mod evidence;
mod fitness;
pub mod fsm;
mod handover;
pub mod identity;
mod mandate;
pub mod node;
mod older;
mod role;
mod routing;
#[cfg(test)]
mod sim;
mod view;

pub use durability::{DurabilityView, Level, Mode};
pub use handover::Refusal;
pub use mandate::{Candidate, Evidence, Lease, Mandate, Stance, Times, Verdict};
pub use node::{Facts, Link, NodeId, NodeState, Signal, WaitsFor};
pub use role::{Leader, Role};
pub use view::ClusterView;

use durability::Durability;
use fitness::Fitness;
use fsm::Action;
use handover::Handover;
use older::Past;
use serde::Serialize;

/// The times that the decisions depend on, in ms (and one size), set by the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    pub suspect_after_ms: u64,
    pub silence_deadline_ms: u64,
    pub nobody_better_after_ms: u64,
    pub start_patience_ms: u64,
    pub handover_deadline_ms: u64,
    pub handover_lag_max_bytes: u64,
    pub durability: Mode,
    /// A commit that waits longer for the peer has the peer given up.
    pub wait_max_ms: u64,
    /// A peer that is further behind is not waited for anew.
    pub wait_lag_max_bytes: u64,
    /// A peer that is not waited for and is further behind applies without a flush for each transaction.
    pub apply_lag_max_bytes: u64,
    /// A master that has said for this long that it waits, waits.
    pub taken_up_after_ms: u64,
    /// An order to a master that was not followed is repeated after this time.
    pub ask_again_after_ms: u64,
    /// For so long a master that takes up an order to wait is asked at each tick how far it is.
    pub hasten_ms: u64,
    /// A handover goes on without its target waiting for its peer after this time.
    pub arming_max_ms: u64,
    /// For so long a master that a handover left goes on waiting for its peer.
    pub linger_ms: u64,
    /// For so long a start waits to be told whether other processes serve the same pair.
    pub role_patience_ms: u64,
    /// A master whose trial writes have been refused for this long is not fit to serve.
    pub unfit_after_ms: u64,
    /// One whose trial writes have passed for this long is fit again.
    pub fit_after_ms: u64,
    /// What an unfit master has not sent to its peer is waited for so long before the traffic leaves it.
    pub unfit_sends_ms: u64,
    /// Time between two trial writes: when one is called for, on a master that is unfit, and when all is well.
    pub trial_urgent_ms: u64,
    pub trial_unfit_ms: u64,
    pub trial_quiet_ms: u64,
}

/// Everything that can happen to the cluster.
#[derive(Debug)]
pub enum Event {
    /// A probe that was sent at `asked_ms` came back.
    Answered {
        node: NodeId,
        facts: Facts,
        asked_ms: u64,
    },
    /// A fresh connection was refused, or answered with an error.
    Refused { node: NodeId, cause: String },
    /// A probe brought no answer, which proves nothing by itself: what it met instead.
    Unanswered { node: NodeId, cause: String },
    /// Another server than this master answers at its address.
    Stranger { node: NodeId, cause: String },
    /// A worker's call failed without a verdict of the server.
    Doubted { node: NodeId, cause: String },
    /// A write of a client, or a look at the master, was refused for a reason of the server's own.
    WriteDoubted { node: NodeId },
    /// A trial write passed, or was refused for such a reason: PostgreSQL's message.
    WriteTried {
        node: NodeId,
        refusal: Option<String>,
    },
    /// A person wants the traffic on `to`; the answer goes out under `ticket`. With `force` it goes there
    /// at once, whatever has not arrived there yet.
    Switch {
        to: NodeId,
        force: bool,
        ticket: u64,
    },
    /// A person wants the traffic to stay where it is for so long, or, with nothing, no longer.
    Pause { for_ms: Option<u64>, ticket: u64 },
    /// What this process is among those that serve the same pair.
    Role(Role),
    /// This process decides, until then, unless it says so again.
    Leads { until_ms: u64, why: &'static str },
    /// While writes are held: none is under way any more.
    Drained,
    /// Time has passed.
    Tick,
    /// For so long nobody listened here, because the whole program stood still: the masters cannot be
    /// blamed for having been silent meanwhile.
    Slept { ms: u64 },
}

/// What is to be done, in order.
#[derive(Debug)]
pub enum Effect {
    ProbeNow(NodeId),
    AlignSequences(NodeId),
    /// Try a write on this master, and undo it.
    TryWrite(NodeId),
    /// Make the commits of a master wait until its peer has them, or free them from waiting.
    WaitForPeer {
        node: NodeId,
        wait: bool,
    },
    /// Tell a master how often its peer has begun to serve.
    NoteStarts {
        on: NodeId,
        starts: u64,
    },
    /// Make the apply worker of a master wait for its disk at each transaction, or only now and then.
    ApplyStrictly {
        node: NodeId,
        strict: bool,
    },
    /// End the waiting of commits one by one, since an order for all has not reached them.
    FreeCommits(NodeId),
    /// After a failover to this master: end what it has applied of a transaction whose rest is on the
    /// master that is gone, since its rows would keep others waiting.
    ReleaseApply(NodeId),
    Record(Change),
    Answer {
        ticket: u64,
        outcome: Result<(), Refusal>,
    },
}

/// One thing that changed: a line of the log and an entry of the history.
#[derive(Clone, Debug, Serialize)]
pub struct Change {
    /// `node` (a master changed state), `start`, `failover`, `handover`, `outage`, `service`, `follow`,
    /// `durability`, `pause` or `lease`.
    pub what: &'static str,
    pub node: NodeId,
    pub from: &'static str,
    pub to: &'static str,
    pub why: &'static str,
    /// The error or figure behind it, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// How long what ended had lasted, or how long the handover took, in ms.
    pub duration_ms: u64,
    /// For how long writes stood still because of it, in ms, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stall_ms: Option<u64>,
}

/// Where the peer stood when this master came back: what it has to catch up with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Barrier {
    /// To be read off the peer's first answer to a probe sent after this time.
    WantedSince(u64),
    /// A WAL position of the peer.
    At(u64),
}

#[derive(Debug)]
struct Node {
    state: NodeState,
    since_ms: u64,
    why: &'static str,
    cause: Option<String>,
    /// Another server answers at its address.
    stranger: bool,
    heard_ms: u64,
    /// What a probe met last instead of an answer; nothing once there is one.
    met: Option<String>,
    /// The newest facts, and when they were asked for; none while the master is not answering.
    facts: Option<(Facts, u64)>,
    barrier: Barrier,
    past: Past,
}

/// The state of the cluster. One owner holds it: the supervisor, or a test.
#[derive(Debug)]
pub struct Cluster {
    settings: Settings,
    nodes: [Node; 2],
    started_ms: u64,
    active: NodeId,
    serving: bool,
    /// Whether any master has served since the start; until then `active` is only the default.
    served: bool,
    /// Since when nobody is fit to serve, while that is so.
    nobody_since_ms: Option<u64>,
    route_since_ms: u64,
    handover: Option<Handover>,
    durability: Durability,
    fitness: [Fitness; 2],
    role: Role,
    role_since_ms: u64,
    /// Until when it decides, if it does, and why.
    leads: (u64, &'static str),
    paused_until_ms: Option<u64>,
}

impl Cluster {
    /// A cluster of which nothing is known yet at `now_ms`.
    pub fn new(settings: Settings, now_ms: u64) -> Cluster {
        let node = || Node {
            state: NodeState::Unknown,
            since_ms: now_ms,
            why: "nothing has been heard of it since the start",
            cause: None,
            stranger: false,
            heard_ms: now_ms,
            met: None,
            facts: None,
            barrier: Barrier::WantedSince(now_ms),
            past: Past::default(),
        };
        let durability = Durability::new(settings.durability, now_ms);
        Cluster {
            settings,
            durability,
            fitness: Default::default(),
            role: Role::Unknown,
            role_since_ms: now_ms,
            leads: (u64::MAX, "no other process holds the lease"),
            paused_until_ms: None,
            nodes: [node(), node()],
            started_ms: now_ms,
            active: NodeId::Master1,
            serving: false,
            served: false,
            nobody_since_ms: Some(now_ms),
            route_since_ms: now_ms,
            handover: None,
        }
    }

    /// Takes in one event and returns what is to be done about it.
    pub fn handle(&mut self, now_ms: u64, event: Event) -> Vec<Effect> {
        let mut out = Vec::new();
        let ticks = matches!(event, Event::Tick);
        self.end_leading(now_ms, &mut out);
        match event {
            Event::Answered {
                node,
                facts,
                asked_ms,
            } => {
                self.hear(now_ms, node, facts, asked_ms, &mut out);
            }
            Event::Refused { node, cause } => {
                self.meet(node, &cause);
                self.signal(now_ms, node, Signal::Refused, Some(cause), &mut out);
            }
            Event::Unanswered { node, cause } => {
                self.meet(node, &cause);
                self.signal(now_ms, node, Signal::Doubt, Some(cause), &mut out);
            }
            Event::WriteDoubted { node } => self.doubt_writes(node),
            Event::WriteTried { node, refusal } => self.note_trial(now_ms, node, refusal),
            Event::Stranger { node, cause } => {
                self.signal(now_ms, node, Signal::Stranger, Some(cause), &mut out);
            }
            Event::Doubted { node, cause } => {
                self.signal(now_ms, node, Signal::Doubt, Some(cause), &mut out);
            }
            Event::Switch { to, force, ticket } => {
                self.begin_handover(now_ms, to, force, ticket, &mut out);
            }
            Event::Pause { for_ms, ticket } => {
                let outcome = self.may_command();
                if outcome.is_ok() {
                    let until = for_ms.map(|for_ms| now_ms + for_ms);
                    self.pause(now_ms, until, &mut out);
                }
                out.push(Effect::Answer { ticket, outcome });
            }
            Event::Role(role) => self.set_role(now_ms, role, &mut out),
            Event::Leads { until_ms, why } => {
                self.leads = (until_ms, why);
                self.set_role(now_ms, Role::Leader, &mut out);
                self.end_leading(now_ms, &mut out);
            }
            Event::Drained => self.settle_handover(now_ms),
            Event::Tick => {
                self.count_silence(now_ms, &mut out);
                self.end_pause(now_ms, &mut out);
            }
            Event::Slept { ms } => {
                for node in &mut self.nodes {
                    node.heard_ms = (node.heard_ms + ms).min(now_ms);
                }
            }
        }
        self.judge_older(now_ms, &mut out);
        self.judge_link(now_ms, &mut out);
        self.judge_current(now_ms, &mut out);
        self.judge_nobody(now_ms, &mut out);
        self.judge_fitness(now_ms, &mut out);
        self.route(now_ms, &mut out);
        self.advance_handover(now_ms, &mut out);
        self.judge_durability(now_ms, &mut out);
        if ticks {
            self.hasten(now_ms, &mut out);
        }
        out
    }

    fn node(&self, node: NodeId) -> &Node {
        &self.nodes[node.index()]
    }

    fn state(&self, node: NodeId) -> NodeState {
        self.node(node).state
    }

    fn facts(&self, node: NodeId) -> Option<&Facts> {
        self.node(node).facts.as_ref().map(|(facts, _)| facts)
    }

    /// Runs one row of the table, if there is one for this state and signal.
    fn signal(
        &mut self,
        now: u64,
        id: NodeId,
        signal: Signal,
        cause: Option<String>,
        out: &mut Vec<Effect>,
    ) {
        let node = &mut self.nodes[id.index()];
        let Some(row) = fsm::step(node.state, signal) else {
            // It stays down, and why may be another matter by now.
            if let (NodeState::Down, Signal::Refused | Signal::Stranger, Some(row)) =
                (node.state, signal, fsm::step(NodeState::Up, signal))
            {
                (node.why, node.cause) = (row.why, cause);
                node.stranger = signal == Signal::Stranger;
            }
            return;
        };
        out.push(Effect::Record(Change {
            what: "node",
            node: id,
            from: row.from.name(),
            to: row.to.name(),
            why: row.why,
            cause: cause.clone(),
            duration_ms: now - node.since_ms,
            stall_ms: None,
        }));
        node.state = row.to;
        node.since_ms = now;
        node.why = row.why;
        node.cause = cause;
        node.stranger = signal == Signal::Stranger;
        // What has been away is compared anew, and a person's word holds until then.
        match row.to {
            NodeState::Down => node.past.forced = false,
            NodeState::CatchingUp => node.past.checked = false,
            _ => {}
        }
        if signal == Signal::Forced {
            node.past.forced = node.past.older.is_some();
        }
        if row.to == NodeState::Down {
            node.facts = None;
        }
        for action in row.act {
            match action {
                Action::ProbeNow => out.push(Effect::ProbeNow(id)),
                Action::AlignSequences => out.push(Effect::AlignSequences(id)),
                Action::NoteBarrier => {
                    self.nodes[id.index()].barrier = Barrier::WantedSince(now);
                    out.push(Effect::ProbeNow(id.peer()));
                }
            }
        }
    }
}
