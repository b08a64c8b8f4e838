//! What of the picture a person has to look at: a master that is down or refuses writes, rows that are on one master alone. What
//! passes by itself within a few seconds is none. The words stay the same while nothing changes, so that they are logged once.

use super::{ClusterView, Level, NodeId, NodeState};

/// What to do about a master that is down, by parts of the cause. The first row that fits counts.
const DOWN_ADVICE: &[(&[&str], &str)] = &[
    (
        &["28P01", "28000", "password"],
        "give the API the role's present password, or the role the API's",
    ),
    (
        &["53300"],
        "end sessions on it, or raise its max_connections",
    ),
    (&["3D000"], "create the database, or mend its name"),
    (
        &["57P03"],
        "it is starting, stopping or recovering; look at its log",
    ),
    (
        &["TLS", "certificate"],
        "mend its certificate or the trust in it",
    ),
];

const DOWN_ADVICE_ELSE: &str =
    "start it or mend the way to it; if its data is lost, run `imdb-ha rejoin";

/// What to do about a master that refuses writes, likewise.
const UNFIT_ADVICE: &[(&[&str], &str)] = &[
    (
        &["25006"],
        "it is read-only: look at default_transaction_read_only there, and whether it is in recovery",
    ),
    (&["53100", "No space left"], "make room on its disk"),
    (&["53200"], "it lacks memory"),
    (&["42501"], "grant what is missing to the API's role there"),
    (
        &["42"],
        "its tables are not as the program made them; undo what was changed there, or run `imdb-ha replication setup`",
    ),
    (
        &["58", "XX"],
        "its files may be damaged: look at its log, and rebuild it with `imdb-ha rejoin`",
    ),
];

impl ClusterView {
    /// The alarms at `now_ms`. What has lasted for less than `after_ms` is none yet.
    pub fn alarms(&self, now_ms: u64, after_ms: u64) -> Vec<String> {
        let lasts = |since_ms: u64| now_ms.saturating_sub(since_ms) >= after_ms;
        let mut alarms = Vec::new();
        if !self.serving && lasts(self.route_since_ms) {
            alarms.push(match self.paused_until_ms {
                Some(_) => format!(
                    "no master serves, because a pause holds the traffic on {}: POST /resume, or switch",
                    self.active
                ),
                None => "no master serves: every request is refused".to_string(),
            });
        }
        for node in NodeId::BOTH {
            let seen = self.node(node);
            // Who answers in its place, or what it has become, is its own alarm, and at once.
            if let Some(alarm) = &seen.alarm {
                alarms.push(format!("{node}: {alarm}"));
                continue;
            }
            match seen.state {
                NodeState::Unfit => alarms.push(self.unfit_alarm(node)),
                NodeState::Down if lasts(seen.since_ms) && !self.is_planned(node) => {
                    alarms.push(down_alarm(node, &seen.reason));
                }
                _ => {}
            }
        }
        let durability = self.durability_at(now_ms);
        let degraded = self.serving && durability.level == Level::Degraded;
        if degraded && lasts(durability.since_ms) && !self.is_planned(self.active.peer()) {
            let peer = self.active.peer();
            alarms.push(format!(
                "{}: durability is degraded: what is written now is on this master alone until {peer} takes part ({}); look at {peer}",
                self.active, durability.why
            ));
        }
        alarms
    }

    /// Whether a person has a reason to have this master away: a pause is asked for to take the one down that does not serve.
    fn is_planned(&self, node: NodeId) -> bool {
        self.paused_until_ms.is_some() && node != self.active
    }

    fn unfit_alarm(&self, node: NodeId) -> String {
        let reason = &self.node(node).reason;
        let traffic = match (node == self.active, self.paused_until_ms) {
            (false, _) => "",
            (true, Some(_)) => "; a pause holds the traffic there",
            (true, None) => "; its reads go on, since its peer cannot take the writes either",
        };
        let advice = advice(UNFIT_ADVICE, reason).unwrap_or("mend the cause there");
        format!("{node}: {reason}{traffic}; {advice}")
    }
}

fn down_alarm(node: NodeId, reason: &str) -> String {
    match advice(DOWN_ADVICE, reason) {
        Some(advice) => format!("{node}: down: {reason}; {advice}"),
        None => format!("{node}: down: {reason}; {DOWN_ADVICE_ELSE} {node}`"),
    }
}

