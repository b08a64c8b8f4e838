//! From a finished data folder beside the masters to both of them holding what is in it. Whatever step it is interrupted at, the same command goes
//! on: before the exchange with a new restore, after it with what is left.

use super::beside::folders;
use super::marker::{self, Marker};
use super::{Servers, order};
use crate::backup::command::{NEVER, Place};
use crate::cluster::NodeId;
use crate::config::Config;
use crate::limits;
use crate::output::say;
use crate::replication::{compare, rejoin};
use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::fcntl::{RenameFlags, renameat2};
use std::path::Path;
use std::time::{Duration, Instant};

/// What it takes to put a restored folder in the place of a master's.
pub struct Cutover<'a> {
    pub place: &'a Place,
    pub config: &'a Config,
    pub servers: &'a dyn Servers,
    pub node: NodeId,
}

impl Cutover<'_> {
    /// Puts the restored folder in the place of the master's, which is kept.
    ///
    /// # Errors
    /// What could not be done, and what state that leaves.
    pub fn exchange(&self, restored: &Path, marker: &Marker) -> anyhow::Result<()> {
        let (node, peer) = (self.node, self.node.peer());
        let again = || {
            format!(
                "{node} has not been exchanged; the same command begins anew, or {} and `imdb-ha rejoin {peer}` leave \
                 everything as it was",
                self.servers.start_by_hand(node)
            )
        };
        self.bring_traffic();
        if self.servers.runs(peer)? {
            rejoin::retire(self.config, peer).with_context(again)?;
            order::wait_unfit(self.config, peer);
        } else {
            say(&format!(
                "{peer}: it does not run, and will be rebuilt once {node} serves"
            ));
        }
        self.servers.stop(node).with_context(again)?;
        let data = self.servers.data(node)?;
        exchange(restored, &data, &marker.kept).with_context(again)?;
        say(&format!(
            "{node}: exchanged; its folder of before is {}",
            marker.kept.display()
        ));
        Ok(())
    }

    /// Moves the traffic to the master that will be exchanged, in order, so that no write is acknowledged by the one that will be
    /// emptied. That it stays where it is costs nothing but such writes.
    fn bring_traffic(&self) {
        let node = self.node;
        let moved = match (rejoin::active(self.config), self.servers.runs(node)) {
            (Ok(active), Ok(true)) if active != node => order::switch(self.config, node, false),
            _ => return,
        };
        match moved {
            Ok(answer) if answer.status == 200 => say(&format!("{node}: has the traffic")),
            Ok(answer) => say(&format!(
                "the API does not move the traffic to {node}: {}; what {} acknowledges from now on is lost",
                answer.reason(),
                node.peer()
            )),
            Err(why) => say(&format!("the API was not asked to move the traffic: {why}")),
        }
    }

    /// Starts the restored master, brings the traffic to it, and rebuilds the other one from it.
    ///
    /// # Errors
    /// What could not be done, and what is left to do.
    pub fn finish(&self) -> anyhow::Result<compare::Report> {
        let (node, peer) = (self.node, self.node.peer());
        if !self.servers.runs(node)? {
            self.servers.start(node).with_context(|| {
                format!("{node} is restored and does not start; the same command goes on from here")
            })?;
            say(&format!("{node}: started on what was restored"));
        }
        self.serve()?;
        let alone = || {
            format!(
                "{node} is restored and serves alone; {peer} is not rebuilt, and `imdb-ha rejoin {peer} --yes` does \
                 it"
            )
        };
        if !self.servers.runs(peer).with_context(alone)? {
            self.servers.start(peer).with_context(alone)?;
            say(&format!("{peer}: started, to be rebuilt"));
        }
        let compared = rejoin::rebuild_retired(self.config, peer).with_context(alone)?;
        let doing = "check the archive of";
        if let Err(failure) = self
            .place
            .run(node, doing, &["check"], limits::BACKUP_STANZA, NEVER)
        {
            say(&format!("ALARM: {failure}"));
        }
        marker::remove(&self.servers.data(node)?)?;
        Ok(compared)
    }

    /// Sees that the API serves from the restored master. It does not by itself, since that has no subscription yet, unless it served from there
    /// before.
    fn serve(&self) -> anyhow::Result<()> {
        let (node, config) = (self.node, self.config);
        let deadline = Instant::now() + limits::RESTORE_SERVE;
        loop {
            let answer = match order::switch(config, node, true) {
                Ok(answer) => answer,
                Err(why) => {
                    say(&format!("the API was not told to serve from {node}: {why}"));
                    return Ok(());
                }
            };
            let code = answer.body["code"].as_str().unwrap_or_default();
            if answer.status == 200 {
                say(&format!("the API serves from {node}"));
                return Ok(());
            }
            // It may not have noticed yet that the master is back.
            let waits = answer.status >= 500 || ["target_down", "handover_busy"].contains(&code);
            if waits && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(100));
                continue;
            }
            bail!(
                "{node} is restored, and the API does not serve from it: {}; ask the API that decides (POST {}), then \
                 run the same command again, which goes on from here",
                answer.reason(),
                order::path(node, true)
            );
        }
    }
}

/// Exchanges the folders, at once where the file system can, so that at no moment the master has none.
fn exchange(restored: &Path, data: &Path, kept: &Path) -> anyhow::Result<()> {
    if !data.exists() {
        return marker::rename(restored, data);
    }
    match renameat2(None, restored, None, data, RenameFlags::RENAME_EXCHANGE) {
        Ok(()) => {
            marker::sync_around(data)?;
            marker::rename(restored, kept)
        }
        Err(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => {
            marker::rename(data, kept)?;
            marker::rename(restored, data)
        }
        Err(error) => Err(error)
            .with_context(|| format!("exchange {} and {}", restored.display(), data.display())),
    }
}

/// Whether an earlier restore to the same state waits to be ended: its note is there, and the other master is still marked as being
/// rebuilt. Without the mark it has ended by other means, and the note is of no use any more.
///
/// # Errors
/// When there is a note, and the other master cannot be asked.
pub fn is_unfinished(cutover: &Cutover, wanted: &Marker) -> anyhow::Result<Option<Marker>> {
    let (node, peer) = (cutover.node, cutover.node.peer());
    let data = cutover.servers.data(node)?;
    let (restored, _) = folders(&data);
    let found = match data.exists() {
        true => marker::read(&data),
        false => marker::read(&restored),
    };
    let same = |found: &Marker| {
        (&found.set, &found.to, found.timeline) == (&wanted.set, &wanted.to, wanted.timeline)
    };
    let Some(found) = found.filter(same) else {
        return Ok(None);
    };
    if !cutover.servers.runs(peer)? {
        bail!(
            "an earlier restore of {node} to {} may not have ended, which only {peer} knows: {} first; \
             nothing was changed",
            found.state,
            cutover.servers.start_by_hand(peer)
        );
    }
    Ok(rejoin::is_marked(cutover.config, peer)?.then_some(found))
}
