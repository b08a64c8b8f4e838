//! The hands of the durability: tells a master whether its commits wait for its peer. The sessions here
//! are the supervisor's own, two per master, because those of the requests may all be waiting for the
//! very order that is to free them; and their own commits wait for nobody.

use crate::cluster::NodeId;
use crate::limits;
use crate::pg::{CallError, Session, Sessions};
use crate::quiet::Quiet;
use crate::replication::status::standby_names;
use crossbeam_channel::Sender;
use postgres::Error;
use postgres::error::SqlState;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What is done on a master.
#[derive(Clone, Copy)]
enum Errand {
    Order,
    Apply,
    FreeCommits,
    AlignSequences,
    ReleaseApply,
    CountStart,
    NoteStarts,
}

impl Errand {
    const COUNT: usize = 7;

    /// What is being done, and what follows when it fails, for the log.
    fn words(self) -> (&'static str, &'static str) {
        const AGAIN: &str = "it is asked again";
        match self {
            Errand::Order => ("change synchronous_standby_names", AGAIN),
            Errand::Apply => ("change synchronous_commit of the subscription", AGAIN),
            Errand::FreeCommits => ("free the commits", AGAIN),
            Errand::AlignSequences => (
                "align the sequences",
                "an insert that draws a taken id draws another",
            ),
            Errand::CountStart => (
                "count the start",
                "an older copy of it may not be told from it",
            ),
            Errand::NoteStarts => ("note how often the peer has begun to serve", AGAIN),
            Errand::ReleaseApply => (
                "look after the apply worker",
                "PostgreSQL ends it after wal_receiver_timeout",
            ),
        }
    }
}

/// One master, for everything that is done on it.
#[derive(Clone)]
struct Steward {
    sessions: Sessions,
    orders: Orders,
    /// Whether its commits are to wait for its peer. An order that was given to a frozen master is
    /// carried out when it thaws, so it must go by what holds then.
    wait: Arc<AtomicBool>,
    /// Whether its apply worker is to wait for its disk, likewise.
    strict: Arc<AtomicBool>,
    /// Wakes its probe.
    probe: Sender<()>,
    /// One for each errand: several may fail for the same reason, again and again.
    quiet: [Arc<Quiet>; Errand::COUNT],
}

/// By which right orders are given: the term and the name of this process while it decides, which the masters check. An order that
/// lies about until that has changed goes by what holds then.
#[derive(Clone, Default)]
pub struct Orders(Arc<Mutex<Option<(u64, String)>>>);

impl Orders {
    /// With a term this process decides from now on.
    pub fn set(&self, term: Option<u64>, holder: &str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) =
            term.map(|term| (term, holder.to_string()));
    }

    /// Carries an order out, if this process still decides and the master knows of nobody newer. Nobody else's order comes
    /// between that question and the end of this one.
    fn give(
        &self,
        session: &mut Session,
        act: impl FnOnce(&mut Session) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let right = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let Some((term, holder)) = right else {
            return Ok(());
        };
        let begun = session.query(
            "SELECT imdb_ha.empezar_orden($1, $2)",
            &[&(term as i64), &holder],
        );
        match begun {
            Ok(_) => {}
            // A master that has not been set up knows of nobody.
            Err(error) if is_not_set_up(&error) => return act(session),
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                end_idle_order(session)?;
                return Err(error);
            }
            Err(error) => return Err(error),
        }
        let done = act(session);
        let end = "SELECT pg_catalog.pg_advisory_unlock(1229800514, 2)";
        let ended = session.client().batch_execute(end);
        done.and(ended)
    }
}

/// Ends whoever has begun an order and does nothing about it: commits may wait for the next one.
fn end_idle_order(session: &mut Session) -> Result<(), Error> {
    let silence = limits::ORDER_SILENCE_MS as i64;
    let holders = session.query(include_str!("../sql/lock_holders.sql"), &[&2_i64])?;
    for holder in holders {
        let (pid, silent_ms, idle): (i32, i64, bool) =
            (holder.try_get(0)?, holder.try_get(1)?, holder.try_get(2)?);
        if idle && silent_ms >= silence {
            log::warn!("ended session {pid}, which has held up orders for {silent_ms} ms");
            session.query("SELECT pg_catalog.pg_terminate_backend($1)", &[&pid])?;
        }
    }
    Ok(())
}

