//! The world of the simulator: two masters that can be dead, frozen or out of reach, what they hold, and
//! chance.

use super::{LATE_MS, STALL_MS};
use crate::cluster::*;
use std::collections::{HashMap, VecDeque};

/// xorshift64*: small, seeded, and good enough to shuffle faults.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 33) % bound
    }

    pub(super) fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }
}

pub(super) const STEP_MS: u64 = 50;
pub(super) const STEPS: u64 = 300;

/// The times of this world, and of the tests of the core.
pub(in crate::cluster) fn settings() -> Settings {
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
        apply_lag_max_bytes: 500,
        taken_up_after_ms: 50,
        ask_again_after_ms: 500,
        hasten_ms: 2_000,
        arming_max_ms: 400,
        linger_ms: 1_500,
        role_patience_ms: 1_000,
        unfit_after_ms: 2_000,
        fit_after_ms: 3_000,
        unfit_sends_ms: 1_000,
        trial_urgent_ms: 500,
        trial_unfit_ms: 1_000,
        trial_quiet_ms: 4_000,
    }
}

/// How a master really is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Truth {
    Alive,
    Frozen,
    Dead,
}

pub(super) struct World {
    pub(super) random: Random,
    pub(super) seed: u64,
    pub(super) now: u64,
    pub(super) cluster: Cluster,
    pub(super) truth: [Truth; 2],
    /// Whether the API reaches each master.
    pub(super) reached: [bool; 2],
    /// Whether the masters reach each other.
    pub(super) joined: bool,
    /// Whether a master takes a peer that it does not reach for streaming all the same.
    pub(super) hole: bool,
    /// What each master was told last, and whether its commits wait.
    pub(super) told: [bool; 2],
    pub(super) waits: [bool; 2],
    /// Orders on their way, and when they are carried out. Each goes by what was told last.
    pub(super) orders: Vec<(u64, NodeId)>,
    /// Whether the last order to each master was lost.
    pub(super) lost: [bool; 2],
    /// Whether nobody writes once all faults have ended.
    pub(super) quiet: bool,
    /// Since when nothing but the orders keeps the system from zero-loss.
    pub(super) possible_since: Option<u64>,
    /// Whether the apply worker of each master waits for its disk.
    pub(super) strict: [bool; 2],
    /// Commits that wait for the peer of each master: their position, and since when.
    pub(super) waiting: [VecDeque<(u64, u64)>; 2],
    /// What the peer of each master had applied when that last moved, and when it did.
    pub(super) moved: [(u64, u64); 2],
    /// Whether a master refuses writes, and whether the newest trial that was told of it had passed.
    pub(super) refusing: [bool; 2],
    pub(super) passed: [bool; 2],
    /// Since when the active master refuses writes although the other could take them.
    pub(super) useless_since: Option<u64>,
    pub(super) paused: bool,
    /// Whether writes hang on a frozen active master, so that a drain cannot end.
    pub(super) hanging: bool,
    pub(super) wal: [u64; 2],
    /// How much of its peer's WAL each master has applied.
    pub(super) applied: [u64; 2],
    /// What the peer held when a master began to catch up.
    pub(super) owed: [u64; 2],
    /// How often each master has begun to serve, and what its peer's count was when it was told.
    pub(super) starts: [u64; 2],
    pub(super) noted: [u64; 2],
    pub(super) silent_since: [Option<u64>; 2],
    /// Answers on their way, and when they arrive: what they say may be old by then.
    pub(super) late: Vec<(u64, Event)>,
    pub(super) tickets: HashMap<u64, u64>,
    pub(super) next_ticket: u64,
    pub(super) states: [NodeState; 2],
}

impl World {
    pub(super) fn new(seed: u64) -> World {
        let mut random = Random(seed | 1);
        World {
            quiet: random.one_in(2),
            random,
            seed,
            now: 0,
            cluster: Cluster::new(settings(), 0),
            truth: [Truth::Alive; 2],
            reached: [true; 2],
            joined: true,
            hole: false,
            told: [false; 2],
            waits: [false; 2],
            orders: Vec::new(),
            lost: [false; 2],
            possible_since: None,
            strict: [true; 2],
            waiting: Default::default(),
            moved: [(0, 0); 2],
            refusing: [false; 2],
            passed: [false; 2],
            useless_since: None,
            paused: false,
            hanging: false,
            wal: [1_000; 2],
            applied: [1_000; 2],
            owed: [0; 2],
            starts: [0; 2],
            noted: [0; 2],
            silent_since: [None; 2],
            late: Vec::new(),
            tickets: HashMap::new(),
            next_ticket: 0,
            states: [NodeState::Unknown; 2],
        }
    }

