//! `imdb-ha local up --detach`: `up` as a process of its own.

use super::layout::{Layout, State};
use super::ports;
use super::services::follow;
use super::up::Options;
use crate::config::{Config, Values};
use crate::limits;
use crate::output::{self, say_with_time as say};
use crate::process::Process;
use anyhow::{Context, bail};
use nix::sys::signal::Signal;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// Starts `up` as a process of its own and returns when it is ready.
///
/// # Errors
/// What the detached process said when it gave up.
pub fn run(config: &Config, values: &Values, options: &Options) -> anyhow::Result<ExitCode> {
    let layout = Layout::of(config)?;
    let running = layout
        .state()?
        .filter(|state| state.up.lives() && state.ready);
    let state = match running {
        Some(state) => {
            let others = ports::over(state.ports, options.ports) != state.ports;
            if others && !options.move_ports {
                bail!(
                    "it is running already, on other ports than those asked for; `imdb-ha local down` stops it"
                );
            }
            say("it is running already");
            state
        }
        None => start_detached(&layout, values, options)?,
    };
    match options.json {
        true => output::print(super::status_json(&layout, &state)?),
        false => output::print(super::banner(&layout, &state)),
    }
    Ok(ExitCode::SUCCESS)
}

fn start_detached(layout: &Layout, values: &Values, options: &Options) -> anyhow::Result<State> {
    drop(layout.claim()?);
    let log = File::create(layout.up_log())
        .with_context(|| format!("write {}", layout.up_log().display()))?;
    let shown = follow(layout.up_log())?;
    let mut command = Command::new(std::env::current_exe().context("find this program")?);
    command
        .args(["local", "up"])
        .args(options.no_api.then_some("--no-api"))
        .args(options.move_ports.then_some("--move-ports"))
        .args(ports::as_flags(options.ports))
        .envs(values.iter())
        .env("IMDB_HA_DATA", &layout.root);
    command.process_group(0);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    let mut child = command.spawn().context("start the cluster")?;
    let deadline = Instant::now() + limits::LOCAL_READY + limits::SERVER_START;
    let state = loop {
        if let Some(state) = layout
            .state()?
            .filter(|state| state.ready && state.up.pid == child.id() as i32)
        {
            break state;
        }
        if let Some(status) = child.try_wait()? {
            drop(shown);
            std::thread::sleep(Duration::from_millis(150));
            bail!(
                "the cluster did not start ({status}); what it said is in {}",
                layout.up_log().display()
            );
        }
        if Instant::now() > deadline {
            Process::with_id(child.id() as i32)
                .into_iter()
                .for_each(|up| up.signal(Signal::SIGTERM));
            bail!(
                "the cluster is not ready; what it said is in {}",
                layout.up_log().display()
            );
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    drop(shown);
    Ok(state)
}