/// Has a master wait for nobody if it says itself, at this very moment, that its commits wait for a peer which takes no part. That needs
/// nobody's term.
fn stop_if_in_vain(session: &mut Session, node: NodeId) -> Result<(), Error> {
    let patience = limits::WAIT_MAX_MS as i64;
    let look = include_str!("../sql/waits_in_vain.sql");
    let rows = session.query(look, &[&node.slot(), &patience])?;
    match rows.first().map(|row| row.try_get(0)) {
        Some(Ok(true)) => set_standby_names(session, node, false),
        _ => Ok(()),
    }
}

/// Whether the term could not be looked at, because somebody holds the table or the lock of the orders. Who does may be the very commit
/// that waits for the order.
fn is_locked(done: &Result<(), Error>) -> bool {
    let code = done.as_ref().err().and_then(Error::code);
    code == Some(&SqlState::LOCK_NOT_AVAILABLE)
}

fn is_not_set_up(error: &Error) -> bool {
    let missing = [
        SqlState::UNDEFINED_FUNCTION,
        SqlState::UNDEFINED_TABLE,
        SqlState::UNDEFINED_OBJECT,
        SqlState::INVALID_SCHEMA_NAME,
    ];
    error.code().is_some_and(|code| missing.contains(code))
}

/// The supervisor's sessions on both masters.
pub struct Standby([Steward; 2]);

impl Standby {
    pub fn new(sessions: [Sessions; 2], probes: [Sender<()>; 2], orders: Orders) -> Standby {
        let [sessions1, sessions2] = sessions;
        let [probe1, probe2] = probes;
        Standby([
            Steward::new(sessions1, probe1, orders.clone()),
            Steward::new(sessions2, probe2, orders),
        ])
    }

    /// Has `node` wait for nobody, for a process that does not decide: if the master still says so itself, at that very moment, that
    /// its commits wait for a peer which takes no part.
    pub fn stop_waiting_in_vain(&self, node: NodeId) {
        let probe = self.0[node.index()].probe.clone();
        self.submit(node, Errand::Order, move |session| {
            let done = stop_if_in_vain(session, node);
            let _ = probe.try_send(());
            done
        });
    }

    /// Makes commits on `node` wait until its peer has them, or no longer. Nobody waits for it: what
    /// came of it is seen by the next probe, which is woken for it.
    pub fn order(&self, node: NodeId, wait: bool) {
        self.set(node, Errand::Order, wait, set_standby_names);
    }

    /// Makes the apply worker of `node` wait for its disk at each transaction, or not. It takes that up at
    /// its next transaction, without a restart.
    pub fn apply(&self, node: NodeId, strict: bool) {
        self.set(node, Errand::Apply, strict, set_apply);
    }

    /// Ends the waiting of each commit by itself. It is done here and acknowledged, as it would have been
    /// had the order reached it.
    pub fn free_commits(&self, node: NodeId) {
        self.submit(node, Errand::FreeCommits, move |session| {
            let freed = session.query(
                include_str!("../sql/free_commits.sql"),
                &[&limits::FREE_OTHERS_AFTER_MS],
            )?;
            log::warn!(
                "{node}: {} commits waited on after the order to wait for nobody and were freed one by one",
                freed.len()
            );
            Ok(())
        });
    }

    /// Drops connections that were made before the master was away.
    pub fn begin_new_life(&self, node: NodeId) {
        self.0[node.index()].sessions.begin_new_life();
    }

    /// Moves the sequences past the rows that arrived meanwhile. Nobody waits for it: an id that is
    /// drawn too early is taken, which the insert notices and draws again.
    pub fn align_sequences(&self, node: NodeId) {
        self.submit(node, Errand::AlignSequences, |session| {
            let aligned = session.query(include_str!("../sql/align_sequences.sql"), &[]);
            aligned.map(drop)
        });
    }

    /// Counts on a master that it begins to serve. By that an older copy of it is known later on.
    pub fn count_start(&self, node: NodeId) {
        self.submit(node, Errand::CountStart, |session| {
            let counted = session.query("SELECT imdb_ha.contar_arranque()", &[]);
            counted.map(drop)
        });
    }

    /// Tells a master how often its peer has begun to serve.
    pub fn note_starts(&self, node: NodeId, starts: u64) {
        self.submit(node, Errand::NoteStarts, move |session| {
            let noted = session.query("SELECT imdb_ha.anotar_arranques($1)", &[&(starts as i64)]);
            noted.map(drop)
        });
    }

