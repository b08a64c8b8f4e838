//! Whether a master is an older copy of itself: its folder was put back from a copy, a snapshot or a backup, so it lacks what it had written.
//! PostgreSQL does not notice. The peer goes on from a position that is beyond the end of such a server's WAL, so changes are skipped in both
//! directions, and ids are given twice.

use super::{Cluster, Effect, Link, NodeId, NodeState, Signal};

/// What is held of one master for this.
#[derive(Debug, Default)]
pub(super) struct Past {
    /// Which record of the masters' identities this is about. With a new one, of a rejoin or a restore, all begins anew.
    written: u64,
    /// The furthest end of its WAL that was ever seen, by itself or in what its peer has applied.
    top_lsn: u64,
    /// When the answer was asked for that was the last to be compared with it, in ms. One of before, or of the same moment, proves nothing.
    top_asked_ms: u64,
    /// Whether it has been compared with what its peer knows, since it came back.
    pub(super) checked: bool,
    /// Why it is known to be an older copy.
    pub(super) older: Option<String>,
    /// A person wants it to serve all the same.
    pub(super) forced: bool,
    /// How often it has begun to serve, as its peer was told last, and when.
    noted: Option<(u64, u64)>,
}

impl Past {
    /// Whether it must not serve.
    pub(super) fn forbids(&self) -> bool {
        self.older.is_some() && !self.forced
    }
}

impl Cluster {
    /// Compares what a master says of itself with what is remembered of it, here and on its peer.
    pub(super) fn judge_older(&mut self, now: u64, out: &mut Vec<Effect>) {
        for id in NodeId::BOTH {
            self.remember(id);
            self.compare_with_peer(id);
            if self.node(id).past.forbids() {
                let cause = self.node(id).past.older.clone();
                self.signal(now, id, Signal::Older, cause, out);
            } else {
                self.note_starts(now, id, out);
            }
        }
    }

    /// The end of its WAL never goes back: what was flushed survives every crash.
    fn remember(&mut self, id: NodeId) {
        let node = &mut self.nodes[id.index()];
        let Some((facts, asked)) = &node.facts else {
            return;
        };
        if facts.written != node.past.written {
            node.past = Past {
                written: facts.written,
                ..Past::default()
            };
        }
        if *asked <= node.past.top_asked_ms {
            return;
        }
        let (end, top) = (facts.wal_lsn, node.past.top_lsn);
        node.past.top_asked_ms = *asked;
        if end < top && node.past.older.is_none() {
            node.past.older = Some(format!(
                "its WAL ends at {} and has been at {}",
                lsn(end),
                lsn(top)
            ));
        }
        node.past.top_lsn = top.max(end);
    }

    /// Only an answer that was asked for after the peer's had arrived can be compared with it: meanwhile both go on.
    fn compare_with_peer(&mut self, id: NodeId) {
        let [own, peer] = [id, id.peer()].map(NodeId::index);
        let (Some((facts, asked)), Some((of_peer, _))) =
            (&self.nodes[own].facts, &self.nodes[peer].facts)
        else {
            return;
        };
        if *asked <= self.nodes[peer].heard_ms {
            return;
        }
        // A restore has put it there on purpose, and its peer is about to be rebuilt; a peer that is being rebuilt knows nothing.
        let comparable = facts.written <= of_peer.written && of_peer.link != Link::Copying;
        let applied = of_peer.applied_lsn.filter(|_| comparable).unwrap_or(0);
        let starts = facts.starts.zip(of_peer.peer_starts).filter(|_| comparable);
        let why = match starts {
            Some((own, noted)) if own < noted => Some(format!(
                "it has begun to serve {own} times, and {} knows of {noted}",
                id.peer()
            )),
            _ if applied > facts.wal_lsn => Some(format!(
                "its WAL ends at {}, and {} has applied it up to {}",
                lsn(facts.wal_lsn),
                id.peer(),
                lsn(applied)
            )),
            _ => None,
        };
        let past = &mut self.nodes[own].past;
        past.checked = true;
        past.top_lsn = past.top_lsn.max(applied);
        if past.older.is_none() {
            past.older = why;
        }
    }

    /// Tells the peer how often a master has begun to serve, when it does not know yet.
    fn note_starts(&mut self, now: u64, id: NodeId, out: &mut Vec<Effect>) {
        let peer = id.peer();
        let known = self.facts(peer).and_then(|facts| facts.peer_starts);
        let starts = self.facts(id).and_then(|facts| facts.starts);
        let (Some(known), Some(starts)) = (known, starts) else {
            return;
        };
        let again = self.settings.ask_again_after_ms;
        let past = &mut self.nodes[id.index()].past;
        let told = (past.noted).is_some_and(|(what, at)| what == starts && now < at + again);
        if known < starts && past.checked && !told {
            past.noted = Some((starts, now));
            out.push(Effect::NoteStarts { on: peer, starts });
        }
    }

    /// Whether an older copy is among those that wait to serve.
    pub(super) fn may_serve(&self, id: NodeId) -> bool {
        self.state(id) == NodeState::CatchingUp && !self.node(id).past.forbids()
    }
}

/// A position as PostgreSQL writes it.
fn lsn(position: u64) -> String {
    format!("{:X}/{:X}", position >> 32, position & 0xFFFF_FFFF)
}

#[cfg(test)]
mod tests {
    use super::super::sim::settings;
    use super::super::{Event, Facts, Role};
    use super::*;
    use NodeId::{Master1, Master2};

    fn facts(wal_lsn: u64, applied: u64, starts: u64, peer_starts: u64) -> Facts {
        Facts {
            wal_lsn,
            peer_confirmed_lsn: Some(100_000),
            peer_streaming: true,
            link: Link::Ready,
            applied_lsn: Some(applied),
            starts: Some(starts),
            peer_starts: Some(peer_starts),
            written: 7,
            ..Facts::default()
        }
    }

