//! Looks every few seconds whether somebody has changed, on one of the masters, what the replication rests on. One thread with one session per master; it changes
//! nothing.

use crate::board::Board;
use crate::cluster::{NodeId, NodeState};
use crate::config::Config;
use crate::limits;
use crate::pg::{self, Sessions};
use crate::quiet::Quiet;
use crate::replication::drift::{self, Seen};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A handle on the watch.
#[derive(Clone)]
pub struct Watch {
    told: Arc<Mutex<Vec<String>>>,
}

/// Starts the thread; it connects to nothing before its first look.
///
/// # Errors
/// When a thread cannot be started.
pub fn start(config: &Config, board: Arc<Board>) -> anyhow::Result<Watch> {
    let open = |node: NodeId| -> anyhow::Result<Sessions> {
        let settings = pg::connection_settings(config.master(node), limits::DRIFT_STATEMENT)?;
        Ok(Sessions::start_patient(
            node,
            settings.named("imdb-ha watch"),
        )?)
    };
    let sessions = [open(NodeId::Master1)?, open(NodeId::Master2)?];
    let watch = Watch {
        told: Arc::default(),
    };
    let of_thread = watch.clone();
    std::thread::Builder::new()
        .name("watch".to_string())
        .spawn(move || {
            let (mut drift, quiet) = (Drift::default(), Quiet::default());
            loop {
                std::thread::sleep(limits::DRIFT_INTERVAL);
                let seen = NodeId::BOTH.map(|node| look(node, &sessions, &board, &quiet));
                if let Some(alarms) = drift.next(&seen) {
                    *of_thread.lock() = alarms;
                }
            }
        })?;
    Ok(watch)
}

impl Watch {
    /// What a person has to look at.
    pub fn alarms(&self) -> Vec<String> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks a master, unless it is down.
fn look(node: NodeId, sessions: &[Sessions; 2], board: &Board, quiet: &Quiet) -> Option<Seen> {
    if board.look().0.node(node).state == NodeState::Down {
        return None;
    }
    let asked = sessions[node.index()].run(limits::DRIFT_CALL, move |session| {
        drift::read(session.client(), node)
    });
    match asked {
        Ok(seen) => Some(seen),
        Err(error) => {
            let text = format!("look for what has changed on {node}: {error}");
            if let Some(before) = quiet.admit(&text) {
                log::warn!("{text} ({before} more like the last one)");
            }
            None
        }
    }
}

/// What is told of one look after the other.
#[derive(Default)]
struct Drift {
    found: Vec<String>,
    told: Vec<String>,
}

impl Drift {
    /// Takes in a look and returns the alarms, unless they are what they were: those that the look before has found too, since what is changed
    /// on both masters is changed on one of them first. While somebody changes the replication nothing can be said.
    fn next(&mut self, seen: &[Option<Seen>; 2]) -> Option<Vec<String>> {
        let changing = |seen: &Option<Seen>| seen.as_ref().is_some_and(|seen| seen.changing);
        if seen.iter().any(changing) {
            return None;
        }
        let found = drift::alarms([seen[0].as_ref(), seen[1].as_ref()]);
        let mut lasting = found.clone();
        lasting.retain(|alarm| self.found.contains(alarm) || self.told.contains(alarm));
        self.found = found;
        if lasting == self.told {
            return None;
        }
        for alarm in lasting.iter().filter(|alarm| !self.told.contains(alarm)) {
            log::warn!("ALARM: {alarm}");
        }
        for alarm in self.told.iter().filter(|alarm| !lasting.contains(alarm)) {
            log::info!("no alarm any more: {alarm}");
        }
        self.told.clone_from(&lasting);
        Some(lasting)
    }
}
