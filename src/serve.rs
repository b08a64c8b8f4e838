//! `imdb-ha serve`: puts the parts together, runs until it is told to stop, and stops in order.

use crate::backup::keeper;
use crate::board::Board;
use crate::cluster::{Cluster, NodeId};
use crate::config::Config;
use crate::conflicts::Conflicts;
use crate::dispatch::Dispatch;
use crate::genres::Store;
use crate::http::listener::Port;
use crate::http::stop::Ending;
use crate::http::{self, App};
use crate::imdb::jobs::Jobs;
use crate::imdb::queries::Films;
use crate::limits;
use crate::pg::{self, Sessions};
use crate::quiet::Quiet;
use crate::redis_link::RedisWatch;
use crate::standby::{Orders, Standby};
use crate::supervisor::{self, Hands, Supervisor};
use crate::{comparer, history, lease, logging, privileges, probe, wakeup, watch};
use anyhow::Context;
use crossbeam_channel::{Receiver, Sender, select};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Serves until SIGTERM or SIGINT; a second one ends it at once.
///
/// # Errors
/// What could not be started; nothing is left running then but threads of a process that ends.
pub fn run(config: Config) -> anyhow::Result<ExitCode> {
    logging::start(&config.log_filter).context("start the log")?;
    // Before anything listens, so that a signal at any moment is an orderly stop.
    let (end, asked) = crossbeam_channel::bounded(1);
    listen_for_signals(end.clone())?;
    raise_file_limit();
    let config = Arc::new(config);
    let port = Port::take(config.listens_on())?;
    let (app, lease) = start(&config)?;
    let why = match wait_for_a_master(&app.board, &asked) {
        Some(why) => why,
        None => {
            let server = http::server::start(app, port, end)?;
            announce(&config);
            let why = asked.recv().unwrap_or(Ending::Broken);
            stop(&server, why, config.stop_deadline);
            why
        }
    };
    // Only now: whoever decides next finds no write of this process under way.
    lease.release();
    // The process ends here, with its threads and connections. Joining a thread or dropping a pool
    // could wait for a frozen master for ever; nothing in them needs an orderly end.
    log::info!("stopped");
    logging::flush(Duration::from_millis(200));
    std::process::exit(i32::from(why == Ending::Broken));
}

/// Asks for the end on the first SIGTERM or SIGINT, and ends at once on the second.
fn listen_for_signals(end: Sender<Ending>) -> anyhow::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT]).context("listen for signals")?;
    let hear = move || {
        let mut asked = false;
        for signal in signals.forever() {
            let name = match signal {
                SIGINT => "SIGINT",
                _ => "SIGTERM",
            };
            if asked {
                log::warn!(
                    "ending at once on a second signal, {name}; what is under way gets no answer"
                );
                logging::flush(Duration::from_millis(200));
                std::process::exit(1);
            }
            asked = true;
            // If the end was asked for already, it is under way.
            let _ = end.try_send(Ending::Asked(name));
        }
    };
    crate::vital::spawn("signals".to_string(), hear).context("start a thread")?;
    Ok(())
}

/// Waits until a master serves, so that whoever finds the port open is served; for [`limits::START_LISTEN`] at the most, since an
/// outage is told through this port too. Returns why the process is to end instead, if it is.
fn wait_for_a_master(board: &Board, asked: &Receiver<Ending>) -> Option<Ending> {
    let patience = crossbeam_channel::after(limits::START_LISTEN);
    loop {
        let (view, changed) = board.look();
        if view.serving {
            return None;
        }
        select! {
            recv(asked) -> why => return Some(why.unwrap_or(Ending::Broken)),
            recv(changed) -> _ => {}
            recv(patience) -> _ => {
                log::warn!("no master serves; listening all the same, and requests get 503 until one does");
                return None;
            }
        }
    }
}

fn stop(server: &http::server::Http, why: Ending, deadline: Duration) {
    let began = Instant::now();
    let because = match why {
        Ending::Asked(signal) => format!(" on {signal}"),
        Ending::Broken => String::new(),
    };
    log::info!(
        "stopping{because}: answering what was accepted, for {:.1} s at the most",
        deadline.as_secs_f32()
    );
    let stopped = server.stop(began + deadline);
    let took = began.elapsed().as_secs_f32();
    match stopped.is_clean() {
        true => log::info!("everything that was accepted was answered after {took:.1} s"),
        false => log::warn!(
            "STOP_DEADLINE_MS is over: {} requests on {} connections get no answer",
            stopped.unanswered,
            stopped.open
        ),
    }
}

