//! Whether a commit on the active master waits until its peer has it too. It does for as long as the
//! peer takes part; a peer that does not is not waited for, so that it can neither lose a row unseen
//! nor stop the writes. Only the active master ever waits, and a handover makes its target wait first.

use super::node::WaitsFor;
use super::{Change, Cluster, Effect, Link, NodeId, Role};
use serde::Serialize;

/// What is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    ZeroLoss,
    Async,
}

/// What holds for a write that is acknowledged now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// It is on both masters.
    ZeroLoss,
    /// It is on one master, until its peer is back.
    Degraded,
    /// It is on one master, and on its peer shortly: this is configured.
    Async,
}

impl Level {
    /// Its name in JSON, logs and the documentation.
    pub const fn name(self) -> &'static str {
        match self {
            Level::ZeroLoss => "zero-loss",
            Level::Degraded => "degraded",
            Level::Async => "async",
        }
    }
}

/// The durability as everyone sees it.
#[derive(Clone, Debug)]
pub struct DurabilityView {
    pub level: Level,
    pub since_ms: u64,
    pub why: &'static str,
}

#[derive(Debug)]
pub(super) struct Durability {
    level: Level,
    since_ms: u64,
    why: &'static str,
    /// After the peer was given up: the position on which master it must confirm to be waited for
    /// again. A link that passes nothing looks well for seconds, but it confirms nothing either.
    proof: Option<(NodeId, u64)>,
    /// Since which question each master has been seen to wait for its peer, without a break, and where
    /// its WAL ended then.
    waiting_since: [Option<(u64, u64)>; 2],
    /// What the peer of each master had confirmed when it last confirmed something new, and when that
    /// was first seen.
    progress: [Option<(u64, u64)>; 2],
    /// What was last asked of each master, and when.
    asked: [Option<(bool, u64)>; 2],
    /// What was last asked of the apply worker of each master, and when.
    asked_apply: [Option<(bool, u64)>; 2],
    /// Since when the active master takes an order to wait up.
    taking_up_since: Option<u64>,
    /// When commits were last freed one by one.
    freed_ms: u64,
    /// The master that a handover left in zero-loss, and when: other processes may still write to it.
    left: Option<(NodeId, u64)>,
}

/// Why the active master does not wait for its peer, or not yet.
struct Reason {
    why: &'static str,
    /// Whether this is proof by the active master's own word, which any API process may act on.
    proven: bool,
}

impl Reason {
    const fn seen(why: &'static str) -> Reason {
        Reason { why, proven: false }
    }

    const fn proven(why: &'static str) -> Reason {
        Reason { why, proven: true }
    }
}

const WAITS: &str = "the peer takes part: a commit waits until both masters have it";
const TAKING_UP: &str = "the active master has been told to wait for its peer and takes it up";

impl Durability {
    pub(super) fn new(mode: Mode, now: u64) -> Durability {
        let (level, why) = match mode {
            Mode::ZeroLoss => (Level::Degraded, "nothing is known of the peer yet"),
            Mode::Async => (Level::Async, "it is configured so"),
        };
        Durability {
            level,
            since_ms: now,
            why,
            proof: None,
            waiting_since: [None; 2],
            progress: [None; 2],
            asked: [None; 2],
            asked_apply: [None; 2],
            taking_up_since: None,
            freed_ms: 0,
            left: None,
        }
    }

    pub(super) fn level(&self) -> Level {
        self.level
    }

    pub(super) fn view(&self) -> DurabilityView {
        DurabilityView {
            level: self.level,
            since_ms: self.since_ms,
            why: self.why,
        }
    }
}

