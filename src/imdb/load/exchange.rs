//! Exchanges the tables, on each master in one transaction. The locks are taken on both masters before anything is done on either, and both
//! commit one right after the other: who holds the tables of one master for long, as a backup that counts them does, keeps both masters
//! as they are. Whoever reads sees the old rows or the new ones and never neither.

use super::masters::Masters;
use crate::cluster::NodeId;
use crate::limits;
use crate::output;
use crate::pg::{Call, CallError, Session, unsent};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use postgres::Transaction;
use postgres::error::SqlState;
use std::time::Instant;

/// What is to be exchanged.
pub struct Exchange<'a> {
    pub masters: &'a Masters,
    pub load: i64,
    /// The statements for each master, in the order in which they commit.
    pub scripts: &'a [(NodeId, String)],
    pub origin: &'a str,
    /// Waits until both masters have told each other everything: what somebody has written into the old tables must not arrive in the
    /// new ones.
    pub settle: &'a dyn Fn() -> anyhow::Result<()>,
    /// Fails when the exchange is not wanted any more.
    pub check: &'a dyn Fn() -> anyhow::Result<()>,
}

/// Why not all masters have exchanged their tables.
#[derive(Debug)]
pub struct Failed {
    pub error: anyhow::Error,
    /// A commit was sent, so only the masters know.
    pub sent: bool,
}

/// What was in the way of one try.
enum Obstacle {
    /// Of one master.
    Call(NodeId, CallError),
    /// One of them has not heard yet of a genre that was deleted on the other.
    NotLevel,
    /// Nobody wants it any more.
    Unwanted(anyhow::Error),
}

/// What a master says when it has come so far.
enum Said {
    /// It has exchanged them already, at a try whose answer was lost.
    Done,
    /// It can begin.
    Here,
    /// The films' tables are locked.
    Held,
    /// So are the catalogues. What of the genres is gone stands here.
    Locked(String),
    /// All is done but the commit.
    Ready,
}

/// The transaction on one master. It is rolled back when this is dropped.
struct Half {
    node: NodeId,
    said: Receiver<Said>,
    go: Sender<()>,
    /// Ends with whether they are exchanged.
    call: Call<bool>,
}

