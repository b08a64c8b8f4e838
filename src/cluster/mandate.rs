//! Whether this process decides, of several that serve the same pair. Whoever holds the lease in Redis does. Where Redis cannot be
//! used, whoever holds the masters' own locks does, once the time of the last lease is over and somebody else has had the chance to
//! take it. Each who decides has a term, higher than every other that it can see; the masters refuse orders of an older one, and
//! who sees a newer one decides no longer.

use super::{Leader, NodeId};
use serde::Serialize;

/// The times that it depends on, in ms.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// What Redis said holds for so long.
    pub lease_ms: u64,
    /// After that, whoever reaches Redis has this time to take the lease, before the masters' locks count.
    pub patience_ms: u64,
    /// The masters' locks are known to be held for so long.
    pub seat_ms: u64,
}

/// What Redis says of the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lease {
    /// This process holds it.
    Ours {
        term: u64,
    },
    Theirs {
        term: u64,
        leader: Leader,
    },
    Free,
}

/// A process that decides or has decided, as a master knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mandate {
    pub term: u64,
    pub holder: String,
    #[serde(skip)]
    pub leader: Leader,
    /// Whether its session holds the master's lock.
    pub lives: bool,
}

/// What is known of one master.
#[derive(Clone, Debug, Default)]
pub struct MasterSeen {
    /// Whether it answers this process.
    pub reached: bool,
    /// When its lock was last known to be held by this process.
    pub held_ms: Option<u64>,
    /// The highest term that a session of this process has found there.
    pub newest: u64,
    /// What its probe has read.
    pub mandate: Option<Mandate>,
}

/// What is known when it is asked who decides.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// What Redis answered last, and when it was asked.
    pub lease: Option<(Lease, u64)>,
    /// Whether Redis could not be used at the last try.
    pub redis_fails: bool,
    pub masters: [MasterSeen; 2],
}

/// What this process does about the lock of a master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stance {
    /// Nothing, and gives it back.
    Leave,
    /// Takes it if nobody has it.
    Try,
    /// Tells the master its term and keeps the lock; `by_right` takes it away from anybody else.
    Hold { term: u64, by_right: bool },
}

/// Who decides, as far as this process can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is being asked.
    Unknown,
    /// This process, until then.
    Leads {
        until_ms: u64,
        term: u64,
        why: &'static str,
    },
    Follows(Leader),
    /// Another one did, and whether it still does cannot be told.
    Orphan,
}

/// What follows from the evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    pub verdict: Verdict,
    pub stances: [Stance; 2],
    /// A new term must be higher.
    pub above: u64,
}

const BY_LEASE: &str = "no other process holds the lease";
const BY_LOCKS: &str = "redis cannot be used, and it holds the masters' own locks";

/// This process, and what it remembers.
#[derive(Debug)]
pub struct Candidate {
    holder: String,
    times: Times,
    /// The term with which it decides or has decided; 0 without one.
    term: u64,
    /// Until when it decides by the masters' locks.
    until_ms: u64,
}

impl Candidate {
    /// A process that does not decide yet, by a name that no other has.
    pub fn new(holder: String, times: Times) -> Candidate {
        Candidate {
            holder,
            times,
            term: 0,
            until_ms: 0,
        }
    }

    /// Who decides now.
    pub fn judge(&mut self, now: u64, seen: &Evidence) -> Judgement {
        let other = self.newest_other(seen);
        let other_term = other.map_or(0, |mandate| mandate.term);
        let in_redis = match &seen.lease {
            Some((Lease::Ours { term } | Lease::Theirs { term, .. }, _)) => *term,
            _ => 0,
        };
        let found = seen.masters.iter().map(|master| master.newest);
        let above = found.fold(self.term.max(other_term).max(in_redis), u64::max);
        let valid = seen.lease.as_ref();
        let valid = valid.filter(|(_, asked)| now < asked + self.times.lease_ms);
        let (verdict, stances) = match valid {
            Some((Lease::Ours { term }, asked)) => {
                // A newer one has been here while this process was away: the claim takes a higher term.
                let beaten = *term < above && (*term <= other_term || self.refused(seen, *term));
                self.term = *term;
                let until_ms = asked + self.times.lease_ms;
                self.until_ms = until_ms;
                match beaten {
                    true => (Verdict::Orphan, [Stance::Leave; 2]),
                    false => (
                        Verdict::Leads {
                            until_ms,
                            term: *term,
                            why: BY_LEASE,
                        },
                        [Stance::Hold {
                            term: *term,
                            by_right: true,
                        }; 2],
                    ),
                }
            }
            Some((Lease::Theirs { term, leader }, _)) => {
                (self.term, self.until_ms) = (0, 0);
                let newer = other.filter(|mandate| mandate.lives && mandate.term > *term);
                let leader = newer.map_or(leader, |mandate| &mandate.leader);
                (Verdict::Follows(leader.clone()), [Stance::Leave; 2])
            }
            None if seen.lease.is_none() && !seen.redis_fails => {
                (Verdict::Unknown, [Stance::Leave; 2])
            }
            Some((Lease::Free, _)) | None => self.judge_by_masters(now, seen, other, above),
        };
        Judgement {
            verdict,
            stances,
            above,
        }
    }

