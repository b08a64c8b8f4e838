//! Whether a master that answers also takes writes. One that refuses them for a reason of its own (it is read-only, its disk is
//! full, a column or a privilege is gone) is alive and of no use, and its peer may take them.
//!
//! What decides are trial writes, which are undone: they are the same on both masters, and there are some even when no client
//! writes. A client's refused write, or a look at the master, only asks for one.

use super::routing::Route;
use super::{Cluster, Effect, NodeId, NodeState, Role, Signal};

/// What the trial writes on one master have shown.
#[derive(Debug, Default)]
pub(super) struct Fitness {
    /// Since when every one was refused, and PostgreSQL's newest message.
    refused: Option<(u64, String)>,
    /// When the first one in a row passed, and when the newest did.
    passed: Option<(u64, u64)>,
    /// When one was asked for last.
    asked_ms: Option<u64>,
    /// Something else was refused since then.
    doubted: bool,
}

impl Cluster {
    /// Takes in that a write of a client, or a look at this master, was refused for a reason of the server's own.
    pub(super) fn doubt_writes(&mut self, id: NodeId) {
        self.fitness[id.index()].doubted = true;
    }

    /// Takes in what became of a trial write: nothing, or the server's refusal.
    pub(super) fn note_trial(&mut self, now: u64, id: NodeId, refusal: Option<String>) {
        let fitness = &mut self.fitness[id.index()];
        fitness.doubted = false;
        match refusal {
            Some(text) => {
                let since = fitness.refused.as_ref().map_or(now, |(since, _)| *since);
                fitness.refused = Some((since, text));
                fitness.passed = None;
            }
            None => {
                let first = fitness.passed.map_or(now, |(first, _)| first);
                fitness.passed = Some((first, now));
                fitness.refused = None;
            }
        }
    }

    /// Judges both masters by their trial writes, and asks for the next ones.
    pub(super) fn judge_fitness(&mut self, now: u64, out: &mut Vec<Effect>) {
        for id in NodeId::BOTH {
            if !self.state(id).serves() {
                self.fitness[id.index()] = Fitness::default();
                continue;
            }
            let Fitness {
                refused, passed, ..
            } = &self.fitness[id.index()];
            let lasts = |since: u64, for_ms: u64| now.saturating_sub(since) >= for_ms;
            match (refused, passed) {
                (Some((since, text)), _) if lasts(*since, self.settings.unfit_after_ms) => {
                    let text = text.clone();
                    if self.state(id) == NodeState::Unfit {
                        self.nodes[id.index()].cause = Some(text);
                    } else {
                        self.signal(now, id, Signal::WritesRefused, Some(text), out);
                    }
                }
                (_, Some((since, _))) if lasts(*since, self.settings.fit_after_ms) => {
                    self.signal(now, id, Signal::WritesTaken, None, out);
                }
                _ => {}
            }
            let pause = self.trial_pause(id);
            let fitness = &mut self.fitness[id.index()];
            if fitness.asked_ms.is_none_or(|asked| lasts(asked, pause)) {
                fitness.asked_ms = Some(now);
                out.push(Effect::TryWrite(id));
            }
        }
    }

    /// How long after the last one the next trial write on this master is due.
    fn trial_pause(&self, id: NodeId) -> u64 {
        let fitness = &self.fitness[id.index()];
        // Whether the traffic can move here is asked only while it has to leave where it is.
        let wanted = id != self.active && self.fitness[self.active.index()].refused.is_some();
        match self.state(id) {
            NodeState::Unfit => self.settings.trial_unfit_ms,
            _ if fitness.doubted || fitness.refused.is_some() || wanted => {
                self.settings.trial_urgent_ms
            }
            _ => self.settings.trial_quiet_ms,
        }
    }