impl Cluster {
    /// Tells the masters whether to wait, and what that makes of the durability.
    pub(super) fn judge_durability(&mut self, now: u64, out: &mut Vec<Effect>) {
        for id in NodeId::BOTH {
            self.note_waiting(id);
        }
        let active = self.active;
        let obstacle = self.obstacle();
        let target = self.arming_target();
        for id in NodeId::BOTH {
            let wait = match id == active {
                true => obstacle.is_none(),
                false => target == Some(id) || self.lingers(now, id),
            };
            // Whoever does not hold the lease only frees writes that wait in vain.
            let proven = id == active && obstacle.as_ref().is_some_and(|reason| reason.proven);
            if self.role.leads() || (!wait && proven) {
                self.ask_to_wait(now, id, wait, out);
            }
        }
        self.note_proof(obstacle.as_ref());
        if self.role.leads() {
            self.ask_to_apply(now, obstacle.is_none(), out);
        }
        let (level, why) = match (self.settings.durability, &obstacle) {
            (Mode::Async, _) => (Level::Async, self.durability.why),
            (Mode::ZeroLoss, Some(reason)) => (Level::Degraded, reason.why),
            (Mode::ZeroLoss, None) if self.waits(active) => (Level::ZeroLoss, WAITS),
            (Mode::ZeroLoss, None) => (Level::Degraded, TAKING_UP),
        };
        self.set_level(now, level, why, out);
    }

    /// Whether it is known that commits on this master wait for its peer. Two answers in a row must say
    /// so, because PostgreSQL's processes take a new setting up one after the other; and the peer must have
    /// confirmed what was acknowledged before, so that it has everything and not only what comes.
    pub(super) fn waits(&self, id: NodeId) -> bool {
        let node = &self.nodes[id.index()].facts;
        let (Some((since, wal_lsn)), Some((facts, asked))) =
            (self.durability.waiting_since[id.index()], node)
        else {
            return false;
        };
        let taken_up = *asked >= since + self.settings.taken_up_after_ms;
        // Without a break nothing was acknowledged that the peer did not have.
        let unbroken = self.durability.level == Level::ZeroLoss;
        taken_up && (unbroken || facts.peer_confirmed_lsn.unwrap_or(0) >= wal_lsn)
    }

    fn note_waiting(&mut self, id: NodeId) {
        let progress = &mut self.durability.progress[id.index()];
        *progress = self.nodes[id.index()].facts.as_ref().map(|(facts, asked)| {
            let confirmed = facts.peer_confirmed_lsn.unwrap_or(0);
            match *progress {
                Some((last, at)) if last == confirmed => (last, at),
                _ => (confirmed, *asked),
            }
        });
        // What was asked before the last order was given says nothing about what came of it.
        let counts = |asked: u64| match self.durability.asked[id.index()] {
            Some((wait, at)) => wait && asked > at,
            None => true,
        };
        let waits = self.nodes[id.index()]
            .facts
            .as_ref()
            .and_then(|(facts, asked)| {
                let all = facts.waits_for == WaitsFor::Peer
                    && facts.peer_streaming
                    && facts.peer_synchronous;
                (all && counts(*asked)).then_some((*asked, facts.wal_lsn))
            });
        let since = &mut self.durability.waiting_since[id.index()];
        // It is the checkpointer that tells the commits, and it may be busy with a slow disk.
        let facts = self.nodes[id.index()].facts.as_ref();
        let hears = facts.is_some_and(|(facts, _)| facts.checkpointer_hears);
        *since = waits.and_then(|seen| since.or(hears.then_some(seen)));
    }

    /// Why the active master must not wait for its peer; nothing when it should.
    fn obstacle(&self) -> Option<Reason> {
        if self.settings.durability == Mode::Async {
            return Some(Reason::seen("it is configured so"));
        }
        if !self.serving {
            return Some(Reason::seen("no master serves"));
        }
        let Some(facts) = self.facts(self.active) else {
            return Some(Reason::seen("the active master does not answer"));
        };
        if facts.waits_for == WaitsFor::Other {
            return Some(Reason::seen(
                "synchronous_standby_names of the active master is not of this program, so its writes wait for others, perhaps in vain; there: ALTER SYSTEM RESET synchronous_standby_names; SELECT pg_reload_conf()",
            ));
        }
        if !facts.peer_streaming {
            return Some(Reason::proven(
                "the active master is not streaming to its peer",
            ));
        }
        let waited = self.stalled_ms(self.active);
        if facts.waits_for == WaitsFor::Peer && waited >= self.settings.wait_max_ms {
            return Some(Reason::proven("commits waited too long for the peer"));
        }
        if !self.state(self.active.peer()).serves() {
            return Some(Reason::seen("the peer is not up"));
        }
        match self.durability.proof {
            Some((node, position)) if node == self.active => {
                let confirmed = facts.peer_confirmed_lsn.unwrap_or(0);
                (confirmed < position)
                    .then_some(Reason::proven("the peer has yet to confirm what it missed"))
            }
            _ => {
                let lag = facts.peer_lag_bytes().unwrap_or(u64::MAX);
                let far = lag > self.settings.wait_lag_max_bytes;
                (far && facts.waits_for == WaitsFor::Nobody)
                    .then_some(Reason::seen("the peer is behind"))
            }
        }
    }

