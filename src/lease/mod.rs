//! Which of several API processes decides. One thread claims the lease in Redis, one per master keeps the seat of whoever decides
//! there, and a third one, which waits for nobody, puts together what they and the probes have found; what follows from it is
//! decided purely (`cluster/mandate.rs`). Nobody's requests wait for any of them.

mod claim;
mod seat;

use crate::board::Board;
use crate::cluster::{
    Candidate, Event, Evidence, Lease as Held, NodeId, Role, Stance, Times, Verdict,
};
use crate::config::Config;
use crate::limits;
use crate::pg::{self, Settings};
use crate::redis_link::RedisWatch;
use crate::standby::Orders;
use crate::supervisor::Supervisor;
use crate::vital;
use crossbeam_channel::{Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What the threads share.
struct Shared {
    config: Arc<Config>,
    board: Arc<Board>,
    /// This process, and when it began.
    holder: String,
    /// Where it is reached.
    address: String,
    state: Mutex<State>,
    /// Wakes the deciding thread.
    news: Sender<()>,
    /// Wakes those who keep the seats.
    seats: [Sender<()>; 2],
    /// Has the lease claimed at once.
    hurry: Sender<()>,
}

struct State {
    seen: Evidence,
    stances: [Stance; 2],
    decides: bool,
    /// A term that is taken must be higher.
    above: u64,
}

/// The threads that find out who decides.
pub struct Lease {
    stop: Sender<Sender<()>>,
}

/// Starts them.
///
/// # Errors
/// When a thread cannot be started, or a master's URL leads nowhere.
pub fn start(
    config: Arc<Config>,
    board: Arc<Board>,
    watch: RedisWatch,
    supervisor: Supervisor,
    orders: Orders,
) -> anyhow::Result<Lease> {
    let now = jiff::Timestamp::now().as_millisecond();
    let (stop, asked) = crossbeam_channel::bounded(1);
    let (news, told) = crossbeam_channel::bounded(1);
    let (hurry, hurried) = crossbeam_channel::bounded(1);
    let (wake1, woken1) = crossbeam_channel::bounded(1);
    let (wake2, woken2) = crossbeam_channel::bounded(1);
    let shared = Arc::new(Shared {
        holder: format!("{}-{}-{now}", host(), std::process::id()),
        address: config.advertised.clone(),
        config,
        board,
        state: Mutex::new(State {
            seen: Evidence::default(),
            stances: [Stance::Leave; 2],
            decides: false,
            above: 0,
        }),
        news,
        seats: [wake1, wake2],
        hurry,
    });
    for (node, woken) in NodeId::BOTH.into_iter().zip([woken1, woken2]) {
        let settings = seat_settings(&shared.config, node)?;
        let mut seat = seat::Seat::new(node, settings, Arc::clone(&shared));
        vital::spawn(format!("seat-{node}"), move || seat.keep(&woken))?;
    }
    let mut claimant = claim::Claimant::new(Arc::clone(&shared), watch);
    vital::spawn("lease".to_string(), move || {
        drop(claimant.claim_until(&asked, &hurried));
    })?;
    vital::spawn("mandate".to_string(), move || {
        shared.decide_for_ever(&told, &supervisor, &orders);
    })?;
    Ok(Lease { stop })
}

/// The sessions of the seats wait for nothing for long: not for their own commits, and not for an order under way.
fn seat_settings(config: &Config, node: NodeId) -> anyhow::Result<Settings> {
    let settings = pg::connection_settings(config.master(node), limits::SEAT_STATEMENT)?;
    let bound = format!("lock_timeout={}", limits::SEAT_LOCK_WAIT_MS);
    Ok(pg::without_waiting(settings)
        .with_option(&bound)
        .with_option("default_transaction_read_only=off"))
}

impl Lease {
    /// Ends the claiming and gives the lease back, so that another process decides at once, and a restart
    /// of this one does not follow it for as long as the lease lasts. Redis may take
    /// [`limits::LEASE_RELEASE`] for it.
    pub fn release(self) {
        let (done, told) = crossbeam_channel::bounded(0);
        let _ = self.stop.try_send(done);
        // It ends with an error when the thread drops its side, which is the sign.
        let _ = told.recv_timeout(limits::LEASE_RELEASE);
    }
}

/// The name of this machine: process ids are unique on one only.
fn host() -> String {
    let name = nix::unistd::gethostname().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what came of a claim; nothing when Redis could not be used.
    fn tell_lease(&self, lease: Option<Held>, asked_ms: u64) {
        let mut state = self.lock();
        state.seen.redis_fails = lease.is_none();
        if let Some(lease) = lease {
            state.seen.lease = Some((lease, asked_ms));
        }
        drop(state);
        let _ = self.news.try_send(());
    }

    /// Keeps what a seat found: when it was known to be held, and the newest term of the master, if it said that.
    fn tell_seat(&self, node: NodeId, held_ms: Option<u64>, newest: Option<u64>) {
        let mut state = self.lock();
        let seen = &mut state.seen.masters[node.index()];
        let news = seen.held_ms.is_some() != held_ms.is_some()
            || newest.is_some_and(|newest| newest > seen.newest);
        seen.held_ms = held_ms;
        // A master that was taken back says less than it did; what it said then still counts.
        seen.newest = seen.newest.max(newest.unwrap_or(0));
        drop(state);
        if news {
            let _ = self.news.try_send(());
        }
    }

    fn stance(&self, node: NodeId) -> Stance {
        self.lock().stances[node.index()]
    }

    fn decides(&self) -> bool {
        self.lock().decides
    }

    fn above(&self) -> u64 {
        self.lock().above
    }

    /// What the probes have found.
    fn take_in_probes(&self, seen: &mut Evidence) {
        let view = self.board.look().0;
        for (node, seen) in NodeId::BOTH.into_iter().zip(&mut seen.masters) {
            seen.reached = view.node(node).facts.is_some();
            seen.mandate = self.board.details(node).and_then(|seen| seen.mandate);
        }
    }

    /// Says again and again what this process is, and what it does about the seats.
    fn decide_for_ever(&self, told: &Receiver<()>, supervisor: &Supervisor, orders: &Orders) {
        let mut me = Candidate::new(
            self.holder.clone(),
            Times {
                lease_ms: limits::LEASE_TTL.as_millis() as u64,
                patience_ms: limits::SEAT_PATIENCE.as_millis() as u64,
                seat_ms: limits::SEAT_VALID.as_millis() as u64,
            },
        );
        loop {
            let changed = self.board.look().1;
            let mut state = self.lock();
            self.take_in_probes(&mut state.seen);
            let judged = me.judge(self.board.now_ms(), &state.seen);
            let moved = state.stances != judged.stances;
            let (event, term) = match judged.verdict {
                Verdict::Unknown => (Event::Role(Role::Unknown), None),
                Verdict::Follows(leader) => (Event::Role(Role::Follower(leader)), None),
                Verdict::Orphan => (Event::Role(Role::Orphan), None),
                Verdict::Leads {
                    until_ms,
                    term,
                    why,
                } => (Event::Leads { until_ms, why }, Some(term)),
            };
            let ours = match &state.seen.lease {
                Some((Held::Ours { term }, _)) => Some(*term),
                _ => None,
            };
            // A lease that is held with a term that was outdone is claimed anew at once.
            let outdone = term.is_none() && ours.is_some_and(|ours| ours <= judged.above);
            state.above = match (term, ours) {
                // What it holds already is not to be outdone.
                (Some(term), Some(ours)) if term == ours => term - 1,
                _ => judged.above,
            };
            (state.decides, state.stances) = (term.is_some(), judged.stances);
            drop(state);
            orders.set(term, &self.holder);
            supervisor.report(event);
            if outdone {
                let _ = self.hurry.try_send(());
            }
            if moved {
                for seat in &self.seats {
                    let _ = seat.try_send(());
                }
            }
            crossbeam_channel::select! {
                recv(told) -> _ => {}
                recv(changed) -> _ => {}
                default(limits::MANDATE_TICK) => {}
            }
        }
    }
}
