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
//! 12. When all faults have ended, zero-loss is back within [`BACK_MS`] of the moment at which somebody
//!     serves and both masters are `up`, also when nobody writes, and although orders to the masters are lost or
//!     carried out late.
//! 13. The traffic leaves a living master only because it refuses writes, and only for one whose newest trial write passed.
//! 14. It does leave one that refuses them within [`USELESS_MS`], if the other is up and takes them all that time; and when all
//!     faults have ended, both are fit again by the time of promise 9.
//! 15. A master that has lost nothing is never called an older copy of itself.

mod world;

use super::*;
pub(super) use world::settings;
use world::{STEP_MS, STEPS, World};

/// The most that an answer is under way.
const LATE_MS: u64 = 300;
/// The most that a commit may wait in this world, in which questions are asked more rarely than in ours
/// and answers come later.
const STALL_MS: u64 = 2_000;
/// The most that zero-loss may be away when it is possible: an order that is lost, and one that is late.
const BACK_MS: u64 = 2_000;
/// The most that a master which refuses writes stays the active one: until the next trial, which may get lost, until it counts as
/// unfit, and until it has sent what it had.
const USELESS_MS: u64 = 9_500;

impl World {
    fn check(&self, holds: bool, what: &str) {
        assert!(
            holds,
            "seed {}, at {} ms: {what}\n{:#?}",
            self.seed, self.now, self.cluster
        );
    }

    /// Feeds one event and checks everything that can be checked after it.
    fn feed(&mut self, event: Event) {
        let before = self.cluster.view();
        if let Event::WriteTried { node, refusal } = &event {
            self.passed[node.index()] = refusal.is_none();
        }
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
                Effect::ApplyStrictly { node, strict } => self.strict[node.index()] = strict,
                Effect::AlignSequences(node) if self.answers(node) => {
                    self.starts[node.index()] += 1
                }
                Effect::NoteStarts { on, starts } if self.answers(on) => {
                    self.check(
                        starts <= self.starts[on.peer().index()],
                        "a start was noted that never was",
                    );
                    self.noted[on.index()] = starts;
                }
                Effect::NoteStarts { .. } | Effect::AlignSequences(_) => {}
                Effect::ReleaseApply(_) | Effect::FreeCommits(_) => {}
                Effect::TryWrite(node) => self.try_write(node),
                Effect::WaitForPeer { node, wait } => self.told_to_wait(node, wait),
            }
        }
        let view = self.cluster.view();
        let older = view.nodes.iter().any(|node| node.alarm.is_some());
        self.check(!older, "a master that lost nothing is called an older copy");
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
                let (from, to) = (before.active.index(), before.active.peer().index());
                let gone = !self.states[from].serves();
                let unfit = self.states[from] == NodeState::Unfit;
                self.check(
                    gone || unfit,
                    "a failover although the active master serves",
                );
                self.check(
                    gone || (self.passed[to] && self.states[to] == NodeState::Up),
                    "a failover from one that refuses writes to one that may do the same",
                );
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

    /// Once nothing is in its way any more, zero-loss must come back.
    fn check_back(&mut self) {
        let up = |id: &NodeId| self.cluster.state(*id) == NodeState::Up;
        let both_up = NodeId::BOTH.iter().all(up);
        let back = self.cluster.durability.level() == Level::ZeroLoss;
        let possible = self.cluster.serving && both_up && !back && self.tickets.is_empty();
        let since = self.possible_since.unwrap_or(self.now);
        self.possible_since = possible.then_some(since);
        self.check(
            !possible || self.now - since <= BACK_MS,
            "nothing is in the way of zero-loss and it does not come back",
        );
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
}

impl World {
    /// A master that refuses writes must not stay the active one while the other takes them.
    fn check_useless(&mut self) {
        let view = self.cluster.view();
        let (active, peer) = (view.active, view.active.peer());
        let refuses = self.answers(active) && self.refusing[active.index()];
        let could = self.answers(peer) && !self.refusing[peer.index()];
        let useless = refuses
            && could
            && view.serving
            && !self.paused
            && self.cluster.handover.is_none()
            && view.node(active).state.serves()
            && view.node(peer).state == NodeState::Up;
        self.useless_since = match useless {
            true => self.useless_since.or(Some(self.now)),
            false => None,
        };
        let for_ms = self.now - self.useless_since.unwrap_or(self.now);
        self.check(
            for_ms <= USELESS_MS,
            "a master that refuses writes stays active",
        );
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
            world.check_back();
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
            .all(|node| matches!(node.state, NodeState::Up | NodeState::Suspect));
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
