//! What makes a server on restored data another one than the one that it was.

use super::command::Place;
use super::sockets::PORT;
use crate::cluster::NodeId;
use anyhow::Context;
use std::fs;
use std::path::Path;

/// Settings that win over those of the original.
pub fn settings(data: &Path, sockets: &Path, access: &Path) -> Vec<String> {
    vec![
        // The settings of the original may name its own folder.
        format!("data_directory={}", data.display()),
        // Commands of the original's, which clear away files of its own.
        "recovery_end_command=".to_string(),
        "archive_cleanup_command=".to_string(),
        format!("unix_socket_directories={}", sockets.display()),
        format!("hba_file={}", access.display()),
        format!("port={PORT}"),
        "listen_addresses=".to_string(),
        "logging_collector=off".to_string(),
        "log_destination=stderr".to_string(),
        // Its words are read, and say from which segment on there was no WAL.
        "log_min_messages=warning".to_string(),
        "lc_messages=C".to_string(),
        // What the original has outside its data folder is not this one's to use.
        "external_pid_file=".to_string(),
        "ssl=off".to_string(),
        "huge_pages=off".to_string(),
        // It is asked when it has recovered. Before that it would refuse settings that were raised meanwhile, and wait for ever.
        "hot_standby=off".to_string(),
        // It is thrown away in any case.
        "fsync=off".to_string(),
        "archive_mode=off".to_string(),
        "synchronous_standby_names=".to_string(),
        // Its subscriptions must not fetch anything under the name of the server that it was.
        "max_logical_replication_workers=0".to_string(),
        "shared_buffers=64MB".to_string(),
        "cluster_name=scratch".to_string(),
    ]
}

/// Debian keeps a server's settings elsewhere; without a file it does not start.
///
/// # Errors
/// Those of the file system.
pub fn see_file(place: &Place, data: &Path) -> anyhow::Result<()> {
    let main = data.join("postgresql.conf");
    if !main.exists() {
        fs::write(&main, "").with_context(|| format!("write {}", main.display()))?;
        place.owner().give(&main)?;
    }
    Ok(())
}

/// Roles that a server like `node` may have.
pub fn logins(place: &Place, node: NodeId, ours: String) -> Vec<String> {
    let mut found = vec![ours];
    found.extend(place.option(node, "pg1-user"));
    found.push("postgres".to_string());
    found
}
