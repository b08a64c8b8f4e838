//! What a restore needs of the servers on this machine: the masters of the local cluster, stopped, exchanged and started.

use super::layout::{Layout, State, url};
use super::{running, start};
use crate::backup::command::Place;
use crate::backup::restore::Servers;
use crate::cluster::NodeId;
use crate::config::Config;
use crate::programs::Owner;
use crate::server::{Master, ServerState};
use anyhow::{Context, bail};
use std::path::PathBuf;

/// The servers of the local cluster that a configuration means.
pub struct Here<'a> {
    pub config: &'a Config,
}

impl Here<'_> {
    fn master(&self, node: NodeId) -> anyhow::Result<(Master, State)> {
        let layout = Layout::of(self.config)?;
        let state = running(&layout).context(
            "a restore stops, exchanges and starts both masters, which it can where `imdb-ha local up` or `imdb-ha master` \
             runs them, and neither does here; nothing was changed. For servers that something else runs set \
             MASTER1_STOP_COMMAND, MASTER1_START_COMMAND and the same for master2",
        )?;
        Ok((layout.server(node, Owner::find()?), state))
    }
}

impl Servers for Here<'_> {
    fn check(&self, place: &Place) -> anyhow::Result<()> {
        for node in NodeId::BOTH {
            let (master, state) = self.master(node)?;
            let configured = place.option(node, "pg1-path").map(PathBuf::from);
            if configured.as_ref() != Some(&master.data) {
                bail!(
                    "the backups of {node} are those of {}, and the local cluster has it in {}; a restore here \
                     is for a local cluster and its own backups",
                    configured.unwrap_or_default().display(),
                    master.data.display()
                );
            }
            let here = url(state.ports.masters[node.index()], "")?.address();
            let named = self.config.master(node).address();
            let named = named.replace("localhost", "127.0.0.1");
            if here != named {
                bail!(
                    "{}_URL names {named}, and the local cluster has {node} at {here}; a restore here is for a \
                     local cluster",
                    node.name().to_uppercase()
                );
            }
        }
        Ok(())
    }

    fn data(&self, node: NodeId) -> anyhow::Result<PathBuf> {
        Ok(self.master(node)?.0.data)
    }

    fn runs(&self, node: NodeId) -> anyhow::Result<bool> {
        match self.master(node)?.0.state() {
            ServerState::Up => Ok(true),
            ServerState::Down => Ok(false),
            ServerState::Frozen => bail!(
                "{node} is frozen, and would come back with what it has now; `imdb-ha local thaw {node}` or \
                 `imdb-ha local kill {node}` first"
            ),
            other => bail!(
                "{node} is {}; try again when it is up or down",
                other.name()
            ),
        }
    }

    fn stop(&self, node: NodeId) -> anyhow::Result<()> {
        self.master(node)?.0.stop()
    }

    fn start(&self, node: NodeId) -> anyhow::Result<()> {
        let (master, state) = self.master(node)?;
        start(self.config, &master, &state)
    }

    fn start_by_hand(&self, node: NodeId) -> String {
        format!("`imdb-ha local start {node}`")
    }
}
