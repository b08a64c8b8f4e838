//! The steps of a rejoin, each safe to repeat. Their order is in [`Rejoin::rebuild`].

use super::Rejoin;
use super::tables::Table;
use crate::cluster::NodeId;
use crate::limits;
use crate::output::say;
use crate::pg::Session;
use crate::replication::conninfo::{connection_string, try_link};
use crate::replication::plan::{Link, Step, statement};
use crate::replication::reach::begin;
use crate::replication::status;
use anyhow::{Context, bail};
use std::time::{Duration, Instant};

impl Rejoin {
    /// Makes a change, seeing that the lock of the set-up is still held.
    pub(super) fn change<T: Send + 'static>(
        &self,
        node: NodeId,
        doing: &str,
        work: impl FnOnce(&mut Session) -> Result<T, postgres::Error> + Send + 'static,
    ) -> anyhow::Result<T> {
        let changed = self.reach.run(node, doing, move |session| {
            begin(session)?.then(|| work(session)).transpose()
        })?;
        changed.with_context(|| format!("{doing} on {node}: another set-up has begun there"))
    }

    /// Sees that the subscriber reaches the publisher, before anything depends on it.
    pub(super) fn try_link(&self, link: Link) -> anyhow::Result<()> {
        let trial = try_link(&connection_string(&self.config, link.from));
        let doing = format!("see that it reaches {}", link.from);
        self.change(link.to, &doing, trial)
    }

    /// Removes a subscription, if it is there, without asking its publisher, which may be gone, and does `also` in the
    /// same transaction. Its workers are waited for before it is dropped: dropping locks the catalogue
    /// that the probes read.
    pub(super) fn unsubscribe(
        &self,
        link: Link,
        is_there: bool,
        also: String,
    ) -> anyhow::Result<()> {
        let (node, name) = (link.to, link.to.subscription());
        if !is_there {
            return self.change(node, "mark it", move |session| {
                session.client().batch_execute(&also)
            });
        }
        self.change(node, "disable its subscription", move |session| {
            session
                .client()
                .batch_execute(&format!("ALTER SUBSCRIPTION {name} DISABLE"))
        })?;
        until(
            limits::WORKER_END,
            &format!("{name} on {node} to stop"),
            || {
                self.change(node, "look at the apply worker", move |session| {
                let running = session.client().query(
                    "SELECT FROM pg_catalog.pg_stat_subscription WHERE subname = $1 AND pid IS NOT NULL",
                    &[&name],
                )?;
                Ok(running.is_empty())
            })
            },
        )?;
        self.change(node, "drop its subscription", move |session| {
            let mut transaction = session.client().transaction()?;
            transaction.batch_execute(&format!(
                "ALTER SUBSCRIPTION {name} SET (slot_name = NONE); DROP SUBSCRIPTION {name}; {also}"
            ))?;
            transaction.commit()
        })?;
        say(&format!("{node}: subscription {name} removed"));
        Ok(())
    }

    /// Drops the slot on `node` from which its peer has read, and what a copy has left there.
    pub(super) fn drop_slots(&self, node: NodeId) -> anyhow::Result<()> {
        let what = format!("nobody to read from slot {} on {node}", node.slot());
        until(limits::WORKER_END, &what, || {
            self.change(node, "drop its dead slots", move |session| {
                let sql = include_str!("../../../sql/drop_dead_slots.sql");
                Ok(session.client().query(sql, &[&node.slot()])?.is_empty())
            })
        })
    }

    /// Why the master is an older copy of itself, if that can be seen on the two; see `cluster/older.rs`. The survivor is asked first: what
    /// it has applied until then had been written before.
    pub(super) fn is_older(&self) -> anyhow::Result<Option<String>> {
        let (node, survivor) = (self.node, self.node.peer());
        let known = self
            .reach
            .run(survivor, "ask what it remembers", move |session| {
                status::remember(session.client(), survivor)
            })?;
        let (own, end) = self
            .reach
            .run(node, "ask where it stands", move |session| {
                let own = status::remember(session.client(), node)?;
                let end = "SELECT (pg_catalog.pg_current_wal_flush_lsn() - '0/0')::bigint";
                Ok((
                    own,
                    session.client().query_one(end, &[])?.try_get::<_, i64>(0)?,
                ))
            })?;
        let fewer = own
            .starts
            .zip(known.peer_starts)
            .is_some_and(|(own, noted)| own < noted);
        let shorter = known
            .applied_lsn
            .is_some_and(|applied| applied > end.max(0) as u64);
        Ok((fewer || shorter)
            .then(|| format!("it is an older copy of itself, as {survivor} knows")))
    }

    /// Makes the master that is rebuilt know of both as much as its peer does, whatever it was before.
    pub(super) fn begin_counts_anew(&self) -> anyhow::Result<()> {
        let (node, survivor) = (self.node, self.node.peer());
        let known = self
            .reach
            .run(survivor, "ask what it remembers", move |session| {
                status::remember(session.client(), survivor)
            })?;
        let counts = [known.peer_starts, known.starts].map(|count| count.unwrap_or(0) as i64);
        self.change(node, "begin to count its starts anew", move |session| {
            session.client().execute(
                "UPDATE imdb_ha.arranques SET numero = CASE nodo WHEN imdb_ha.este_nodo() THEN greatest(numero, $1) ELSE $2 END",
                &[&counts[0], &counts[1]],
            )
        })?;
        Ok(())
    }

    /// Empties the tables, once more making sure that nobody hears of it.
    pub(super) fn clear(&self, tables: &[Table]) -> anyhow::Result<()> {
        let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
        let (node, sql) = (self.node, format!("TRUNCATE {}", names.join(", ")));
        let cleared = self.change(node, "clear the tables", move |session| {
            let slots = session.client().query(
                "SELECT FROM pg_catalog.pg_replication_slots WHERE slot_name = $1",
                &[&node.slot()],
            )?;
            if !slots.is_empty() {
                return Ok(false);
            }
            // As if it came from the peer: the triggers that keep a person from clearing one master
            // alone, and those that tell the peer, stay silent.
            let mut transaction = session.client().transaction()?;
            transaction.batch_execute("SET LOCAL session_replication_role = replica")?;
            transaction.batch_execute(&sql)?;
            transaction.commit().map(|()| true)
        })?;
        if !cleared {
            bail!(
                "somebody has made slot {} on {node} anew; try again",
                node.slot()
            );
        }
        say(&format!("{node}: {} tables cleared", tables.len()));
        Ok(())
    }

    pub(super) fn subscribe(&self, link: Link, step: Step) -> anyhow::Result<()> {
        let text = statement(step, link, &connection_string(&self.config, link.from));
        // It waits until every transaction that runs on the publisher has ended.
        self.change(link.to, "make its subscription", move |session| {
            session.client().batch_execute(&text)
        })
        .with_context(|| {
            format!(
                "subscribe to {}; a transaction that stays open there may be in the way",
                link.from
            )
        })?;
        let name = link.to.subscription();
        say(&format!(
            "{}: subscription {name} {}",
            link.to,
            step.describe(link)
        ));
        Ok(())
    }
}

/// Asks until it is so.
fn until(
    patience: Duration,
    what: &str,
    mut is_so: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + patience;
    while !is_so()? {
        if Instant::now() >= deadline {
            bail!("waited {} s for {what}", patience.as_secs());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