    /// Who decides by what the masters say: Redis says nothing that still holds.
    fn judge_by_masters(
        &mut self,
        now: u64,
        seen: &Evidence,
        other: Option<&Mandate>,
        above: u64,
    ) -> (Verdict, [Stance; 2]) {
        let lives = other.filter(|mandate| mandate.lives);
        let beaten = other.is_some_and(|mandate| mandate.term > self.term);
        if self.term > 0 && (beaten || self.refused(seen, self.term)) {
            // Whoever sees a newer term has no word any more, and takes one anew, if at all.
            (self.term, self.until_ms) = (0, 0);
            return match lives {
                Some(mandate) => (Verdict::Follows(mandate.leader.clone()), [Stance::Leave; 2]),
                None => (Verdict::Orphan, [Stance::Leave; 2]),
            };
        }
        let held = |master: &MasterSeen| {
            let held_ms = master.held_ms?;
            (now < held_ms + self.times.seat_ms).then_some(held_ms)
        };
        let ours = [held(&seen.masters[0]), held(&seen.masters[1])];
        let lacks = |node: &NodeId| {
            let index = node.index();
            seen.masters[index].reached && ours[index].is_none()
        };
        let all = ours.iter().any(Option::is_some) && !NodeId::BOTH.iter().any(lacks);
        let over = match &seen.lease {
            Some((Lease::Free, _)) | None => now,
            Some((_, asked)) => asked + self.times.lease_ms + self.times.patience_ms,
        };
        if all && now >= over {
            if self.term == 0 {
                self.term = above + 1;
            }
            let oldest = ours.iter().flatten().min().copied().unwrap_or(now);
            self.until_ms = oldest + self.times.seat_ms;
        }
        let hold = Stance::Hold {
            term: self.term,
            by_right: false,
        };
        if self.term > 0 && now >= over && now < self.until_ms {
            let (until_ms, term, why) = (self.until_ms, self.term, BY_LOCKS);
            let verdict = Verdict::Leads {
                until_ms,
                term,
                why,
            };
            return (verdict, [hold; 2]);
        }
        match lives {
            // What was held of the other master is given back: else neither would have both.
            Some(mandate) => {
                (self.term, self.until_ms) = (0, 0);
                (Verdict::Follows(mandate.leader.clone()), [Stance::Leave; 2])
            }
            // The locks of the time with a lease are kept for the time after it.
            None if self.term > 0 => (Verdict::Orphan, [hold; 2]),
            None if now >= over => {
                let first = !lacks(&NodeId::Master1);
                let second = if first { Stance::Try } else { Stance::Leave };
                (Verdict::Orphan, [Stance::Try, second])
            }
            None => (Verdict::Orphan, [Stance::Leave; 2]),
        }
    }