impl Exchange<'_> {
    /// Tries until nobody is in the way.
    ///
    /// # Errors
    /// What was in the way for all of [`limits::LOAD_SWAP`], or of [`limits::LOAD_SWAP_AWAY`] if it was a master that was away.
    pub fn run(&self) -> Result<(), Failed> {
        let began = Instant::now();
        let (mut sent, mut told, mut tries) = (false, false, 0);
        let mut pause = limits::LOAD_SWAP_PAUSE;
        loop {
            tries += 1;
            let obstacle = match self.attempt(tries, &mut sent) {
                Ok(()) => return Ok(()),
                Err(obstacle) => obstacle,
            };
            let patience = match &obstacle {
                Obstacle::NotLevel => limits::LOAD_SWAP,
                Obstacle::Call(_, CallError::Verdict(error)) if gives_way(error) => {
                    limits::LOAD_SWAP
                }
                Obstacle::Call(node, CallError::Unknown(_) | CallError::NotStarted(_)) => {
                    self.masters.renew(*node);
                    limits::LOAD_SWAP_AWAY
                }
                _ => return Err(obstacle.failed(sent)),
            };
            if began.elapsed() >= patience {
                return Err(obstacle.failed(sent));
            }
            if began.elapsed() >= limits::LOAD_SWAP_TELL && !told {
                output::say(&format!("still trying: {}", obstacle.error()));
                told = true;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(limits::LOAD_SWAP_PAUSE_MAX);
        }
    }

    /// One try. `sent` becomes true when from here on a master may have the new tables.
    fn attempt(&self, number: u32, sent: &mut bool) -> Result<(), Obstacle> {
        if !*sent {
            (self.settle)().map_err(Obstacle::Unwanted)?;
        }
        let mut halves = Vec::new();
        let prepared = self.prepare(number, &mut halves);
        if let Err(obstacle) = prepared.and_then(|()| self.is_wanted(*sent)) {
            self.release(halves);
            return Err(obstacle);
        }
        let mut halves = halves.into_iter();
        while let Some(half) = halves.next() {
            *sent = true;
            // Its call says why, if it does not listen any more.
            let _ = half.go.send(());
            let error = match self.masters.wait(half.node, half.call) {
                Ok(true) => continue,
                Ok(false) => CallError::NotStarted("its peer was not ready in time".to_string()),
                Err(error) => error,
            };
            self.release(halves.collect());
            return Err(Obstacle::Call(half.node, error));
        }
        Ok(())
    }

    /// What has begun to be committed has to be brought to its end.
    fn is_wanted(&self, sent: bool) -> Result<(), Obstacle> {
        match sent {
            true => Ok(()),
            false => (self.check)().map_err(Obstacle::Unwanted),
        }
    }

    /// Comes as far as the commit on all masters that have not exchanged their tables yet.
    fn prepare(&self, number: u32, halves: &mut Vec<Half>) -> Result<(), Obstacle> {
        for (node, script) in self.scripts {
            halves.push(self.begin(*node, script)?);
        }
        // All are there before the first one keeps anybody waiting.
        let mut done = Vec::new();
        for half in halves.iter() {
            if let Said::Done = half.hear(self.masters)? {
                done.push(half.node);
            }
        }
        halves.retain(|half| !done.contains(&half.node));
        // Commits on the active master that wait for its peer do not end once the tables of the peer are locked, so that one has to be locked
        // first; which it is may change, so each is tried.
        let mut order: Vec<&Half> = halves.iter().collect();
        if number % 2 == 0 {
            order.reverse();
        }
        // The catalogues last, so that whoever writes a genre does not wait for somebody who reads films for long.
        for half in &order {
            half.lock()?;
        }
        let mut gone: Option<String> = None;
        for half in order {
            let here = match half.lock()? {
                Said::Locked(here) => here,
                _ => return half.ended(),
            };
            if gone.get_or_insert_with(|| here.clone()) != &here {
                return Err(Obstacle::NotLevel);
            }
        }
        for half in halves.iter() {
            let _ = half.go.send(());
        }
        for half in halves.iter() {
            half.hear(self.masters)?;
        }
        Ok(())
    }

    fn begin(&self, node: NodeId, script: &str) -> Result<Half, Obstacle> {
        let (tell, said) = bounded(1);
        let (go, told) = bounded(1);
        let (load, script, origin) = (self.load, script.to_string(), self.origin.to_string());
        let call = self.masters.begin(node, move |session| {
            exchange(session, load, &script, &origin, &tell, &told)
        });
        Ok(Half {
            node,
            said,
            go,
            call: call.map_err(|error| Obstacle::Call(node, error))?,
        })
    }

    /// Lets go of the tables, and sees that they are free before anybody tries again.
    fn release(&self, halves: Vec<Half>) {
        let calls: Vec<(NodeId, Call<bool>)> = halves
            .into_iter()
            .map(|half| (half.node, half.call))
            .collect();
        for (node, call) in calls {
            let _ = self.masters.wait(node, call);
        }
    }
}

impl Half {
    /// Lets it lock tables, and waits until it has.
    fn lock(&self) -> Result<Said, Obstacle> {
        let _ = self.go.send(());
        match self.said.recv_timeout(limits::LOAD_SWAP_HEAR) {
            Ok(said) => Ok(said),
            // Those who wait behind the other master's locks do not wait until it is clear why.
            Err(RecvTimeoutError::Timeout) => self.failed(CallError::Unknown(format!(
                "no answer within {} ms",
                limits::LOAD_SWAP_HEAR.as_millis()
            ))),
            Err(RecvTimeoutError::Disconnected) => self.ended(),
        }
    }

    /// Waits for what it says next.
    fn hear(&self, masters: &Masters) -> Result<Said, Obstacle> {
        loop {
            match self.said.recv_timeout(limits::LOAD_BEAT) {
                Ok(said) => return Ok(said),
                Err(RecvTimeoutError::Disconnected) => return self.ended(),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if let Err(error) = masters.is_alive(self.node) {
                let why = format!("it has fallen silent: {error}");
                return self.failed(CallError::Unknown(why));
            }
        }
    }

    /// It has ended too early, and says why.
    fn ended<T>(&self) -> Result<T, Obstacle> {
        match self.call.reply().recv_timeout(limits::LOAD_BEAT) {
            Ok(Err(error)) => self.failed(error),
            _ => self.failed(CallError::Unknown(
                "the session ended without an answer".to_string(),
            )),
        }
    }

    fn failed<T>(&self, error: CallError) -> Result<T, Obstacle> {
        Err(Obstacle::Call(self.node, error))
    }
}

impl Obstacle {
    fn error(&self) -> String {
        match self {
            Obstacle::Call(node, error) => format!("exchange the tables of {node}: {error}"),
            Obstacle::NotLevel => {
                "exchange the tables: a genre is gone on one master and not on the other"
                    .to_string()
            }
            Obstacle::Unwanted(error) => format!("{error:#}"),
        }
    }