    /// For how long commits on a master have waited and the peer has confirmed nothing. The time of a
    /// waiting statement includes what it did before, so that alone would blame the peer for a long one.
    fn stalled_ms(&self, id: NodeId) -> u64 {
        let node = self.node(id);
        match (&node.facts, self.durability.progress[id.index()]) {
            (Some((facts, asked)), Some((_, since))) => {
                facts.longest_wait_ms.unwrap_or(0).min(asked - since)
            }
            _ => 0,
        }
    }

    /// Keeps the position that the peer has to confirm after it was given up, and forgets it once that
    /// has happened.
    fn note_proof(&mut self, obstacle: Option<&Reason>) {
        let active = self.active;
        let Some(facts) = self.facts(active) else {
            return;
        };
        let (wal_lsn, confirmed) = (facts.wal_lsn, facts.peer_confirmed_lsn.unwrap_or(0));
        let waiting = facts.waits_for == WaitsFor::Peer;
        match (self.durability.proof, obstacle) {
            // Given up just now. Whatever waits is before the end of the WAL.
            (None, Some(_)) if waiting => self.durability.proof = Some((active, wal_lsn)),
            (Some((node, position)), _) if node != active || confirmed >= position => {
                self.durability.proof = None;
            }
            _ => {}
        }
    }

    /// Tells a master to wait or not to, unless it does so already or has just been told. What it says
    /// counts, and not what it was told: an order may have been lost with its connection. One that said the
    /// opposite is always followed by another, because it may be on its way still.
    fn ask_to_wait(&mut self, now: u64, id: NodeId, wait: bool, out: &mut Vec<Effect>) {
        // What does not answer cannot be told, and would only find an old order when it wakes.
        let Some((facts, asked_ms)) = &self.nodes[id.index()].facts else {
            return;
        };
        let waited = facts.longest_wait_ms.unwrap_or(0);
        // The order reaches the commits by the checkpointer, which may be busy with a slow disk.
        let free = facts.waits_for == WaitsFor::Nobody && !wait;
        let again = self.durability.freed_ms + self.settings.ask_again_after_ms;
        if free && waited >= self.settings.wait_max_ms && now >= again {
            self.durability.freed_ms = now;
            out.push(Effect::FreeCommits(id));
        }
        let asked = &mut self.durability.asked[id.index()];
        let opposite = asked.is_some_and(|(what, _)| what != wait);
        let change = match facts.waits_for {
            WaitsFor::Nobody => wait || opposite,
            WaitsFor::Peer => !wait || opposite,
            WaitsFor::Other => false,
        };
        let told = asked.is_some_and(|(what, at)| {
            what == wait && *asked_ms < at + self.settings.ask_again_after_ms
        });
        if change && !told {
            *asked = Some((wait, now));
            out.push(Effect::WaitForPeer { node: id, wait });
        }
    }

    /// While the active master takes an order to wait up, each tick asks how far it is: without load
    /// nothing else makes the level come sooner than the probes do. One that does not follow is left to
    /// the probes after a while.
    pub(super) fn hasten(&mut self, now: u64, out: &mut Vec<Effect>) {
        let durability = &mut self.durability;
        let takes_up = durability.level == Level::Degraded && durability.why == TAKING_UP;
        let since = durability.taking_up_since.unwrap_or(now);
        durability.taking_up_since = takes_up.then_some(since);
        if takes_up && now - since <= self.settings.hasten_ms {
            out.push(Effect::ProbeNow(self.active));
        }
    }

