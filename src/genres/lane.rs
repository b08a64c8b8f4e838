//! The write lane. One thread takes every insert that waits and commits them together, so the price of
//! a commit, and of a peer that confirms it, is paid once for all of them; when nobody else waits, an
//! insert goes alone and at once. A second lane takes inserts whose key somebody else holds, one at a
//! time, so that they keep nobody waiting. Nobody blocks on an insert: it ends with a call of its
//! `then`, by a lane, or by the clock when its deadline comes first.

use super::batch::{Batch, Created};
use super::entry::Entry;
use crate::cluster::NodeId;
use crate::config::UseSequence;
use crate::dispatch::{Dispatch, DispatchError, Failed, Kind};
use crate::limits;
use crossbeam_channel::{Receiver, Sender, TrySendError};
use postgres::error::SqlState;
use std::collections::{HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How an insert ended, and on which master.
pub type Answered = Result<(Created, NodeId), Failed>;

/// What is to happen then. It must not wait for anything: the others of the batch come after it.
pub type Then = Box<dyn FnOnce(Answered) + Send>;

/// The way in. Its threads live as long as the process.
pub(super) struct Lane {
    shared: Arc<Shared>,
}

struct Shared {
    dispatch: Arc<Dispatch>,
    use_sequence: UseSequence,
    told_sequence: Arc<AtomicBool>,
    batches: AtomicU64,
    together: Sender<Arc<Insert>>,
    alone: Sender<Arc<Insert>>,
    /// Inserts that are not answered, for the clock.
    clocked: Mutex<Vec<Arc<Insert>>>,
}

/// An insert that somebody waits for.
struct Insert {
    entry: Arc<Entry>,
    deadline: Instant,
    /// Since when it has been waiting for a key that another transaction holds.
    locked_since: OnceLock<Instant>,
    then: Mutex<Option<Then>>,
}

impl Insert {
    /// Answers, unless that has happened; no try begins after this.
    fn answer(&self, answered: Answered) {
        let may_have_happened = self.entry.may_have_happened();
        self.entry.abandon();
        let then = lock(&self.then).take();
        if let Some(then) = then {
            then(answered.map_err(|failed| Failed {
                may_have_happened: failed.may_have_happened || may_have_happened,
                ..failed
            }));
        }
    }

    /// Answers at the deadline: `late` when no try has begun, and none will then.
    fn expire(&self) {
        let may_have_happened = self.entry.abandon();
        let reason = match may_have_happened {
            true => "the deadline of the request came before the answer of the master",
            false => "the deadline of the request came before its turn",
        };
        self.answer(Err(late(reason, may_have_happened)));
    }
}

impl Lane {
    /// Starts the two lanes and the clock.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(dispatch: Arc<Dispatch>, use_sequence: UseSequence) -> std::io::Result<Lane> {
        let (together, waiting_together) = crossbeam_channel::bounded(limits::LANE_QUEUE);
        let (alone, waiting_alone) = crossbeam_channel::bounded(limits::LANE_QUEUE);
        let shared = Arc::new(Shared {
            dispatch,
            use_sequence,
            told_sequence: Arc::default(),
            batches: AtomicU64::new(0),
            together,
            alone,
            clocked: Mutex::default(),
        });
        for (name, inbox, most) in [
            ("lane", waiting_together, limits::LANE_BATCH_MAX),
            ("lane-alone", waiting_alone, 1),
        ] {
            let shared = Arc::clone(&shared);
            crate::vital::spawn(name.to_string(), move || shared.run(&inbox, most))?;
        }
        let clock = Arc::clone(&shared);
        crate::vital::spawn("lane-clock".to_string(), move || clock.watch())?;
        Ok(Lane { shared })
    }

    /// Queues an insert; never waits. A full queue is an answer, too.
    pub fn submit(&self, chosen: Option<i32>, genero: String, deadline: Instant, then: Then) {
        let insert = Arc::new(Insert {
            entry: Arc::new(Entry::new(chosen, genero)),
            deadline,
            locked_since: OnceLock::new(),
            then: Mutex::new(Some(then)),
        });
        lock(&self.shared.clocked).push(Arc::clone(&insert));
        queue(&self.shared.together, insert);
    }
}

