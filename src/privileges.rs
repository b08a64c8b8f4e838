//! Whether the role in the masters' URLs may do what this program does with it. A missing privilege else shows much later, as a failure of
//! whatever needs it, or not at all.

use crate::cluster::NodeId;
use crate::config::Config;
use crate::limits;
use crate::pg::{self, Session, Sessions};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const MISSING: &str = include_str!("../sql/privileges.sql");

/// What is missing on each master, as far as it is known.
#[derive(Clone, Default)]
pub struct Privileges(Arc<Mutex<[Option<String>; 2]>>);

/// Starts the thread that asks the masters, soon after the start and then now and then.
///
/// # Errors
/// When a thread cannot be started.
pub fn start(config: &Config) -> anyhow::Result<Privileges> {
    let patience = Duration::from_millis(limits::STATEMENT_TIMEOUT_MS);
    let open = |node: NodeId| -> anyhow::Result<(NodeId, String, Sessions)> {
        let url = config.master(node);
        let settings = pg::connection_settings(url, patience)?;
        let sessions = Sessions::start(node, pg::without_waiting(settings), 1)?;
        Ok((node, url.user(), sessions))
    };
    let masters = [open(NodeId::Master1)?, open(NodeId::Master2)?];
    let backups = config.backups.folder.is_some();
    let known = Privileges::default();
    let of_thread = known.clone();
    std::thread::Builder::new()
        .name("privileges".to_string())
        .spawn(move || {
            loop {
                for (node, user, sessions) in &masters {
                    // One that does not answer is told elsewhere.
                    if let Ok(found) = ask(sessions, backups) {
                        of_thread.keep(*node, found.map(|found| sentence(user, &found)));
                    }
                }
                std::thread::sleep(limits::PRIVILEGES_AGAIN);
            }
        })?;
    Ok(known)
}

/// The missing privileges, each with what needs it, and the roles that have them; nothing when none is missing.
fn ask(sessions: &Sessions, backups: bool) -> Result<Option<Vec<[String; 3]>>, pg::CallError> {
    let read = move |session: &mut Session| {
        let rows = session.query(MISSING, &[&backups])?;
        let of = |row: &postgres::Row| Ok([row.try_get(0)?, row.try_get(1)?, row.try_get(2)?]);
        rows.iter().map(of).collect::<Result<Vec<_>, _>>()
    };
    let found = sessions.run(limits::PRIVILEGES_ASK, read)?;
    Ok((!found.is_empty()).then_some(found))
}

fn sentence(user: &str, missing: &[[String; 3]]) -> String {
    let each = missing
        .iter()
        .map(|[privilege, purpose, _]| format!("{privilege} (for {purpose})"));
    let each: Vec<String> = each.collect();
    let mut roles: Vec<&str> = missing.iter().map(|[_, _, role]| role.as_str()).collect();
    roles.dedup();
    format!(
        "the role {user} lacks {}; as a superuser: GRANT {} TO {user}; `imdb-ha replication setup` makes these roles",
        each.join(", "),
        roles.join(", ")
    )
}

impl Privileges {
    fn all(&self) -> MutexGuard<'_, [Option<String>; 2]> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what was found, and tells what is new.
    fn keep(&self, node: NodeId, found: Option<String>) {
        let before = std::mem::replace(&mut self.all()[node.index()], found.clone());
        match (&before, &found) {
            (_, Some(text)) if before != found => log::error!("ALARM: {node}: {text}"),
            (Some(_), None) => log::info!("{node}: no privilege is missing any more"),
            _ => {}
        }
    }

    /// What a person has to look at, a sentence for each master.
    pub fn alarms(&self) -> Vec<String> {
        let all = self.all();
        let of_node = |node: NodeId| {
            let text = all[node.index()].as_ref()?;
            Some(format!("{node}: {text}"))
        };
        NodeId::BOTH.into_iter().filter_map(of_node).collect()
    }
}