    /// The peer of a master that waits for it must wait for its own disk, or it confirms a fifth of a second
    /// late. One that catches up must not: with a flush for each transaction it would never come up with a
    /// busy master, which flushes many together, and take seconds for what a quiet one wrote in as many.
    fn ask_to_apply(&mut self, now: u64, waited_for: bool, out: &mut Vec<Effect>) {
        let peer = self.active.peer();
        let lag = self
            .facts(self.active)
            .and_then(|facts| facts.peer_lag_bytes());
        let behind = lag.is_some_and(|lag| lag > self.settings.apply_lag_max_bytes);
        let Some((facts, asked_ms)) = &self.nodes[peer.index()].facts else {
            return;
        };
        let change = match facts.apply_strict {
            true => !waited_for && behind,
            false => waited_for,
        };
        let asked = &mut self.durability.asked_apply[peer.index()];
        let told = asked.is_some_and(|(what, at)| {
            what == waited_for && *asked_ms < at + self.settings.ask_again_after_ms
        });
        if change && facts.link != Link::Missing && !told {
            *asked = Some((waited_for, now));
            out.push(Effect::ApplyStrictly {
                node: peer,
                strict: waited_for,
            });
        }
    }

    fn set_level(&mut self, now: u64, level: Level, why: &'static str, out: &mut Vec<Effect>) {
        let durability = &self.durability;
        if durability.level == level {
            self.durability.why = why;
            return;
        }
        let waited = self.stalled_ms(self.active);
        out.push(Effect::Record(Change {
            what: "durability",
            node: self.active,
            from: durability.level.name(),
            to: level.name(),
            why,
            cause: None,
            duration_ms: now - durability.since_ms,
            stall_ms: (level == Level::Degraded && waited > 0).then_some(waited),
        }));
        self.durability.level = level;
        self.durability.since_ms = now;
        self.durability.why = why;
    }

    /// Notes that a handover leaves the active master, which the other processes notice a moment later.
    pub(super) fn note_leaving(&mut self, now: u64) {
        if self.durability.level == Level::ZeroLoss {
            self.durability.left = Some((self.active, now));
        }
    }

    /// Whether commits on a master that a handover has just left still wait for its peer.
    fn lingers(&self, now: u64, id: NodeId) -> bool {
        let since = self.durability.left.filter(|(left, _)| *left == id);
        let recently = since.is_some_and(|(_, at)| now - at < self.settings.linger_ms);
        let streaming = self.facts(id).is_some_and(|facts| facts.peer_streaming);
        recently && streaming && self.stalled_ms(id) < self.settings.wait_max_ms
    }

    /// The target of a handover that must wait for its peer before the traffic gets there.
    fn arming_target(&self) -> Option<NodeId> {
        let zero_loss = self.durability.level == Level::ZeroLoss;
        self.handover_target().filter(|_| zero_loss)
    }
}

impl Role {
    /// Whether this process decides for all.
    pub(super) fn leads(&self) -> bool {
        matches!(self, Role::Leader)
    }
}

#[cfg(test)]
mod tests {
    use super::super::sim::settings;
    use super::super::{Event, Facts, Leader, Link, NodeState};
    use super::*;
    use NodeId::{Master1, Master2};

    /// A master that has sent everything and waits for nobody.
    fn well() -> Facts {
        Facts {
            wal_lsn: 1_000,
            peer_confirmed_lsn: Some(1_000),
            peer_streaming: true,
            applying: true,
            link: Link::Ready,
            ..Facts::default()
        }
    }

    fn waiting() -> Facts {
        Facts {
            waits_for: WaitsFor::Peer,
            peer_synchronous: true,
            checkpointer_hears: true,
            ..well()
        }
    }

    /// Its setting is new, and PostgreSQL does not count the peer yet.
    fn waiting_not_yet() -> Facts {
        Facts {
            peer_synchronous: false,
            ..waiting()
        }
    }

    struct Table {
        cluster: Cluster,
        now: u64,
        orders: Vec<(NodeId, bool)>,
    }

    impl Table {
        /// Two healthy masters, and what this process is.
        fn lay(role: Role) -> Table {
            let mut table = Table {
                cluster: Cluster::new(settings(), 0),
                now: 0,
                orders: Vec::new(),
            };
            table.feed(Event::Role(role));
            for _ in 0..3 {
                table.hear(Master1, well());
                table.hear(Master2, well());
            }
            assert_eq!(table.cluster.state(Master2), NodeState::Up);
            table
        }

        fn feed(&mut self, event: Event) {
            for effect in self.cluster.handle(self.now, event) {
                if let Effect::WaitForPeer { node, wait } = effect {
                    self.orders.push((node, wait));
                }
            }
        }

