//! How a subscriber reaches its publisher: the one connection string of both directions, and its trial.

use super::plan::literal;
use super::setup::PUBLICATION;
use crate::cluster::NodeId;
use crate::config::{Config, PeerAddress};
use crate::pg::Session;
use anyhow::bail;

/// The manual's role, which may read what is replicated.
pub(super) const ROLE: &str = "replicator";

/// The role with which the masters of a cluster reach each other: a member of [`ROLE`] with the cluster's id in its name. Another server at the
/// address of one of them, with the same passwords and slots, has no such role, so nobody takes from its slot what its own peer needs.
pub(super) fn link_role(config: &Config) -> String {
    match config.roster.cluster() {
        Some(cluster) => format!("{ROLE}_{}", cluster.to_ascii_lowercase().replace('-', "_")),
        None => ROLE.to_string(),
    }
}

/// How the subscriber reaches `from`, as a libpq connection string.
pub(super) fn connection_string(config: &Config, from: NodeId) -> String {
    let PeerAddress { host, port } = &config.peer_addresses[from.index()];
    let database = config.master(from).database();
    let (port, role) = (port.to_string(), link_role(config));
    let mut pairs = vec![
        ("host", host.as_str()),
        ("port", &port),
        ("user", &role),
        ("password", config.replication_password.reveal()),
        ("dbname", &database),
        ("connect_timeout", "3"),
        // A peer that vanished without a word is noticed in about 5 s.
        ("keepalives_idle", "2"),
        ("keepalives_interval", "1"),
        ("keepalives_count", "3"),
    ];
    if let Some(roots) = &config.peer_sslrootcert {
        pairs.extend([("sslmode", "verify-full"), ("sslrootcert", roots)]);
    }
    let quoted = pairs.iter().map(|(name, value)| {
        format!(
            "{name}='{}'",
            value.replace('\\', "\\\\").replace('\'', "\\'")
        )
    });
    quoted.collect::<Vec<_>>().join(" ")
}

/// Sees that the masters reach each other as safely as this program reaches them. Otherwise a command that was given no `PEER_SSLROOTCERT`
/// would change a link that proves its peer into one that does not, since a plainer connection works as well.
///
/// # Errors
/// What must be set.
pub(crate) fn is_as_safe_as_the_urls(config: &Config) -> anyhow::Result<()> {
    let proves = |node: &NodeId| config.master(*node).trust().is_some();
    match NodeId::BOTH.into_iter().find(proves) {
        Some(node) if config.peer_sslrootcert.is_none() => bail!(
            "PEER_SSLROOTCERT: must be set, because {}_URL has sslmode=verify-full and the masters would reach each other \
             without that proof; it is the file with the CA on the masters' own machines",
            node.name().to_uppercase()
        ),
        _ => Ok(()),
    }
}

/// Sees that a connection string leads to a publisher, with a subscription that is rolled back.
///
/// # Errors
/// Of what it returns: those of the server, with what the publisher or its certificate lacks.
pub(super) fn try_link(
    connection: &str,
) -> impl FnOnce(&mut Session) -> Result<(), postgres::Error> + Send + 'static {
    let connection = literal(connection);
    move |session| {
        let mut transaction = session.client().transaction()?;
        transaction.batch_execute(&format!(
            "CREATE SUBSCRIPTION imdb_ha_prueba CONNECTION {connection} PUBLICATION {PUBLICATION} \
             WITH (enabled = false, create_slot = false, slot_name = NONE, copy_data = false)"
        ))?;
        transaction.rollback()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Values;

    #[test]
    fn with_a_ca_the_peer_must_prove_its_name() {
        let mut values = Values::from([
            ("REPLICATION_PASSWORD", r"it's \ x".to_string()),
            ("MASTER1_PEER_ADDRESS", "db1.example:5444".to_string()),
        ]);
        let of = |values: &Values| {
            let config = Config::check(values).expect("valid");
            connection_string(&config, NodeId::Master1)
        };
        let plain = of(&values);
        assert!(plain.starts_with(
            r"host='db1.example' port='5444' user='replicator' password='it\'s \\ x' "
        ));
        assert!(!plain.contains("ssl"), "{plain}");
        values.insert("PEER_SSLROOTCERT", "/etc/ca of us.pem".to_string());
        let verified = " sslmode='verify-full' sslrootcert='/etc/ca of us.pem'";
        assert_eq!(of(&values), plain + verified);
    }

    #[test]
    fn masters_that_prove_themselves_to_us_do_so_to_each_other() {
        let of = |pairs: &[(&'static str, &str)]| {
            let pairs = pairs.iter().map(|(name, value)| (*name, value.to_string()));
            let config = Config::check(&pairs.collect()).expect("valid");
            is_as_safe_as_the_urls(&config).map_err(|error| error.to_string())
        };
        of(&[]).expect("plain both ways");
        let ca =
            rcgen::generate_simple_self_signed(["db1.example".to_string()]).expect("a certificate");
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), ca.cert.pem()).expect("the certificate");
        let url = format!(
            "postgresql://root:x@db1.example/imdb?sslmode=verify-full&sslrootcert={}",
            file.path().display()
        );
        let why = of(&[("MASTER1_URL", &url)]).expect_err("the masters would not");
        assert!(
            why.contains("PEER_SSLROOTCERT") && why.contains("MASTER1_URL"),
            "{why}"
        );
        of(&[("MASTER1_URL", &url), ("PEER_SSLROOTCERT", "/etc/ca.pem")]).expect("they do");
    }
}
