//! An apply worker that stops for a reason of its own: a constraint, a table or a column that only one
//! master has. PostgreSQL starts it again and again, so one look may find it running; and it says why
//! in the server's log and nowhere else.

use super::status::{self, NodeReplication, WayIn};
use crate::cluster::NodeId;
use crate::limits;
use crate::pg::explain;
use postgres::Client;
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// Follows the apply worker of one master from probe to probe.
#[derive(Debug, Default)]
pub struct ApplyWatch {
    wrong_since: Option<Instant>,
    /// What was read from the server's log, and when.
    read: Option<(Instant, String)>,
    told: Option<String>,
}

impl ApplyWatch {
    /// Completes what a probe saw, with what is wrong with the apply worker if something is, and
    /// logs when that changes. `peer_answers`: without a peer there is nothing to apply, and nothing wrong.
    pub fn look(&mut self, client: &mut Client, seen: &mut NodeReplication, peer_answers: bool) {
        let now = Instant::now();
        if self.is_stopped(&seen.way_in, peer_answers, now) {
            let fresh = self
                .read
                .take()
                .filter(|(at, _)| now.duration_since(*at) < limits::APPLY_LOG_INTERVAL);
            let (at, text) = fresh.unwrap_or_else(|| (now, why(client, seen)));
            self.read = Some((at, text.clone()));
            seen.way_in.stopped = Some(text);
        }
        let stopped = &seen.way_in.stopped;
        if *stopped != self.told {
            let subscription = seen.way_in.subscription;
            match stopped {
                Some(text) => log::error!("{}: {text}", seen.out.of),
                None => log::info!("{}: {subscription} is applied again", seen.out.of),
            }
            self.told.clone_from(stopped);
        }
    }

    /// Whether the worker has been away, or coming and going, for [`limits::APPLY_WRONG_AFTER`].
    fn is_stopped(&mut self, way_in: &WayIn, peer_answers: bool, now: Instant) -> bool {
        let wrong = peer_answers && way_in.exists && way_in.enabled && !way_in.settled();
        if !wrong {
            self.wrong_since = None;
            self.read = None;
            return false;
        }
        let since = *self.wrong_since.get_or_insert(now);
        now.duration_since(since) >= limits::APPLY_WRONG_AFTER
    }
}

