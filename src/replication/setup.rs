//! Joins the two masters, as in the manual's section 3.4: role, grants, publication, subscriptions
//! and slots. Repeating it changes nothing and loses nothing: what is there is looked at, what to do
//! about it is decided by [`plan`], and only what is missing is made. A slot that is gone is never
//! made anew, because what it held is lost and nobody would notice.

use super::compare;
pub(crate) use super::conninfo::is_as_safe_as_the_urls;
use super::conninfo::{connection_string, try_link};
use super::drift;
use super::equal;
use super::fit;
use super::identity;
use super::password;
pub use super::plan::NeedsRejoin;
use super::plan::{Found, Link, Step, Subscription, in_need, plan, statement};
use super::publication;
pub use super::reach::{Reach, begin};
use crate::cluster::NodeId;
use crate::config::Config;
use crate::limits;
use anyhow::bail;
use std::time::{Duration, Instant};

pub(super) const PUBLICATION: &str = "pub_imdb";

/// Sets the replication up and returns what was done, a line each; no line means that nothing was
/// missing.
///
/// # Errors
/// The first thing that could not be done, or that a person has to decide.
pub fn run(config: &Config) -> anyhow::Result<Vec<String>> {
    is_as_safe_as_the_urls(config)?;
    let reach = Reach::unproven(config)?;
    let found_servers = identity::may_join(&reach, config)?;
    let config = &password::settled(&reach, config)?;
    let mut done = Vec::new();
    let mut broken = Vec::new();
    for node in NodeId::BOTH {
        broken.push((node, drift::broken(&reach, node)?));
        prepare(&reach, config, node, &mut done)?;
    }
    // Only when both have the tables: a subscription is made on tables that are there.
    let tables = publication::on_both(&reach)?;
    for node in NodeId::BOTH {
        publication::publish(&reach, node, &tables, &mut done)?;
    }
    let [first, second] = links();
    let found = [look(&reach, first)?, look(&reach, second)?];
    if let Some(need) = in_need(&found) {
        return Err(need.into());
    }
    done.extend(found_servers.write_down_once(&reach, config)?);
    let masters = compare::Masters::new(config)?;
    let taken = newly_taken(&found);
    let joins = link_up(&reach, config, &masters, found, &mut done)?;
    for node in NodeId::BOTH {
        tell_the_peer(&reach, node)?;
    }
    if !joins && !taken.is_empty() {
        let unproven = equal::unproven(&masters, &taken, limits::JOIN_PATIENCE)?;
        done.extend(unproven.iter().map(|name| {
            format!(
                "WARNING: {name} is replicated from now on, and the masters are not known to hold the same rows of before: run \
                 `imdb-ha compare {name}`, and with --repair NODE to make the other one like NODE"
            )
        }));
    }
    let mended = broken.into_iter().flat_map(|(node, broken)| {
        let told = move |what| format!("{node}: mended: {what}");
        broken.into_iter().map(told)
    });
    done.extend(mended);
    done.extend(password::warning(config));
    Ok(done)
}

/// Both directions, in the order of the masters from which they lead.
fn links() -> [Link; 2] {
    NodeId::BOTH.map(|from| Link {
        from,
        to: from.peer(),
    })
}

