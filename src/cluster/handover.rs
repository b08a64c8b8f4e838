//! Handover: a person moves the traffic to the other master, and nothing is lost, stale or refused
//! on the way. Both masters are asked anew where they stand; the target begins to wait for its peer, so
//! that nothing is less durable there; writes are held; when none is under way any more, it is asked where
//! the active master's WAL ends; when the target has confirmed that position, the route flips and the
//! writes go on.

use super::routing::Route;
use super::{Change, Cluster, Effect, Facts, Level, Link, NodeId, NodeState, Role, Signal};
use serde::Serialize;

/// A handover under way.
#[derive(Debug)]
pub(super) struct Handover {
    to: NodeId,
    ticket: u64,
    started_ms: u64,
    /// Since when it holds the writes.
    held_since_ms: Option<u64>,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// What is known of the masters may be a probe's interval old; both are asked anew before
    /// anything is refused or held.
    Asking { since_ms: u64 },
    /// The traffic goes over as soon as the target has answered anew: by force, or because nobody
    /// serves, so that there is nothing to wait for.
    Leaping { since_ms: u64, forced: bool },
    /// The target is to wait for its peer like the active master does. Writes go on meanwhile.
    Arming { since_ms: u64 },
    /// Writes are held, and those under way are waited for.
    Draining,
    /// None is under way since `since_ms`; the target must confirm `barrier`, a WAL position of the
    /// active master read after that time.
    Settling { since_ms: u64, barrier: Option<u64> },
}

/// How a handover stands.
enum Progress {
    GoesOn,
    /// The target has everything, or a person wants it there without.
    Flip {
        why: &'static str,
    },
    /// Over, without a flip of its own.
    Ended(Result<(), Refusal>),
}

/// Why a handover did not happen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// `target_down`, `target_behind`, `target_unfit`, `handover_busy`, `not_leader` or `no_master`: one of the codes of
    /// the API.
    pub code: &'static str,
    /// The reason in figures, in English.
    pub detail: String,
}

fn refused<T>(code: &'static str, detail: String) -> Result<T, Refusal> {
    Err(Refusal { code, detail })
}

impl Cluster {
    /// Whether writes are held, so that the owner watches for [`super::Event::Drained`].
    pub fn holding_writes(&self) -> bool {
        let phase = self.handover.as_ref().map(|handover| &handover.phase);
        matches!(phase, Some(Phase::Draining | Phase::Settling { .. }))
    }

    /// The target of a handover that is past its questions.
    pub(super) fn handover_target(&self) -> Option<NodeId> {
        let handover = self.handover.as_ref()?;
        let asks = matches!(handover.phase, Phase::Asking { .. } | Phase::Leaping { .. });
        (!asks).then_some(handover.to)
    }

    /// For how long the handover that is under way has held the writes.
    pub(super) fn held_ms(&self, now: u64) -> Option<u64> {
        let since = self.handover.as_ref()?.held_since_ms?;
        Some(now - since)
    }

    /// Whether this process may take a person's command at all.
    pub(super) fn may_command(&self) -> Result<(), Refusal> {
        match &self.role {
            Role::Leader => Ok(()),
            Role::Follower(leader) => refused(
                "not_leader",
                format!("the process at {} decides; ask it", leader.address),
            ),
            Role::Unknown | Role::Orphan => refused("not_leader", self.role.name().to_string()),
        }
    }

    pub(super) fn begin_handover(
        &mut self,
        now: u64,
        to: NodeId,
        force: bool,
        ticket: u64,
        out: &mut Vec<Effect>,
    ) {
        let there = self.handover.is_none() && self.serving && self.active == to;
        let since_ms = now;
        let phase = match self.may_command() {
            Err(refusal) => Err(refusal),
            Ok(()) if there => {
                let outcome = Ok(());
                return out.push(Effect::Answer { ticket, outcome });
            }
            Ok(()) if force => self.may_force(to).map(|()| Phase::Leaping {
                since_ms,
                forced: true,
            }),
            Ok(()) => self.may_ask(to).map(|()| match self.serving {
                true => Phase::Asking { since_ms },
                false => Phase::Leaping {
                    since_ms,
                    forced: false,
                },
            }),
        };
        match phase {
            Err(refusal) => {
                let outcome = Err(refusal);
                out.push(Effect::Answer { ticket, outcome });
            }
            Ok(phase) => {
                let handover = Handover {
                    to,
                    ticket,
                    started_ms: now,
                    held_since_ms: None,
                    phase,
                };
                // Only force overtakes. Whoever waits for the one in order learns how it ended.
                if let Some(overtaken) = self.handover.replace(handover) {
                    let ticket = overtaken.ticket;
                    let detail = format!("a person forces the traffic to {to}");
                    let outcome = refused("handover_busy", detail);
                    out.push(Effect::Answer { ticket, outcome });
                }
            }
        }
    }

