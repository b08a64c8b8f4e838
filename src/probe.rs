//! One probe thread per master. It asks, says what it heard, and decides nothing. It may hang for as
//! long as its master is frozen: the supervisor counts the silence, not the probe.

use crate::board::Board;
use crate::cluster::identity::Verdict;
use crate::cluster::{Event, NodeId};
use crate::limits;
use crate::pg::identity::Roster;
use crate::pg::{ConnectError, Settings, explain};
use crate::quiet;
use crate::replication::apply::ApplyWatch;
use crate::replication::status::{self, NodeReplication};
use crate::supervisor::Supervisor;
use crate::trial;
use crate::vital;
use crossbeam_channel::{Receiver, Sender, select};
use postgres::Client;
use postgres::error::SqlState;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The wake-up of a probe: a full channel means that it will ask anyway.
pub fn wake_up() -> (Sender<()>, Receiver<()>) {
    crossbeam_channel::bounded(1)
}

/// Starts the probe of one master.
///
/// # Errors
/// When the thread cannot be started.
pub fn start(
    node: NodeId,
    settings: Settings,
    roster: Arc<Roster>,
    interval: Duration,
    wake: Receiver<()>,
    board: Arc<Board>,
    supervisor: Supervisor,
) -> std::io::Result<()> {
    vital::spawn(format!("probe-{node}"), move || {
        let mut client = None;
        let mut told = Vec::new();
        let mut upkeep = Upkeep::default();
        loop {
            let asked_ms = board.now_ms();
            let heard = ask(node, &settings, &roster, &mut client);
            let (event, details) = match heard {
                Ok(mut seen) => {
                    let facts = seen.facts();
                    if facts.has_something_to_send() {
                        board.watch(node);
                    }
                    supervisor.report(Event::Answered {
                        node,
                        facts,
                        asked_ms,
                    });
                    upkeep.run(node, client.as_mut(), &mut seen, &board);
                    upkeep.try_writes(node, client.as_mut(), &board, &supervisor);
                    (None, Some(seen))
                }
                Err(Silent::Refused(cause)) => (Some(Event::Refused { node, cause }), None),
                Err(Silent::Stranger(cause)) => (Some(Event::Stranger { node, cause }), None),
                Err(Silent::Unclear(cause)) => (Some(Event::Unanswered { node, cause }), None),
            };
            if let Some(seen) = &details {
                let alarms = seen.alarms();
                quiet::tell_alarms(&format!("{node}: "), &told, &alarms);
                told = alarms;
            }
            board.set_details(node, details);
            event.into_iter().for_each(|event| supervisor.report(event));
            select! {
                recv(wake) -> woken => if woken.is_err() { return },
                default(interval) => {}
            }
        }
    })
}

/// What a probe does beside asking, on the connection that it has. The answer has been reported by
/// then, but the next question waits for it, so it must be short.
#[derive(Default)]
struct Upkeep {
    apply: ApplyWatch,
    blocked: trial::Blocked,
    /// Before this, nobody looks whether writes are taken.
    look_after: Option<Instant>,
    /// Before this, no deletions are pruned; without it, the next probe does.
    prune_after: Option<Instant>,
    /// The same for the keys of requests.
    prune_keys_after: Option<Instant>,
}

const PRUNE_DELETIONS: &str = "SELECT olvidados, quedan FROM imdb_ha.olvidar_borrados($1)";
const PRUNE_KEYS: &str = "SELECT olvidadas, quedan FROM imdb_ha.olvidar_claves($1, $2)";

impl Upkeep {
    fn run(
        &mut self,
        node: NodeId,
        client: Option<&mut Client>,
        seen: &mut NodeReplication,
        board: &Board,
    ) {
        let Some(client) = client else { return };
        let heard_ms = board.look().0.node(node.peer()).heard_ms;
        let peer_answers = board.now_ms().saturating_sub(heard_ms) < limits::SUSPECT_AFTER_MS;
        self.apply.look(client, seen, peer_answers);
        seen.way_in.blocked = self.blocked.look(client, node);
        // Only while all that the peer wrote in the time of the old deletions is known to be here.
        let current = board.details(node.peer()).is_some_and(|peer| {
            let near = |lag_ms| lag_ms < limits::PRUNE_LAG_MAX_MS;
            peer.streaming() && peer.out.lag_ms.is_some_and(near)
        });
        let current = peer_answers && current;
        if seen.conflicts.is_none() {
            return; // there is no schema yet, or it is locked
        }
        let now = Instant::now();
        let due = |after: Option<Instant>| after.is_none_or(|at| now >= at);
        // One of them in a turn.
        if current && due(self.prune_after) {
            let pruned = client.query_one(PRUNE_DELETIONS, &[&limits::PRUNE_MAX]);
            self.prune_after = next_pruning(node, "deletions", pruned, limits::PRUNE_INTERVAL);
        } else if due(self.prune_keys_after) {
            let pruned = client.query_one(PRUNE_KEYS, &[&limits::PRUNE_MAX, &current]);
            let pause = match current {
                true => limits::PRUNE_INTERVAL,
                false => limits::PRUNE_AGAIN,
            };
            self.prune_keys_after = next_pruning(node, "keys", pruned, pause);
        }
    }
}

