//! Whether a master takes writes, tried on the connection of its probe: a look, which writes nothing, and a write that is undone.
//! Also who holds up its apply worker. All of it must be short, since the probe's next question waits for it.

use crate::cluster::NodeId;
use crate::limits;
use crate::pg::{explain, is_of_a_rule, is_of_the_server};
use postgres::{Client, Error};
use std::time::Instant;

/// Looks whether this master could take writes; the refusal, if it is sure to refuse them.
///
/// # Errors
/// What says nothing about that: a lock, a time limit, a connection that broke.
pub fn look(client: &mut Client) -> Result<Option<String>, Error> {
    run(client, include_str!("../sql/look_writes.sql"))
}

/// Tries a write and undoes it; the refusal, if the server has a reason of its own for one.
///
/// # Errors
/// As those of [`look`].
pub fn write(client: &mut Client) -> Result<Option<String>, Error> {
    run(client, include_str!("../sql/try_write.sql"))
}

/// Runs statements in a transaction that is undone, under bounds that the session has not got otherwise.
fn run(client: &mut Client, statements: &str) -> Result<Option<String>, Error> {
    let bound = limits::TRIAL_STATEMENT_MS;
    let tried = client.batch_execute(&format!(
        "BEGIN; SET LOCAL statement_timeout = {bound}; SET LOCAL work_mem = '64kB'; {statements}; ROLLBACK"
    ));
    let Err(error) = tried else { return Ok(None) };
    // It has left its transaction open. If that cannot be ended, the next question finds out why.
    let _ = client.batch_execute("ROLLBACK");
    let own = error.code();
    match own.is_some_and(|code| is_of_the_server(code) || is_of_a_rule(code)) {
        true => Ok(Some(explain(&error))),
        false => Err(error),
    }
}

/// Follows what holds up the apply worker of one master.
#[derive(Debug, Default)]
pub struct Blocked {
    looked: Option<Instant>,
    since: Option<Instant>,
    text: Option<String>,
}

impl Blocked {
    /// Who has held it up for [`limits::BLOCKED_AFTER`], and what to do about it.
    pub fn look(&mut self, client: &mut Client, node: NodeId) -> Option<String> {
        let now = Instant::now();
        let fresh = |at: Instant| now.duration_since(at) < limits::BLOCKED_LOOK;
        if !self.looked.is_some_and(fresh) {
            self.looked = Some(now);
            self.text = blockers(client, node).unwrap_or_else(|error| {
                log::debug!("look for what blocks {node}: {}", explain(&error));
                None
            });
            self.since = self.text.as_ref().map(|_| self.since.unwrap_or(now));
        }
        let since = self.since?;
        let lasts = now.duration_since(since) >= limits::BLOCKED_AFTER;
        self.text.clone().filter(|_| lasts)
    }
}

fn blockers(client: &mut Client, node: NodeId) -> Result<Option<String>, Error> {
    let rows = client.query(
        include_str!("../sql/apply_blockers.sql"),
        &[
            &node.subscription(),
            &limits::BLOCKERS_SHOWN,
            &limits::BLOCKER_QUERY_SHOWN,
        ],
    )?;
    let (mut who, mut cures) = (Vec::new(), Vec::new());
    for row in &rows {
        who.push(row.try_get::<_, String>(0)?);
        cures.push(row.try_get::<_, String>(1)?);
    }
    Ok((!who.is_empty()).then(|| {
        format!(
            "what {} sends waits for a lock here, held by {}; end it there: {}",
            node.peer(),
            who.join(" and by "),
            cures.join("; ")
        )
    }))
}