/// The advice of the first row of which a part is in the text. What looks like a code is the beginning of one: five characters.
fn advice(table: &[(&[&str], &'static str)], text: &str) -> Option<&'static str> {
    let has = |part: &&str| {
        let mut words = text.split([' ', ':']);
        match part.starts_with(|first: char| first.is_ascii_digit()) || *part == "XX" {
            true => words.any(|word| word.len() == 5 && word.starts_with(*part)),
            false => text.contains(*part),
        }
    };
    let row = table.iter().find(|(parts, _)| parts.iter().any(has));
    row.map(|(_, advice)| *advice)
}

#[cfg(test)]
mod tests {
    use super::super::sim::settings;
    use super::super::{Cluster, Event, Facts, Link, Role};
    use super::*;
    use NodeId::{Master1, Master2};

    const SHUTTING_DOWN: &str = "connect: FATAL 57P03: the database system is shutting down";
    const PASSWORD: &str = "connect: FATAL 28P01: password authentication failed";

    fn answered(node: NodeId, asked_ms: u64) -> Event {
        let facts = Facts {
            wal_lsn: 1_000,
            peer_confirmed_lsn: Some(1_000),
            peer_streaming: true,
            link: Link::Ready,
            ..Facts::default()
        };
        Event::Answered {
            node,
            facts,
            asked_ms,
        }
    }

    /// A cluster of two masters, of which master2 has just gone.
    fn without_master2() -> Cluster {
        let mut cluster = Cluster::new(settings(), 0);
        cluster.handle(0, Event::Role(Role::Leader));
        for now in [100, 200, 300] {
            for node in NodeId::BOTH {
                cluster.handle(now, answered(node, now));
            }
        }
        let (node, cause) = (Master2, SHUTTING_DOWN.to_string());
        cluster.handle(400, Event::Refused { node, cause });
        cluster
    }

    /// It is the newest reason that tells a person what to do.
    #[test]
    fn a_master_that_is_down_is_an_alarm_with_the_newest_reason() {
        let mut cluster = without_master2();
        let now = 10_000;
        cluster.handle(now, answered(Master1, now));
        assert!(cluster.view().alarms(4_900, 5_000).is_empty());
        let alarms = cluster.view().alarms(now, 5_000);
        assert!(alarms[0].contains(SHUTTING_DOWN), "{alarms:?}");
        for event in [
            Event::Refused {
                node: Master2,
                cause: PASSWORD.to_string(),
            },
            Event::Tick,
        ] {
            cluster.handle(now, event);
        }
        let alarms = cluster.view().alarms(now, 5_000);
        assert!(alarms[0].contains(PASSWORD), "{alarms:?}");
        assert!(alarms[0].contains("role's present password"), "{alarms:?}");
        assert!(alarms[1].contains("durability is degraded"), "{alarms:?}");
        assert_eq!(alarms.len(), 2, "{alarms:?}");
    }

    #[test]
    fn who_paused_knows_that_the_passive_master_is_away() {
        let mut cluster = without_master2();
        let (for_ms, ticket) = (Some(60_000), 1);
        cluster.handle(500, Event::Pause { for_ms, ticket });
        assert!(cluster.view().alarms(30_000, 5_000).is_empty());
        let (node, cause) = (Master1, "connect: refused".to_string());
        cluster.handle(600, Event::Refused { node, cause });
        let alarms = cluster.view().alarms(30_000, 5_000);
        assert!(
            alarms[0].contains("a pause holds the traffic on master1"),
            "{alarms:?}"
        );
        assert!(alarms[1].starts_with("master1: down"), "{alarms:?}");
    }

    /// A server that is out of connections says so; that it was silent is what comes of it.
    #[test]
    fn a_silent_master_is_down_for_what_it_said_last() {
        let mut cluster = without_master2();
        let cause = "connect: FATAL 53300: sorry, too many clients already".to_string();
        let node = Master1;
        cluster.handle(500, Event::Unanswered { node, cause });
        cluster.handle(1_400, Event::Tick);
        let reason = cluster.view().node(Master1).reason.clone();
        assert!(
            reason.contains("too many clients already; silent for"),
            "{reason}"
        );
    }

    #[test]
    fn advice_goes_by_codes_and_not_by_figures() {
        let of = |text: &str| advice(UNFIT_ADVICE, text);
        assert!(of("ERROR 53100: could not extend file").is_some_and(|text| text.contains("room")));
        assert!(of("ERROR 42703: column x").is_some_and(|text| text.contains("tables")));
        assert_eq!(of("42 of them waited 1425 ms"), None);
    }
}
