//! The seat of whoever decides, on one master: a session of its own that tells the master the term, and holds a lock there for as
//! long as it lives. So a process that dies gives it back by itself, and one that says nothing for too long loses it.

use super::Shared;
use crate::cluster::{NodeId, Stance};
use crate::limits;
use crate::pg::{Settings, explain};
use crate::quiet::Quiet;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use postgres::error::SqlState;
use postgres::{Client, Error};
use std::sync::Arc;

/// The locks' numbers, as sql/mandate.sql has them: of whoever decides, and of an order that is being carried out.
const SEAT: i64 = 1;
const ORDER: i64 = 2;

const TAKE: &str = "SELECT vigente, guardado FROM imdb_ha.tomar_mandato($1, $2, $3, $4, $5)";
const NEWEST: &str = "SELECT coalesce(max(termino), 0) FROM imdb_ha.mandato";
const LOCK: &str = "SELECT pg_catalog.pg_try_advisory_lock(1229800514, 1)";
const UNLOCK: &str = "SELECT pg_catalog.pg_advisory_unlock(1229800514, 1)";

/// The thread's own side of one seat.
pub(super) struct Seat {
    node: NodeId,
    settings: Settings,
    shared: Arc<Shared>,
    client: Option<Client>,
    locked: bool,
    /// Whoever was found to hold the lock in silence at the last look. A server that has just thawed has not heard it yet.
    silent: Option<i32>,
    quiet: Quiet,
}

impl Seat {
    pub(super) fn new(node: NodeId, settings: Settings, shared: Arc<Shared>) -> Seat {
        Seat {
            node,
            settings,
            shared,
            client: None,
            locked: false,
            silent: None,
            quiet: Quiet::default(),
        }
    }