/// Makes of both directions what they should be, and says whether one of them is new.
fn link_up(
    reach: &Reach,
    config: &Config,
    masters: &compare::Masters,
    found: [Found; 2],
    done: &mut Vec<String>,
) -> anyhow::Result<bool> {
    let mut plans = Vec::new();
    for (link, found) in links().into_iter().zip(found) {
        let connection = connection_string(config, link.from);
        let steps = plan(link, &found, &connection).map_err(anyhow::Error::msg)?;
        plans.push((link, connection, steps));
    }
    // A subscription that works is changed only for one that will, since PostgreSQL itself does not look.
    for (link, connection, steps) in &plans {
        if steps.contains(&Step::SetConnection) {
            let doing = format!(
                "see that {} reaches {}, before its subscription is changed",
                link.to, link.from
            );
            let trial = try_link(connection);
            reach.run(link.to, &doing, move |session| trial(session))?;
        }
    }
    // A new slot knows nothing of what was written before it.
    let new = |step: &Step| matches!(step, Step::Create { create_slot: true });
    let joins = plans.iter().any(|(_, _, steps)| steps.iter().any(new));
    if joins {
        equal::wait(masters, Duration::ZERO)?;
    }
    for (link, connection, steps) in plans {
        for step in steps {
            let text = statement(step, link, &connection);
            reach.run(link.to, "change the subscription", move |session| {
                session.client().batch_execute(&text)
            })?;
            let name = link.to.subscription();
            done.push(format!(
                "{}: subscription {name} {}",
                link.to,
                step.describe(link)
            ));
        }
    }
    if joins {
        // Whatever was written between the comparison and the slots is on one master only.
        equal::wait(masters, limits::JOIN_PATIENCE)?;
    }
    Ok(joins)
}

/// The tables that a subscription will take from now on.
fn newly_taken(found: &[Found; 2]) -> Vec<String> {
    let of_link = |found: &Found| {
        let taken = found.subscription.as_ref().map(|existing| &existing.tables);
        let new = |name: &&String| taken.is_some_and(|taken| !taken.contains(name));
        found
            .published
            .iter()
            .filter(new)
            .cloned()
            .collect::<Vec<_>>()
    };
    let all: std::collections::BTreeSet<String> = found.iter().flat_map(of_link).collect();
    all.into_iter().collect()
}

