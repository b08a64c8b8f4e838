//! Changes that the peer is not told of, because it makes them itself.

use postgres::{Client, Error};

/// Does `work` in a session with a replication origin, as if its changes had come from elsewhere: they are not sent to the peer, and its
/// walsender does not keep them until their transaction ends. One session at a time can have an origin; one that was left by a program
/// that died is taken up as soon as the server has noticed.
///
/// # Errors
/// Those of `work`, or why there is no such origin.
pub fn unsent<T>(
    client: &mut Client,
    origin: &str,
    work: impl FnOnce(&mut Client) -> Result<T, Error>,
) -> Result<T, Error> {
    client.execute(
        "SELECT pg_catalog.pg_replication_origin_create($1) WHERE pg_catalog.pg_replication_origin_oid($1) IS NULL",
        &[&origin],
    )?;
    client.execute(
        "SELECT pg_catalog.pg_replication_origin_session_setup($1)",
        &[&origin],
    )?;
    let worked = work(client);
    // In whatever way it has ended: the session goes on to be used, and a server has room for few origins.
    let ended = client
        .execute(
            "SELECT pg_catalog.pg_replication_origin_session_reset()",
            &[],
        )
        .and_then(|_| {
            client.execute(
                "SELECT pg_catalog.pg_replication_origin_drop($1)",
                &[&origin],
            )
        });
    let value = worked?;
    ended.map(|_| value)
}
