//! `imdb-ha serve`: puts the parts together, runs until it is told to stop, and stops in order.

use crate::backup::keeper;
use crate::board::Board;
use crate::cluster::{Cluster, NodeId};
use crate::config::Config;
use crate::conflicts::Conflicts;
use crate::dispatch::Dispatch;
use crate::genres::Store;
use crate::http::{self, App};
use crate::imdb::jobs::Jobs;
use crate::imdb::queries::Films;
use crate::limits;
use crate::pg::{self, Sessions};
use crate::quiet::Quiet;
use crate::redis_link::RedisWatch;
use crate::standby::Standby;
use crate::supervisor::{self, Hands, Supervisor};
use crate::{comparer, history, lease, logging, probe, wakeup};
use anyhow::Context;
use crossbeam_channel::Receiver;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// What could not be started; nothing is left running then but threads of a process that ends.
pub fn run(config: Config) -> anyhow::Result<ExitCode> {
    logging::start(&config.log_filter).context("start the log")?;
    // Before anything listens, so that a signal at any moment is an orderly stop.
    let mut signals = Signals::new([SIGTERM, SIGINT]).context("listen for signals")?;
    raise_file_limit();
    let config = Arc::new(config);
    let (server, lease) = start(&config)?;
    announce(&config);
    let signal = signals.forever().next();
    log::info!(
        "stopping on {}",
        if signal == Some(SIGINT) {
            "SIGINT"
        } else {
            "SIGTERM"
        }
    );
    server.stop();
    lease.release();
    // The process ends here, with its threads and connections. Joining a thread or dropping a pool
    // could wait for a frozen master for ever; nothing in them needs an orderly end.
    log::info!("stopped");
    logging::flush(Duration::from_millis(200));
    std::process::exit(0);
}

/// Each connection of a client takes two descriptors, and the usual limit of 1,024 is low for that.
fn raise_file_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Starts every thread. The probes and the supervisor come first, so that the first request finds
/// somebody who looks after the masters.
fn start(config: &Arc<Config>) -> anyhow::Result<(http::server::Http, lease::Lease)> {
    let started = Instant::now();
    let cluster = Cluster::new(config.cluster_settings(), 0);
    let board = Arc::new(Board::new(cluster.view(), started));
    let redis = RedisWatch::new(&config.redis_url);
    let history = history::start(&config.redis_url, &redis).context("start the history")?;
    let (supervisor, inbox) = supervisor::channel();
    let statement_timeout = Duration::from_millis(limits::STATEMENT_TIMEOUT_MS);
    let open = |node: NodeId| -> anyhow::Result<Sessions> {
        let settings = pg::connection_settings(config.master(node), statement_timeout)?;
        Sessions::start(node, pg::for_requests(settings), config.pool_size)
            .context("start the sessions")
    };
    let sessions = [open(NodeId::Master1)?, open(NodeId::Master2)?];
    let open_steward = |node: NodeId| -> anyhow::Result<Sessions> {
        let settings = pg::connection_settings(config.master(node), statement_timeout)?;
        // Two, so that an order to a master that came back need not wait for one that it hung on.
        Sessions::start(node, pg::without_waiting(settings), 2).context("start the sessions")
    };
    let (wake1, woken1) = probe::wake_up();
    let (wake2, woken2) = probe::wake_up();
    supervisor::start(
        cluster,
        inbox,
        Hands {
            board: Arc::clone(&board),
            sessions: sessions.clone(),
            standby: Standby::new(
                [
                    open_steward(NodeId::Master1)?,
                    open_steward(NodeId::Master2)?,
                ],
                [wake1.clone(), wake2.clone()],
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
    let loads = Jobs::new(Arc::clone(config));
    let config = Arc::clone(config);
    let server = http::server::start(App {
        board,
        supervisor,
        store,
        films: Films::new(dispatch),
        conflicts,
        history,
        config,
        backups,
        loads,
        comparer,
        verdicts: Arc::new(Quiet::default()),
    })?;
    Ok((server, lease))
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
        let settings = pg::connection_settings(config.master(node), statement_timeout)?;
        probe::start(
            node,
            pg::for_probes(settings),
            config.probe_interval,
            woken,
            Arc::clone(board),
            supervisor.clone(),
        )
        .context("start a probe")?;
        let settings = pg::connection_settings(config.master(node), limits::WAKEUP_STATEMENT)?;
        wakeup::start(node, pg::for_probes(settings), Arc::clone(board))
            .context("start the wake-ups")?;
    }
    Ok(())
}

fn announce(config: &Config) {
    log::info!(
        "imdb-ha {} listens on http://{}:{}",
        env!("CARGO_PKG_VERSION"),
        config.bind,
        config.port
    );
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
