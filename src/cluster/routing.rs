//! Which master serves. Failover is automatic and immediate; the way home is a person's decision,
//! so a master that serves keeps serving for as long as it can.

use super::{Change, Cluster, Effect, Link, NodeId, NodeState, Role, Signal};

/// Why the route moves, and since when that was on its way, in ms.
pub(super) struct Route {
    pub what: &'static str,
    pub why: &'static str,
    pub since: u64,
}

impl Cluster {
    /// When nobody is fit to serve, takes the best of those that answer. The master that served last
    /// needs no patience: nothing newer than what it holds was ever acknowledged elsewhere. Any other
    /// waits, so that the last one can come back too: both lose their power at once, and get it back at
    /// once. So it waits from its own return, not from the outage, which has mostly been longer.
    pub(super) fn judge_nobody(&mut self, now: u64, out: &mut Vec<Effect>) {
        if NodeId::BOTH.iter().any(|id| self.state(*id).serves()) {
            self.nobody_since_ms = None;
            return;
        }
        let since = *self.nobody_since_ms.get_or_insert(now);
        // Not an older copy: whoever serves from one loses acknowledged writes, and that is for a person to decide.
        let waiting = |id: &NodeId| self.may_serve(*id);
        let first_back = NodeId::BOTH.into_iter().filter(waiting);
        let first_back = first_back.map(|id| self.node(id).since_ms).min();
        let waits_since = first_back.map(|back| back.max(since));
        let is_over = |from: u64| now.saturating_sub(from) >= self.settings.nobody_better_after_ms;
        let best = if self.served && waiting(&self.active) {
            Some(self.active)
        } else if waits_since.is_some_and(is_over) {
            // Half a copy is worse than nothing, and so is an empty master in place of a full one.
            let whole = |id: &NodeId| match self.facts(*id).map(|facts| facts.link) {
                Some(Link::Ready) => true,
                Some(Link::Missing) => !self.served,
                _ => false,
            };
            NodeId::BOTH
                .into_iter()
                .filter(|id| waiting(id) && whole(id))
                // A new server in the place of one that was lost has no link, and its peer has one.
                .min_by_key(|id| {
                    let linked = self.facts(*id).map(|facts| facts.link) == Some(Link::Ready);
                    (!linked, self.bytes_behind(*id))
                })
        } else {
            None
        };
        if let Some(id) = best {
            let cause = Some(self.missing_to_current(id));
            self.signal(now, id, Signal::NobodyBetter, cause, out);
            self.nobody_since_ms = None;
        }
    }

    /// Points the route at a master that serves, if there is one.
    pub(super) fn route(&mut self, now: u64, out: &mut Vec<Effect>) {
        if let Some(to) = self.led_to() {
            if to != self.active || !self.serving {
                let (what, why) = ("follow", "the process that holds the lease serves from it");
                let since = self.route_since_ms;
                self.point_at(now, to, Route { what, why, since }, out);
            }
            return;
        }
        if self.serving && self.state(self.active).serves() {
            self.leave_unfit(now, out);
            return;
        }
        match self.next_active(now) {
            Some((to, what, why)) => {
                // A failover is felt from the last sign of life of the master that failed.
                let since = match what {
                    "failover" => self.node(self.active).heard_ms,
                    _ => self.route_since_ms,
                };
                self.point_at(now, to, Route { what, why, since }, out);
                if what == "failover" {
                    out.push(Effect::ReleaseApply(to));
                }
            }
            None if self.serving => {
                let since = self.route_since_ms;
                let why = match self.paused_until_ms {
                    Some(_) => {
                        "the active master is gone, and a pause holds the traffic where it is"
                    }
                    None => "no master can serve",
                };
                let what = "outage";
                let route = Route { what, why, since };
                self.record_route(now, "none", route, out);
                self.serving = false;
            }
            None => {}
        }
    }

    /// Who should serve, now that the active master does not.
    fn next_active(&self, now: u64) -> Option<(NodeId, &'static str, &'static str)> {
        let active = self.active;
        let peer = active.peer();
        let asking = self.role == Role::Unknown;
        if asking && now - self.started_ms < self.settings.role_patience_ms {
            return None;
        }
        if self.state(active).serves() {
            return Some(match self.served {
                true => (
                    active,
                    "service",
                    "the master that served last can serve again",
                ),
                false => (active, "start", "the primary is up and not behind"),
            });
        }
        if !self.state(peer).serves() {
            return None;
        }
        if self.served && self.paused_until_ms.is_some() {
            return None;
        }
        if self.served {
            return Some((
                peer,
                "failover",
                "the active master is gone and its peer is up",
            ));
        }
        let patience_over = now - self.started_ms >= self.settings.start_patience_ms;
        (self.state(active) == NodeState::Down || patience_over).then_some((
            peer,
            "start",
            "the primary is down or behind, so its peer serves",
        ))
    }

