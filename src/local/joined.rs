//! The configuration of everything that runs beside the masters of a local cluster, or asks about them.

use super::archive;
use super::layout::{DATABASE, Layout, Ports, url as url_of};
use crate::cluster::NodeId;
use crate::config::{Config, Values};
use crate::limits;

/// What is said about other masters, which a local cluster has of its own.
const OF_OTHERS: &[&str] = &[
    "MASTER1_URL",
    "MASTER2_URL",
    "REDIS_URL",
    "CLUSTER_ID",
    "MASTER1_PEER_ADDRESS",
    "MASTER2_PEER_ADDRESS",
    // Its masters have no certificates.
    "PEER_SSLROOTCERT",
    "BACKUP_CONFIG_DIR",
];

/// What there is to say to a user who has named other masters and starts a local cluster.
pub fn not_used(users: &Values) -> Option<String> {
    let set = OF_OTHERS.iter().filter(|name| users.contains_key(*name));
    let set: Vec<&str> = set.copied().collect();
    (!set.is_empty()).then(|| {
        format!(
            "WARNING: not used here: {}. A local cluster has masters, Redis and backups of its own; their ports are chosen with \
             --master1-port, --master2-port and --redis-port. `imdb-ha serve` uses what these variables name",
            set.join(", ")
        )
    })
}

/// Where the parts of a cluster are.
fn places(layout: &Layout, ports: Ports) -> anyhow::Result<Values> {
    let url = |node: NodeId| -> anyhow::Result<String> {
        let url = url_of(ports.masters[node.index()], DATABASE)?;
        Ok(url.reveal().to_string())
    };
    let mut values = Values::from([
        ("MASTER1_URL", url(NodeId::Master1)?),
        ("MASTER2_URL", url(NodeId::Master2)?),
        ("REDIS_URL", format!("redis://127.0.0.1:{}", ports.redis)),
        ("PORT", ports.api.to_string()),
    ]);
    if let Some(cluster) = layout.kept()?.and_then(|kept| kept.cluster) {
        values.insert("CLUSTER_ID", cluster);
    }
    if archive::is_impossible(layout).is_none() {
        let folder = layout.pgbackrest().display().to_string();
        values.insert("BACKUP_CONFIG_DIR", folder);
    }
    Ok(values)
}

/// The values for the API of this cluster, whatever the user's say of where things are.
///
/// # Errors
/// A URL that cannot be made.
pub fn values(
    layout: &Layout,
    users: &Values,
    ports: Ports,
    ephemeral: bool,
) -> anyhow::Result<Values> {
    let mut values = users.clone();
    // The configuration that belongs to the repositories has it.
    let known = ["BACKUP_PASSPHRASE", "BACKUP_PASSPHRASE_FILE"];
    for name in known.iter().chain(OF_OTHERS) {
        values.remove(name);
    }
    values.extend(places(layout, ports)?);
    values
        .entry("STOP_DEADLINE_MS")
        .or_insert_with(|| limits::LOCAL_STOP_DEADLINE_MS.to_string());
    // What lives for minutes needs no backups, unless somebody wants them.
    let schedule = [
        "BACKUP_FULL_EVERY",
        "BACKUP_DIFF_EVERY",
        "BACKUP_INCR_EVERY",
        "BACKUP_DRILL_EVERY",
    ];
    for name in schedule.into_iter().filter(|_| ephemeral) {
        values.entry(name).or_insert_with(|| "off".to_string());
    }
    Ok(values)
}

/// The configuration for a command: where nothing was said about where things are, those of the local cluster of this data
/// folder are meant, if one was started there.
///
/// # Errors
/// A state file that cannot be read.
pub fn adopted(values: &Values) -> anyhow::Result<Config> {
    let config = Config::check(values)?;
    let Ok(layout) = Layout::of(&config) else {
        return Ok(config);
    };
    let Some(state) = layout.state()? else {
        return Ok(config);
    };
    let mut all = places(&layout, state.ports)?;
    all.extend(values.iter().map(|(name, value)| (*name, value.clone())));
    Ok(Config::check(&all)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_local_cluster_does_not_use_is_named() {
        assert_eq!(
            not_used(&Values::from([("PORT", "5001".to_string())])),
            None
        );
        let told = not_used(&Values::from([
            ("REDIS_URL", "redis://:hunter2@redis".to_string()),
            (
                "MASTER1_URL",
                "postgresql://root:hunter2@db1/imdb".to_string(),
            ),
        ]));
        let told = told.expect("two variables");
        assert!(
            told.starts_with("WARNING: not used here: MASTER1_URL, REDIS_URL. "),
            "{told}"
        );
        assert!(!told.contains("hunter2"));
    }
}
