//! A seeded simulator: ten thousand schedules of faults over the real state machine, in a world with
//! a clock of its own. A failure names its seed, and that seed replays it.
//!
//! What must hold, whatever happens:
//!
//! 1. A master serves again only after it has caught up: never straight from `down` to `up`.
//! 2. The route is open only to a master that is `up` or `suspect`.
//! 3. Once anybody has served, a master that is `up` means that somebody serves.
//! 4. The route leaves a serving master only by a person's command: a failover happens only when the
//!    active master is gone, and nothing ever goes home by itself.
//! 5. A master that falls silent for good is replaced within the deadline and two ticks of its last
//!    answer's arrival, if the other is `up` meanwhile.
//! 6. Every switch is answered exactly once, and within its deadline and two ticks.
//! 7. A handover loses nothing and shows nothing stale: when the route flips, the target has applied
//!    every write that the other master holds.
//! 8. A master that is called current has applied everything that its peer held when it came back.
//! 9. When all faults end, somebody serves within 5 s and both masters are `up` within 10 s; the
//!    durability is zero-loss again by then.
//! 10. While the durability is called zero-loss, the commits of the active master really wait for its
//!     peer, and the only master that is waited on without serving is the target of a handover.
//! 11. A commit waits for a peer that does not confirm for at most [`STALL_MS`], as long as its master
//!     answers.

use super::*;
use std::collections::{HashMap, VecDeque};

/// xorshift64*: small, seeded, and good enough to shuffle faults.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 33) % bound
    }

    fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }
}

const STEP_MS: u64 = 50;
const STEPS: u64 = 300;
/// The most that an answer is under way.
const LATE_MS: u64 = 300;
/// The most that a commit may wait in this world, in which questions are asked more rarely than in ours
/// and answers come later.
const STALL_MS: u64 = 2_000;

fn settings() -> Settings {
    Settings {
        suspect_after_ms: 500,
        silence_deadline_ms: 1_000,
        nobody_better_after_ms: 2_000,
        start_patience_ms: 3_000,
        handover_deadline_ms: 2_000,
        handover_lag_max_bytes: 10_000,
        durability: Mode::ZeroLoss,
        wait_max_ms: 800,
        wait_lag_max_bytes: 2_000,
        taken_up_after_ms: 50,
        ask_again_after_ms: 500,
        arming_max_ms: 400,
        role_patience_ms: 1_000,
    }
}

/// How a master really is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Truth {
    Alive,
    Frozen,
    Dead,
}

struct World {
    random: Random,
    seed: u64,
    now: u64,
    cluster: Cluster,
    truth: [Truth; 2],
    /// Whether the API reaches each master.
    reached: [bool; 2],
    /// Whether the masters reach each other.
    joined: bool,
    /// Whether a master takes a peer that it does not reach for streaming all the same.
    hole: bool,
    /// What each master was told last, and whether its commits wait.
    told: [bool; 2],
    waits: [bool; 2],
    /// Commits that wait for the peer of each master: their position, and since when.
    waiting: [VecDeque<(u64, u64)>; 2],
    /// What the peer of each master had applied when that last moved, and when it did.
    moved: [(u64, u64); 2],
    paused: bool,
    /// Whether writes hang on a frozen active master, so that a drain cannot end.
    hanging: bool,
    wal: [u64; 2],
    /// How much of its peer's WAL each master has applied.
    applied: [u64; 2],
    /// What the peer held when a master began to catch up.
    owed: [u64; 2],
    silent_since: [Option<u64>; 2],
    /// Answers on their way, and when they arrive: what they say may be old by then.
    late: Vec<(u64, Event)>,
    tickets: HashMap<u64, u64>,
    next_ticket: u64,
    states: [NodeState; 2],
}

