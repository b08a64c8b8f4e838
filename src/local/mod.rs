//! A whole cluster on this machine: two masters, Redis and the API, to try, to teach and to test with.

mod archive;
mod detach;
mod joined;
mod layout;
mod ports;
mod replace;
mod services;
mod up;

use crate::cli::{Local, OneMaster};
use crate::cluster::NodeId;
use crate::config::{self, Config, Values};
use crate::limits;
use crate::output::{self, say_with_time as say};
use crate::own_api;
use crate::process;
use crate::programs::{Owner, Programs};
use crate::replication::setup::NeedsRejoin;
use crate::server::{Holder, Master, ServerState};
use anyhow::{Context, bail};
pub use joined::adopted;
use layout::{DATABASE, Layout, State, url};
use nix::sys::signal::Signal;
pub use replace::Here;
use serde_json::{Map, Value, json};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Runs a command of `imdb-ha local`.
///
/// # Errors
/// What could not be done.
pub fn run(command: Local, config: &Config, flags: &Values) -> anyhow::Result<ExitCode> {
    use ServerState::{Down, Frozen, Starting, Up};
    process::keep_inherited_files_private();
    match command {
        Local::Up {
            detach: true,
            no_api,
            move_ports,
            ports,
            json,
            ..
        } => {
            let options = up::Options {
                ephemeral: false,
                no_api,
                move_ports,
                ports,
                json,
            };
            detach::run(config, &config::gather(flags)?, &options)
        }
        Local::Up {
            ephemeral,
            no_api,
            move_ports,
            ports,
            json,
            ..
        } => up::run(
            config,
            &config::gather(flags)?,
            &up::Options {
                ephemeral,
                no_api,
                move_ports,
                ports,
                json,
            },
        ),
        Local::Down { json } => down(config, json),
        Local::Status { json } => status(config, json),
        Local::Stop(on) => on_master(config, on, "stopped", &[Down], |master, _| {
            require(master, &[Up, Starting, Frozen])?;
            master.stop()
        }),
        Local::Start(on) => on_master(config, on, "started", &[Up], |master, state| {
            start(config, master, state)
        }),
        Local::Kill(on) => on_master(config, on, "killed", &[Down], |master, _| {
            require(master, &[Up, Starting, Frozen])?;
            master.kill()
        }),
        Local::Freeze(on) => on_master(config, on, "frozen", &[Frozen], |master, _| {
            require(master, &[Up, Starting])?;
            master
                .process()
                .into_iter()
                .for_each(|head| drop(process::freeze_family(head)));
            Ok(())
        }),
        Local::Thaw(on) => on_master(config, on, "thawed", &[Up, Starting], |master, _| {
            require(master, &[Frozen])?;
            master.process().into_iter().for_each(process::thaw_family);
            Ok(())
        }),
    }
}

/// Starts one master. If its data folder is gone, a new and empty one takes its place, as a new disk would.
fn start(config: &Config, master: &Master, state: &State) -> anyhow::Result<()> {
    let node = master.node;
    let port = state.ports.masters[node.index()];
    let new = !master.exists();
    // A new one is run by the version that runs its peer.
    let made_by = match new {
        true => Layout::of(config)?.master(node.peer()),
        false => master.data.clone(),
    };
    let programs = Programs::find(config.pg_bin.as_deref(), &made_by)?;
    if new {
        say(&format!(
            "{node} has lost its data: making a new, empty folder {}",
            master.data.display()
        ));
        master.create(&programs, true, &|| false)?;
    }
    archive::configure(&Layout::of(config)?, master, port);
    let mut master = master.clone();
    master.settings.clone_from(&config.master_settings);
    master.start(&programs, port, &|| false)?;
    if new {
        services::make_database(node, port)?;
        say(&format!(
            "{node} is empty and serves nothing; rebuild it from {}:\n  {}",
            node.peer(),
            rejoin_command(&Layout::of(config)?, node)
        ));
    }
    Ok(())
}

/// Says which master must be rebuilt, and how.
fn tell_need(layout: &Layout, need: &NeedsRejoin) {
    for (node, why) in &need.masters {
        let command = rejoin_command(layout, *node);
        say(&format!(
            "ALARM: {why}. {} serves alone; rebuild {node} from it:\n  {command}",
            node.peer()
        ));
    }
    if need.masters.len() > 1 {
        say("both have lost something: rebuild the one whose rows you can do without");
    }
}

/// How to call `imdb-ha rejoin` for this cluster, which finds its masters by its folder.
fn rejoin_command(layout: &Layout, node: NodeId) -> String {
    format!("imdb-ha rejoin {node}{}", data_flag(layout))
}