    /// Whether a master can be served from at all, whatever it lacks. Half a copy cannot.
    fn may_force(&self, to: NodeId) -> Result<(), Refusal> {
        let copying = self
            .facts(to)
            .is_some_and(|facts| facts.link == Link::Copying);
        match self.state(to) {
            NodeState::CatchingUp if copying => refused("target_behind", self.describe(to)),
            NodeState::Up | NodeState::Suspect | NodeState::Unfit | NodeState::CatchingUp => Ok(()),
            NodeState::Unknown | NodeState::Down => refused("target_down", self.describe(to)),
        }
    }

    /// No write is under way: from now on the end of the active master's WAL stands still.
    pub(super) fn settle_handover(&mut self, now: u64) {
        if let Some(handover) = &mut self.handover {
            if matches!(handover.phase, Phase::Draining) {
                handover.phase = Phase::Settling {
                    since_ms: now,
                    barrier: None,
                };
            }
        }
    }

    /// Moves the handover on, and ends it if it can be ended, one way or the other.
    pub(super) fn advance_handover(&mut self, now: u64, out: &mut Vec<Effect>) {
        let holding = self.holding_writes();
        let Some(mut handover) = self.handover.take() else {
            return;
        };
        let Handover {
            to,
            ticket,
            started_ms,
            ..
        } = handover;
        let progress = self.progress(now, &mut handover);
        if matches!(handover.phase, Phase::Draining) {
            handover.held_since_ms.get_or_insert(now);
        }
        let held_since_ms = handover.held_since_ms;
        let outcome = match progress {
            Progress::GoesOn => {
                // Both phases that wait for a position wait for a probe that is sent from now on.
                if !matches!(handover.phase, Phase::Draining) {
                    out.push(Effect::ProbeNow(self.active));
                }
                if !matches!(handover.phase, Phase::Draining | Phase::Settling { .. }) {
                    out.push(Effect::ProbeNow(to));
                }
                self.handover = Some(handover);
                return;
            }
            Progress::Flip { why } => {
                let cause = Some(self.missing_to_current(to));
                self.signal(now, to, Signal::Forced, cause, out);
                let (what, since) = ("handover", started_ms);
                self.note_leaving(now);
                self.handover = Some(handover); // how long it held the writes is told with it
                self.point_at(now, to, Route { what, why, since }, out);
                self.handover = None;
                Ok(())
            }
            Progress::Ended(outcome) => outcome,
        };
        if let (true, Err(refusal)) = (holding, &outcome) {
            out.push(Effect::Record(Change {
                what: "handover",
                node: self.active,
                from: self.active.name(),
                to: self.active.name(),
                why: "the handover was refused and the writes go on where they were",
                cause: Some(refusal.detail.clone()),
                duration_ms: now - started_ms,
                stall_ms: held_since_ms.map(|since| now - since),
            }));
        }
        out.push(Effect::Answer { ticket, outcome });
    }

    fn progress(&self, now: u64, handover: &mut Handover) -> Progress {
        let to = handover.to;
        if self.serving && self.active == to {
            return Progress::Ended(Ok(())); // a failover took the traffic there meanwhile
        }
        if let Err(refusal) = self.may_go_on(handover) {
            return Progress::Ended(Err(refusal));
        }
        // Later than, not as late as: within one millisecond the question may have come first.
        let fresh = |node: NodeId, since: u64| -> Option<&Facts> {
            let (facts, asked_ms) = self.node(node).facts.as_ref()?;
            (*asked_ms > since).then_some(facts)
        };
        match &mut handover.phase {
            Phase::Leaping { since_ms, forced } if fresh(to, *since_ms).is_some() => {
                let why = match forced {
                    true => {
                        "a person forced the traffic over, without waiting for what had not arrived"
                    }
                    false => "a person moved the traffic while nobody served",
                };
                return Progress::Flip { why };
            }
            Phase::Leaping { .. } => {}
            Phase::Asking { since_ms } => {
                // The target too, which may have frozen a moment ago.
                let target = fresh(to, *since_ms);
                if let (Some(facts), Some(_)) = (fresh(self.active, *since_ms), target) {
                    match self.may_hold(to, facts) {
                        Ok(()) if self.durability.level() == Level::ZeroLoss => {
                            handover.phase = Phase::Arming { since_ms: now };
                        }
                        Ok(()) => handover.phase = Phase::Draining,
                        Err(refusal) => return Progress::Ended(Err(refusal)),
                    }
                }
            }
            Phase::Arming { since_ms } => {
                let armed = self.durability.level() != Level::ZeroLoss || self.waits(to);
                if armed || now - *since_ms >= self.settings.arming_max_ms {
                    handover.phase = Phase::Draining;
                }
            }
            Phase::Draining => {}
            Phase::Settling { since_ms, barrier } => {
                if let Some(facts) = fresh(self.active, *since_ms) {
                    let barrier = *barrier.get_or_insert(facts.wal_lsn);
                    let confirmed = facts.peer_confirmed_lsn.filter(|_| facts.peer_streaming);
                    if confirmed.is_some_and(|confirmed| confirmed >= barrier) {
                        let why = "a person moved the traffic";
                        return Progress::Flip { why };
                    }
                }
            }
        }
        self.overdue(now, handover)
    }