    /// Ends an apply worker that waits in the middle of a transaction for a master that is gone: until
    /// it notices by itself, after `wal_receiver_timeout`, the rows of that transaction are locked, and a
    /// request that was under way wants to insert those very rows. What has arrived whole is applied
    /// first; the rest comes again when the master is back.
    pub fn release_apply(&self, node: NodeId) {
        self.submit(node, Errand::ReleaseApply, move |session| {
            for _ in 0..limits::RELEASE_LOOKS {
                let busy = session.query(
                    include_str!("../sql/release_apply.sql"),
                    &[&node.subscription()],
                )?;
                let Some(worker) = busy.first() else {
                    return Ok(());
                };
                if matches!(worker.try_get(0), Ok(Some(true))) {
                    log::info!("{node}: ended an apply worker in the middle of a transaction");
                    return Ok(());
                }
                std::thread::sleep(limits::RELEASE_PAUSE);
            }
            Ok(())
        });
    }

    /// Makes `node` be as it should, and wakes its probe to see what came of it.
    fn set(&self, node: NodeId, errand: Errand, on: bool, act: Act) {
        let steward = &self.0[node.index()];
        steward.wanted(errand).store(on, Ordering::SeqCst);
        steward.give(node, errand, act, 1);
    }

    /// Has it done, and says so when it failed: nobody else waits for it.
    fn submit(
        &self,
        node: NodeId,
        errand: Errand,
        work: impl FnOnce(&mut Session) -> Result<(), Error> + Send + 'static,
    ) {
        let steward = self.0[node.index()].clone();
        let unsent = steward.clone();
        let tell = move |outcome| steward.tell(node, errand, outcome);
        if let Err(error) = unsent.sessions.send(work, tell) {
            unsent.tell(node, errand, Err(error));
        }
    }
}

/// Makes a master be as it should.
type Act = fn(&mut Session, NodeId, bool) -> Result<(), Error>;

impl Steward {
    fn new(sessions: Sessions, probe: Sender<()>, orders: Orders) -> Steward {
        Steward {
            sessions,
            orders,
            wait: Arc::default(),
            strict: Arc::default(),
            probe,
            quiet: Default::default(),
        }
    }

    /// What is wanted now.
    fn wanted(&self, errand: Errand) -> &Arc<AtomicBool> {
        match errand {
            Errand::Apply => &self.strict,
            _ => &self.wait,
        }
    }

    /// Gives an order. A connection of the time before its master was away breaks at the first use; then the
    /// order is given again, on a fresh one.
    fn give(&self, node: NodeId, errand: Errand, act: Act, more_tries: u32) {
        let (steward, again) = (self.clone(), self.clone());
        let work = move |session: &mut Session| {
            let wanted = || steward.wanted(errand).load(Ordering::SeqCst);
            let mut done = Ok(());
            // What is wanted may change while it is done; then what was done is not what should be.
            for _ in 0..limits::ORDER_TURNS {
                let on = wanted();
                done = steward
                    .orders
                    .give(session, |session| act(session, node, on));
                if matches!(errand, Errand::Order) && !on && is_locked(&done) {
                    done = stop_if_in_vain(session, node);
                }
                if done.is_err() || wanted() == on {
                    break;
                }
            }
            let _ = steward.probe.try_send(());
            done
        };
        let then = move |outcome: Result<(), CallError>| match outcome {
            Err(CallError::Unknown(_)) if more_tries > 0 => {
                again.give(node, errand, act, more_tries - 1);
            }
            outcome => again.tell(node, errand, outcome),
        };
        if let Err(error) = self.sessions.send(work, then) {
            self.tell(node, errand, Err(error));
        }
    }

    /// Says what failed, once.
    fn tell(&self, node: NodeId, errand: Errand, outcome: Result<(), CallError>) {
        let quiet = &self.quiet[errand as usize];
        match outcome {
            Ok(()) => drop(quiet.clear()),
            Err(error) => {
                let (doing, then) = errand.words();
                let text = format!("{doing} of {node}: {error}; {then}");
                if quiet.admit(&text).is_some() {
                    log::warn!("{text}");
                }
            }
        }
    }
}

/// ALTER SYSTEM takes no parameters and no company in one statement; the names are our own words.
fn set_standby_names(session: &mut Session, node: NodeId, wait: bool) -> Result<(), Error> {
    let names = match wait {
        true => standby_names(node),
        false => String::new(),
    };
    let client = session.client();
    client.batch_execute(&format!(
        "ALTER SYSTEM SET synchronous_standby_names = '{names}'"
    ))?;
    client.batch_execute("SELECT pg_catalog.pg_reload_conf()")
}

fn set_apply(session: &mut Session, node: NodeId, strict: bool) -> Result<(), Error> {
    let commit = match strict {
        true => "local",
        false => "off",
    };
    session.client().batch_execute(&format!(
        "ALTER SUBSCRIPTION {} SET (synchronous_commit = '{commit}')",
        node.subscription()
    ))
}
