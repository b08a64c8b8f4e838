//! Whether a master has everything that its peer has, and what it still lacks.

use super::{Barrier, Cluster, Effect, Link, NodeId, Signal};

impl Cluster {
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
            let past = &self.node(id).past;
            if current && linked && past.checked && !past.forbids() {
                self.signal(now, id, Signal::Current, None, out);
            }
        }
    }

    /// What a master that catches up still lacks, in words.
    pub(super) fn missing_to_current(&self, id: NodeId) -> String {
        let peer = id.peer();
        if let Some(older) = &self.node(id).past.older {
            return format!(
                "it is an older copy of itself: {older}; rebuild it with `imdb-ha rejoin {id}`"
            );
        }
        match self.facts(id).map(|facts| facts.link) {
            Some(Link::Copying) => return format!("it is copying the rows of {peer}"),
            Some(Link::Missing) => {
                return format!(
                    "it has no subscription to {peer}; run `imdb-ha replication setup`, or \
                     `imdb-ha rejoin {id}` if it has lost its data"
                );
            }
            _ => {}
        }
        let Some(facts) = self.facts(peer) else {
            return format!("{peer} does not answer, so nobody can tell what is missing");
        };
        match (facts.peer_confirmed_lsn, self.node(id).barrier) {
            (None, _) => format!(
                "{peer} has no slot {}; run `imdb-ha replication setup`",
                peer.slot()
            ),
            _ if !facts.peer_streaming => format!("{peer} is not streaming to it yet"),
            (Some(confirmed), Barrier::At(barrier)) => {
                format!("{} bytes to go", barrier.saturating_sub(confirmed))
            }
            (Some(_), Barrier::WantedSince(_)) => {
                format!("waiting for {peer} to say where it stands")
            }
        }
    }
}
