//! The sessions of a comparison: one per master, never those of the API, with settings under which a
//! row has the same text on both masters.

use crate::cluster::NodeId;
use crate::config::Config;
use crate::limits;
use crate::pg::{self, Call, CallError, Session, Sessions, Settings};
use anyhow::Context;
use std::time::{Duration, Instant};

/// What decides how values look as text, and how gently they are read. A master's own configuration
/// could say something else on each side.
const SETTINGS: &[&str] = &[
    "datestyle=ISO,YMD",
    "timezone=UTC",
    "intervalstyle=postgres",
    "extra_float_digits=1",
    "bytea_output=hex",
    "lc_monetary=C",
    "xmlbinary=base64",
    "quote_all_identifiers=off",
    // Names of types and of what else is shown by name get their schema.
    "search_path=pg_catalog",
    // Rows that a policy hides would look like missing ones; this makes them an error.
    "row_security=off",
    // Compiling a statement costs more than a chunk, and a comparison needs no more than one processor.
    "jit=off",
    "max_parallel_workers_per_gather=0",
    // A commit of ours must not wait for the peer, which may be the one that is missing.
    "synchronous_commit=local",
];

/// One session on each master.
pub struct Masters {
    sessions: [Sessions; 2],
}

impl Masters {
    /// Prepares to reach both masters; connects to neither yet.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn new(config: &Config) -> anyhow::Result<Masters> {
        let open = |node: NodeId| -> anyhow::Result<Sessions> {
            let settings = pg::master_settings(config, node, limits::COMPARE_STATEMENT)?;
            let all = SETTINGS.iter().copied();
            let settings = all
                .fold(settings, Settings::with_option)
                .named("imdb-ha compare");
            Ok(Sessions::start(node, settings, 1)?)
        };
        Ok(Masters {
            sessions: [open(NodeId::Master1)?, open(NodeId::Master2)?],
        })
    }

    /// Forgets connections of before: a master may have been started anew meanwhile.
    pub(super) fn renew(&self) {
        self.sessions.iter().for_each(Sessions::begin_new_life);
    }

    /// Runs `work` on one master, within [`limits::COMPARE_CALL`].
    pub(super) fn run<T: Send + 'static>(
        &self,
        node: NodeId,
        doing: &str,
        work: impl FnOnce(&mut Session) -> Result<T, postgres::Error> + Send + 'static,
    ) -> anyhow::Result<T> {
        self.sessions[node.index()]
            .run(limits::COMPARE_CALL, work)
            .with_context(|| format!("{doing} on {node}"))
    }

    /// Runs what `work` makes for each master on both at once, within [`limits::COMPARE_CALL`].
    pub(super) fn both<T, W>(
        &self,
        doing: &str,
        work: impl Fn(NodeId) -> W,
    ) -> anyhow::Result<[T; 2]>
    where
        T: Send + 'static,
        W: FnOnce(&mut Session) -> Result<T, postgres::Error> + Send + 'static,
    {
        self.both_within(limits::COMPARE_CALL, doing, work)
    }

    /// The same, within another time.
    pub(in crate::replication) fn both_within<T, W>(
        &self,
        patience: Duration,
        doing: &str,
        work: impl Fn(NodeId) -> W,
    ) -> anyhow::Result<[T; 2]>
    where
        T: Send + 'static,
        W: FnOnce(&mut Session) -> Result<T, postgres::Error> + Send + 'static,
    {
        let deadline = Instant::now() + patience;
        let [first, second] =
            NodeId::BOTH.map(|node| self.sessions[node.index()].submit(work(node)));
        let wait = |node: NodeId, call: Result<Call<T>, CallError>| {
            let outcome = call.and_then(|call| match call.reply().recv_deadline(deadline) {
                Ok(result) => result,
                Err(_) => call.give_up(&format!("no answer within {} s", patience.as_secs())),
            });
            outcome.with_context(|| format!("{doing} on {node}"))
        };
        Ok([
            wait(NodeId::Master1, first)?,
            wait(NodeId::Master2, second)?,
        ])
    }
}