    /// What becomes of a handover that has not got anywhere: it goes on until its deadline.
    fn overdue(&self, now: u64, handover: &Handover) -> Progress {
        let to = handover.to;
        let waited_ms = now - handover.started_ms;
        if waited_ms < self.settings.handover_deadline_ms {
            return Progress::GoesOn;
        }
        let unfit = self.state(self.active) == NodeState::Unfit;
        if unfit && matches!(handover.phase, Phase::Settling { .. }) {
            let why = "a person moved the traffic off a master that refuses writes; what it has not sent arrives when it sends again";
            return Progress::Flip { why };
        }
        let why = match handover.phase {
            Phase::Draining => format!("writes on {} have not ended", self.active),
            Phase::Leaping { .. } => format!("{to} has not answered"),
            Phase::Asking { .. } | Phase::Arming { .. } | Phase::Settling { .. } => {
                self.how_far_behind(to)
            }
        };
        let code = match handover.phase {
            Phase::Leaping { .. } => "target_down",
            _ => "target_behind",
        };
        Progress::Ended(refused(code, format!("{why} after {waited_ms} ms")))
    }

    /// Whether its target can still be served from, and this process still decides: one that has lost the
    /// lease would follow back at once.
    fn may_go_on(&self, handover: &Handover) -> Result<(), Refusal> {
        self.may_command()?;
        let to = handover.to;
        match handover.phase {
            Phase::Leaping { forced: true, .. } => self.may_force(to),
            _ if self.state(to) == NodeState::Unfit => refused("target_unfit", self.describe(to)),
            _ if self.state(to).serves() => Ok(()),
            _ => refused("target_down", self.describe(to)),
        }
    }

    /// Whether asking makes sense at all.
    fn may_ask(&self, to: NodeId) -> Result<(), Refusal> {
        if let Some(running) = &self.handover {
            return refused(
                "handover_busy",
                format!("a handover to {} is under way", running.to),
            );
        }
        match self.state(to) {
            NodeState::Up => Ok(()),
            NodeState::CatchingUp => refused("target_behind", self.describe(to)),
            NodeState::Unfit => refused("target_unfit", self.describe(to)),
            _ => refused("target_down", self.describe(to)),
        }
    }

    /// Whether holding the writes makes sense, by what the active master said just now.
    fn may_hold(&self, to: NodeId, facts: &Facts) -> Result<(), Refusal> {
        let active = self.active;
        // One that takes no writes has little to send and may be unable to; what it has is waited for, for a while.
        if self.state(active) == NodeState::Unfit {
            return Ok(());
        }
        match facts.peer_lag_bytes().filter(|_| facts.peer_streaming) {
            Some(lag) if lag <= self.settings.handover_lag_max_bytes => Ok(()),
            Some(lag) => refused(
                "target_behind",
                format!("{to} is {lag} bytes behind {active}"),
            ),
            None => refused(
                "target_behind",
                format!("{active} is not streaming to {to}"),
            ),
        }
    }

    fn describe(&self, node: NodeId) -> String {
        let view = self.node_view(node);
        format!("{node} is {}: {}", view.state, view.reason)
    }

    fn how_far_behind(&self, to: NodeId) -> String {
        match self
            .facts(self.active)
            .and_then(|facts| facts.peer_lag_bytes())
        {
            Some(lag) => format!("{to} is {lag} bytes behind {}", self.active),
            None => format!("{} has not said where it stands", self.active),
        }
    }
}