    /// Does what the deciding thread wants, again and again. It may hang for as long as its master is frozen: what it held counts
    /// for a while only.
    pub(super) fn keep(&mut self, woken: &Receiver<()>) {
        loop {
            self.turn(self.shared.stance(self.node));
            match woken.recv_timeout(limits::SEAT_INTERVAL) {
                Ok(()) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn turn(&mut self, stance: Stance) {
        let asked_ms = self.shared.board.now_ms();
        let done = match stance {
            Stance::Leave => self.give_back(),
            Stance::Try => self.take(None),
            Stance::Hold { term, by_right } => self.take(Some((term, by_right))),
        };
        match done {
            Ok(newest) => {
                self.quiet.clear();
                let held = self.locked.then_some(asked_ms);
                self.shared.tell_seat(self.node, held, Some(newest));
            }
            Err(error) => {
                self.hang_up();
                self.shared.tell_seat(self.node, None, None);
                if self.quiet.admit(&error).is_some() {
                    log::debug!("keep the seat on {}: {error}", self.node);
                }
            }
        }
    }

    fn hang_up(&mut self) {
        self.locked = false;
        self.silent = None;
        drop(self.client.take());
    }

    /// Gives the lock back. The session stays, because whoever takes the lease has little time to tell the masters.
    fn give_back(&mut self) -> Result<u64, String> {
        self.silent = None;
        self.connect()?;
        if std::mem::take(&mut self.locked) {
            let ended = self.client()?.batch_execute(UNLOCK);
            ended.map_err(|error| explain(&error))?;
        }
        self.newest()
    }

    fn connect(&mut self) -> Result<(), String> {
        if self.client.is_none() {
            self.locked = false;
            let client = self.settings.connect().map_err(|error| error.to_string())?;
            self.client = Some(client);
        }
        Ok(())
    }

    /// Takes the lock, and tells the master the term, if there is one: who comes by right does that first, so that nobody else is
    /// heard from then on. Returns the newest term there.
    fn take(&mut self, word: Option<(u64, bool)>) -> Result<u64, String> {
        self.connect()?;
        let by_right = word.is_some_and(|(_, by_right)| by_right);
        let mut newest = None;
        if let Some((term, true)) = word {
            newest = Some(self.tell_term(term)?);
            if newest > Some(term) {
                return self.give_back();
            }
        }
        if !self.locked {
            self.locked = self.lock(by_right)?;
        }
        match (newest, word) {
            (Some(newest), _) => Ok(newest),
            (None, Some((term, _))) if self.locked => self.tell_term(term),
            _ => self.newest(),
        }
    }

    fn client(&mut self) -> Result<&mut Client, String> {
        self.client
            .as_mut()
            .ok_or_else(|| "not connected".to_string())
    }

    /// Has the lock, if nobody else has it. Who comes by right ends the session that has it, and so does anybody when that has said
    /// nothing for long: its process stands still, or its machine is gone.
    fn lock(&mut self, by_right: bool) -> Result<bool, String> {
        let row = self.client()?.query_one(LOCK, &[]);
        let got = row.and_then(|row| row.try_get(0));
        if got.map_err(|error| explain(&error))? {
            return Ok(true);
        }
        let patience = match by_right {
            true => 0,
            false => limits::SEAT_SILENCE_MS,
        };
        self.end_holder(SEAT, patience, by_right)?;
        Ok(false)
    }

    /// Ends the session that holds a lock in silence for so long, seen at two looks unless it is `at_once`.
    fn end_holder(&mut self, lock: i64, patience_ms: u64, at_once: bool) -> Result<(), String> {
        let rows = self
            .client()?
            .query(include_str!("../../sql/lock_holders.sql"), &[&lock]);
        let rows = rows.map_err(|error| explain(&error))?;
        let read = |row: &postgres::Row| -> Result<(i32, i64, bool), Error> {
            Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))
        };
        let before = self.silent.take();
        for row in &rows {
            let (pid, silent_ms, idle) = read(row).map_err(|error| explain(&error))?;
            if !idle && lock == ORDER || silent_ms < patience_ms as i64 {
                continue;
            }
            self.silent = Some(pid);
            if at_once || before == Some(pid) {
                log::info!(
                    "{}: ended the session {pid} of a process that decided, silent for {silent_ms} ms",
                    self.node
                );
                let ended = self
                    .client()?
                    .execute("SELECT pg_catalog.pg_terminate_backend($1)", &[&pid]);
                ended.map_err(|error| explain(&error))?;
            }
        }
        Ok(())
    }

    /// Tells the master who decides and where it serves from, and returns the newest term there. A master that has not been set up
    /// keeps no terms.
    fn tell_term(&mut self, term: u64) -> Result<u64, String> {
        let view = self.shared.board.look().0;
        let now_ms = self.shared.board.now_ms();
        let active = view.serving.then(|| view.active.name());
        let paused = view
            .paused_until_ms
            .map(|until| until.saturating_sub(now_ms) as i64);
        let (holder, address) = (self.shared.holder.clone(), self.shared.address.clone());
        let told = self
            .client()?
            .query_one(TAKE, &[&(term as i64), &holder, &address, &active, &paused])
            .and_then(|row| Ok((row.try_get::<_, i64>(0)?, row.try_get::<_, bool>(1)?)));
        match told {
            Ok((newest, kept)) => {
                if !kept && newest <= term as i64 {
                    log::debug!("{} cannot keep who decides", self.node);
                }
                Ok(newest.max(0) as u64)
            }
            Err(error) if is_not_set_up(&error) => Ok(0),
            // An order of the one who decided before is being carried out, or its process stands still in the middle of that.
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                self.end_holder(ORDER, limits::ORDER_SILENCE_MS, true)?;
                Err(explain(&error))
            }
            Err(error) => Err(explain(&error)),
        }
    }

    fn newest(&mut self) -> Result<u64, String> {
        let row = self.client()?.query_one(NEWEST, &[]);
        match row.and_then(|row| row.try_get::<_, i64>(0)) {
            Ok(newest) => Ok(newest.max(0) as u64),
            Err(error) if is_not_set_up(&error) => Ok(0),
            Err(error) => Err(explain(&error)),
        }
    }
}

/// Whether the master lacks what the set-up makes.
fn is_not_set_up(error: &Error) -> bool {
    let missing = [
        SqlState::UNDEFINED_TABLE,
        SqlState::UNDEFINED_FUNCTION,
        SqlState::UNDEFINED_OBJECT,
        SqlState::INVALID_SCHEMA_NAME,
    ];
    error.code().is_some_and(|code| missing.contains(code))
}