        fn hear(&mut self, node: NodeId, facts: Facts) {
            self.now += 100;
            let asked_ms = self.now;
            self.feed(Event::Answered {
                node,
                facts,
                asked_ms,
            });
        }

        fn level(&self) -> Level {
            self.cluster.view().durability.level
        }
    }

    fn follower(active: NodeId) -> Role {
        Role::Follower(Leader {
            address: "http://x".to_string(),
            active: Some(active),
            paused_for_ms: None,
        })
    }

    #[test]
    fn it_is_called_zero_loss_when_two_answers_say_so() {
        let mut table = Table::lay(Role::Leader);
        assert_eq!(table.orders, [(Master1, true)]);
        table.hear(Master1, waiting());
        assert_eq!(table.level(), Level::Degraded);
        table.hear(Master1, waiting());
        assert_eq!(table.level(), Level::ZeroLoss);
        assert_eq!(table.orders, [(Master1, true)], "nothing is asked twice");
    }

    #[test]
    fn a_peer_that_confirms_nothing_is_given_up_and_must_prove_itself() {
        let mut table = Table::lay(Role::Leader);
        for _ in 0..3 {
            table.hear(Master1, waiting());
            table.hear(Master2, well());
        }
        let stuck = |longest| Facts {
            wal_lsn: 5_000,
            longest_wait_ms: Some(longest),
            ..waiting()
        };
        // A statement that took long before it waited is not the peer's fault.
        table.hear(
            Master1,
            Facts {
                peer_confirmed_lsn: Some(2_000),
                ..stuck(9_000)
            },
        );
        assert_eq!(table.level(), Level::ZeroLoss);
        for _ in 0..9 {
            table.hear(Master1, stuck(9_000));
            table.hear(Master2, well());
        }
        assert_eq!(table.level(), Level::Degraded);
        assert_eq!(table.orders.last(), Some(&(Master1, false)));
        let freed = |confirmed| Facts {
            wal_lsn: 5_000,
            peer_confirmed_lsn: Some(confirmed),
            ..well()
        };
        table.hear(Master1, freed(4_999));
        table.hear(Master1, freed(4_999));
        assert_eq!(table.orders.last(), Some(&(Master1, false)));
        table.hear(Master1, freed(5_000));
        assert_eq!(table.orders.last(), Some(&(Master1, true)));
    }

    /// Its connection broke, so the master goes on waiting; and by then it should.
    #[test]
    fn an_order_that_was_lost_is_not_held_against_what_the_master_says() {
        let mut table = Table::lay(Role::Leader);
        table.hear(Master1, waiting());
        table.hear(Master1, waiting());
        assert_eq!(table.level(), Level::ZeroLoss);
        let away = Facts {
            peer_streaming: false,
            ..waiting()
        };
        table.hear(Master1, away);
        assert_eq!(table.orders.last(), Some(&(Master1, false)));
        table.hear(Master1, waiting());
        // It may be on its way still, so another follows it.
        assert_eq!(table.orders.last(), Some(&(Master1, true)));
        assert_eq!(table.level(), Level::Degraded);
        table.hear(Master1, waiting());
        table.hear(Master1, waiting());
        assert_eq!(table.level(), Level::ZeroLoss);
        assert_eq!(table.orders.len(), 3, "{:?}", table.orders);
    }

    #[test]
    fn a_master_that_takes_an_order_up_is_asked_at_each_tick_for_a_while() {
        let mut table = Table::lay(Role::Leader);
        let mut asked = 0;
        for _ in 0..100 {
            table.hear(Master1, waiting_not_yet());
            table.hear(Master2, well());
            let effects = table.cluster.handle(table.now, Event::Tick);
            let of = |effect: &Effect| matches!(effect, Effect::ProbeNow(Master1));
            asked += effects.iter().filter(|effect| of(effect)).count();
        }
        // Every 200 ms here, for two seconds.
        assert!((5..=12).contains(&asked), "{asked}");
    }

