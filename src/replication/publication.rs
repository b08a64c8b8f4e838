//! What a master publishes: every table that both masters have with the same columns, by its name. A table that is on one master alone is
//! not published, because its first row would stop the apply worker of the peer until somebody makes it there too.

use super::reach::Reach;
use super::setup::PUBLICATION;
use crate::cluster::NodeId;
use std::collections::BTreeMap;

/// The tables that both masters have with the same columns, as SQL names them.
///
/// # Errors
/// When a master cannot be asked.
pub(super) fn on_both(reach: &Reach) -> anyhow::Result<Vec<String>> {
    let first = tables(reach, NodeId::Master1)?;
    let second = tables(reach, NodeId::Master2)?;
    let same = |(name, columns): &(String, Vec<String>)| second.get(name) == Some(columns);
    Ok(first
        .into_iter()
        .filter(same)
        .map(|(name, _)| name)
        .collect())
}

fn tables(reach: &Reach, node: NodeId) -> anyhow::Result<BTreeMap<String, Vec<String>>> {
    reach.run(node, "list the tables", |session| {
        let rows = session
            .client()
            .query(include_str!("../../sql/publishable.sql"), &[])?;
        let table = |row: &postgres::Row| Ok((row.try_get("name")?, row.try_get("columns")?));
        rows.iter().map(table).collect()
    })
}

/// Lets the role read, and publishes `wanted` and whatever is published already: a table that the peer lacks may be one that it has lost. A
/// publication that is made in another way, as an earlier version did, is replaced within one transaction, which a walsender that is reading does
/// not notice.
///
/// # Errors
/// When the master cannot be asked, or refuses.
pub(super) fn publish(
    reach: &Reach,
    node: NodeId,
    wanted: &[String],
    done: &mut Vec<String>,
) -> anyhow::Result<()> {
    let wanted = wanted.to_vec();
    let did = reach.run(node, "grant and publish", move |session| {
        let client = session.client();
        client.batch_execute(include_str!("../../sql/grants.sql"))?;
        client.batch_execute(include_str!("../../sql/roles.sql"))?;
        let found = client.query_one(include_str!("../../sql/published.sql"), &[])?;
        let (there, whole): (bool, bool) = (found.try_get("there")?, found.try_get("whole")?);
        let mut published: Vec<String> = found.try_get("tables")?;
        let missing: Vec<String> = wanted
            .into_iter()
            .filter(|name| !published.contains(name))
            .collect();
        if whole {
            if missing.is_empty() {
                return Ok(None);
            }
            let names = missing.join(", ");
            client.batch_execute(&format!(
                "ALTER PUBLICATION {PUBLICATION} ADD TABLE {names}"
            ))?;
            return Ok(Some(format!("publishes {names} too")));
        }
        published.extend(missing);
        let make = include_str!("../../sql/publication.sql");
        client.batch_execute(&make.replace("{{tablas}}", &published.join(", ")))?;
        Ok(Some(match there {
            false => "created".to_string(),
            true => "made anew: it published less than it should, or what is local".to_string(),
        }))
    })?;
    if let Some(did) = did {
        done.push(format!("{node}: publication {PUBLICATION} {did}"));
    }
    Ok(())
}