/// What a command needs to find the cluster, if it is in another folder than this user's default.
fn data_flag(layout: &Layout) -> String {
    match layout.named {
        true => format!(" --data {}", layout.root.display()),
        false => String::new(),
    }
}

/// Does something to one master of the running cluster, sees that it is in one of the states `then`,
/// and says what came of it.
fn on_master(
    config: &Config,
    on: OneMaster,
    done: &str,
    then: &[ServerState],
    act: impl FnOnce(&Master, &State) -> anyhow::Result<()>,
) -> anyhow::Result<ExitCode> {
    let node = on.node.id();
    let layout = Layout::of(config)?;
    let state = running(&layout)?;
    let master = layout.server(node, Owner::find()?);
    act(&master, &state)?;
    // A signal is on its way for a moment.
    let deadline = Instant::now() + Duration::from_secs(1);
    let reached = loop {
        let reached = master.state();
        if then.contains(&reached) {
            break reached;
        }
        if Instant::now() >= deadline {
            bail!("{node} should be {done} and is {}", reached.name());
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    match on.json {
        true => output::print(json!({"ok": true, "node": node.name(), "state": reached})),
        false => output::print(format_args!("{node} {done}")),
    }
    Ok(ExitCode::SUCCESS)
}

fn require(master: &Master, states: &[ServerState]) -> anyhow::Result<()> {
    if let Holder::Unclear(why) = master.holder() {
        bail!("{}: {why}", master.node);
    }
    let state = master.state();
    if !states.contains(&state) {
        bail!("{} is {}", master.node, state.name());
    }
    Ok(())
}

fn running(layout: &Layout) -> anyhow::Result<State> {
    layout.state()?.with_context(|| {
        format!(
            "no local cluster is running in {}; `imdb-ha local up` starts one",
            layout.root.display()
        )
    })
}

/// Stops everything that a state names: the API first, so that nothing asks the masters any more,
/// then both masters and Redis side by side.
///
/// # Errors
/// What is there still. Its data must not be removed then, nor the state forgotten.
fn stop(layout: &Layout, state: &State) -> anyhow::Result<()> {
    if let Some(api) = state.api {
        end(api, limits::API_STOP);
    }
    let owner = Owner::find()?;
    let mut left = std::thread::scope(|scope| {
        let masters =
            NodeId::BOTH.map(|node| scope.spawn(move || layout.server(node, owner).stop()));
        if let Some(redis) = state.redis {
            end(redis, limits::API_STOP);
        }
        let outcomes = masters.map(|thread| match thread.join() {
            Ok(outcome) => outcome.err().map(|error| format!("{error:#}")),
            Err(_) => Some("stopping a master panicked".to_string()),
        });
        outcomes.into_iter().flatten().collect::<Vec<String>>()
    });
    for (name, process) in [("the API", state.api), ("redis", state.redis)] {
        if let Some(process) = process.filter(|process| process.lives()) {
            left.push(format!("stop {name}: process {} lives on", process.pid));
        }
    }
    match left.is_empty() {
        true => Ok(()),
        false => bail!("{}", left.join("; ")),
    }
}

/// SIGTERM, and SIGKILL when that is not enough.
fn end(process: process::Process, patience: Duration) {
    process.signal(Signal::SIGCONT);
    process.signal(Signal::SIGTERM);
    if !process.wait_gone(patience) {
        process.signal(Signal::SIGKILL);
        process.wait_gone(Duration::from_secs(1));
    }
}

fn down(config: &Config, json: bool) -> anyhow::Result<ExitCode> {
    let layout = Layout::of(config)?;
    let state = running(&layout)?;
    let began = Instant::now();
    if state.up.lives() {
        state.up.signal(Signal::SIGTERM);
        let patience = limits::API_STOP
            + limits::SERVER_STOP_FAST
            + limits::SERVER_STOP_IMMEDIATE
            + Duration::from_secs(4);
        state.up.wait_gone(patience);
    }
    // Whatever is left: of an `up` that was killed, or that got stuck.
    if let Some(left) = layout.state()? {
        left.up.signal(Signal::SIGKILL);
        stop(&layout, &left)?;
        layout.remove_state();
    }
    let seconds = began.elapsed().as_secs_f32();
    match json {
        true => {
            let seconds = f64::from((seconds * 10.0).round()) / 10.0;
            output::print(json!({"ok": true, "seconds": seconds, "data": layout.root}));
        }
        false => output::print(format_args!(
            "stopped in {seconds:.1} s; the data stays in {}",
            layout.root.display()
        )),
    }
    Ok(ExitCode::SUCCESS)
}

fn status(config: &Config, json: bool) -> anyhow::Result<ExitCode> {
    let layout = Layout::of(config)?;
    let state = running(&layout)?;
    if json {
        output::print(status_json(&layout, &state)?);
        return Ok(ExitCode::SUCCESS);
    }
    let word = |process: Option<process::Process>| match process {
        Some(process) if process.is_frozen() => format!("frozen   (process {})", process.pid),
        Some(process) if process.lives() => format!("up       (process {})", process.pid),
        _ => "down".to_string(),
    };
    output::print(match state.api {
        Some(_) => format!(
            "api      {}  {}",
            api_url(api_address(&state)),
            word(state.api)
        ),
        None => "api      not started here".to_string(),
    });
    for node in NodeId::BOTH {
        let master = layout.server(node, Owner::find()?);
        let process = master
            .process()
            .map(|process| format!("(process {})", process.pid));
        output::print(format_args!(
            "{node}  127.0.0.1:{}  {:<8} {}",
            state.ports.masters[node.index()],
            master.state().name(),
            process.unwrap_or_default()
        ));
    }
    output::print(format_args!(
        "redis    127.0.0.1:{}  {}",
        state.ports.redis,
        word(state.redis)
    ));
    let cluster = state.cluster.as_deref().unwrap_or("not joined");
    output::print(format_args!("cluster  {cluster}"));
    output::print(format_args!("data     {}", layout.root.display()));
    Ok(ExitCode::SUCCESS)
}

/// The state for programs. The URLs hold the local servers' well-known password, so that whoever
/// reads them can connect.
fn status_json(layout: &Layout, state: &State) -> anyhow::Result<Value> {
    let mut masters = Map::new();
    for node in NodeId::BOTH {
        let master = layout.server(node, Owner::find()?);
        let of_node = json!({
            "url": url(state.ports.masters[node.index()], DATABASE)?.reveal(),
            "state": master.state(),
            "pid": master.process().map(|process| process.pid),
            "data": master.data,
        });
        masters.insert(node.name().to_string(), of_node);
    }
    let pid = |process: Option<process::Process>| {
        process
            .filter(|process| process.lives())
            .map(|process| process.pid)
    };
    Ok(json!({
        // Nothing when somebody else runs the API, whose address is not known here.
        "api": state.api.map(|_| api_url(api_address(state))),
        "redis": format!("redis://127.0.0.1:{}", state.ports.redis),
        "masters": masters,
        "ready": state.ready,
        "cluster": state.cluster,
        "data": layout.root,
        "pids": { "up": pid(Some(state.up)), "api": pid(state.api), "redis": pid(state.redis) },
    }))
}

/// Where the API is reached from this machine.
fn api_address(state: &State) -> SocketAddr {
    let bind: IpAddr = state
        .bind
        .parse()
        .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    own_api::reachable(SocketAddr::new(bind, state.ports.api))
}

fn api_url(address: SocketAddr) -> String {
    format!("http://{address}")
}

/// What runs where, and what to try.
fn banner(layout: &Layout, state: &State) -> String {
    let api = api_url(api_address(state));
    let program =
        std::env::current_exe().map_or("imdb-ha".to_string(), |path| path.display().to_string());
    let data = data_flag(layout);
    let [first, second] = state.ports.masters;
    let try_it = match state.api {
        Some(_) => format!(
            "\n\
             Try:\n\
             \x20 curl {api}/health\n\
             \x20 curl -H 'Content-Type: application/json' -d '{{\"genero\": \"Telenovela\"}}' {api}/generos\n\
             \x20 curl '{api}/generos?genero=novela'\n\
             \x20 curl '{api}/titulos?q=godfather'\n\
             \x20 curl {api}/status\n\
             \x20 curl {api}/backups\n\
             \x20 curl -X POST {api}/switch-to-primary\n\
             \n\
             Kill a master, and ask again:\n\
             \x20 {program} local kill master1{data}\n\
             \x20 {program} local start master1{data}\n"
        ),
        None => String::new(),
    };
    let of_api = state
        .api
        .map_or("none; `imdb-ha serve` starts one", |_| &api);
    format!(
        "\n\
         imdb-ha is ready\n\
         \x20 API      {of_api}\n\
         \x20 master1  127.0.0.1:{first}   master2  127.0.0.1:{second}   (user root, password root, database {DATABASE})\n\
         \x20 redis    127.0.0.1:{}\n\
         \x20 cluster  {}\n\
         \x20 data     {}\n\
         {try_it}",
        state.ports.redis,
        state.cluster.as_deref().unwrap_or("not joined"),
        layout.root.display(),
    )
}