/// Each connection of a client takes two descriptors, and the usual limit of 1,024 is low for that.
fn raise_file_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Starts every thread but those of the server. The probes and the supervisor come first, so that the first request finds
/// somebody who looks after the masters.
fn start(config: &Arc<Config>) -> anyhow::Result<(App, lease::Lease)> {
    let started = Instant::now();
    let cluster = Cluster::new(config.cluster_settings(), 0);
    let board = Arc::new(Board::new(cluster.view(), started));
    let redis = RedisWatch::new(&config.redis_url);
    let history = history::start(&config.redis_url, &redis).context("start the history")?;
    let (supervisor, inbox) = supervisor::channel();
    let statement_timeout = Duration::from_millis(limits::STATEMENT_TIMEOUT_MS);
    let open = |node: NodeId| -> anyhow::Result<Sessions> {
        let settings = pg::master_settings(config, node, statement_timeout)?;
        Sessions::start(node, pg::for_requests(settings), config.pool_size)
            .context("start the sessions")
    };
    let sessions = [open(NodeId::Master1)?, open(NodeId::Master2)?];
    let orders = Orders::default();
    let (wake1, woken1) = probe::wake_up();
    let (wake2, woken2) = probe::wake_up();
    supervisor::start(
        cluster,
        inbox,
        Hands {
            board: Arc::clone(&board),
            sessions: sessions.clone(),
            standby: Standby::new(
                open_stewards(config, statement_timeout)?,
                [wake1.clone(), wake2.clone()],
                orders.clone(),
            ),
            probes: [wake1, wake2],
            history: history.clone(),
        },
    )
    .context("start the supervisor")?;
    start_probes(config, &board, &supervisor, [woken1, woken2])?;
    let lease = lease::start(
        Arc::clone(config),
        Arc::clone(&board),
        redis,
        supervisor.clone(),
        orders,
    )
    .context("start the lease")?;
    let dispatch = Arc::new(Dispatch::new(
        Arc::clone(&board),
        supervisor.clone(),
        sessions,
    ));
    let store =
        Store::start(Arc::clone(&dispatch), config.use_sequence).context("start the write lane")?;
    let conflicts =
        Conflicts::start(config, limits::CONFLICTS_SESSIONS).context("start the conflicts")?;
    let comparer = comparer::start(config, Arc::clone(&board)).context("start the comparer")?;
    let backups = keeper::start(config, Arc::clone(&board)).context("start the backups")?;
    let privileges = privileges::start(config).context("start the look at the privileges")?;
    let loads = Jobs::new(Arc::clone(config));
    let app = App {
        watch: watch::start(config, Arc::clone(&board)).context("start the watch")?,
        board,
        supervisor,
        store,
        films: Films::new(dispatch),
        conflicts,
        history,
        config: Arc::clone(config),
        backups,
        privileges,
        loads,
        comparer,
        verdicts: Arc::new(Quiet::default()),
    };
    Ok((app, lease))
}

/// The supervisor's own sessions. Two on each master, so that an order to one that came back need not wait for one that it hung on.
fn open_stewards(config: &Config, statement_timeout: Duration) -> anyhow::Result<[Sessions; 2]> {
    let open = |node: NodeId| -> anyhow::Result<Sessions> {
        let settings = pg::connection_settings(config.master(node), statement_timeout)?;
        Sessions::start(node, pg::without_waiting(settings), 2).context("start the sessions")
    };
    Ok([open(NodeId::Master1)?, open(NodeId::Master2)?])
}

/// One probe per master, and one that wakes its walsender.
fn start_probes(
    config: &Config,
    board: &Arc<Board>,
    supervisor: &Supervisor,
    woken: [Receiver<()>; 2],
) -> anyhow::Result<()> {
    let statement_timeout = Duration::from_millis(limits::STATEMENT_TIMEOUT_MS);
    for (node, woken) in NodeId::BOTH.into_iter().zip(woken) {
        let settings = pg::master_settings(config, node, statement_timeout)?;
        probe::start(
            node,
            pg::for_probes(settings),
            Arc::clone(&config.roster),
            config.probe_interval,
            woken,
            Arc::clone(board),
            supervisor.clone(),
        )
        .context("start a probe")?;
        let settings = pg::master_settings(config, node, limits::WAKEUP_STATEMENT)?;
        wakeup::start(node, pg::for_probes(settings), Arc::clone(board))
            .context("start the wake-ups")?;
    }
    Ok(())
}

fn announce(config: &Config) {
    log::info!(
        "imdb-ha {} listens on http://{}",
        env!("CARGO_PKG_VERSION"),
        config.listens_on()
    );
    if config.advertised != format!("http://{}", config.listens_on()) {
        log::info!("others are told to find it at {}", config.advertised);
    }
    log::info!(
        "master1 is {}, master2 is {}, redis is {}",
        config.master(NodeId::Master1).address(),
        config.master(NodeId::Master2).address(),
        config.redis_url.address()
    );
    if config.admin_token.is_none() {
        log::warn!("no ADMIN_TOKEN is set: only callers on this machine may switch masters");
        if !config.bind.is_loopback() {
            log::warn!("the API listens beyond this machine; set an ADMIN_TOKEN");
        }
    }
}