/// Reads the status of `node`, and takes the time to tell a worker that runs from one that comes and
/// goes. For a command, which looks once; the peer must answer.
///
/// # Errors
/// Those of the driver.
pub fn examine(client: &mut Client, node: NodeId) -> Result<NodeReplication, postgres::Error> {
    let deadline = Instant::now() + limits::APPLY_WRONG_AFTER;
    loop {
        let mut seen = status::read(client, node)?;
        let way_in = &seen.way_in;
        if !way_in.exists || !way_in.enabled || way_in.settled() {
            return Ok(seen);
        }
        if Instant::now() >= deadline {
            seen.way_in.stopped = Some(why(client, &seen));
            return Ok(seen);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// What the server's log says of the worker, and what to do about it, in a sentence.
fn why(client: &mut Client, seen: &NodeReplication) -> String {
    let (subscription, subid) = (seen.way_in.subscription, seen.way_in.subid.unwrap_or(0));
    let elsewhere = |place: &str| {
        format!(
            "the apply worker of {subscription} has stopped; why is {place}: \
             look there for \"pg_{subid}\" or \"{subscription}\""
        )
    };
    let unreadable = |reason: &str| {
        elsewhere(&format!(
            "in the server's log, which cannot be read from here ({reason})"
        ))
    };
    let row = match client.query_one(include_str!("../../sql/server_log.sql"), &[]) {
        Ok(row) => row,
        Err(error) => return unreadable(&explain(&error)),
    };
    let Ok(Some(tail)) = row.try_get::<_, Option<Vec<u8>>>("tail") else {
        return unreadable("logging_collector is off");
    };
    match last_error(&String::from_utf8_lossy(&tail), seen.out.of, subid) {
        Some(error) => format!(
            "the apply worker of {subscription} has stopped: {error}; {}",
            advice(&error, seen.out.of)
        ),
        None => elsewhere("further up in the server's log"),
    }
}

/// The last error of the worker of `node` in a piece of the log, with its detail. A worker names its subscription when it starts, and
/// what the same process says after that is its own; else it names the replication origin of its subscription in the context of its
/// errors, or the subscription itself; one that gets no stream names only the slot of the peer, as no other session here does.
fn last_error(log: &str, node: NodeId, subid: i64) -> Option<String> {
    let origin = format!("pg_{subid}");
    let quoted = [node.subscription(), node.peer().slot()].map(|name| format!("\"{name}\""));
    // A line that goes on is indented by a tab.
    let log = log.replace("\n\t", " ");
    let lines: Vec<&str> = log.lines().collect();
    // The lines of one report carry the same process id in brackets.
    let process = |line: &str| {
        let (_, rest) = line.split_once('[')?;
        rest.split_once(']').map(|(id, _)| id.to_string())
    };
    let starts = format!("apply worker for subscription {} has started", quoted[0]);
    let started = lines.iter().filter(|line| line.contains(&starts));
    let workers: HashSet<String> = started.filter_map(|line| process(line)).collect();
    let names = |line: &str| {
        let own = message(line).is_some() && process(line).is_some_and(|id| workers.contains(&id));
        let of_origin = line.split(&origin).skip(1);
        let mut after = of_origin.map(|rest| !rest.starts_with(|next: char| next.is_ascii_digit()));
        let named = quoted.iter().any(|name| line.contains(name));
        own || after.any(|exact| exact) || (named && message(line).is_some())
    };
    let at = lines.iter().rposition(|line| names(line))?;
    let of_report = lines[..=at]
        .iter()
        .rev()
        .take(limits::LOG_REPORT_LINES)
        .filter(|line| process(line) == process(lines[at]));
    let mut detail = String::new();
    for line in of_report {
        if let Some((_, text)) = line.split_once("DETAIL:  ") {
            detail = format!(" ({text})");
        }
        if let Some(text) = message(line) {
            return Some(format!("{text}{detail}"));
        }
    }
    // Another language or format: better the line as it is than nothing.
    Some(lines[at].chars().take(limits::LOG_LINE_SHOWN).collect())
}

fn message(line: &str) -> Option<&str> {
    ["ERROR:  ", "FATAL:  "]
        .iter()
        .find_map(|severity| line.split_once(severity))
        .map(|(_, text)| text)
}

/// The peer's slot is where its changes were kept for this master.
const SLOT_GONE: &str = "run `imdb-ha replication setup`, which says which master to rejoin, because what was in the slot is missing";

/// What to do about an error of an apply worker, by parts of its text.
const ADVICE: &[(&[&str], &str)] = &[
    (&["replication slot \"", "\" does not exist"], SLOT_GONE),
    (&["cannot read from logical replication slot"], SLOT_GONE),
    (
        &["can no longer get changes from replication slot"],
        SLOT_GONE,
    ),
    (&["can no longer access replication slot"], SLOT_GONE),
    (
        &["password authentication failed for user"],
        "the role replicator of the peer has another password than this subscription: run `imdb-ha replication setup`, which makes them the same \
         (as REPLICATION_PASSWORD says, or as it was)",
    ),
    (
        &["is not permitted to log in"],
        "run `imdb-ha replication setup`, which lets the role of the peer log in again",
    ),
    (
        &["publication \"", "\" does not exist"],
        "run `imdb-ha replication setup`, which makes it anew on the peer; if this goes on, changes were made while it was missing, which cannot be sent any \
         more: run `imdb-ha rejoin {node}`",
    ),
    (
        &["replication target relation", "does not exist"],
        "make the table on this master too, with all columns that it has on the peer (definitions are not replicated), then run `imdb-ha replication setup`; \
         if it is there on neither any more, run `imdb-ha rejoin {node}`",
    ),
    (
        &["is missing replicated column"],
        "add the column on this master too, since definitions are not replicated",
    ),
    (
        &["does not exist"],
        "create it on this master too, since definitions are not replicated",
    ),
    (
        &["violates unique constraint"],
        "change or delete the row that has the value here, or drop the constraint on this master",
    ),
    (
        &["violates"],
        "a constraint of this master refuses what its peer took: drop it here, or mend the row that it needs",
    ),
    (
        &["could not connect"],
        "check the peer's address, its pg_hba.conf, its certificate and the password, then run `imdb-ha replication setup`",
    ),
    (
        &["could not start WAL streaming"],
        "look at the slot on the peer (pg_replication_slots) and at `imdb-ha replication status`",
    ),
    (
        &["permission denied"],
        "give the owner of the table the right that is missing",
    ),
];

fn advice(error: &str, node: NodeId) -> String {
    let known = ADVICE
        .iter()
        .find(|(parts, _)| parts.iter().all(|part| error.contains(part)));
    let what = known.map_or("mend the cause on this master", |(_, what)| what);
    let what = what.replace("{node}", node.name());
    format!("{what}; it is tried again by itself")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(log: &str) -> Option<String> {
        last_error(log, NodeId::Master2, 164)
    }

    #[test]
    fn the_last_error_of_this_subscription_is_found_in_the_log() {
        let log = "2025-10-01 [7] ERROR:  old\n\
            2025-10-01 [7] CONTEXT:  processing remote data for replication origin \"pg_164\" during \"INSERT\"\n\
            2025-10-01 [8] ERROR:  duplicate key value violates unique constraint \"u\"\n\
            2025-10-01 [9] root@x ERROR:  somebody else's\n\
            2025-10-01 [8] DETAIL:  Key (genero)=(ñ) already exists.\n\
            2025-10-01 [8] CONTEXT:  SQL statement\n\tprocessing remote data for replication origin \"pg_164\" during \"INSERT\"\n\
            2025-10-01 [3] ERROR:  of another\n\
            2025-10-01 [3] CONTEXT:  processing remote data for replication origin \"pg_1641\" during \"INSERT\"\n";
        let found = of(log).expect("an error");
        assert_eq!(
            found,
            "duplicate key value violates unique constraint \"u\" (Key (genero)=(ñ) already exists.)"
        );
        assert!(advice(&found, NodeId::Master2).contains("change or delete the row"));
        let connect = "[5] LOG:  logical replication apply worker for subscription \"sub_from_master1\" has started\n\
            [5] ERROR:  apply worker for subscription \"sub_from_master1\" could not connect to the publisher: no\n\
            [6] LOG:  logical replication apply worker for subscription \"sub_from_master1\" has started\n";
        assert!(
            of(connect)
                .expect("an error")
                .ends_with("the publisher: no")
        );
        assert_eq!(of("[5] ERROR:  unrelated\n"), None);
        // PostgreSQL 17 does not say whose connection it was.
        let unnamed = "[7] ERROR:  old\n\
            [7] CONTEXT:  processing remote data for replication origin \"pg_164\" during \"INSERT\"\n\
            [5] LOG:  logical replication apply worker for subscription \"sub_from_master1\" has started\n\
            [5] ERROR:  could not connect to the publisher: FATAL:  password authentication failed for user \"replicator\"\n\
            [6] ERROR:  somebody else's\n";
        assert!(
            of(unnamed)
                .expect("an error")
                .starts_with("could not connect")
        );
        // Here the slot that this master keeps for its peer is no matter of its own apply worker.
        let slots = "[5] ERROR:  could not start WAL streaming: ERROR:  replication slot \"slot_1_to_2\" does not exist\n\
            [6] ERROR:  replication slot \"slot_2_to_1\" is active for PID 7\n\
            [6] STATEMENT:  DROP_REPLICATION_SLOT \"slot_1_to_2\"\n";
        let gone = of(slots).expect("an error");
        assert!(gone.contains("\"slot_1_to_2\" does not exist"), "{gone}");
        assert!(advice(&gone, NodeId::Master2).contains("says which master to rejoin"));
        let table = "logical replication target relation \"public.x\" does not exist";
        assert!(advice(table, NodeId::Master2).contains("make the table on this master too"));
        for (error, cure) in [
            (
                "could not connect to the publisher: FATAL: password authentication failed for user \"replicator\"",
                "has another password",
            ),
            (
                "could not receive data from WAL stream: ERROR: publication \"pub_imdb\" does not exist",
                "rejoin master2",
            ),
        ] {
            let advice = advice(error, NodeId::Master2);
            assert!(advice.contains(cure), "{advice}");
        }
        let spanish = "[5] ERROR de otro idioma\n[5] CONTEXTO: origen «pg_164»";
        assert_eq!(
            of(spanish).as_deref(),
            Some("[5] CONTEXTO: origen «pg_164»")
        );
    }

    #[test]
    fn a_worker_is_stopped_when_it_has_not_settled_for_a_while() {
        let mut watch = ApplyWatch::default();
        let mut way_in = WayIn::of(NodeId::Master2, 164);
        let start = Instant::now();
        let late = start + limits::APPLY_WRONG_AFTER;
        assert!(!watch.is_stopped(&way_in, true, start));
        assert!(watch.is_stopped(&way_in, true, late));
        assert!(!watch.is_stopped(&way_in, false, late), "the peer is down");
        assert!(
            !watch.is_stopped(&way_in, true, late),
            "it has just come back"
        );
        // It comes and goes: each look finds one that has just started.
        (way_in.applying, way_in.worker_age_ms) = (true, Some(300));
        assert!(watch.is_stopped(&way_in, true, late + limits::APPLY_WRONG_AFTER));
        way_in.worker_age_ms = Some(limits::APPLY_SETTLED.as_millis() as u64);
        assert!(!watch.is_stopped(&way_in, true, late + limits::APPLY_WRONG_AFTER));
    }
}
