//! How the set-up and the rejoin reach the masters: one session on each, which keeps its lock.

use crate::cluster::NodeId;
use crate::config::Config;
use crate::limits;
use crate::pg::{self, InvalidUrl, Session, Sessions, Settings};
use anyhow::Context;
use std::time::Duration;

/// Sessions for the set-up: one per master.
pub struct Reach {
    sessions: [Sessions; 2],
}

impl Reach {
    /// Prepares to reach both masters; connects to neither yet.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn new(config: &Config) -> anyhow::Result<Reach> {
        Reach::over(|node| pg::master_settings(config, node, limits::SETUP_CALL))
    }

    /// The same for whoever asks the servers himself who they are, before anything else: a set-up, which joins servers that nobody
    /// knows yet, and a rejoin, which puts one in the place of another.
    ///
    /// # Errors
    /// As those of [`Reach::new`].
    pub(super) fn unproven(config: &Config) -> anyhow::Result<Reach> {
        Reach::over(|node| pg::connection_settings(config.master(node), limits::SETUP_CALL))
    }

    fn over(settings: impl Fn(NodeId) -> Result<Settings, InvalidUrl>) -> anyhow::Result<Reach> {
        // Commits of these sessions never wait for the peer: what joins the two must not hang on what is not joined yet.
        let open = |node: NodeId| -> anyhow::Result<Sessions> {
            let settings = pg::without_waiting(settings(node)?);
            Ok(Sessions::start_patient(node, settings)?)
        };
        Ok(Reach {
            sessions: [open(NodeId::Master1)?, open(NodeId::Master2)?],
        })
    }

    /// Runs `work` on one master, within [`limits::SETUP_CALL`].
    ///
    /// # Errors
    /// What was being done, on which master, and the whole cause.
    pub fn run<T: Send + 'static>(
        &self,
        node: NodeId,
        doing: &str,
        work: impl FnOnce(&mut Session) -> Result<T, postgres::Error> + Send + 'static,
    ) -> anyhow::Result<T> {
        self.run_within(limits::SETUP_CALL, node, doing, work)
    }

    /// Runs `work` on one master, and waits for it no longer than `patience`.
    ///
    /// # Errors
    /// As those of [`Reach::run`].
    pub(super) fn run_within<T: Send + 'static>(
        &self,
        patience: Duration,
        node: NodeId,
        doing: &str,
        work: impl FnOnce(&mut Session) -> Result<T, postgres::Error> + Send + 'static,
    ) -> anyhow::Result<T> {
        self.sessions[node.index()]
            .run(patience, work)
            .with_context(|| format!("{doing} on {node}"))
    }
}

/// Readies a session for changes, and says whether it is the only one that makes any: it takes the lock
/// of the set-up, or keeps it. So this comes before each change that may meet a new connection.
pub fn begin(session: &mut Session) -> Result<bool, postgres::Error> {
    // A failing statement is logged by the server with its text, and ours hold passwords. A statement
    // whose program was killed ends within a second and gives the lock back.
    session.client().batch_execute(
        "SET log_statement = 'none'; SET log_min_error_statement = 'panic'; \
         SET log_min_duration_statement = -1; SET client_min_messages = 'warning'; \
         SET client_connection_check_interval = '1s'",
    )?;
    let row = session.client().query_one(
        "SELECT pg_catalog.pg_try_advisory_lock(pg_catalog.hashtext('imdb_ha.setup'))",
        &[],
    )?;
    row.try_get(0)
}
