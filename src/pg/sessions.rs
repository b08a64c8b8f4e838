//! Calls on a master that can be given up on. No timeout of the driver ends a query on a frozen
//! server, so a query never runs on the thread that needs its answer: each master has a few session
//! threads that take calls from a bounded queue and work on connections of its pool, and the caller
//! waits for the reply as long as it likes. A caller that gives up learns whether its call had begun.
//! A session thread that hangs on a frozen master comes free when the master thaws or dies.
//!
//! Reads have a queue of their own where requests are served: a few sessions serve them alone, so that they go on when commits
//! stall, and only so many serve them at all, since more than a master has processors for take each other's time.

use super::pool::{self, Session, SessionManager};
use super::settings::Settings;
use crate::cluster::NodeId;
use crate::limits;
use crossbeam_channel::{Receiver, Sender, TrySendError, select};
use postgres::error::SqlState;
use r2d2::{Pool, PooledConnection};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

/// Why a call brought no result.
#[derive(Debug)]
pub enum CallError {
    /// It never reached the server: it may be repeated anywhere.
    NotStarted(String),
    /// It may or may not have taken effect.
    Unknown(String),
    /// The queue of this master is full.
    Busy,
    /// The server's verdict, or a mistake of ours that the driver noticed.
    Verdict(postgres::Error),
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CallError::NotStarted(cause) | CallError::Unknown(cause) => f.write_str(cause),
            CallError::Busy => f.write_str("too many calls are waiting for this master"),
            CallError::Verdict(error) => f.write_str(&super::explain(error)),
        }
    }
}

impl std::error::Error for CallError {}

/// The session threads of one master. Dropping the last handle ends them.
#[derive(Clone)]
pub struct Sessions {
    node: NodeId,
    jobs: Sender<Job>,
    /// The same one where reads are nothing special.
    reads: Sender<Job>,
    life: Arc<AtomicU64>,
}

/// What a session thread takes its calls from.
struct Queues {
    jobs: Receiver<Job>,
    reads: Receiver<Job>,
}

/// A call under way.
pub struct Call<T> {
    progress: Arc<AtomicU8>,
    reply: Receiver<Result<T, CallError>>,
}

struct Job {
    progress: Arc<AtomicU8>,
    /// Runs the call on a session and sends the reply; or sends why there is no session.
    run: Box<Run>,
}

type Run = dyn FnOnce(Result<&mut Session, String>) + Send;

/// Progress of a call. Both sides move it on from `WAITING`, and only one of them wins.
const WAITING: u8 = 0;
const BEGUN: u8 = 1;
const ABANDONED: u8 = 2;

