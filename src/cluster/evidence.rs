//! What follows from what a probe heard of a master, from what it met instead, and from silence.

use super::{Barrier, Cluster, Effect, Facts, Link, NodeId, NodeState, Signal};

impl Cluster {
    /// Takes in an answer: the facts, and the barrier that the peer may be waiting for.
    pub(super) fn hear(
        &mut self,
        now: u64,
        id: NodeId,
        facts: Facts,
        asked: u64,
        out: &mut Vec<Effect>,
    ) {
        let wal_lsn = facts.wal_lsn;
        let node = &mut self.nodes[id.index()];
        node.heard_ms = now;
        node.met = None;
        // A late answer is a sign of life, and old news.
        let was = node.facts.as_ref();
        if was.is_none_or(|(_, newest)| asked >= *newest) {
            // A master that has been joined anew has a peer that may have been taken back since: the end of its WAL that was
            // noted then might never come.
            let joins = was.is_some_and(|(was, _)| was.link != Link::Ready);
            if joins && facts.link == Link::Ready && node.state == NodeState::CatchingUp {
                node.barrier = Barrier::WantedSince(now);
            }
            node.facts = Some((facts, asked));
        }
        let peer = &mut self.nodes[id.peer().index()];
        // It can be compared with what was just heard only when it answers anew.
        if peer.state == NodeState::CatchingUp && !peer.past.checked && peer.facts.is_some() {
            out.push(Effect::ProbeNow(id.peer()));
        }
        match peer.barrier {
            Barrier::WantedSince(since) if asked > since => peer.barrier = Barrier::At(wal_lsn),
            // Within one millisecond the question may have come first.
            Barrier::WantedSince(since) if asked == since => out.push(Effect::ProbeNow(id)),
            _ => {}
        }
        self.signal(now, id, Signal::Answered, None, out);
    }

    /// Keeps what a probe met instead of an answer. Of a master that is down it is the reason that holds now: one that was shut
    /// down may meanwhile refuse a password.
    pub(super) fn meet(&mut self, id: NodeId, cause: &str) {
        let node = &mut self.nodes[id.index()];
        node.met = Some(cause.to_string());
        if node.state == NodeState::Down {
            node.cause = Some(cause.to_string());
        }
    }

    /// Counts silence against our own clock, since no driver's timeout ends a call on a frozen
    /// server.
    pub(super) fn count_silence(&mut self, now: u64, out: &mut Vec<Effect>) {
        for id in NodeId::BOTH {
            let silent_ms = now.saturating_sub(self.node(id).heard_ms);
            if silent_ms < self.settings.suspect_after_ms {
                continue;
            }
            // PostgreSQL's own words, when there are some, say more than the silence.
            let met = self.node(id).met.as_ref().map(|met| format!("{met}; "));
            let met = met.unwrap_or_default();
            let cause = Some(format!("{met}silent for {silent_ms} ms"));
            if silent_ms >= self.settings.silence_deadline_ms {
                self.signal(now, id, Signal::Silence, cause, out);
            } else {
                self.signal(now, id, Signal::Doubt, cause, out);
            }
        }
    }
}
