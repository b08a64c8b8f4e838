//! A connection to Redis that never waits without a limit.

use crate::config::SecretUrl;
use crate::limits;
use redis::{Client, Connection, RedisResult};

/// Connects. The plain `get_connection()` has no time limit at all, and the one with a limit takes it off
/// again once the connection is made.
///
/// # Errors
/// Those of the driver, within [`limits::REDIS_TIMEOUT`].
pub fn connect(url: &SecretUrl) -> RedisResult<Connection> {
    let client = Client::open(url.reveal())?;
    let connection = client.get_connection_with_timeout(limits::REDIS_TIMEOUT)?;
    connection.set_read_timeout(Some(limits::REDIS_TIMEOUT))?;
    connection.set_write_timeout(Some(limits::REDIS_TIMEOUT))?;
    Ok(connection)
}