impl Sessions {
    /// Starts `size` session threads for requests over a pool of as many connections; connects to nothing yet.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(node: NodeId, settings: Settings, size: u32) -> std::io::Result<Sessions> {
        let (reads, queue) = crossbeam_channel::bounded(limits::CALL_QUEUE);
        let readers = (size / limits::SESSIONS_PER_READER).max(1);
        let only_readers = readers / 2;
        let mut sessions =
            Sessions::start_with(node, settings, size, limits::POOL_WAIT, |index, jobs| {
                Queues {
                    jobs: match index < only_readers {
                        true => crossbeam_channel::never(),
                        false => jobs.clone(),
                    },
                    reads: match index < readers {
                        true => queue.clone(),
                        false => crossbeam_channel::never(),
                    },
                }
            })?;
        sessions.reads = reads;
        Ok(sessions)
    }

    /// One session thread, for work that may wait longer for its connection than a request may.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start_patient(node: NodeId, settings: Settings) -> std::io::Result<Sessions> {
        Sessions::start_patient_crew(node, settings, 1)
    }

    /// Several of them.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start_patient_crew(
        node: NodeId,
        settings: Settings,
        size: u32,
    ) -> std::io::Result<Sessions> {
        Sessions::start_with(node, settings, size, limits::SETUP_CONNECT, |_, jobs| {
            Queues {
                jobs: jobs.clone(),
                reads: crossbeam_channel::never(),
            }
        })
    }

    fn start_with(
        node: NodeId,
        settings: Settings,
        size: u32,
        wait: Duration,
        queues_of: impl Fn(u32, &Receiver<Job>) -> Queues,
    ) -> std::io::Result<Sessions> {
        let life = Arc::new(AtomicU64::new(0));
        let pool = pool::build(node, settings, size, wait, Arc::clone(&life))?;
        let (jobs, queue) = crossbeam_channel::bounded::<Job>(limits::CALL_QUEUE);
        for index in 0..size {
            let (pool, life) = (pool.clone(), Arc::clone(&life));
            let queues = queues_of(index, &queue);
            std::thread::Builder::new()
                .name(format!("pg-{node}-{index}"))
                .spawn(move || serve(node, &pool, &queues, &life))?;
        }
        Ok(Sessions {
            node,
            reads: jobs.clone(),
            jobs,
            life,
        })
    }

    /// Hands in a call; never waits.
    ///
    /// # Errors
    /// [`CallError::Busy`] when [`limits::CALL_QUEUE`] calls are waiting already.
    pub fn submit<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Session) -> Result<T, postgres::Error> + Send + 'static,
    ) -> Result<Call<T>, CallError> {
        self.submit_to(&self.jobs, work)
    }

    /// Hands in a call that changes nothing; never waits.
    ///
    /// # Errors
    /// [`CallError::Busy`] when [`limits::CALL_QUEUE`] of them are waiting already.
    pub fn submit_read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Session) -> Result<T, postgres::Error> + Send + 'static,
    ) -> Result<Call<T>, CallError> {
        self.submit_to(&self.reads, work)
    }

    fn submit_to<T: Send + 'static>(
        &self,
        queue: &Sender<Job>,
        work: impl FnOnce(&mut Session) -> Result<T, postgres::Error> + Send + 'static,
    ) -> Result<Call<T>, CallError> {
        let (reply_to, reply) = crossbeam_channel::bounded(1);
        // Nobody listens any more when the caller has given up.
        let progress = self.hand_in(queue, work, move |result| drop(reply_to.send(result)))?;
        Ok(Call { progress, reply })
    }

    /// Hands in a call for which nobody waits; `then` is told on the session's thread what came of it.
    ///
    /// # Errors
    /// [`CallError::Busy`] when [`limits::CALL_QUEUE`] calls are waiting already.
    pub fn send<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Session) -> Result<T, postgres::Error> + Send + 'static,
        then: impl FnOnce(Result<T, CallError>) + Send + 'static,
    ) -> Result<(), CallError> {
        self.hand_in(&self.jobs, work, then).map(drop)
    }

    fn hand_in<T: Send + 'static>(
        &self,
        queue: &Sender<Job>,
        work: impl FnOnce(&mut Session) -> Result<T, postgres::Error> + Send + 'static,
        then: impl FnOnce(Result<T, CallError>) + Send + 'static,
    ) -> Result<Arc<AtomicU8>, CallError> {
        let progress = Arc::new(AtomicU8::new(WAITING));
        let life = Arc::clone(&self.life);
        let run = Box::new(move |session: Result<&mut Session, String>| {
            then(match session {
                Ok(session) => work(session).map_err(|error| classify(error, session, &life)),
                Err(cause) => Err(CallError::NotStarted(cause)),
            });
        });
        match queue.try_send(Job {
            progress: Arc::clone(&progress),
            run,
        }) {
            Ok(()) => Ok(progress),
            Err(TrySendError::Full(_)) => Err(CallError::Busy),
            Err(TrySendError::Disconnected(_)) => Err(CallError::NotStarted(format!(
                "the sessions of {} have ended",
                self.node
            ))),
        }
    }

    /// Hands in a call and waits for it.
    ///
    /// # Errors
    /// Those of [`Sessions::submit`] and of the call; and when `patience` is over.
    pub fn run<T: Send + 'static>(
        &self,
        patience: Duration,
        work: impl FnOnce(&mut Session) -> Result<T, postgres::Error> + Send + 'static,
    ) -> Result<T, CallError> {
        let call = self.submit(work)?;
        match call.reply.recv_timeout(patience) {
            Ok(result) => result,
            Err(_) => call.give_up(&format!("no answer within {} ms", patience.as_millis())),
        }
    }

    /// Begins a new life: connections made before are not used again. For a master that was down,
    /// whose old connections are dead without knowing it.
    pub fn begin_new_life(&self) {
        self.life.fetch_add(1, Ordering::SeqCst);
    }
}