/// Waits until both directions stream.
///
/// # Errors
/// What still does not, when `patience` is over.
pub fn wait_until_streaming(config: &Config, patience: Duration) -> anyhow::Result<()> {
    let reach = Reach::new(config)?;
    let deadline = Instant::now() + patience;
    loop {
        let mut troubles = Vec::new();
        for node in NodeId::BOTH {
            let seen = reach.run(node, "read the replication status", move |session| {
                super::status::read(session.client(), node)
            })?;
            troubles.extend(
                seen.troubles()
                    .into_iter()
                    .map(|trouble| format!("{node}: {trouble}")),
            );
        }
        if troubles.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!(
                "the masters are not streaming to each other: {}",
                troubles.join("; ")
            );
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Makes both subscriptions take the tables that are published now. For tables that were exchanged on both masters: to PostgreSQL they are new
/// ones, and their rows are there already.
///
/// # Errors
/// When a master cannot be asked.
pub fn take_tables(reach: &Reach) -> anyhow::Result<()> {
    for node in NodeId::BOTH {
        let link = Link {
            from: node.peer(),
            to: node,
        };
        let text = statement(Step::Refresh, link, "");
        reach.run(node, "take the exchanged tables", move |session| {
            session.client().batch_execute(&text)
        })?;
    }
    Ok(())
}

/// Whether a subscription does not take all tables that are published, as after a load that died before [`take_tables`]; nothing when a master
/// must be rebuilt first.
///
/// # Errors
/// When a master cannot be asked.
pub fn lacks_tables(reach: &Reach) -> anyhow::Result<Option<bool>> {
    let look_from = |from: NodeId| {
        let to = from.peer();
        look(reach, Link { from, to })
    };
    let found = [look_from(NodeId::Master1)?, look_from(NodeId::Master2)?];
    let lacks = |found: &Found| {
        let subscription = found.subscription.as_ref();
        subscription.is_some_and(|subscription| subscription.tables != found.published)
    };
    Ok(match in_need(&found) {
        Some(_) => None,
        None => Some(found.iter().any(lacks)),
    })
}

/// What this master's own changes tell its peer. Last, because from here on they name tables which an
/// older set-up of the peer did not have, and at which its apply worker would stop.
pub(super) fn tell_the_peer(reach: &Reach, node: NodeId) -> anyhow::Result<()> {
    reach.run(node, "make the triggers of its own changes", |session| {
        let mut transaction = session.client().transaction()?;
        transaction.batch_execute(include_str!("../../sql/changes.sql"))?;
        transaction.commit()
    })
}

/// Everything on one master that its peer is not needed for: schema, role, grants.
pub(super) fn prepare(
    reach: &Reach,
    config: &Config,
    node: NodeId,
    done: &mut Vec<String>,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + limits::SETUP_ALONE;
    while !reach.run(node, "begin the set-up", begin)? {
        if Instant::now() >= deadline {
            bail!("another set-up is running on {node}; try again when it has ended");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    fit::check(reach, node, done)?;
    apply_schema(reach, node, done)?;
    super::migrations::apply(reach, node, done)?;
    password::make_roles(reach, config, node, done)
}

/// The tables, their triggers and the sequences.
fn apply_schema(reach: &Reach, node: NodeId, done: &mut Vec<String>) -> anyhow::Result<()> {
    let (existed, settles) = reach.run(node, "apply the schema", move |session| {
        let existed = session.client().query_one(
            "SELECT pg_catalog.to_regclass('public.generos') IS NOT NULL, \
             pg_catalog.to_regclass('imdb_ha.borrados') IS NOT NULL",
            &[],
        )?;
        let schema =
            include_str!("../../sql/schema.sql").replace("{{nodo}}", &node.number().to_string());
        let script = [
            &schema,
            include_str!("../../sql/conflicts.sql"),
            include_str!("../../sql/align_sequences.sql"),
            include_str!("../../sql/mandate.sql"),
        ];
        let mut transaction = session.client().transaction()?;
        for part in script {
            transaction.batch_execute(part)?;
        }
        transaction.commit()?;
        Ok((
            existed.try_get::<_, bool>(0)?,
            existed.try_get::<_, bool>(1)?,
        ))
    })?;
    if !existed {
        done.push(format!("{node}: schema created, with the 28 genres"));
    } else if !settles {
        done.push(format!(
            "{node}: schema extended, so that deletions are settled too"
        ));
    }
    Ok(())
}

pub(super) fn look(reach: &Reach, link: Link) -> anyhow::Result<Found> {
    let (subscription, copying, unfinished) =
        reach.run(link.to, "look at the subscription", move |session| {
            let row = session.client().query_one(
                include_str!("../../sql/link.sql"),
                &[&link.to.subscription(), &super::rejoin::MARK],
            )?;
            let subscription = match row.try_get("enabled")? {
                None => None,
                Some(enabled) => Some(Subscription {
                    enabled,
                    slot: row.try_get("slot")?,
                    origin: row.try_get("origin")?,
                    synchronous_commit: row.try_get("synchronous_commit")?,
                    other_options: row.try_get("other_options")?,
                    ours: row.try_get("ours")?,
                    connection: row.try_get("connection")?,
                    tables: row.try_get("tables")?,
                }),
            };
            Ok((
                subscription,
                row.try_get("copying")?,
                row.try_get("unfinished")?,
            ))
        })?;
    let (slot, published) = reach.run(link.from, "look at the slot", move |session| {
        let tables = session.client().query_one(
            "SELECT ARRAY(SELECT pg_catalog.format('%I.%I', schemaname, tablename) \
             FROM pg_catalog.pg_publication_tables WHERE pubname = $1 ORDER BY 1)",
            &[&PUBLICATION],
        )?;
        let row = session.client().query_opt(
            "SELECT active, coalesce(wal_status = 'lost', false) \
             FROM pg_catalog.pg_replication_slots WHERE slot_name = $1",
            &[&link.from.slot()],
        )?;
        let slot: Option<(bool, bool)> = row
            .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
            .transpose()?;
        Ok((slot, tables.try_get(0)?))
    })?;
    // Each server has sorted by its own collation.
    let sorted = |mut tables: Vec<String>| {
        tables.sort();
        tables
    };
    let subscription = subscription.map(|found| Subscription {
        tables: sorted(found.tables),
        ..found
    });
    let published = sorted(published);
    Ok(Found {
        subscription,
        slot_active: slot.map(|(active, _)| active),
        slot_lost: slot.is_some_and(|(_, lost)| lost),
        published,
        copying,
        unfinished,
    })
}