    /// Moves the traffic off a master that refuses writes, if its peer has shown that it takes them. When both refuse, nobody is
    /// helped by a move, so the traffic stays.
    pub(super) fn leave_unfit(&mut self, now: u64, out: &mut Vec<Effect>) {
        let (active, peer) = (self.active, self.active.peer());
        let decides = !matches!(self.role, Role::Follower(_) | Role::Unknown);
        let held = self.paused_until_ms.is_some() || self.handover.is_some();
        if !decides || held || self.state(active) != NodeState::Unfit {
            return;
        }
        let Some((refused_ms, _)) = &self.fitness[active.index()].refused else {
            return;
        };
        // Since then, not once: what broke the one may have broken the other.
        let takes = self.fitness[peer.index()].passed;
        let takes = takes.is_some_and(|(_, newest)| newest >= *refused_ms);
        if self.state(peer) != NodeState::Up || !takes {
            return;
        }
        // It lives, so the peer gets the time to take over what was written before. A master without room cannot always send it.
        let sent = self.facts(active).is_some_and(|facts| {
            facts.peer_streaming && facts.peer_lag_bytes().is_some_and(|lag| lag == 0)
        });
        let unfit_since = self.node(active).since_ms;
        if sent || now.saturating_sub(unfit_since) >= self.settings.unfit_sends_ms {
            let route = Route {
                what: "failover",
                why: "the active master refuses writes and its peer takes them",
                since: *refused_ms,
            };
            self.note_leaving(now);
            self.point_at(now, peer, route, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sim::settings;
    use super::super::{Event, Facts, Link};
    use super::*;
    use NodeId::{Master1, Master2};

    const MESSAGE: &str = "ERROR 25006: cannot execute INSERT in a read-only transaction";

    /// Two masters that answer every 100 ms, some of which refuse writes.
    struct Table {
        cluster: Cluster,
        now: u64,
        refusing: [bool; 2],
        /// Whether the active master can send what it has.
        sends: bool,
        failovers: Vec<u64>,
        answers: Vec<Result<(), &'static str>>,
        asked: Vec<NodeId>,
    }

    impl Table {
        fn lay() -> Table {
            let mut table = Table {
                cluster: Cluster::new(settings(), 0),
                now: 0,
                refusing: [false; 2],
                sends: true,
                failovers: Vec::new(),
                answers: Vec::new(),
                asked: Vec::new(),
            };
            table.feed(Event::Role(Role::Leader));
            table.pass(6_000);
            assert_eq!(table.active(), Master1);
            table
        }

        fn active(&self) -> NodeId {
            self.cluster.view().active
        }

        fn state(&self, node: NodeId) -> NodeState {
            self.cluster.state(node)
        }

        fn feed(&mut self, event: Event) {
            for effect in self.cluster.handle(self.now, event) {
                match effect {
                    Effect::TryWrite(node) => self.asked.push(node),
                    Effect::Record(change) if change.what == "failover" => {
                        assert_eq!(change.cause.as_deref(), Some(MESSAGE));
                        self.failovers.push(self.now);
                    }
                    Effect::Answer { outcome, .. } => {
                        self.answers.push(outcome.map_err(|refusal| refusal.code));
                    }
                    _ => {}
                }
            }
        }

        /// Lets time pass.
        fn pass(&mut self, ms: u64) {
            for _ in 0..ms / 100 {
                for node in NodeId::BOTH {
                    // What is asked in the same moment says nothing of the other.
                    self.now += 50;
                    let facts = Facts {
                        wal_lsn: 2_000,
                        peer_confirmed_lsn: Some(if self.sends { 2_000 } else { 1_000 }),
                        peer_streaming: self.sends,
                        link: Link::Ready,
                        ..Facts::default()
                    };
                    let asked_ms = self.now;
                    self.feed(Event::Answered {
                        node,
                        facts,
                        asked_ms,
                    });
                }
                for node in std::mem::take(&mut self.asked) {
                    let refusal = self.refusing[node.index()].then(|| MESSAGE.to_string());
                    self.feed(Event::WriteTried { node, refusal });
                }
                self.feed(Event::Tick);
                if self.cluster.holding_writes() {
                    self.feed(Event::Drained);
                }
            }
        }
    }

    #[test]
    fn the_traffic_leaves_a_master_that_refuses_writes() {
        let mut table = Table::lay();
        table.refusing = [true, false];
        table.feed(Event::WriteDoubted { node: Master1 });
        table.pass(1_900);
        assert_eq!(table.state(Master1), NodeState::Up, "it may pass");
        table.pass(400);
        assert_eq!((table.active(), table.failovers.len()), (Master2, 1));
        assert_eq!(table.state(Master1), NodeState::Unfit);
        // It is fit again when it has taken them for a while, and nothing goes home by itself.
        table.refusing = [false, false];
        table.pass(2_900);
        assert_eq!(table.state(Master1), NodeState::Unfit);
        table.pass(2_000);
        assert_eq!(table.state(Master1), NodeState::Up);
        table.pass(60_000);
        assert_eq!((table.active(), table.failovers.len()), (Master2, 1));
    }

    #[test]
    fn when_both_refuse_writes_the_traffic_stays() {
        let mut table = Table::lay();
        table.refusing = [true, true];
        table.pass(60_000);
        assert_eq!((table.active(), table.failovers.len()), (Master1, 0));
        let view = table.cluster.view();
        assert!(view.serving && !view.takes_writes());
        let mut alarms = view.alarms(table.now, 5_000);
        alarms.retain(|alarm| !alarm.contains("durability")); // nobody waits for anybody here
        assert!(
            alarms[0].starts_with("master1: ") && alarms[0].contains(MESSAGE),
            "{alarms:?}"
        );
        assert!(alarms[1].starts_with("master2: ") && alarms.len() == 2);
        // The one that is mended first gets the traffic, once.
        table.refusing = [true, false];
        table.pass(60_000);
        assert_eq!((table.active(), table.failovers.len()), (Master2, 1));
        table.refusing = [true, true];
        table.pass(60_000);
        assert_eq!((table.active(), table.failovers.len()), (Master2, 1));
    }

    #[test]
    fn a_fault_that_follows_the_traffic_moves_it_seldom() {
        let mut table = Table::lay();
        for _ in 0..600 {
            table.refusing = [table.active() == Master1, table.active() == Master2];
            table.pass(100);
        }
        let least = settings().unfit_after_ms + settings().fit_after_ms;
        for pair in table.failovers.windows(3) {
            assert!(pair[2] - pair[0] >= least, "{:?}", table.failovers);
        }
    }

    #[test]
    fn what_it_cannot_send_is_waited_for_and_no_longer() {
        let mut table = Table::lay();
        (table.refusing, table.sends) = ([true, false], false);
        table.feed(Event::WriteDoubted { node: Master1 });
        table.pass(2_700);
        assert_eq!(table.state(Master1), NodeState::Unfit);
        assert_eq!(table.active(), Master1);
        table.pass(700);
        assert_eq!(table.active(), Master2);
    }

    #[test]
    fn a_person_gets_the_traffic_off_it_and_not_onto_it() {
        let mut table = Table::lay();
        let (for_ms, ticket) = (Some(100_000), 1);
        table.feed(Event::Pause { for_ms, ticket });
        (table.refusing, table.sends) = ([true, false], false);
        table.pass(20_000);
        assert_eq!(table.active(), Master1, "a pause holds it");
        let switch = |to, force| Event::Switch {
            to,
            force,
            ticket: 2,
        };
        table.feed(switch(Master2, false));
        table.pass(3_000);
        assert_eq!(table.active(), Master2);
        table.feed(switch(Master1, false));
        assert_eq!(table.active(), Master2);
        table.feed(switch(Master1, true));
        table.pass(1_000);
        assert_eq!(table.active(), Master1, "by force");
        let expected = [Ok(()), Ok(()), Err("target_unfit"), Ok(())];
        assert_eq!(table.answers, expected);
    }
}
