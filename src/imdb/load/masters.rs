//! The sessions of a load. What takes long, such as a big index, is waited for as long as its master answers on another connection:
//! no time limit fits both a small and a full set of files, and a frozen master is found out within seconds.

use crate::cluster::NodeId;
use crate::config::Config;
use crate::limits;
use crate::pg::{self, Call, CallError, Session, Sessions};
use anyhow::Context;
use crossbeam_channel::RecvTimeoutError;
use std::time::Duration;

/// The masters that are loaded.
pub struct Masters {
    pub nodes: Vec<NodeId>,
    work: [Sessions; 2],
    beat: [Sessions; 2],
}

impl Masters {
    /// Prepares to reach them; connects to none yet.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn new(config: &Config, nodes: Vec<NodeId>) -> anyhow::Result<Masters> {
        // No statement has a time limit on the server; each is watched from here.
        let open = |node: NodeId, timeout: Duration, size: u32| -> anyhow::Result<Sessions> {
            let settings = pg::master_settings(config, node, timeout)?;
            let settings = pg::without_waiting(settings)
                .with_option("search_path=")
                .with_option("client_connection_check_interval=1s")
                .with_option(&format!(
                    "maintenance_work_mem={}",
                    limits::LOAD_INDEX_MEMORY
                ))
                .with_option("client_min_messages=warning")
                .named("imdb-ha load");
            Ok(Sessions::start_patient_crew(node, settings, size)?)
        };
        let both = |timeout, size| -> anyhow::Result<[Sessions; 2]> {
            Ok([
                open(NodeId::Master1, timeout, size)?,
                open(NodeId::Master2, timeout, size)?,
            ])
        };
        Ok(Masters {
            nodes,
            work: both(Duration::ZERO, limits::LOAD_SESSIONS)?,
            beat: both(limits::LOAD_BEAT, 1)?,
        })
    }

    /// Runs what takes a moment.
    ///
    /// # Errors
    /// What was being done, on which master, and the whole cause.
    pub fn run<T: Send + 'static>(
        &self,
        node: NodeId,
        doing: &str,
        work: impl FnOnce(&mut Session) -> Result<T, postgres::Error> + Send + 'static,
    ) -> anyhow::Result<T> {
        self.work[node.index()]
            .run(limits::LOAD_CALL, work)
            .with_context(|| format!("{doing} on {node}"))
    }

    /// Runs what may take long on all of them at once.
    ///
    /// # Errors
    /// What was being done, on which master, and the whole cause.
    pub fn run_long_on_all<T: Send + 'static>(
        &self,
        doing: &str,
        work: impl Fn(&mut Session) -> Result<T, postgres::Error> + Clone + Send + 'static,
    ) -> anyhow::Result<Vec<T>> {
        let mut calls = Vec::new();
        for node in &self.nodes {
            let call = self.begin(*node, work.clone());
            calls.push((*node, call.with_context(|| format!("{doing} on {node}"))?));
        }
        let outcomes: Vec<anyhow::Result<T>> = calls
            .into_iter()
            .map(|(node, call)| {
                let outcome = self.wait(node, call);
                outcome.with_context(|| format!("{doing} on {node}"))
            })
            .collect();
        outcomes.into_iter().collect()
    }

    /// Begins what may take long.
    ///
    /// # Errors
    /// When too much has been begun.
    pub fn begin<T: Send + 'static>(
        &self,
        node: NodeId,
        work: impl FnOnce(&mut Session) -> Result<T, postgres::Error> + Send + 'static,
    ) -> Result<Call<T>, CallError> {
        self.work[node.index()].submit(work)
    }

    /// Waits for it for as long as its master answers.
    ///
    /// # Errors
    /// Those of the call, or that the master has fallen silent.
    pub fn wait<T: Send + 'static>(&self, node: NodeId, call: Call<T>) -> Result<T, CallError> {
        loop {
            match call.reply().recv_timeout(limits::LOAD_BEAT) {
                Ok(reply) => return reply,
                Err(RecvTimeoutError::Disconnected) => {
                    return call.give_up("the session ended without an answer");
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            if let Err(error) = self.is_alive(node) {
                return call.give_up(&format!("it has fallen silent: {error}"));
            }
        }
    }

    /// Whether a master answers.
    ///
    /// # Errors
    /// Why not.
    pub fn is_alive(&self, node: NodeId) -> Result<(), CallError> {
        let patience = limits::LOAD_BEAT + limits::SETUP_CONNECT;
        self.beat[node.index()].run(patience, |session| session.query("SELECT", &[]).map(drop))
    }

    /// Forgets the connections to a master that was away.
    pub fn renew(&self, node: NodeId) {
        self.work[node.index()].begin_new_life();
        self.beat[node.index()].begin_new_life();
    }
}
