//! How a subscriber reaches its publisher: the one connection string of both directions, and its trial.

use super::plan::literal;
use super::setup::PUBLICATION;
use crate::cluster::NodeId;
use crate::config::{Config, PeerAddress};
use crate::pg::Session;

/// The role with which the masters reach each other.
pub(super) const ROLE: &str = "replicator";

/// How the subscriber reaches `from`, as a libpq connection string.
pub(super) fn connection_string(config: &Config, from: NodeId) -> String {
    let PeerAddress { host, port } = &config.peer_addresses[from.index()];
    let database = config.master(from).database();
    let port = port.to_string();
    let mut pairs = vec![
        ("host", host.as_str()),
        ("port", &port),
        ("user", ROLE),
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
}