    /// The newest that is not this process.
    fn newest_other<'a>(&self, seen: &'a Evidence) -> Option<&'a Mandate> {
        let known = seen.masters.iter().filter_map(|seen| seen.mandate.as_ref());
        let others = known.filter(|mandate| mandate.holder != self.holder);
        others.max_by_key(|mandate| (mandate.term, mandate.lives))
    }

    /// Whether a session of this process was told of a newer term than that.
    fn refused(&self, seen: &Evidence, term: u64) -> bool {
        seen.masters.iter().any(|master| master.newest > term)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: Times = Times {
        lease_ms: 1_500,
        patience_ms: 1_000,
        seat_ms: 1_500,
    };

    fn leader(address: &str) -> Leader {
        Leader {
            address: address.to_string(),
            active: Some(NodeId::Master1),
            paused_for_ms: None,
        }
    }

    fn mandate(term: u64, lives: bool) -> Mandate {
        Mandate {
            term,
            holder: "other".to_string(),
            leader: leader("http://other"),
            lives,
        }
    }

    fn reached() -> Evidence {
        let mut seen = Evidence::default();
        seen.masters.iter_mut().for_each(|seen| seen.reached = true);
        seen
    }

    fn candidate() -> Candidate {
        Candidate::new("me".to_string(), TIMES)
    }

    fn leads(judgement: &Judgement) -> Option<u64> {
        match judgement.verdict {
            Verdict::Leads { term, .. } => Some(term),
            _ => None,
        }
    }

    #[test]
    fn who_cannot_renew_its_lease_decides_no_longer_and_keeps_its_locks_for_later() {
        let mut me = candidate();
        let mut seen = reached();
        seen.lease = Some((Lease::Ours { term: 7 }, 1_000));
        assert_eq!(leads(&me.judge(1_000, &seen)), Some(7));
        seen.redis_fails = true;
        seen.masters.iter_mut().for_each(|seen| {
            seen.held_ms = Some(2_400);
            seen.newest = 7;
        });
        assert_eq!(leads(&me.judge(2_499, &seen)), Some(7));
        // Its time is over, and whoever reaches Redis may take the lease now.
        let after = me.judge(2_500, &seen);
        assert_eq!(after.verdict, Verdict::Orphan);
        let (term, by_right) = (7, false);
        assert_eq!(after.stances, [Stance::Hold { term, by_right }; 2]);
        seen.masters
            .iter_mut()
            .for_each(|seen| seen.held_ms = Some(3_450));
        assert_eq!(leads(&me.judge(3_499, &seen)), None);
        // Nobody has, and nobody has been told of to the masters.
        assert_eq!(leads(&me.judge(3_500, &seen)), Some(7));
        // Somebody else has after all.
        seen.masters[1].mandate = Some(mandate(8, true));
        let beaten = me.judge(3_600, &seen);
        assert_eq!(beaten.verdict, Verdict::Follows(leader("http://other")));
        assert_eq!((beaten.stances, beaten.above), ([Stance::Leave; 2], 8));
    }

    #[test]
    fn who_was_refused_decides_no_longer_at_once() {
        let mut me = candidate();
        let mut seen = reached();
        seen.lease = Some((Lease::Ours { term: 3 }, 1_000));
        assert_eq!(leads(&me.judge(1_010, &seen)), Some(3));
        // Redis was put back, and the masters know of more than it does.
        seen.masters[0].newest = 9;
        let judged = me.judge(1_020, &seen);
        assert_eq!((judged.verdict, judged.above), (Verdict::Orphan, 9));
        seen.lease = Some((Lease::Ours { term: 10 }, 1_030));
        assert_eq!(leads(&me.judge(1_040, &seen)), Some(10));
    }

    #[test]
    fn without_redis_it_takes_the_locks_of_all_masters_that_it_reaches() {
        let mut me = candidate();
        let mut seen = reached();
        assert_eq!(me.judge(0, &seen).verdict, Verdict::Unknown);
        seen.redis_fails = true;
        let first = me.judge(10, &seen);
        assert_eq!(first.verdict, Verdict::Orphan);
        assert_eq!(
            first.stances,
            [Stance::Try, Stance::Leave],
            "one after the other"
        );
        seen.masters[0].held_ms = Some(20);
        seen.masters[0].newest = 4;
        let second = me.judge(30, &seen);
        assert_eq!((leads(&second), second.stances), (None, [Stance::Try; 2]));
        seen.masters[1].held_ms = Some(40);
        assert_eq!(
            leads(&me.judge(50, &seen)),
            Some(5),
            "above all that is known"
        );
        // A master that is away needs no lock, and one that is back has a moment to give it.
        seen.masters[0] = MasterSeen::default();
        seen.masters[1].held_ms = Some(2_000);
        assert_eq!(leads(&me.judge(2_100, &seen)), Some(5));
        seen.masters[0].reached = true;
        assert_eq!(leads(&me.judge(2_200, &seen)), Some(5));
        seen.masters[1].held_ms = Some(3_600);
        assert_eq!(leads(&me.judge(3_600, &seen)), None);
    }

    #[test]
    fn who_has_the_locks_is_followed_and_not_disturbed() {
        let mut me = candidate();
        let mut seen = reached();
        seen.redis_fails = true;
        seen.masters[0].held_ms = Some(0);
        seen.masters[1].mandate = Some(mandate(4, true));
        let judged = me.judge(100, &seen);
        assert_eq!(judged.verdict, Verdict::Follows(leader("http://other")));
        assert_eq!(judged.stances, [Stance::Leave; 2]);
        // It is gone.
        seen.masters[0].held_ms = None;
        seen.masters[1].mandate = Some(mandate(4, false));
        assert_eq!(me.judge(200, &seen).stances, [Stance::Try, Stance::Leave]);
    }

    #[test]
    fn the_lease_wins_over_the_locks() {
        let mut me = candidate();
        let mut seen = reached();
        seen.redis_fails = true;
        seen.masters
            .iter_mut()
            .for_each(|seen| seen.held_ms = Some(0));
        assert_eq!(leads(&me.judge(10, &seen)), Some(1));
        let term = 1;
        let leader = leader("http://lease");
        seen.lease = Some((
            Lease::Theirs {
                term,
                leader: leader.clone(),
            },
            20,
        ));
        assert_eq!(me.judge(30, &seen).verdict, Verdict::Follows(leader));
        // And with Redis back, whoever decided goes on until it has the lease.
        let mut me = candidate();
        seen.lease = None;
        assert_eq!(leads(&me.judge(40, &seen)), Some(1));
        seen.lease = Some((Lease::Free, 50));
        assert_eq!(leads(&me.judge(60, &seen)), Some(1));
    }
}
