//! One r2d2 pool per master, hardened against a frozen server. With the stock manager `pool.get()`
//! and even the drop of a client block without limit on a server under SIGSTOP (measured: still
//! blocked after 6 s with every timeout set). Here a connection is not asked whether it is valid
//! when it is taken, and dead clients are dropped by one thread whose only job that is.

use super::settings::{ConnectError, Settings};
use crate::cluster::NodeId;
use crate::limits;
use crossbeam_channel::Sender;
use postgres::types::ToSql;
use postgres::{Client, NoTls, Row, Statement};
use r2d2::{CustomizeConnection, HandleError, ManageConnection, Pool};
use r2d2_postgres::PostgresConnectionManager;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A connection with the statements that it has prepared.
pub struct Session {
    client: Client,
    statements: HashMap<String, Statement>,
    /// Which life of the master this connection belongs to.
    life: u64,
    discard: bool,
}

impl Session {
    /// Runs a statement, prepared once per connection and kept for as long: `sql` is one of few texts, without values in it.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn query(
        &mut self,
        sql: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, postgres::Error> {
        let statement = match self.statements.get(sql) {
            Some(statement) => statement.clone(),
            None => {
                let statement = self.client.prepare(sql)?;
                self.statements.insert(sql.to_string(), statement.clone());
                statement
            }
        };
        self.client.query(&statement, values)
    }

    /// The driver's own client, for what is not one prepared statement.
    pub fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    pub(super) fn life(&self) -> u64 {
        self.life
    }

    /// Makes the pool drop this connection when it is returned.
    pub(super) fn discard(&mut self) {
        self.discard = true;
    }
}

/// Makes [`Session`]s; everything that r2d2 may call on a living master's connection is bounded.
pub(super) struct SessionManager {
    settings: Settings,
    /// Connects to nothing, since it knows no way over TLS; it tells a broken client.
    inner: PostgresConnectionManager<NoTls>,
    life: Arc<AtomicU64>,
}

impl ManageConnection for SessionManager {
    type Connection = Session;
    type Error = ConnectError;

    fn connect(&self) -> Result<Session, ConnectError> {
        // Read before connecting: a connection begun in an earlier life must not pass for a new one.
        let life = self.life.load(Ordering::SeqCst);
        let client = self.settings.connect()?;
        Ok(Session {
            client,
            statements: HashMap::new(),
            life,
            discard: false,
        })
    }

    fn is_valid(&self, session: &mut Session) -> Result<(), ConnectError> {
        let patience = Duration::from_millis(limits::SUSPECT_AFTER_MS);
        Ok(session.client.is_valid(patience)?)
    }

    fn has_broken(&self, session: &mut Session) -> bool {
        session.discard || self.inner.has_broken(&mut session.client)
    }
}

/// Hands every client that leaves the pool to the reaper: dropping one waits for its pending
/// answer, which a frozen server never gives.
#[derive(Debug)]
struct ToReaper(Sender<Session>);

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("life", &self.life)
            .finish_non_exhaustive()
    }
}

impl CustomizeConnection<Session, ConnectError> for ToReaper {
    fn on_release(&self, session: Session) {
        // Without a reaper the process is ending, and then leaking the client beats waiting for it.
        if let Err(unsent) = self.0.send(session) {
            std::mem::forget(unsent.into_inner());
        }
    }
}

/// The probes and the state machine report an unreachable master once; r2d2 would for each attempt.
#[derive(Debug)]
struct Quiet(NodeId);

impl HandleError<ConnectError> for Quiet {
    fn handle_error(&self, error: ConnectError) {
        log::debug!("pool of {}: {error}", self.0);
    }
}

/// Builds the pool of one master, without connecting yet, and starts its reaper.
pub(super) fn build(
    node: NodeId,
    settings: Settings,
    size: u32,
    wait: Duration,
    life: Arc<AtomicU64>,
) -> std::io::Result<Pool<SessionManager>> {
    // Unbounded in type, bounded in fact: a pool holds `size` connections, and while the master is
    // frozen no new one comes to be.
    let (to_reaper, dead) = crossbeam_channel::unbounded::<Session>();
    std::thread::Builder::new()
        .name(format!("pg-reaper-{node}"))
        .spawn(move || {
            for session in dead {
                drop(session);
            }
        })?;
    let manager = SessionManager {
        inner: PostgresConnectionManager::new(settings.driver().clone(), NoTls),
        settings,
        life,
    };
    Ok(Pool::builder()
        .max_size(size)
        .min_idle(Some(0))
        .test_on_check_out(false)
        .connection_timeout(wait)
        // A session may hold a lock for whoever it works for, however long that is busy elsewhere; r2d2 would end it after 10 minutes of
        // idleness, or 30 of life.
        .idle_timeout(None)
        .max_lifetime(None)
        .connection_customizer(Box::new(ToReaper(to_reaper)))
        .error_handler(Box::new(Quiet(node)))
        .build_unchecked(manager))
}
