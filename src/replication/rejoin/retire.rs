//! For a restore of both masters: the one that will be rebuilt is taken out of service before the other one is taken back, so that
//! nobody fails over to what is about to be thrown away.

use super::{MARK, Rejoin};
use crate::cluster::NodeId;
use crate::config::Config;
use crate::limits;
use crate::output::say;
use crate::replication::identity;
use crate::replication::plan::literal;
use crate::replication::reach::{Reach, begin};
use anyhow::bail;
use std::time::{Duration, Instant};

/// Ends the replication into `node` and marks it as being rebuilt, in one transaction, without asking its peer, which may be gone.
/// From then on the API does not serve from it by itself, and the next rejoin of it asks nothing. Repeating it changes nothing.
///
/// # Errors
/// What could not be done.
pub fn retire(config: &Config, node: NodeId) -> anyhow::Result<()> {
    let rejoin = Rejoin {
        config: config.clone(),
        reach: Reach::unproven(config)?,
        node,
        yes: true,
        retired: false,
    };
    identity::is_not_foreign(&rejoin.reach, config, node)?;
    let deadline = Instant::now() + limits::SETUP_ALONE;
    while !rejoin.reach.run(node, "take it out of service", begin)? {
        if Instant::now() >= deadline {
            bail!("another set-up is running on {node}; try again when it has ended");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let (known, there) = rejoin
        .reach
        .run(node, "look at its subscription", move |session| {
            let row = session.client().query_one(
                "SELECT pg_catalog.to_regnamespace('imdb_ha') IS NOT NULL, EXISTS ( \
             SELECT FROM pg_catalog.pg_subscription AS s \
             JOIN pg_catalog.pg_database AS d ON d.oid = s.subdbid \
             WHERE s.subname = $1 AND d.datname = pg_catalog.current_database())",
                &[&node.subscription()],
            )?;
            Ok((row.try_get::<_, bool>(0)?, row.try_get::<_, bool>(1)?))
        })?;
    if !known {
        // It was never set up, so nobody serves from it.
        return Ok(());
    }
    let mark = format!("COMMENT ON SCHEMA imdb_ha IS {}", literal(MARK));
    rejoin.unsubscribe(rejoin.way_in(), there, mark)?;
    say(&format!("{node}: taken out of service"));
    Ok(())
}

/// Whether a master bears the mark of one that is being rebuilt.
///
/// # Errors
/// When it does not answer.
pub fn is_marked(config: &Config, node: NodeId) -> anyhow::Result<bool> {
    let reach = Reach::unproven(config)?;
    reach.run(node, "look whether it is being rebuilt", |session| {
        bears_mark(session.client())
    })
}

/// The same of a server that is reached otherwise: what is on it is some part of what it should be.
///
/// # Errors
/// Those of the server.
pub fn bears_mark(client: &mut postgres::Client) -> Result<bool, postgres::Error> {
    let mark = "SELECT coalesce(pg_catalog.obj_description(pg_catalog.to_regnamespace('imdb_ha')::oid, \
                'pg_namespace') = $1, false)";
    client.query_one(mark, &[&MARK])?.try_get(0)
}