impl World {
    fn new(seed: u64) -> World {
        World {
            random: Random(seed | 1),
            seed,
            now: 0,
            cluster: Cluster::new(settings(), 0),
            truth: [Truth::Alive; 2],
            reached: [true; 2],
            joined: true,
            hole: false,
            told: [false; 2],
            waits: [false; 2],
            waiting: Default::default(),
            moved: [(0, 0); 2],
            paused: false,
            hanging: false,
            wal: [1_000; 2],
            applied: [1_000; 2],
            owed: [0; 2],
            silent_since: [None; 2],
            late: Vec::new(),
            tickets: HashMap::new(),
            next_ticket: 0,
            states: [NodeState::Unknown; 2],
        }
    }

    fn check(&self, holds: bool, what: &str) {
        assert!(
            holds,
            "seed {}, at {} ms: {what}\n{:#?}",
            self.seed, self.now, self.cluster
        );
    }

    fn answers(&self, node: NodeId) -> bool {
        self.truth[node.index()] == Truth::Alive && self.reached[node.index()]
    }

    fn streaming(&self) -> bool {
        self.joined && self.truth == [Truth::Alive; 2]
    }

    /// Feeds one event and checks everything that can be checked after it.
    fn feed(&mut self, event: Event) {
        let before = self.cluster.view();
        let effects = self.cluster.handle(self.now, event);
        let mut again = Vec::new();
        for effect in effects {
            match effect {
                Effect::Record(change) => self.check_change(&change, &before),
                Effect::Answer { ticket, .. } => {
                    let asked = self.tickets.remove(&ticket);
                    self.check(asked.is_some(), "a switch was answered twice");
                    let late = self.now - asked.unwrap_or(0);
                    self.check(
                        late <= settings().handover_deadline_ms + 2 * STEP_MS,
                        "a switch was answered late",
                    );
                }
                Effect::ProbeNow(node) => again.push(node),
                Effect::AlignSequences(_) => {}
                Effect::WaitForPeer { node, wait } => self.told_to_wait(node, wait),
            }
        }
        let view = self.cluster.view();
        let active = view.node(view.active).state;
        self.check(
            !view.serving || active.serves(),
            "the route is open to a master that does not serve",
        );
        let anyone_up = view.nodes.iter().any(|node| node.state.serves());
        let served = self.cluster.served;
        self.check(
            view.serving || !served || !anyone_up || self.paused,
            "a master is up and nobody serves",
        );
        if view.durability.level == Level::ZeroLoss {
            let waits = self.waits[view.active.index()] && self.told[view.active.index()];
            self.check(waits, "called zero-loss, and commits do not wait");
        }
        // Probes that were asked for come back at once, as they do in practice.
        for node in again {
            // Time stands still meanwhile, and some questions are asked until it has gone on.
            if self.random.one_in(4) && self.answers(node) {
                self.probe(node);
            }
        }
    }

    fn check_change(&mut self, change: &Change, before: &ClusterView) {
        let index = change.node.index();
        match change.what {
            "node" => {
                let from = self.states[index];
                self.check(
                    from.name() == change.from,
                    "a change starts from another state",
                );
                let state = NodeState::ALL
                    .into_iter()
                    .find(|state| state.name() == change.to);
                let to = state.expect("every state has its name");
                self.check(
                    !(from == NodeState::Down && to.serves()),
                    "a master came back without catching up",
                );
                self.states[index] = to;
                if to == NodeState::CatchingUp {
                    self.owed[index] = self.wal[change.node.peer().index()];
                }
                if change.why.contains("holds everything") {
                    self.check(
                        self.applied[index] >= self.owed[index],
                        "a master was called current and is not",
                    );
                }
            }
            "failover" => {
                let gone = !self.states[before.active.index()].serves();
                self.check(gone, "a failover although the active master serves");
            }
            "handover"
                if change.from != change.to && change.why == "a person moved the traffic" =>
            {
                let target = before.active.peer().index();
                let source = before.active.index();
                self.check(
                    self.applied[target] >= self.wal[source],
                    &format!(
                        "a handover to a master that lacks rows: {change:?} {:?} {:?}",
                        self.wal, self.applied
                    ),
                );
            }
            _ => {}
        }
    }