    /// Points the route at `to` and records it.
    pub(super) fn point_at(&mut self, now: u64, to: NodeId, route: Route, out: &mut Vec<Effect>) {
        self.record_route(now, to.name(), route, out);
        self.active = to;
        self.serving = true;
        self.served = true;
    }

    fn record_route(&mut self, now: u64, to: &'static str, route: Route, out: &mut Vec<Effect>) {
        let Route { what, why, since } = route;
        out.push(Effect::Record(Change {
            what,
            node: self.active,
            from: if self.serving {
                self.active.name()
            } else {
                "none"
            },
            to,
            why,
            cause: match what {
                "failover" | "outage" => self.node(self.active).cause.clone(),
                _ => None,
            },
            duration_ms: now - since,
            stall_ms: match what {
                "failover" | "service" => Some(now - since),
                "handover" => self.held_ms(now),
                _ => None,
            },
        }));
        self.route_since_ms = now;
    }

    /// How far this master is behind its peer, in bytes; unknown counts as infinitely far.
    fn bytes_behind(&self, id: NodeId) -> u64 {
        self.facts(id.peer())
            .and_then(|peer| peer.peer_lag_bytes())
            .unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::super::sim::settings;
    use super::super::{Event, Facts};
    use super::*;
    use NodeId::{Master1, Master2};

    /// A cluster that master1 served until both masters died, a minute ago.
    fn after_a_long_outage() -> (Cluster, u64) {
        let mut cluster = Cluster::new(settings(), 0);
        cluster.handle(0, Event::Role(Role::Leader));
        for now in [100, 200, 300] {
            for node in NodeId::BOTH {
                answer(&mut cluster, now, node, 1_000);
            }
        }
        assert_eq!((cluster.active, cluster.serving), (Master1, true));
        for node in [Master2, Master1] {
            let cause = "connect: refused".to_string();
            cluster.handle(400, Event::Refused { node, cause });
        }
        assert!(!cluster.serving);
        (cluster, 60_000)
    }

    fn answer(cluster: &mut Cluster, now: u64, node: NodeId, wal_lsn: u64) {
        answer_of(cluster, now, node, wal_lsn, 0);
    }

    fn answer_of(cluster: &mut Cluster, now: u64, node: NodeId, wal_lsn: u64, written: u64) {
        let facts = Facts {
            wal_lsn,
            written,
            peer_confirmed_lsn: Some(1_000),
            peer_streaming: true,
            link: Link::Ready,
            ..Facts::default()
        };
        let asked_ms = now;
        cluster.handle(
            now,
            Event::Answered {
                node,
                facts,
                asked_ms,
            },
        );
    }

    /// What it was told after the other had died is nowhere else.
    #[test]
    fn the_master_that_served_last_may_come_back_second() {
        let (mut cluster, back) = after_a_long_outage();
        for later in (0..2_000).step_by(100) {
            answer(&mut cluster, back + later, Master2, 1_000);
            assert!(!cluster.serving, "master2 serves after {later} ms");
        }
        // It has written what its peer has not confirmed.
        answer(&mut cluster, back + 1_950, Master1, 2_000);
        assert_eq!((cluster.active, cluster.serving), (Master1, true));
    }

    #[test]
    fn the_other_serves_when_it_does_not_come_back() {
        let (mut cluster, back) = after_a_long_outage();
        for later in (0..=2_000).step_by(100) {
            assert!(!cluster.serving, "master2 serves before {later} ms");
            answer(&mut cluster, back + later, Master2, 1_000);
        }
        assert_eq!((cluster.active, cluster.serving), (Master2, true));
    }

    /// A restore stops a master after its peer began to catch up, and starts it with less WAL.
    #[test]
    fn a_peer_that_was_taken_back_is_not_waited_for_beyond_its_end() {
        let mut cluster = Cluster::new(settings(), 0);
        cluster.handle(0, Event::Role(Role::Leader));
        for node in NodeId::BOTH {
            answer(&mut cluster, 100, node, 1_000);
        }
        let facts = Facts {
            link: Link::Missing,
            ..Facts::default()
        };
        let (node, asked_ms) = (Master2, 200);
        let unlinked = Event::Answered {
            node,
            facts,
            asked_ms,
        };
        cluster.handle(200, unlinked);
        answer(&mut cluster, 300, Master1, 9_000);
        answer(&mut cluster, 300, Master2, 1_000);
        assert_eq!(cluster.state(Master2), NodeState::CatchingUp);
        // The restore says so in the record of the masters' identities.
        for now in [350, 400] {
            answer_of(&mut cluster, now, Master1, 1_000, 1);
            answer_of(&mut cluster, now + 10, Master2, 1_000, 1);
        }
        assert_eq!(cluster.state(Master2), NodeState::Up);
    }
}
