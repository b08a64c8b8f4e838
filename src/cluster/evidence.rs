//! What follows from what is heard of a master, and from what is not: silence, a missing link, having caught up.

use super::{Barrier, Cluster, Effect, Link, NodeId, NodeState, Signal};

impl Cluster {
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

    /// Whether the master that does not serve still takes what its peer sends. One that is being rebuilt
    /// does not, and must not be failed over to.
    pub(super) fn judge_link(&mut self, now: u64, out: &mut Vec<Effect>) {
        for id in NodeId::BOTH {
            let unlinked = self
                .facts(id)
                .is_some_and(|facts| facts.link != Link::Ready);
            if unlinked && id != self.active {
                self.signal(now, id, Signal::Unlinked, None, out);
            }
        }
    }

    /// Whether a master that catches up has everything now.
    pub(super) fn judge_current(&mut self, now: u64, out: &mut Vec<Effect>) {
        for id in NodeId::BOTH {
            let Barrier::At(barrier) = self.node(id).barrier else {
                continue;
            };
            let current = self.facts(id.peer()).is_some_and(|peer| {
                peer.peer_streaming && peer.peer_confirmed_lsn.is_some_and(|lsn| lsn >= barrier)
            });
            let linked = self
                .facts(id)
                .is_some_and(|facts| facts.link == Link::Ready);
            if current && linked {
                self.signal(now, id, Signal::Current, None, out);
            }
        }
    }
}
