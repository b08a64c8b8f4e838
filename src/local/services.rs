//! The parts of the local cluster beside the masters, and what `up` and `detach` both need.

use super::layout::{DATABASE, Layout, State, url};
use crate::cluster::NodeId;
use crate::config::Values;
use crate::limits;
use crate::output::say_with_time as say;
use crate::own_api;
use crate::pg;
use crate::process::Process;
use crate::programs::Owner;
use crate::server;
use anyhow::{Context, bail};
use crossbeam_channel::Sender;
use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Starts Redis and waits until it takes connections.
///
/// # Errors
/// When it cannot be started or does not answer.
pub fn start_redis(layout: &Layout, owner: Owner, port: u16) -> anyhow::Result<(Child, Process)> {
    let folder = layout.redis();
    let mut command = Command::new("redis-server");
    command
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .args(["--bind", "127.0.0.1"]);
    // Both ways of persistence, as the manual promises.
    command.args([
        "--appendonly",
        "yes",
        "--save",
        "60 1",
        "--daemonize",
        "no",
        "--loglevel",
        "notice",
    ]);
    command
        .arg("--port")
        .arg(port.to_string())
        .arg("--dir")
        .arg(&folder);
    command.arg("--logfile").arg(folder.join("redis.log"));
    owner.apply(&mut command);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command
        .spawn()
        .context("start redis-server; scripts/install.sh installs it")?;
    let process = Process::with_id(child.id() as i32).context("redis-server ended at once")?;
    let deadline = Instant::now() + limits::REDIS_TIMEOUT * 5;
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        if Instant::now() > deadline || !process.lives() {
            // Nobody else knows of it yet.
            super::end(process, limits::API_STOP);
            let _ = child.try_wait();
            bail!(
                "redis-server does not answer on port {port}; see {}",
                folder.join("redis.log").display()
            );
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    say(&format!("redis: up on port {port}"));
    Ok((child, process))
}

/// Starts the API as a process of its own. What it needs to know it gets by its environment,
/// which nobody but its user can read, and not by flags.
///
/// # Errors
/// When it cannot be started.
pub fn start_api(layout: &Layout, joined: &Values) -> anyhow::Result<(Child, Process)> {
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(layout.api_log())?;
    let mut command = Command::new(std::env::current_exe().context("find this program")?);
    command.arg("serve").envs(joined.iter());
    command.process_group(0);
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    let child = command.spawn().context("start the API")?;
    let process = Process::with_id(child.id() as i32).context("the API ended at once")?;
    Ok((child, process))
}

/// Makes the manual's database, unless it is there.
///
/// # Errors
/// Those of the server.
pub fn make_database(node: NodeId, port: u16) -> anyhow::Result<()> {
    let settings = pg::connection_settings(&url(port, "postgres")?, limits::SETUP_CALL)?;
    server::make_database(node, settings, DATABASE)
}

/// What `GET /health` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It does not answer, or nobody serves.
    Unhealthy,
    /// A master serves; the other one does not take part yet.
    Degraded,
    Healthy,
}

/// Asks the API how it is.
pub fn health(state: &State) -> Health {
    match own_api::get(super::api_address(state), "/health", limits::API_ASK) {
        Ok((200, body)) if body.contains("\"degraded\"") => Health::Degraded,
        Ok((200, _)) => Health::Healthy,
        _ => Health::Unhealthy,
    }
}

/// Shows what is added to a file from now on, until the result is dropped.
///
/// # Errors
/// When the file cannot be made.
pub fn follow(path: PathBuf) -> anyhow::Result<Sender<()>> {
    OpenOptions::new().create(true).append(true).open(&path)?;
    Ok(crate::follow::follow(move || Some(path.clone()))?)
}
