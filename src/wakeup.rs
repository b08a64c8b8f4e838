//! Wakes a walsender that has missed its wake-up. A logical walsender of PostgreSQL 16 and 17 looks where the
//! WAL on disk ends, and only then puts itself on the list of those that a flush wakes. A flush between the
//! two wakes nobody, and if that was the only commit under way, it waits for a peer that is never sent it,
//! until something else is flushed or half of `wal_sender_timeout` is over. So something else is flushed.
//!
//! One thread per master looks, on a connection of its own, while it has a reason to: no write on this
//! master has ended for some milliseconds although one is under way, or a probe has seen that something
//! waits, which may be a commit of somebody who does not use the API. On a quiet system it sleeps. If its
//! master freezes it hangs with it, and nobody waits for it.

use crate::board::Board;
use crate::cluster::NodeId;
use crate::limits;
use crate::pg::{ConnectError, Settings, explain};
use crate::quiet::Quiet;
use crate::vital;
use postgres::{Client, Error};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

/// A walsender with WAL to send, and the position up to which it has sent.
type Asleep = (i32, i64);

/// What one look found.
struct Look {
    asleep: Option<Asleep>,
    commits_wait: bool,
}

/// Starts the thread of one master.
///
/// # Errors
/// When the thread cannot be started.
pub fn start(node: NodeId, settings: Settings, board: Arc<Board>) -> std::io::Result<()> {
    vital::spawn(format!("wakeup-{node}"), move || {
        let mut watch = Watch {
            node,
            settings,
            board: Arc::clone(&board),
            client: None,
            wakes: Wakes::default(),
            quiet: Quiet::default(),
        };
        for () in board.reasons_to_watch(node) {
            watch.until_nothing_waits();
        }
    })
}

struct Watch {
    node: NodeId,
    settings: Settings,
    board: Arc<Board>,
    client: Option<Client>,
    wakes: Wakes,
    quiet: Quiet,
}

impl Watch {
    fn until_nothing_waits(&mut self) {
        let mut pause = limits::WRITE_STANDS_STILL;
        let mut ended = self.board.writes_ended(self.node);
        loop {
            thread::sleep(pause);
            let under_way = self.board.writes_under_way(self.node) > 0;
            let now = self.board.writes_ended(self.node);
            if std::mem::replace(&mut ended, now) != now {
                // What ends has been flushed before, and that has woken everybody.
                pause = limits::WRITE_STANDS_STILL;
                match under_way {
                    true => continue,
                    false => return,
                }
            }
            match self.look_and_wake() {
                Ok(Look {
                    asleep: Some(_), ..
                }) => pause = limits::WRITE_STANDS_STILL,
                Ok(look) if look.commits_wait || under_way => pause = limits::WAKEUP_LOOK_AGAIN,
                Ok(_) => return,
                // The probe tells what is wrong with this master, and comes back to here.
                Err(cause) => {
                    self.client = None;
                    if self.quiet.admit(&cause).is_some() {
                        log::debug!("look after the walsender of {}: {cause}", self.node);
                    }
                    return;
                }
            }
        }
    }

    fn look_and_wake(&mut self) -> Result<Look, String> {
        let told = |error: Error| explain(&error);
        let client = match self.client.take() {
            Some(client) if !client.is_closed() => client,
            _ => self
                .settings
                .connect()
                .map_err(|error: ConnectError| error.to_string())?,
        };
        let client = self.client.insert(client);
        let look = look(client, self.node).map_err(told)?;
        let Some(asleep) = look.asleep else {
            return Ok(look);
        };
        if !self.wakes.may_wake(asleep, Instant::now()) {
            return Ok(Look {
                asleep: None,
                ..look
            });
        }
        // It may have been on its way.
        thread::sleep(limits::WALSENDER_STARTS);
        if wake(client, asleep).map_err(told)? {
            self.wakes.note(asleep, Instant::now());
            self.board.note_wakeup(self.node);
            log::debug!("{}: a walsender had missed its wake-up", self.node);
        }
        Ok(look)
    }
}

fn look(client: &mut Client, node: NodeId) -> Result<Look, Error> {
    let row = client.query_one(include_str!("../sql/sender.sql"), &[&node.slot()])?;
    let position: Option<i32> = row.try_get("pid")?;
    let sent: Option<i64> = row.try_get("sent_lsn")?;
    let asleep: bool = row.try_get("asleep")?;
    Ok(Look {
        asleep: position.zip(sent).filter(|_| asleep),
        commits_wait: row.try_get("commits_wait")?,
    })
}

/// Whether it still slept at the same position.
fn wake(client: &mut Client, (pid, sent): Asleep) -> Result<bool, Error> {
    let woken = client.query(include_str!("../sql/wake_sender.sql"), &[&pid, &sent])?;
    Ok(!woken.is_empty())
}

/// The last wake-ups. A walsender that they do not move has another reason to stand still, and must not be
/// written WAL for without end.
#[derive(Default)]
struct Wakes {
    last: Option<(Asleep, Instant, u32)>,
}

impl Wakes {
    fn may_wake(&self, asleep: Asleep, now: Instant) -> bool {
        self.last.is_none_or(|(last, at, times)| {
            last != asleep
                || times < limits::WAKEUPS_IN_VAIN
                || now - at >= limits::WAKEUP_TRY_AGAIN
        })
    }

    fn note(&mut self, asleep: Asleep, now: Instant) {
        let times = match self.last {
            Some((last, _, times)) if last == asleep => times + 1,
            _ => 1,
        };
        self.last = Some((asleep, now, times));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_walsender_that_does_not_move_is_woken_ever_more_rarely() {
        let mut wakes = Wakes::default();
        let began = Instant::now();
        let mut woken = 0;
        for turn in 0..1_000u64 {
            let now = began + Duration::from_millis(10 * turn);
            if wakes.may_wake((7, 1_000), now) {
                wakes.note((7, 1_000), now);
                woken += 1;
            }
        }
        // Three at once, and then one a second for the rest of ten.
        assert!((3..=14).contains(&woken), "{woken}");
        assert!(wakes.may_wake((7, 1_001), began), "it has moved");
        assert!(wakes.may_wake((8, 1_000), began), "it is another one");
    }
}
