//! Handover: a person moves the traffic to the other master, and nothing is lost, stale or refused
//! on the way. Writes are held; when none is under way any more, the active master is asked where
//! its WAL ends; when the target has confirmed that position, the route flips and the writes go on.

use super::routing::Route;
use super::{Change, Cluster, Effect, NodeId, NodeState};
use serde::Serialize;

/// A handover under way.
#[derive(Debug)]
pub(super) struct Handover {
    to: NodeId,
    ticket: u64,
    started_ms: u64,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// Writes are held, and those under way are waited for.
    Draining,
    /// None is under way since `since_ms`; the target must confirm `barrier`, a WAL position of the
    /// active master read after that time.
    Settling { since_ms: u64, barrier: Option<u64> },
}

/// Why a handover did not happen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// `target_down`, `target_behind`, `handover_busy` or `no_master`: one of the codes of the API.
    pub code: &'static str,
    /// The reason in figures, in English.
    pub detail: String,
}

impl Cluster {
    pub(super) fn begin_handover(
        &mut self,
        now: u64,
        to: NodeId,
        ticket: u64,
        out: &mut Vec<Effect>,
    ) {
        if self.serving && self.active == to && self.handover.is_none() {
            out.push(Effect::Answer {
                ticket,
                outcome: Ok(()),
            });
            return;
        }
        if let Err(refusal) = self.may_hand_over(to) {
            out.push(Effect::Answer {
                ticket,
                outcome: Err(refusal),
            });
            return;
        }
        self.handover = Some(Handover {
            to,
            ticket,
            started_ms: now,
            phase: Phase::Draining,
        });
    }

    /// Whether trying makes sense at all; refused before any write is held.
    fn may_hand_over(&self, to: NodeId) -> Result<(), Refusal> {
        let refuse = |code, detail| Err(Refusal { code, detail });
        if let Some(running) = &self.handover {
            return refuse(
                "handover_busy",
                format!("a handover to {} is under way", running.to),
            );
        }
        match self.state(to) {
            NodeState::Up => {}
            NodeState::CatchingUp => {
                return refuse("target_behind", self.missing_to_current(to));
            }
            state => {
                return refuse(
                    "target_down",
                    format!("{to} is {state}: {}", self.node_view(to).reason),
                );
            }
        }
        if !self.serving {
            return refuse(
                "no_master",
                "no master serves, so there is nothing to hand over".into(),
            );
        }
        let Some(facts) = self.facts(self.active) else {
            return refuse(
                "target_behind",
                format!("{} has not said where it stands", self.active),
            );
        };
        match facts.peer_lag_bytes() {
            Some(lag) if facts.peer_streaming && lag <= self.settings.handover_lag_max_bytes => {
                Ok(())
            }
            Some(lag) if facts.peer_streaming => refuse(
                "target_behind",
                format!("{to} is {lag} bytes behind {}", self.active),
            ),
            _ => refuse(
                "target_behind",
                format!("{} is not streaming to {to}", self.active),
            ),
        }
    }

    /// No write is under way: from now on the end of the active master's WAL stands still.
    pub(super) fn settle_handover(&mut self, now: u64, out: &mut Vec<Effect>) {
        let Some(handover) = &mut self.handover else {
            return;
        };
        if matches!(handover.phase, Phase::Draining) {
            handover.phase = Phase::Settling {
                since_ms: now,
                barrier: None,
            };
            out.push(Effect::ProbeNow(self.active));
        }
    }

    /// Ends the handover if it can be ended, one way or the other.
    pub(super) fn advance_handover(&mut self, now: u64, out: &mut Vec<Effect>) {
        let Some(handover) = &mut self.handover else {
            return;
        };
        let (to, ticket, started_ms) = (handover.to, handover.ticket, handover.started_ms);
        let active = self.active;
        if let Phase::Settling { since_ms, barrier } = &mut handover.phase {
            if let Some((facts, asked_ms)) = &self.nodes[active.index()].facts {
                // Later than, not as late as: within one millisecond the question may have come first.
                if barrier.is_none() && *asked_ms > *since_ms {
                    *barrier = Some(facts.wal_lsn);
                }
                let confirmed = facts.peer_confirmed_lsn.filter(|_| facts.peer_streaming);
                if active != to && matches!((*barrier, confirmed), (Some(b), Some(c)) if c >= b) {
                    self.handover = None;
                    let (what, why) = ("handover", "a person moved the traffic");
                    self.point_at(
                        now,
                        to,
                        Route {
                            what,
                            why,
                            since: started_ms,
                        },
                        out,
                    );
                    out.push(Effect::Answer {
                        ticket,
                        outcome: Ok(()),
                    });
                    return;
                }
            }
            out.push(Effect::ProbeNow(active));
        }
        let outcome = if self.serving && self.active == to {
            Ok(()) // a failover took the traffic there meanwhile
        } else if !self.state(to).serves() {
            Err(Refusal {
                code: "target_down",
                detail: format!("{to} is {}: {}", self.state(to), self.node_view(to).reason),
            })
        } else if now - started_ms >= self.settings.handover_deadline_ms {
            Err(Refusal {
                code: "target_behind",
                detail: self.why_late(to, now - started_ms),
            })
        } else {
            return;
        };
        if let Err(refusal) = &outcome {
            out.push(Effect::Record(Change {
                what: "handover",
                node: active,
                from: active.name(),
                to: active.name(),
                why: "the handover was refused and the writes go on where they were",
                cause: Some(refusal.detail.clone()),
                duration_ms: now - started_ms,
            }));
        }
        self.handover = None;
        out.push(Effect::Answer { ticket, outcome });
    }

    fn why_late(&self, to: NodeId, waited_ms: u64) -> String {
        let lag = match self
            .facts(self.active)
            .and_then(|facts| facts.peer_lag_bytes())
        {
            Some(lag) => format!("{to} is {lag} bytes behind {}", self.active),
            None => format!("{} has not said where it stands", self.active),
        };
        format!("{lag} after {waited_ms} ms")
    }
}