impl<T> Call<T> {
    /// Where the reply arrives; at most one does.
    pub fn reply(&self) -> &Receiver<Result<T, CallError>> {
        &self.reply
    }

    /// Stops waiting. A reply that is there already counts; a call that no session has taken yet will
    /// not run; of one that has been taken the outcome is unknown.
    ///
    /// # Errors
    /// Those of the call, or one that says which of the two it is.
    pub fn give_up(self, reason: &str) -> Result<T, CallError> {
        if let Ok(reply) = self.reply.try_recv() {
            return reply;
        }
        match self
            .progress
            .compare_exchange(WAITING, ABANDONED, Ordering::SeqCst, Ordering::SeqCst)
        {
            Ok(_) => Err(CallError::NotStarted(reason.to_string())),
            Err(_) => Err(CallError::Unknown(reason.to_string())),
        }
    }
}

/// Whether somebody has cancelled the statement, so that it has changed nothing: most likely whoever frees
/// commits (sql/free_commits.sql), which was meant for the statement before. A time limit has the same code
/// and would come again. Only the text tells them apart, so on a server that speaks another language
/// such a call fails as it does for a time limit.
fn is_cancelled(error: &postgres::Error) -> bool {
    let Some(error) = error.as_db_error() else {
        return false;
    };
    *error.code() == SqlState::QUERY_CANCELED && error.message().contains("due to user request")
}

/// What a failed call means for its caller.
fn classify(error: postgres::Error, session: &mut Session, life: &AtomicU64) -> CallError {
    // The server rolled it back by itself, and it may well succeed when it is repeated.
    let rolled_back = [
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::T_R_SERIALIZATION_FAILURE,
    ];
    let is_rolled_back = error.code().is_some_and(|code| rolled_back.contains(code));
    if is_rolled_back || is_cancelled(&error) {
        return CallError::NotStarted(super::explain(&error));
    }
    // Whatever ended the connection: a shutdown, a crash, a time limit for idle sessions.
    let ending = [
        SqlState::ADMIN_SHUTDOWN,
        SqlState::CRASH_SHUTDOWN,
        SqlState::CANNOT_CONNECT_NOW,
    ];
    if session.is_closed() || error.code().is_some_and(|code| ending.contains(code)) {
        session.discard();
        // Its sisters of the same life have most likely ended with it.
        let _ = life.compare_exchange(
            session.life(),
            session.life() + 1,
            Ordering::SeqCst,
            Ordering::SeqCst,
        );
        return CallError::Unknown(super::explain(&error));
    }
    CallError::Verdict(error)
}

/// Life of a session thread: one call after the other, until the last handle is dropped.
fn serve(node: NodeId, pool: &Pool<SessionManager>, queues: &Queues, life: &AtomicU64) {
    loop {
        let job = select! {
            recv(queues.reads) -> job => job,
            recv(queues.jobs) -> job => job,
        };
        let Ok(job) = job else {
            return;
        };
        if job.progress.load(Ordering::SeqCst) == ABANDONED {
            continue;
        }
        let session = take_session(pool, life);
        if job
            .progress
            .compare_exchange(WAITING, BEGUN, Ordering::SeqCst, Ordering::SeqCst)
            .is_err()
        {
            continue;
        }
        match session {
            Ok(mut session) => {
                let run = AssertUnwindSafe(|| (job.run)(Ok(&mut session)));
                // A panic in a call ends the call, whose caller learns that the outcome is unknown,
                // and the connection, which may be in the middle of anything; not the thread.
                if catch_unwind(run).is_err() {
                    log::error!("a call on {node} panicked; its connection is dropped");
                    session.discard();
                }
            }
            Err(cause) => (job.run)(Err(format!("connect to {node}: {cause}"))),
        }
    }
}

/// A connection of the master's present life.
fn take_session(
    pool: &Pool<SessionManager>,
    life: &AtomicU64,
) -> Result<PooledConnection<SessionManager>, String> {
    // At most every connection of the pool can be of an earlier life.
    for _ in 0..=pool.max_size() {
        let mut session = pool.get().map_err(|error| error.to_string())?;
        if session.life() == life.load(Ordering::SeqCst) && !session.is_closed() {
            return Ok(session);
        }
        session.discard();
    }
    Err("every connection of the pool is of an earlier life of the server".to_string())
}