    fn probe(&mut self, node: NodeId) {
        let (own, peer) = (node.index(), node.peer().index());
        let facts = Facts {
            wal_lsn: self.wal[own],
            peer_confirmed_lsn: Some(self.applied[peer]),
            // A frozen peer, and a link that passes nothing, look well for a while.
            peer_streaming: self.truth[peer] != Truth::Dead && (self.joined || self.hole),
            peer_lag_ms: None,
            applying: self.joined,
            link: Link::Ready,
            waits_for: match self.waits[own] {
                true => WaitsFor::Peer,
                false => WaitsFor::Nobody,
            },
            peer_synchronous: self.waits[own],
            longest_wait_ms: self.waiting[own].front().map(|(_, since)| self.now - since),
        };
        let event = Event::Answered {
            node,
            facts,
            asked_ms: self.now,
        };
        match self.random.below(4) {
            0 => self
                .late
                .push((self.now + self.random.below(LATE_MS), event)),
            _ => self.feed(event),
        }
    }

    /// One step of the world: faults, writes, replication, probes, commands, time.
    fn step(&mut self, faults: bool) {
        self.now += STEP_MS;
        if faults {
            self.break_something();
        }
        while let Some(index) = self.late.iter().position(|(at, _)| *at <= self.now) {
            let (_, event) = self.late.remove(index);
            self.feed(event);
        }
        let view = self.cluster.view();
        if view.serving && !view.holding_writes && self.answers(view.active) {
            self.wal[view.active.index()] += self.random.below(400);
        }
        self.commit();
        if self.streaming() {
            for node in NodeId::BOTH {
                let behind = self.wal[node.peer().index()] - self.applied[node.index()];
                let speed = if faults {
                    self.random.below(800)
                } else {
                    5_000
                };
                self.applied[node.index()] += behind.min(speed);
            }
        }
        for node in NodeId::BOTH {
            if !self.reached[node.index()] {
                continue;
            }
            match self.truth[node.index()] {
                Truth::Alive if self.random.below(4) > 0 => self.probe(node),
                Truth::Dead => self.feed(Event::Refused {
                    node,
                    cause: "refused".to_string(),
                }),
                _ => {}
            }
        }
        if faults && self.random.one_in(20) {
            let to = NodeId::BOTH[self.random.below(2) as usize];
            let ticket = self.next_ticket;
            self.next_ticket += 1;
            self.tickets.insert(ticket, self.now);
            let force = self.random.one_in(8);
            self.feed(Event::Switch { to, force, ticket });
        }
        if faults && self.random.one_in(200) {
            let for_ms = self.random.below(3_000);
            self.pause(Some(for_ms));
        }
        if self.cluster.holding_writes() && !self.hanging && self.random.one_in(2) {
            self.feed(Event::Drained);
        }
        self.feed(Event::Tick);
        self.paused = self.cluster.paused_until_ms.is_some();
        self.check_silence();
    }