/// When the next pruning is due: at the next probe, if more are left.
fn next_pruning(
    node: NodeId,
    what: &str,
    pruned: Result<postgres::Row, postgres::Error>,
    pause: Duration,
) -> Option<Instant> {
    let counted =
        pruned.and_then(|row| Ok((row.try_get::<_, i64>(0)?, row.try_get::<_, bool>(1)?)));
    match counted {
        Ok((count, more)) => {
            log::debug!("{node}: {count} old {what} pruned");
            (!more).then(|| Instant::now() + pause)
        }
        Err(error) => {
            log::warn!("prune the {what} of {node}: {}", explain(&error));
            Some(Instant::now() + limits::PRUNE_RETRY)
        }
    }
}

impl Upkeep {
    /// Looks now and then whether the master could take writes, and tries one when the supervisor wants to know.
    fn try_writes(
        &mut self,
        node: NodeId,
        client: Option<&mut Client>,
        board: &Board,
        supervisor: &Supervisor,
    ) {
        let Some(client) = client else { return };
        let now = Instant::now();
        let asked = board.take_trial(node);
        let due = self.look_after.is_none_or(|at| now >= at);
        let heard = match asked {
            true => trial::write(client).map(|refusal| Some(Event::WriteTried { node, refusal })),
            false if due => {
                let looked = trial::look(client);
                looked.map(|refusal| refusal.map(|_| Event::WriteDoubted { node }))
            }
            false => return,
        };
        self.look_after = Some(now + limits::LOOK_INTERVAL);
        match heard {
            Ok(event) => event.into_iter().for_each(|event| supervisor.report(event)),
            // Nothing was learnt; it is asked for again.
            Err(error) => log::debug!("try a write on {node}: {}", explain(&error)),
        }
    }
}

/// Why a probe has no facts.
enum Silent {
    /// A fresh connection was refused or answered with an error: proof.
    Refused(String),
    /// Another server answered.
    Stranger(String),
    /// Nothing that proves anything; the silence counts.
    Unclear(String),
}

/// Fresh connections that are tried when one after the other breaks before it has answered.
const FRESH_TRIES: usize = 3;

/// Asks once. A broken connection proves nothing by itself (somebody may have ended this one
/// session), so a fresh one is tried at once, and only its refusal is proof.
fn ask(
    node: NodeId,
    settings: &Settings,
    roster: &Roster,
    kept: &mut Option<Client>,
) -> Result<NodeReplication, Silent> {
    if let Some(mut client) = kept.take() {
        if let Ok(seen) = status::read(&mut client, node) {
            // A set-up or a rejoin may have said meanwhile which servers the masters are now.
            if let Verdict::Stranger(why) = roster.judge(node, &seen.said) {
                return Err(Silent::Stranger(why));
            }
            *kept = Some(client);
            return Ok(seen);
        }
    }
    let mut broken = String::new();
    for _ in 0..FRESH_TRIES {
        let mut client = settings
            .connect()
            .map_err(|error| judge("connect", &error))?;
        match status::read(&mut client, node) {
            Ok(seen) => {
                *kept = Some(client);
                return Ok(seen);
            }
            Err(error) if is_broken(&error) => broken = explain(&error),
            Err(error) => return Err(judge("ask", &error.into())),
        }
    }
    Err(Silent::Unclear(format!("ask: {broken}")))
}

/// Whether the connection ended, rather than the question being answered with an error.
fn is_broken(error: &postgres::Error) -> bool {
    let ended = [SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN];
    error.as_db_error().is_none() || error.code().is_some_and(|code| ended.contains(code))
}

fn judge(doing: &str, error: &ConnectError) -> Silent {
    if let Some(why) = error.stranger() {
        return Silent::Stranger(why.to_string());
    }
    let cause = format!("{doing}: {error}");
    match error.is_refusal() {
        true => Silent::Refused(cause),
        false => Silent::Unclear(cause),
    }
}