    fn failed(self, sent: bool) -> Failed {
        let error = match self {
            Obstacle::Unwanted(error) => error,
            other => anyhow::Error::msg(other.error()),
        };
        Failed { error, sent }
    }
}

/// Whether somebody is in the way; or the origin still belongs to a session whose end the server has not noticed.
fn gives_way(error: &postgres::Error) -> bool {
    let passing = [
        SqlState::LOCK_NOT_AVAILABLE,
        SqlState::QUERY_CANCELED,
        SqlState::OBJECT_IN_USE,
    ];
    error.code().is_some_and(|code| passing.contains(code))
}

/// The transaction on one master, as its session does it; says whether the tables are exchanged.
fn exchange(
    session: &mut Session,
    load: i64,
    script: &str,
    origin: &str,
    tell: &Sender<Said>,
    told: &Receiver<()>,
) -> Result<bool, postgres::Error> {
    // Nobody listens any more, or nobody says anything: it is rolled back.
    let may_go_on =
        |said| tell.send(said).is_ok() && told.recv_timeout(limits::LOAD_SWAP_IDLE).is_ok();
    let client = session.client();
    let done = client.query("SELECT FROM public.cargas WHERE id_carga = $1", &[&load])?;
    if !done.is_empty() {
        let _ = tell.send(Said::Done);
        return Ok(true);
    }
    let (films, catalogues, statements) = parts(script);
    unsent(client, origin, |client| {
        if !may_go_on(Said::Here) {
            return Ok(false);
        }
        let mut transaction = client.transaction()?;
        // All locks of a step together take no longer than one may, since whoever reads waits behind them; and a vacuum that is in the
        // way is sent away. If this program is stopped meanwhile, the server lets go of them.
        transaction.batch_execute(&format!(
            "SET LOCAL lock_timeout = {0}; SET LOCAL statement_timeout = {0}; SET LOCAL deadlock_timeout = {1}; \
             SET LOCAL idle_in_transaction_session_timeout = {2}",
            limits::LOAD_SWAP_LOCK_MS,
            limits::LOAD_SWAP_LOCK_MS / 4,
            limits::LOAD_SWAP_IDLE.as_millis()
        ))?;
        transaction.batch_execute(films)?;
        if !may_go_on(Said::Held) {
            return transaction.rollback().map(|()| false);
        }
        transaction.batch_execute(catalogues)?;
        transaction.batch_execute("SET LOCAL statement_timeout = 0")?;
        let gone = gone(&mut transaction)?;
        if !may_go_on(Said::Locked(gone)) {
            return transaction.rollback().map(|()| false);
        }
        transaction.batch_execute(statements)?;
        match may_go_on(Said::Ready) {
            true => transaction.commit().map(|()| true),
            false => transaction.rollback().map(|()| false),
        }
    })
}

/// The statements that lock the films' tables, and those that they refer to; and all others. A version of this program that died has written
/// down one statement for all locks.
fn parts(script: &str) -> (&str, &str, &str) {
    let (films, rest) = script.split_once(";\n").unwrap_or(("", script));
    match rest.split_once(";\n") {
        Some((catalogues, rest)) if catalogues.starts_with("LOCK TABLE") => {
            (films, catalogues, rest)
        }
        _ => (films, "", rest),
    }
}

/// Which genres of the new titles are gone, as a text.
fn gone(transaction: &mut Transaction<'_>) -> Result<String, postgres::Error> {
    let noted = "SELECT pg_catalog.to_regclass('imdb_carga.generos') IS NOT NULL";
    match transaction.query_one(noted, &[])?.try_get(0)? {
        true => transaction
            .query_one(include_str!("../../../sql/load_genres_gone.sql"), &[])?
            .try_get(0),
        // Written down by a version of this program that noted none.
        false => Ok(String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_locks_are_the_first_statements() {
        assert_eq!(
            parts("LOCK TABLE a;\nLOCK TABLE b;\nDROP x;\nDROP y"),
            ("LOCK TABLE a", "LOCK TABLE b", "DROP x;\nDROP y")
        );
        assert_eq!(
            parts("LOCK TABLE a;\nDROP x;\nDROP y"),
            ("LOCK TABLE a", "", "DROP x;\nDROP y")
        );
        assert_eq!(parts("DROP x"), ("", "", "DROP x"));
    }
}