    fn answer(cluster: &mut Cluster, now: u64, node: NodeId, facts: Facts) -> Vec<Effect> {
        let asked_ms = now;
        cluster.handle(
            now,
            Event::Answered {
                node,
                facts,
                asked_ms,
            },
        )
    }

    /// Both serve, and master1 has the traffic.
    fn two_masters() -> Cluster {
        let mut cluster = Cluster::new(settings(), 0);
        cluster.handle(0, Event::Role(Role::Leader));
        for now in [100, 200, 300] {
            answer(&mut cluster, now, Master1, facts(1_000, 500, 1, 1));
            answer(&mut cluster, now + 10, Master2, facts(800, 1_000, 1, 1));
        }
        assert_eq!(
            (cluster.active, cluster.state(Master2)),
            (Master1, NodeState::Up)
        );
        cluster
    }

    fn dies(cluster: &mut Cluster, now: u64, node: NodeId) {
        let cause = "connect: refused".to_string();
        cluster.handle(now, Event::Refused { node, cause });
    }

    fn comes_back(cluster: &mut Cluster, node: NodeId, own: Facts, of_peer: Option<Facts>) {
        for now in (1_000..6_000).step_by(100) {
            answer(cluster, now, node, own.clone());
            if let Some(of_peer) = &of_peer {
                answer(cluster, now + 10, node.peer(), of_peer.clone());
            }
        }
    }

    #[test]
    fn less_wal_than_the_peer_has_applied_is_an_older_copy() {
        let mut cluster = two_masters();
        dies(&mut cluster, 400, Master1);
        let peer = facts(900, 1_000, 1, 1);
        comes_back(
            &mut cluster,
            Master1,
            facts(950, 900, 1, 1),
            Some(peer.clone()),
        );
        assert_eq!(
            (cluster.state(Master1), cluster.active),
            (NodeState::CatchingUp, Master2)
        );
        let seen = cluster.node_view(Master1);
        assert!(
            seen.reason.contains("older copy") && seen.alarm.is_some(),
            "{seen:?}"
        );
        // It goes on writing, and is still what it is.
        comes_back(&mut cluster, Master1, facts(9_000, 900, 1, 1), Some(peer));
        assert_eq!(cluster.state(Master1), NodeState::CatchingUp);
    }

    /// What it applies of its peer makes its WAL grow past where it was, within milliseconds.
    #[test]
    fn a_copy_from_before_its_last_start_is_known_however_much_it_has_written_since() {
        let mut cluster = Cluster::new(settings(), 0);
        cluster.handle(0, Event::Role(Role::Leader));
        comes_back(
            &mut cluster,
            Master1,
            facts(50_000, 900, 1, 1),
            Some(facts(900, 1_000, 1, 2)),
        );
        assert_eq!(
            (cluster.state(Master1), cluster.active),
            (NodeState::CatchingUp, Master2)
        );
        assert!(
            cluster
                .node_view(Master1)
                .reason
                .contains("begun to serve 1 times")
        );
    }

    #[test]
    fn alone_it_serves_only_by_force() {
        let mut cluster = two_masters();
        dies(&mut cluster, 400, Master2);
        dies(&mut cluster, 410, Master1);
        comes_back(&mut cluster, Master1, facts(950, 500, 1, 1), None);
        assert!(!cluster.serving && cluster.state(Master1) == NodeState::CatchingUp);
        let (to, force, ticket) = (Master1, true, 1);
        cluster.handle(6_000, Event::Switch { to, force, ticket });
        let effects = answer(&mut cluster, 6_100, Master1, facts(950, 500, 1, 1));
        let told = format!("{effects:?}");
        assert!(
            cluster.serving && told.contains("older copy of itself: its WAL"),
            "{told}"
        );
        answer(&mut cluster, 6_200, Master1, facts(960, 500, 2, 1));
        assert!(cluster.serving && cluster.node_view(Master1).alarm.is_some());
    }

    #[test]
    fn what_a_restore_or_a_rejoin_has_put_there_is_no_older_copy() {
        let mut cluster = two_masters();
        dies(&mut cluster, 400, Master1);
        let restored = Facts {
            written: 8,
            ..facts(200, 0, 0, 0)
        };
        comes_back(
            &mut cluster,
            Master1,
            restored.clone(),
            Some(facts(900, 1_000, 1, 1)),
        );
        assert_eq!(cluster.state(Master1), NodeState::Up);
        // Its peer is rebuilt from it.
        let rebuilt = Facts {
            written: 8,
            ..facts(100, 210, 1, 0)
        };
        comes_back(
            &mut cluster,
            Master1,
            Facts {
                wal_lsn: 300,
                ..restored
            },
            Some(rebuilt),
        );
        assert_eq!(
            [cluster.state(Master1), cluster.state(Master2)],
            [NodeState::Up; 2]
        );
    }

    #[test]
    fn an_answer_from_before_the_peers_proves_nothing() {
        let mut cluster = two_masters();
        let (node, old) = (Master1, facts(1_500, 500, 1, 1));
        // It has gone on to 2,000, and its peer with it, while this answer was under way.
        answer(&mut cluster, 500, Master2, facts(800, 2_000, 1, 1));
        cluster.handle(
            510,
            Event::Answered {
                node,
                facts: old,
                asked_ms: 450,
            },
        );
        assert_eq!(cluster.state(Master1), NodeState::Up);
        let effects = answer(&mut cluster, 600, Master1, facts(2_100, 500, 2, 1));
        assert_eq!(cluster.state(Master1), NodeState::Up);
        assert!(format!("{effects:?}").contains("NoteStarts { on: Master2, starts: 2 }"));
    }
}
