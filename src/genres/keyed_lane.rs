//! The threads of inserts that bear a key. An insert's caller does not wait, and each of these waits for its own commit, so they have
//! threads of their own, and are no part of the write lane.

use super::keyed::{KeyedWrite, Written, write};
use super::store::Outcome;
use crate::config::UseSequence;
use crate::dispatch::{Dispatch, DispatchError, Failed};
use crate::limits;
use crossbeam_channel::{Receiver, Sender, TrySendError};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

/// What is to happen when it has ended.
pub type ThenWritten = Box<dyn FnOnce(Outcome<Written>) + Send>;

/// The way in. Updates and deletions with a key have threads that wait anyway.
pub(super) struct KeyedLane {
    queue: Sender<Job>,
}

struct Job {
    write: KeyedWrite,
    deadline: Instant,
    then: ThenWritten,
}

impl KeyedLane {
    /// Starts them.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(
        dispatch: &Arc<Dispatch>,
        use_sequence: UseSequence,
    ) -> std::io::Result<KeyedLane> {
        let (queue, jobs) = crossbeam_channel::bounded(limits::LANE_QUEUE);
        for index in 0..limits::KEYED_THREADS {
            let (dispatch, jobs) = (Arc::clone(dispatch), jobs.clone());
            crate::vital::spawn(format!("keyed-{index}"), move || {
                serve(&dispatch, use_sequence, &jobs);
            })?;
        }
        Ok(KeyedLane { queue })
    }

    /// Queues one; never waits. A full queue is an answer, too.
    pub fn submit(&self, write: KeyedWrite, deadline: Instant, then: ThenWritten) {
        let job = Job {
            write,
            deadline,
            then,
        };
        if let Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) =
            self.queue.try_send(job)
        {
            (job.then)(Err(Failed {
                error: Arc::new(DispatchError::Overloaded),
                may_have_happened: false,
            }));
        }
    }
}

fn serve(dispatch: &Dispatch, use_sequence: UseSequence, jobs: &Receiver<Job>) {
    for job in jobs {
        let Job {
            write: wanted,
            deadline,
            then,
        } = job;
        // A panic ends this one request, whose client hears of it when its connection is dropped.
        let done = move || then(write(dispatch, use_sequence, wanted, deadline));
        if catch_unwind(AssertUnwindSafe(done)).is_err() {
            log::error!("a write with a key panicked; please report it");
        }
    }
}
