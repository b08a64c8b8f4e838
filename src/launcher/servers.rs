//! What a restore needs of masters that launchers run, in containers of their own or not: it holds them down by a lock in their folders, which
//! it must see.

use super::home::{Hold, Home, Saying};
use crate::backup::command::Place;
use crate::backup::restore::{Servers, system_at};
use crate::cluster::NodeId;
use crate::config::Config;
use crate::limits;
use crate::server::archive::system_of;
use anyhow::{Context, bail};
use std::cell::RefCell;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The servers whose folders the configuration of the backups names.
pub struct Launched<'a> {
    config: &'a Config,
    place: &'a Place,
    /// Who is held down by us.
    holds: RefCell<[Option<Hold>; 2]>,
}

impl<'a> Launched<'a> {
    /// These servers, if launchers run them.
    pub fn find(config: &'a Config, place: &'a Place) -> Option<Launched<'a>> {
        let found = Launched {
            config,
            place,
            holds: RefCell::new([None, None]),
        };
        let one = |node| found.home(node).is_ok_and(|home| home.is_one());
        NodeId::BOTH.into_iter().any(one).then_some(found)
    }

    fn home(&self, node: NodeId) -> anyhow::Result<Home> {
        Ok(Home::around(&self.data(node)?))
    }

    /// Waits until the launcher says so.
    fn wait(&self, node: NodeId, for_what: Saying, patience: Duration) -> anyhow::Result<()> {
        let home = self.home(node)?;
        let deadline = Instant::now() + patience;
        loop {
            let said = home.asked()?;
            match said {
                // Without a launcher it is down, and stays so while it is held.
                None if for_what == Saying::Held => return Ok(()),
                Some(saying) if saying == for_what => return Ok(()),
                _ => {}
            }
            if Instant::now() >= deadline {
                let said = said.map_or("not running", Saying::name);
                bail!(
                    "{node} is not {} after {} s: its launcher (`imdb-ha master {node}`, or the container \
                     imdb-{node}) is {said}",
                    for_what.name(),
                    patience.as_secs()
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Whether the server of the data folder answers all the same, though no launcher runs: outside a container it outlives one that is killed.
    fn is_orphan(&self, node: NodeId) -> anyhow::Result<bool> {
        let data = self.data(node)?;
        if !data.join("global/pg_control").exists() {
            return Ok(false);
        }
        let own = system_of(&data)?;
        Ok(system_at(self.config, node).is_ok_and(|answers| answers == own))
    }
}

impl Servers for Launched<'_> {
    fn check(&self, _place: &Place) -> anyhow::Result<()> {
        for node in NodeId::BOTH {
            let data = self.data(node)?;
            if !self.home(node)?.is_one() {
                bail!(
                    "{} is not the folder of a master that `imdb-ha master {node}` runs; a restore must stop both \
                     masters and reach their files",
                    self.home(node)?.folder().display()
                );
            }
            if self.runs(node)? && system_at(self.config, node)? != system_of(&data)? {
                bail!(
                    "{}_URL names another server than the one in {}",
                    node.name().to_uppercase(),
                    data.display()
                );
            }
        }
        Ok(())
    }

    fn data(&self, node: NodeId) -> anyhow::Result<PathBuf> {
        let path = self.place.option(node, "pg1-path").map(PathBuf::from);
        path.with_context(|| format!("pgbackrest.conf of {node} has no pg1-path"))
    }

    fn runs(&self, node: NodeId) -> anyhow::Result<bool> {
        match self.home(node)?.asked()? {
            None if self.is_orphan(node)? => bail!(
                "{node} runs without its launcher, and would go on with what it has now; start `imdb-ha master {node}` first"
            ),
            None | Some(Saying::Held) => return Ok(false),
            Some(Saying::Starting) => self.wait(node, Saying::Up, limits::SERVER_START)?,
            Some(Saying::Up) => {}
        }
        system_at(self.config, node).with_context(|| {
            format!(
                "{node} runs and does not answer; a frozen one would come back with what it has now: let it go on \
                 (docker unpause imdb-{node}) or stop it first"
            )
        })?;
        Ok(true)
    }

    fn stop(&self, node: NodeId) -> anyhow::Result<()> {
        let hold = self.home(node)?.hold()?;
        self.holds.borrow_mut()[node.index()] = Some(hold);
        let patience = limits::LAUNCHER_STOP + limits::SERVER_STOP_IMMEDIATE;
        self.wait(node, Saying::Held, patience + limits::LAUNCHED_ASK)
    }

    fn start(&self, node: NodeId) -> anyhow::Result<()> {
        self.holds.borrow_mut()[node.index()] = None;
        let patience = limits::SERVER_MAKE + limits::SERVER_START;
        self.wait(node, Saying::Up, patience)
    }

    fn start_by_hand(&self, node: NodeId) -> String {
        format!("the start of {node}, which happens by itself when this command has ended,")
    }
}