impl Shared {
    /// Life of a lane: one batch after the other.
    fn run(&self, inbox: &Receiver<Arc<Insert>>, most: usize) {
        let mut twins = VecDeque::new();
        while let Some(batch) = collect(inbox, &mut twins, most) {
            // The batch is all that a turn works on, so a panic leaves nothing else half-done.
            if catch_unwind(AssertUnwindSafe(|| self.insert(batch.clone(), false))).is_err() {
                log::error!("the write lane panicked; please report it");
                for insert in batch {
                    insert.answer(Err(late("the write lane panicked", true)));
                }
            }
        }
    }

    /// Inserts a batch and answers each of its rows. `again` if it has met a lock before.
    fn insert(&self, mut batch: Vec<Arc<Insert>>, again: bool) {
        batch.retain(|insert| !insert.entry.is_abandoned());
        let Some(deadline) = batch.iter().map(|insert| insert.deadline).max() else {
            return;
        };
        let call = Batch {
            number: self.batches.fetch_add(1, Ordering::SeqCst),
            entries: batch
                .iter()
                .map(|insert| Arc::clone(&insert.entry))
                .collect(),
            use_sequence: self.use_sequence,
            told_sequence: Arc::clone(&self.told_sequence),
        };
        let called = self
            .dispatch
            .call(Kind::Write, deadline, move |session, attempt| {
                call.run(session, attempt)
            });
        let failed = match called {
            Ok((created, node)) => {
                for (insert, created) in batch.iter().zip(created) {
                    insert.answer(Ok((created, node)));
                }
                return;
            }
            Err(failed) => failed,
        };
        for insert in &batch {
            insert.entry.failed(failed.may_have_happened);
        }
        match remedy(&failed, batch.len()) {
            Remedy::Answer => answer_all(&batch, &failed),
            Remedy::Halve => {
                let second = batch.split_off(batch.len() / 2);
                self.insert(batch, again);
                self.insert(second, again);
            }
            Remedy::SetApart => self.set_apart(batch, again, &failed),
        }
    }

    /// A key of the batch is held by another transaction. It can hardly be one that was drawn: those go
    /// once more, under other ids. The others wait for theirs where they keep nobody else waiting.
    fn set_apart(&self, batch: Vec<Arc<Insert>>, again: bool, failed: &Failed) {
        let patience = Duration::from_millis(limits::LOCK_TIMEOUT_MS);
        let mut drawn = Vec::new();
        for insert in batch {
            let since = insert.locked_since.get_or_init(Instant::now);
            if insert.entry.chosen.is_none() {
                drawn.push(insert);
            } else if since.elapsed() < patience {
                queue(&self.alone, insert);
            } else {
                insert.answer(Err(failed.clone()));
            }
        }
        if again {
            return answer_all(&drawn, failed);
        }
        for insert in &drawn {
            insert.entry.forget_id();
        }
        self.insert(drawn, true);
    }

    /// The clock. No lane can do this, since it waits for a master; and no insert is forgotten,
    /// whatever happens to a lane.
    fn watch(&self) {
        loop {
            std::thread::sleep(limits::LANE_TICK);
            let now = Instant::now();
            let mut due = Vec::new();
            lock(&self.clocked).retain(|insert| {
                let is_due = insert.deadline <= now;
                if is_due {
                    due.push(Arc::clone(insert));
                }
                !is_due && !insert.entry.is_abandoned()
            });
            // Answered outside of the lock, which every new insert needs.
            for insert in due {
                insert.expire();
            }
        }
    }
}