    fn pause(&mut self, for_ms: Option<u64>) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.tickets.insert(ticket, self.now);
        self.paused = true;
        self.feed(Event::Pause { for_ms, ticket });
    }

    /// An order reaches a master that answers; one that does not finds the last one when it wakes.
    fn told_to_wait(&mut self, node: NodeId, wait: bool) {
        self.told[node.index()] = wait;
    }

    /// Commits that wait are acknowledged when the peer has them, or when nobody waits any more.
    fn commit(&mut self) {
        for node in NodeId::BOTH {
            let index = node.index();
            if self.answers(node) {
                self.waits[index] = self.told[index];
            }
            let applied = self.applied[node.peer().index()];
            if self.moved[index].0 != applied {
                self.moved[index] = (applied, self.now);
            }
            let waiting = &mut self.waiting[index];
            if !self.waits[index] || self.truth[index] == Truth::Dead {
                waiting.clear();
                continue;
            }
            let last = waiting.back().map_or(applied, |(position, _)| *position);
            if self.wal[index] > last {
                waiting.push_back((self.wal[index], self.now));
            }
            while waiting
                .front()
                .is_some_and(|(position, _)| *position <= applied)
            {
                waiting.pop_front();
            }
            // A master that does not answer cannot be told, and one that just came back not yet.
            let deaf = self.silent_since[index].is_some();
            let since = waiting.front().map(|(_, since)| *since);
            match (deaf, since) {
                (true, Some(_)) => waiting.iter_mut().for_each(|(_, since)| *since = self.now),
                (false, Some(since)) => {
                    let waited = self.now - since.max(self.moved[index].1);
                    self.check(waited <= STALL_MS, "a commit waits for a peer that is gone");
                }
                _ => {}
            }
        }
    }

    fn break_something(&mut self) {
        let node = NodeId::BOTH[self.random.below(2) as usize];
        let index = node.index();
        match self.random.below(40) {
            0 => self.truth[index] = Truth::Dead,
            1 => self.truth[index] = Truth::Frozen,
            2 => self.reached[index] = false,
            3 => {
                self.joined = false;
                self.hole = self.random.one_in(2);
            }
            4 => self.hanging = true,
            5 => self.feed(Event::Doubted {
                node,
                cause: "a worker's error".to_string(),
            }),
            6..=10 => self.truth[index] = Truth::Alive,
            11..=14 => self.reached[index] = true,
            15..=17 => self.joined = true,
            18..=19 => self.hanging = false,
            _ => {}
        }
    }

    /// A master that has not been heard for long must not be the active one while the other is up.
    fn check_silence(&mut self) {
        for node in NodeId::BOTH {
            let silent = match self.answers(node) {
                true => None,
                false => self.silent_since[node.index()].or(Some(self.now)),
            };
            self.silent_since[node.index()] = silent;
        }
        let view = self.cluster.view();
        let other_up = view.node(view.active.peer()).state == NodeState::Up;
        if let (true, true, Some(since)) = (
            view.serving && !self.paused,
            other_up,
            self.silent_since[view.active.index()],
        ) {
            let silent = self.now - since;
            self.check(
                silent <= settings().silence_deadline_ms + LATE_MS + 2 * STEP_MS,
                "a silent master stays active",
            );
        }
    }

    fn heal(&mut self) {
        self.truth = [Truth::Alive; 2];
        self.reached = [true; 2];
        self.joined = true;
        self.hanging = false;
    }
}

#[test]
fn ten_thousand_schedules_keep_every_promise() {
    for seed in 1..=10_000u64 {
        let mut world = World::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        world.feed(Event::Role(Role::Leader));
        for _ in 0..STEPS {
            world.step(true);
        }
        world.heal();
        world.pause(None);
        for step in 0..(10_000 / STEP_MS) {
            world.step(false);
            if step == 5_000 / STEP_MS {
                world.check(
                    world.cluster.view().serving,
                    "all is well and nobody serves after 5 s",
                );
            }
        }
        let both_up = world
            .cluster
            .view()
            .nodes
            .iter()
            .all(|node| node.state.serves());
        world.check(both_up, "all is well and a master is not up after 10 s");
        let level = world.cluster.view().durability.level;
        world.check(
            level == Level::ZeroLoss,
            "all is well and not zero-loss after 10 s",
        );
        world.check(world.tickets.is_empty(), "a switch was never answered");
    }
}

/// The simulator itself must be able to fail: a machine that forgets to catch up is caught.
#[test]
fn the_way_back_is_noticed_when_it_is_too_short() {
    let mut world = World::new(7);
    world.states[0] = NodeState::Down;
    let change = Change {
        what: "node",
        node: NodeId::Master1,
        from: "down",
        to: "up",
        why: "a mistake",
        cause: None,
        duration_ms: 0,
        stall_ms: None,
    };
    let before = world.cluster.view();
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        world.check_change(&change, &before)
    }));
    assert!(caught.is_err());
}