    pub(super) fn answers(&self, node: NodeId) -> bool {
        self.truth[node.index()] == Truth::Alive && self.reached[node.index()]
    }

    pub(super) fn streaming(&self) -> bool {
        self.joined && self.truth == [Truth::Alive; 2]
    }

    pub(super) fn probe(&mut self, node: NodeId) {
        let (own, peer) = (node.index(), node.peer().index());
        let facts = Facts {
            wal_lsn: self.wal[own],
            peer_confirmed_lsn: Some(self.applied[peer]),
            // A frozen peer, and a link that passes nothing, look well for a while.
            peer_streaming: self.truth[peer] != Truth::Dead && (self.joined || self.hole),
            peer_lag_ms: None,
            applying: self.joined,
            link: Link::Ready,
            apply_strict: self.strict[own],
            waits_for: match self.waits[own] {
                true => WaitsFor::Peer,
                false => WaitsFor::Nobody,
            },
            peer_synchronous: self.waits[own],
            checkpointer_hears: true,
            longest_wait_ms: self.waiting[own].front().map(|(_, since)| self.now - since),
            applied_lsn: Some(self.applied[own]),
            starts: Some(self.starts[own]),
            peer_starts: Some(self.noted[own]),
            written: 0,
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
    pub(super) fn step(&mut self, faults: bool) {
        self.now += STEP_MS;
        if faults {
            self.break_something();
        }
        while let Some(index) = self.late.iter().position(|(at, _)| *at <= self.now) {
            let (_, event) = self.late.remove(index);
            self.feed(event);
        }
        let view = self.cluster.view();
        let writes = faults || !self.quiet;
        if writes && view.serving && !view.holding_writes && self.answers(view.active) {
            self.wal[view.active.index()] += self.random.below(400);
        }
        self.carry_out_orders();
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
        self.check_useless();
    }

    /// Tries a write on a master, which answers later if at all.
    pub(super) fn try_write(&mut self, node: NodeId) {
        if self.answers(node) && !self.random.one_in(8) {
            let refusal = self.refusing[node.index()].then(|| "read-only".to_string());
            let at = self.now + self.random.below(LATE_MS);
            self.late.push((at, Event::WriteTried { node, refusal }));
        }
    }

    pub(super) fn pause(&mut self, for_ms: Option<u64>) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.tickets.insert(ticket, self.now);
        self.paused = true;
        self.feed(Event::Pause { for_ms, ticket });
    }

    /// An order may fail with its connection, though not twice in a row, or be carried out late.
    pub(super) fn told_to_wait(&mut self, node: NodeId, wait: bool) {
        let lost = !self.lost[node.index()] && self.random.one_in(6);
        self.told[node.index()] = wait;
        self.lost[node.index()] = lost;
        if !lost {
            let late = match self.random.one_in(6) {
                true => self.random.below(LATE_MS),
                false => 0,
            };
            self.orders.push((self.now + late, node));
        }
    }

    /// A master that does not answer finds its orders when it wakes, and one that is dead never does.
    fn carry_out_orders(&mut self) {
        for (at, node) in std::mem::take(&mut self.orders) {
            let index = node.index();
            if at <= self.now && self.answers(node) {
                self.waits[index] = self.told[index];
            } else if self.truth[index] != Truth::Dead {
                self.orders.push((at, node));
            }
        }
    }

    /// Commits that wait are acknowledged when the peer has them, or when nobody waits any more.
    pub(super) fn commit(&mut self) {
        for node in NodeId::BOTH {
            let index = node.index();
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

    pub(super) fn break_something(&mut self) {
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
            20 => self.refusing[index] = true,
            21 => self.feed(Event::WriteDoubted { node }),
            22..=23 => self.refusing[index] = false,
            _ => {}
        }
    }

    pub(super) fn heal(&mut self) {
        self.truth = [Truth::Alive; 2];
        self.reached = [true; 2];
        self.joined = true;
        self.hanging = false;
        self.refusing = [false; 2];
    }
}
