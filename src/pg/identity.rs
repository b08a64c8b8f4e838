//! Who answers at a master's address: asked on every new connection, before anything is read or changed there.

use super::settings::{ConnectError, Settings, master_settings};
use crate::cluster::NodeId;
use crate::cluster::identity::{Known, Record, Said, Verdict};
use crate::config::Config;
use crate::limits;
use postgres::{Client, Row};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What this process knows of the masters' identities; all its connections go by it.
#[derive(Debug)]
pub struct Roster(Mutex<Known>);

impl Roster {
    /// With the cluster's id, if that is configured.
    pub fn new(cluster: Option<String>) -> Roster {
        Roster(Mutex::new(Known::new(cluster)))
    }

    /// The cluster's id, once it is known.
    pub fn cluster(&self) -> Option<String> {
        self.known().cluster().map(str::to_string)
    }

    /// Asks both masters, and returns what is known of them then, as far as it is a whole record.
    pub fn ask_all(&self, config: &Config) -> Option<Record> {
        let known = self.known().record();
        if known.is_some() {
            return known;
        }
        let asked = NodeId::BOTH.map(|node| {
            let settings = master_settings(config, node, limits::WHO_ASK).ok()?;
            let (reply, answer) = crossbeam_channel::bounded(1);
            let asking = std::thread::Builder::new().name(format!("who-{node}"));
            let started = asking.spawn(move || drop(reply.send(settings.connect().map(drop))));
            started.ok().map(|_| answer)
        });
        // The first connection may ask the other master besides.
        let deadline = Instant::now() + 2 * limits::WHO_ASK;
        for answer in asked.iter().flatten() {
            // Whoever does not answer has nothing to say.
            let _ = answer.recv_deadline(deadline);
        }
        self.known().record()
    }

    /// Takes over which cluster this is.
    pub fn name(&self, cluster: &str) {
        self.known().name(cluster);
    }

    /// Takes over what has just been written down on a master.
    pub fn adopt(&self, record: &Record) {
        self.known().adopt(record);
    }

    /// Judges what has answered at the address of `node`, with what is known by now.
    pub fn judge(&self, node: NodeId, said: &Said) -> Verdict {
        self.known().judge(node, said, true)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Each change of it is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// By whom the connections to one master are judged.
#[derive(Clone)]
pub(super) struct Guard {
    node: NodeId,
    roster: Arc<Roster>,
    /// How its peer is reached, for the first question of all.
    peer: Arc<Settings>,
}

impl Guard {
    pub(super) fn new(node: NodeId, roster: Arc<Roster>, peer: Settings) -> Guard {
        Guard {
            node,
            roster,
            peer: Arc::new(peer),
        }
    }

    /// Sees that a new connection has reached the master that it is for.
    pub(super) fn check(&self, client: &mut Client) -> Result<(), ConnectError> {
        let said = ask(client)?;
        let (node, peer) = (self.node, self.node.peer());
        let verdict = self.roster.known().judge(node, &said, false);
        let verdict = match verdict {
            Verdict::AskOther => {
                let other = self.ask_peer();
                let mut known = self.roster.known();
                match &other {
                    Some(other) => drop(known.judge(peer, other, true)),
                    None => known.forget(peer),
                }
                known.judge(node, &said, true)
            }
            verdict => verdict,
        };
        match verdict {
            Verdict::Stranger(why) => Err(ConnectError::of_stranger(&why)),
            Verdict::Ours | Verdict::AskOther => Ok(()),
        }
    }

    /// What the other master says of itself. On a thread of its own, since connecting to a frozen server may never end.
    fn ask_peer(&self) -> Option<Said> {
        let peer = Arc::clone(&self.peer);
        let (reply, answer) = crossbeam_channel::bounded(1);
        let asking = std::thread::Builder::new().name(format!("who-{}", self.node.peer()));
        let started = asking.spawn(move || {
            let said = peer.connect().and_then(|mut client| Ok(ask(&mut client)?));
            let _ = reply.send(said);
        });
        started.ok()?;
        answer.recv_timeout(limits::WHO_ASK).ok()?.ok()
    }
}

/// Asks a server who it is.
///
/// # Errors
/// Those of the driver.
pub fn ask(client: &mut Client) -> Result<Said, postgres::Error> {
    said(&client.query_one(include_str!("../../sql/identity.sql"), &[])?)
}

/// What a server says of itself, from a row with the columns of `sql/identity.sql`.
///
/// # Errors
/// Those of the driver.
pub fn said(row: &Row) -> Result<Said, postgres::Error> {
    let record: Option<String> = row.try_get("record")?;
    // It is unsigned, and PostgreSQL shows it as if it were not.
    let system: i64 = row.try_get("system")?;
    Ok(Said {
        system: system as u64,
        started: row.try_get("started")?,
        database: row.try_get("database")?,
        record: record.as_deref().and_then(Record::parse),
    })
}