/// Waits for the first insert and takes all that wait, up to `most`. Of two with the same chosen id
/// the second is held over to the next batch, since what a statement returns could not tell them apart.
/// None when nobody is left to send any.
fn collect(
    inbox: &Receiver<Arc<Insert>>,
    twins: &mut VecDeque<Arc<Insert>>,
    most: usize,
) -> Option<Vec<Arc<Insert>>> {
    let mut batch = Vec::new();
    let mut chosen = HashSet::new();
    let mut next = match twins.pop_front() {
        Some(twin) => Some(twin),
        None => Some(inbox.recv().ok()?),
    };
    let mut held_over = VecDeque::new();
    while let Some(insert) = next {
        let first = insert.entry.chosen.is_none_or(|id| chosen.insert(id));
        if insert.entry.is_abandoned() {
            // Its deadline came first, and it has been answered.
        } else if first {
            batch.push(insert);
        } else {
            held_over.push_back(insert);
        }
        let room = batch.len() < most && held_over.len() < most;
        next = match room {
            true => twins.pop_front().or_else(|| inbox.try_recv().ok()),
            false => None,
        };
    }
    held_over.append(twins);
    *twins = held_over;
    Some(batch)
}

/// What to do about a batch that failed.
#[derive(Debug, PartialEq, Eq)]
enum Remedy {
    Answer,
    /// One of its rows may be what the database refuses; the others must not suffer for it.
    Halve,
    /// One of its rows waits for somebody else's transaction.
    SetApart,
}

fn remedy(failed: &Failed, rows: usize) -> Remedy {
    match &*failed.error {
        DispatchError::Verdict { error, .. }
            if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) =>
        {
            Remedy::SetApart
        }
        DispatchError::Verdict { .. } if rows > 1 => Remedy::Halve,
        _ => Remedy::Answer,
    }
}

fn answer_all(batch: &[Arc<Insert>], failed: &Failed) {
    for insert in batch {
        insert.answer(Err(failed.clone()));
    }
}

fn queue(lane: &Sender<Arc<Insert>>, insert: Arc<Insert>) {
    if let Err(TrySendError::Full(insert) | TrySendError::Disconnected(insert)) =
        lane.try_send(insert)
    {
        insert.answer(Err(Failed {
            error: Arc::new(DispatchError::Overloaded),
            may_have_happened: false,
        }));
    }
}

fn late(reason: &str, may_have_happened: bool) -> Failed {
    Failed {
        error: Arc::new(DispatchError::Late {
            reason: reason.to_string(),
        }),
        may_have_happened,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert(chosen: Option<i32>, name: &str) -> Arc<Insert> {
        Arc::new(Insert {
            entry: Arc::new(Entry::new(chosen, name.to_string())),
            deadline: Instant::now(),
            locked_since: OnceLock::new(),
            then: Mutex::default(),
        })
    }

    fn chosen(batch: &[Arc<Insert>]) -> Vec<Option<i32>> {
        batch.iter().map(|insert| insert.entry.chosen).collect()
    }

    #[test]
    fn a_batch_takes_what_waits_and_no_id_twice() {
        let (sender, inbox) = crossbeam_channel::unbounded();
        for id in [Some(1), None, Some(1), Some(2), Some(1), None] {
            sender.send(insert(id, "x")).expect("a queue");
        }
        let gone = insert(Some(9), "gone");
        gone.entry.abandon();
        sender.send(gone).expect("a queue");
        drop(sender);
        let mut twins = VecDeque::new();
        let mut batches = Vec::new();
        while let Some(batch) = collect(&inbox, &mut twins, 3) {
            assert!(batch.len() <= 3);
            batches.push(chosen(&batch));
        }
        let expected = [
            vec![Some(1), None, Some(2)],
            vec![Some(1), None],
            vec![Some(1)],
        ];
        assert_eq!(batches, expected);
    }

    /// The deadline and the try race for an insert; whoever is first decides what its client is told.
    #[test]
    fn an_insert_is_late_only_if_no_try_has_begun() {
        for (failed, expected) in [(None, false), (Some(true), true), (Some(false), false)] {
            let (tell, told) = crossbeam_channel::unbounded();
            let one = insert(None, "x");
            *lock(&one.then) = Some(Box::new(move |answered: Answered| {
                let _ = tell.send(answered.expect_err("late").may_have_happened);
            }));
            if let Some(may_have_happened) = failed {
                one.entry.failed(may_have_happened);
            }
            one.expire();
            one.expire();
            one.answer(Err(late("again", true)));
            assert_eq!(
                told.try_iter().collect::<Vec<_>>(),
                [expected],
                "{failed:?}"
            );
        }
    }
}