    /// A transaction for each row and a flush for each transaction: 100 kB took 3 s on a busy disk.
    #[test]
    fn a_peer_that_catches_up_flushes_no_transaction_by_itself() {
        let mut table = Table::lay(Role::Leader);
        let strict = |facts: Facts| Facts {
            apply_strict: true,
            ..facts
        };
        let cause = "refused".to_string();
        table.feed(Event::Refused {
            node: Master2,
            cause,
        });
        let behind = Facts {
            wal_lsn: 2_900,
            ..well()
        };
        assert!(behind.peer_lag_bytes() < Some(settings().wait_lag_max_bytes));
        let caught_up = Facts {
            peer_confirmed_lsn: Some(2_900),
            ..behind.clone()
        };
        let mut told = Vec::new();
        for (node, facts) in [
            (Master1, behind),
            (Master2, strict(well())),
            (Master1, caught_up),
            (Master2, well()),
        ] {
            table.now += 100;
            let asked_ms = table.now;
            let answered = Event::Answered {
                node,
                facts,
                asked_ms,
            };
            for effect in table.cluster.handle(table.now, answered) {
                if let Effect::ApplyStrictly { node, strict } = effect {
                    told.push((node, strict));
                }
            }
        }
        assert_eq!(told, [(Master2, false), (Master2, true)]);
    }

    #[test]
    fn who_follows_frees_only_what_waits_in_vain() {
        let mut table = Table::lay(follower(Master1));
        assert_eq!(table.orders, [], "arming is the leader's");
        table.hear(Master1, waiting());
        table.hear(Master1, waiting());
        assert_eq!(table.level(), Level::ZeroLoss);
        // That it does not reach the peer itself proves nothing to others.
        let cause = "refused".to_string();
        table.feed(Event::Refused {
            node: Master2,
            cause,
        });
        table.hear(Master1, waiting());
        assert_eq!(table.orders, []);
        table.hear(
            Master1,
            Facts {
                peer_streaming: false,
                ..waiting()
            },
        );
        assert_eq!(table.orders, [(Master1, false)]);
    }

    #[test]
    fn who_follows_serves_from_where_the_leader_does() {
        let mut table = Table::lay(follower(Master2));
        assert_eq!(table.cluster.view().active, Master2);
        table.feed(Event::Role(follower(Master1)));
        assert_eq!(table.cluster.view().active, Master1);
        // It cannot follow to a master that it does not reach, and goes on with the other.
        let cause = "refused".to_string();
        table.feed(Event::Refused {
            node: Master1,
            cause,
        });
        assert_eq!(table.cluster.view().active, Master2);
        table.feed(Event::Role(follower(Master1)));
        let view = table.cluster.view();
        assert_eq!((view.active, view.serving), (Master2, true));
        // The lease falls to it: it decides from where it is.
        table.feed(Event::Role(Role::Leader));
        assert_eq!(table.cluster.view().active, Master2);
    }

    /// Else its person would be told of a switch that the next look at the lease undoes.
    #[test]
    fn who_loses_the_lease_ends_its_handover_undone() {
        let mut table = Table::lay(Role::Leader);
        let (to, force, ticket) = (Master2, false, 7);
        table.feed(Event::Switch { to, force, ticket });
        table.hear(Master1, well());
        table.hear(Master2, well());
        assert!(table.cluster.holding_writes());
        let role = Event::Role(follower(Master1));
        let effects = table.cluster.handle(table.now, role);
        let code = effects.iter().find_map(|effect| match effect {
            Effect::Answer {
                ticket: 7,
                outcome: Err(refusal),
            } => Some(refusal.code),
            _ => None,
        });
        assert_eq!(code, Some("not_leader"));
        let view = table.cluster.view();
        assert_eq!((view.active, view.holding_writes), (Master1, false));
    }

    /// A master that is being rebuilt holds half of the rows.
    #[test]
    fn a_copy_in_the_making_is_not_failed_over_to() {
        let mut table = Table::lay(Role::Leader);
        let copying = Facts {
            link: Link::Copying,
            ..well()
        };
        table.hear(Master2, copying.clone());
        assert_eq!(table.cluster.state(Master2), NodeState::CatchingUp);
        let cause = "refused".to_string();
        table.feed(Event::Refused {
            node: Master1,
            cause,
        });
        for _ in 0..40 {
            table.hear(Master2, copying.clone());
        }
        assert!(!table.cluster.view().serving);
        table.hear(Master2, well());
        assert!(
            table.cluster.view().serving,
            "whole again, and nobody better"
        );
    }
}
