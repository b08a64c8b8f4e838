//! The hands of the durability: tells a master whether its commits wait for its peer. The sessions here
//! are the supervisor's own, one per master, because those of the requests may all be waiting for the
//! very order that is to free them; and their own commits wait for nobody.

use crate::cluster::NodeId;
use crate::limits;
use crate::pg::{Session, Sessions, explain};
use crate::quiet::Quiet;
use crate::replication::status::standby_names;
use crossbeam_channel::Sender;
use postgres::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The supervisor's sessions on both masters.
pub struct Standby {
    sessions: [Sessions; 2],
    /// What each master is to do. An order that was given to a frozen master is carried out when it
    /// thaws, so it must go by what holds then.
    wanted: [Arc<AtomicBool>; 2],
    /// Whether the apply worker of each is to wait for its disk, likewise.
    strict: [Arc<AtomicBool>; 2],
    /// Wakes the probe of each master.
    probes: [Sender<()>; 2],
    quiet: Arc<Quiet>,
}

impl Standby {
    pub fn new(sessions: [Sessions; 2], probes: [Sender<()>; 2]) -> Standby {
        Standby {
            sessions,
            wanted: Default::default(),
            strict: Default::default(),
            probes,
            quiet: Arc::default(),
        }
    }

    /// Makes commits on `node` wait until its peer has them, or no longer. Nobody waits for it: what
    /// came of it is seen by the next probe, which is woken for it.
    pub fn order(&self, node: NodeId, wait: bool) {
        let wanted = Arc::clone(&self.wanted[node.index()]);
        wanted.store(wait, Ordering::SeqCst);
        let probe = self.probes[node.index()].clone();
        let quiet = Arc::clone(&self.quiet);
        self.submit(node, "change synchronous_standby_names", move |session| {
            let names = match wanted.load(Ordering::SeqCst) {
                true => standby_names(node),
                false => String::new(),
            };
            let changed = set_standby_names(session, &names);
            if let Err(error) = &changed {
                let text = format!(
                    "change synchronous_standby_names of {node}: {}",
                    explain(error)
                );
                if quiet.admit(&text).is_some() {
                    log::error!("{text}");
                }
            }
            let _ = probe.try_send(());
            changed
        });
    }

    /// Ends the waiting of each commit by itself. It is done here and acknowledged, as it would have been
    /// had the order reached it.
    pub fn free_commits(&self, node: NodeId) {
        self.submit(node, "free the commits", move |session| {
            let freed = session.query(include_str!("../sql/free_commits.sql"), &[])?;
            log::warn!(
                "{node}: {} commits waited on after the order to wait for nobody and were freed one by one",
                freed.len()
            );
            Ok(())
        });
    }

    /// Makes the apply worker of `node` wait for its disk at each transaction, or not. It takes that up at
    /// its next transaction, without a restart.
    pub fn apply(&self, node: NodeId, strict: bool) {
        let wanted = Arc::clone(&self.strict[node.index()]);
        wanted.store(strict, Ordering::SeqCst);
        let probe = self.probes[node.index()].clone();
        let quiet = Arc::clone(&self.quiet);
        self.submit(node, "change the subscription", move |session| {
            let commit = match wanted.load(Ordering::SeqCst) {
                true => "local",
                false => "off",
            };
            let name = node.subscription();
            let changed = session.client().batch_execute(&format!(
                "ALTER SUBSCRIPTION {name} SET (synchronous_commit = '{commit}')"
            ));
            if let Err(error) = &changed {
                let text = format!("change {name} of {node}: {}", explain(error));
                if quiet.admit(&text).is_some() {
                    log::error!("{text}");
                }
            }
            let _ = probe.try_send(());
            changed
        });
    }

    /// Drops connections that were made before the master was away.
    pub fn begin_new_life(&self, node: NodeId) {
        self.sessions[node.index()].begin_new_life();
    }

    /// Moves the sequences past the rows that arrived meanwhile. Nobody waits for it: an id that is
    /// drawn too early is taken, which the insert notices and draws again.
    pub fn align_sequences(&self, node: NodeId) {
        self.submit(node, "align the sequences", move |session| {
            let aligned = session.query(include_str!("../sql/align_sequences.sql"), &[]);
            if let Err(error) = &aligned {
                log::warn!("align the sequences of {node}: {}", explain(error));
            }
            aligned.map(drop)
        });
    }

    /// Ends an apply worker that waits in the middle of a transaction for a master that is gone: until
    /// it notices by itself, after `wal_receiver_timeout`, the rows of that transaction are locked, and a
    /// request that was under way wants to insert those very rows. What has arrived whole is applied
    /// first; the rest comes again when the master is back.
    pub fn release_apply(&self, node: NodeId) {
        self.submit(node, "look after the apply worker", move |session| {
            for _ in 0..limits::RELEASE_LOOKS {
                let busy = session.query(
                    include_str!("../sql/release_apply.sql"),
                    &[&node.subscription()],
                );
                match busy {
                    Ok(rows) if rows.is_empty() => return Ok(()),
                    Ok(rows) if matches!(rows[0].try_get(0), Ok(Some(true))) => {
                        log::info!("{node}: ended an apply worker in the middle of a transaction");
                        return Ok(());
                    }
                    Ok(_) => std::thread::sleep(limits::RELEASE_PAUSE),
                    Err(error) => {
                        log::warn!("end the apply worker of {node}: {}", explain(&error));
                        return Err(error);
                    }
                }
            }
            Ok(())
        });
    }

    fn submit(
        &self,
        node: NodeId,
        doing: &str,
        work: impl FnOnce(&mut Session) -> Result<(), Error> + Send + 'static,
    ) {
        if let Err(error) = self.sessions[node.index()].submit(work) {
            log::warn!("{doing} of {node}: {error}");
        }
    }
}

/// ALTER SYSTEM takes no parameters and no company in one statement; the names are our own words.
fn set_standby_names(session: &mut Session, names: &str) -> Result<(), Error> {
    let client = session.client();
    client.batch_execute(&format!(
        "ALTER SYSTEM SET synchronous_standby_names = '{names}'"
    ))?;
    client.batch_execute("SELECT pg_catalog.pg_reload_conf()")
}
