//! `imdb-ha local up`: starts everything in order, says one line per event, and stops everything that
//! it started when it is told to.

use super::layout::{Kept, Layout, Ports, State};
use super::ports::{self, Claim};
use super::services::{Health, follow, health, make_database, start_api, start_redis};
use super::{archive, end, joined, stop};
use crate::cli::LocalPorts;
use crate::cluster::NodeId;
use crate::config::{Config, Values};
use crate::imdb::load::at_first_start;
use crate::interrupt::{Interrupt, Interrupted};
use crate::limits;
use crate::output::{self, say_with_time as say};
use crate::process::Process;
use crate::programs::{Owner, Programs};
use crate::replication::setup;
use anyhow::{Context, bail};
use crossbeam_channel::Sender;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, ExitCode};
use std::time::{Duration, Instant};

/// How to start.
pub struct Options {
    pub ephemeral: bool,
    /// Whether somebody else runs the API.
    pub no_api: bool,
    /// Whether other ports may be taken than those that the cluster had before.
    pub move_ports: bool,
    /// Ports that were asked for.
    pub ports: LocalPorts,
    pub json: bool,
}

/// Restarts of the API within a minute before it is given up.
const API_RESTARTS_MAX: usize = 5;

/// Runs until it is told to stop, in the foreground.
///
/// # Errors
/// What could not be started; everything that had been is stopped again then.
pub fn run(config: &Config, values: &Values, options: &Options) -> anyhow::Result<ExitCode> {
    let interrupt = Interrupt::listen(options.ephemeral)?;
    let layout = match options.ephemeral {
        true => temporary_layout()?,
        false => Layout::of(config)?,
    };
    let lock = layout.claim()?;
    if let Some(notice) = joined::not_used(values) {
        say(&notice);
    }
    let mut up = Up {
        config,
        values,
        options,
        layout,
        interrupt,
        api: None,
        redis: None,
        follow: None,
    };
    let outcome = up.start().and_then(|state| up.watch(state));
    let ended = up.end();
    if let Err(error) = &ended {
        let root = up.layout.root.display();
        say(&format!(
            "not everything stopped, so {root} stays: {error:#}"
        ));
    }
    drop(lock);
    if options.ephemeral && ended.is_ok() {
        remove_folder(&up.layout.root)?;
    }
    match outcome {
        Err(error) if !error.is::<Interrupted>() => Err(error),
        _ => ended.map(|()| ExitCode::SUCCESS),
    }
}

/// Removes the folder of what has ended. pgBackRest hands WAL over in the background, and for a moment after the
/// server it may still put something in.
fn remove_folder(root: &Path) -> anyhow::Result<()> {
    let deadline = Instant::now() + limits::API_STOP;
    loop {
        match fs::remove_dir_all(root) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) if Instant::now() >= deadline => {
                return Err(error).with_context(|| format!("remove {}", root.display()));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn temporary_layout() -> anyhow::Result<Layout> {
    let unique = format!(
        "imdb-ha-{}-{}",
        std::process::id(),
        jiff::Timestamp::now().as_millisecond()
    );
    let root = std::env::temp_dir().join(unique);
    fs::create_dir(&root).with_context(|| format!("make the folder {}", root.display()))?;
    // The servers may run as another user, who must get through to their own folders.
    fs::set_permissions(&root, fs::Permissions::from_mode(0o755))?;
    Ok(Layout { root, named: true })
}

struct Up<'a> {
    config: &'a Config,
    values: &'a Values,
    options: &'a Options,
    layout: Layout,
    interrupt: Interrupt,
    api: Option<Child>,
    redis: Option<Child>,
    /// Dropping it ends the thread that shows what the API logs.
    follow: Option<Sender<()>>,
}

impl Up<'_> {
    /// Starts everything and returns what runs then.
    fn start(&mut self) -> anyhow::Result<State> {
        let began = Instant::now();
        let owner = Owner::find()?;
        let [first, second] = NodeId::BOTH
            .map(|node| Programs::find(self.config.pg_bin.as_deref(), &self.layout.master(node)));
        let programs = [first?, second?];
        owner.check_reach(&self.layout.root)?;
        owner.make_folder(&self.layout.run())?;
        owner.make_folder(&self.layout.redis())?;
        if let Some(old) = self.layout.state()? {
            say("the last start here was not stopped; stopping what it left");
            stop(&self.layout, &old)?;
        }
        archive::keep_passphrase(&self.layout, owner, self.config.backups.passphrase.as_ref())?;
        let give_up = || self.interrupt.is_asked();
        let turn = match self.options.ephemeral {
            // The kernel gives each of those ports of its own.
            true => None,
            false => ports::turn(&give_up),
        };
        let kept = self.layout.kept()?;
        let claim = self.claim_ports(kept.as_ref())?;
        let ports = claim.ports;
        let up = Process::current().context("read /proc of this process")?;
        let bind = self.config.bind.to_string();
        let mut state = State {
            up,
            api: None,
            redis: None,
            ports,
            bind,
            ready: false,
            cluster: kept.and_then(|kept| kept.cluster),
        };
        self.layout.write_state(&state)?;

        let started = self.start_masters(owner, &programs, &claim);
        self.interrupt.check()?;
        started?;
        let joined = Config::check(&self.joined(ports)?)?;
        self.join(&joined)?;
        state.cluster = joined.roster.cluster().or(state.cluster);
        self.layout.keep(&Kept {
            cluster: state.cluster.clone(),
            ports,
            asked_api: self.config.port,
        })?;
        self.load(&joined)?;

        claim.release(ports.redis);
        let (child, process) = start_redis(&self.layout, owner, ports.redis)?;
        self.redis = Some(child);
        state.redis = Some(process);
        self.layout.write_state(&state)?;
        claim.release(ports.api);
        if !self.options.no_api {
            self.follow = Some(follow(self.layout.api_log())?);
            state.api = Some(self.start_api(ports)?);
            self.layout.write_state(&state)?;
            self.wait_for_api(&state)?;
        }
        drop(turn);
        state.ready = true;
        self.layout.write_state(&state)?;
        say(&format!(
            "ready after {:.1} s",
            began.elapsed().as_secs_f32()
        ));
        let told = match self.options.json {
            true => super::status_json(&self.layout, &state)?.to_string(),
            false => super::banner(&self.layout, &state),
        };
        output::print(told);
        Ok(state)
    }

    /// The ports of the last start, unless there was none, they may be others now, or others are asked for.
    fn claim_ports(&self, kept: Option<&Kept>) -> anyhow::Result<Claim> {
        if self.options.ephemeral {
            return ports::any();
        }
        let (asked, bind) = (self.config.port, self.config.bind);
        let mut wanted = kept.map_or(ports::wanted(asked), |kept| kept.ports);
        if kept.is_some_and(|kept| kept.asked_api != asked) {
            wanted.api = asked;
        }
        let named = self.options.ports;
        let wanted = ports::over(wanted, named);
        let mut say = |line: &str| say(line);
        match (self.options.move_ports, kept) {
            (true, _) => ports::choose(wanted, LocalPorts::default(), bind, &mut say),
            (false, None) => ports::choose(wanted, named, bind, &mut say),
            (false, Some(_)) => ports::keep(wanted, bind),
        }
    }

    /// Joins the masters. If one of them must be rebuilt first, the other serves alone, and a person
    /// decides: rebuilding throws away what is left on the one.
    fn join(&self, joined: &Config) -> anyhow::Result<()> {
        let of_setup = joined.clone();
        let outcome = self.interrupt.unless(move || {
            for line in setup::run(&of_setup)? {
                say(&format!("replication: {line}"));
            }
            setup::wait_until_streaming(&of_setup, limits::SERVER_START)
        });
        let Err(error) = outcome else {
            say("replication: both directions are streaming");
            return Ok(());
        };
        match error.downcast_ref::<setup::NeedsRejoin>() {
            Some(need) => {
                super::tell_need(&self.layout, need);
                Ok(())
            }
            None => Err(error),
        }
    }

    /// Loads what the first start is to load. The cluster is good without it.
    fn load(&self, joined: &Config) -> anyhow::Result<()> {
        let config = joined.clone();
        let loaded = self.interrupt.unless(move || at_first_start(&config));
        self.interrupt.check()?;
        match loaded {
            Ok(loaded) => loaded.iter().for_each(|line| say(&format!("load: {line}"))),
            Err(error) => say(&format!("load: nothing was loaded: {error:#}")),
        }
        Ok(())
    }

    /// Makes and starts both masters side by side, and their database.
    fn start_masters(
        &self,
        owner: Owner,
        programs: &[Programs; 2],
        claim: &Claim,
    ) -> anyhow::Result<()> {
        let durable = !self.options.ephemeral;
        let give_up = || self.interrupt.is_asked();
        let there = NodeId::BOTH.map(|node| self.layout.server(node, owner).exists());
        let start = |node: NodeId| -> anyhow::Result<()> {
            let mut master = self.layout.server(node, owner);
            master.settings.clone_from(&self.config.master_settings);
            let programs = &programs[node.index()];
            if !master.exists() {
                let peer = node.peer();
                say(&match there[peer.index()] {
                    true => format!(
                        "{node}: {} is missing or empty, while {peer} has data; making it anew",
                        master.data.display()
                    ),
                    false => format!("{node}: making {}", master.data.display()),
                });
                master.create(programs, durable, &give_up)?;
            }
            let port = claim.ports.masters[node.index()];
            claim.release(port);
            archive::configure(&self.layout, &master, port);
            master.start(programs, port, &give_up)?;
            say(&format!("{node}: up on port {port}"));
            self.interrupt.unless(move || make_database(node, port))
        };
        std::thread::scope(|scope| {
            let both = NodeId::BOTH.map(|node| scope.spawn(move || start(node)));
            // Both are waited for, so that neither is left half-started behind an error of the other.
            let outcomes = both.map(|thread| {
                thread
                    .join()
                    .map_err(|_| anyhow::anyhow!("a start panicked"))
            });
            outcomes.into_iter().try_for_each(|outcome| outcome?)
        })
    }

    /// The values for what runs beside the masters.
    fn joined(&self, ports: Ports) -> anyhow::Result<Values> {
        joined::values(&self.layout, self.values, ports, self.options.ephemeral)
    }

    fn start_api(&mut self, ports: Ports) -> anyhow::Result<Process> {
        let (child, process) = start_api(&self.layout, &self.joined(ports)?)?;
        self.api = Some(child);
        Ok(process)
    }

    /// Waits until the API says that a master serves, and a moment for the other one to take part: who
    /// reads "ready" may kill a master next.
    fn wait_for_api(&mut self, state: &State) -> anyhow::Result<()> {
        let deadline = Instant::now() + limits::LOCAL_READY;
        let mut serves_since = None;
        loop {
            match health(state) {
                Health::Healthy => return Ok(()),
                Health::Degraded => {
                    let since: &mut Instant = serves_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= limits::LOCAL_JOINED {
                        return Ok(());
                    }
                }
                Health::Unhealthy => {}
            }
            self.interrupt.check()?;
            let log = self.layout.api_log();
            let ended = self.api.as_mut().and_then(|child| child.try_wait().ok()?);
            if let Some(status) = ended {
                bail!("the API ended ({status}); its log is {}", log.display());
            }
            if Instant::now() > deadline {
                bail!("the API is not healthy; its log is {}", log.display());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Keeps the API running until the end is asked for. A master that dies stays dead: that is what
    /// this cluster is there to show.
    fn watch(&mut self, mut state: State) -> anyhow::Result<()> {
        let mut restarts: Vec<Instant> = Vec::new();
        loop {
            if self.interrupt.within(Duration::from_millis(200)) {
                return Ok(());
            }
            if let Some(child) = self.redis.as_mut() {
                if let Ok(Some(status)) = child.try_wait() {
                    say(&format!(
                        "redis: ended ({status}); the API goes on without it"
                    ));
                    self.redis = None;
                }
            }
            let Some(Ok(Some(status))) = self.api.as_mut().map(Child::try_wait) else {
                continue;
            };
            restarts.retain(|at| at.elapsed() < Duration::from_secs(60));
            if restarts.len() >= API_RESTARTS_MAX {
                bail!(
                    "the API ended {API_RESTARTS_MAX} times within a minute, lastly with {status}"
                );
            }
            restarts.push(Instant::now());
            say(&format!("api: ended ({status}); starting it again"));
            state.api = Some(self.start_api(state.ports)?);
            self.layout.write_state(&state)?;
        }
    }

    /// Stops everything, and forgets it once it is gone. The data of a server that lives must stay.
    fn end(&mut self) -> anyhow::Result<()> {
        let stopped = match self.layout.state() {
            Ok(Some(state)) => {
                say("stopping");
                stop(&self.layout, &state).inspect(|()| say("stopped"))
            }
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        self.reap();
        stopped.inspect(|()| self.layout.remove_state())
    }

    /// Collects what ended, so that nothing is left as a zombie. A child that the state on the disk
    /// does not name, because it could not be written, still runs and is ended here.
    fn reap(&mut self) {
        self.follow = None;
        for child in [&mut self.api, &mut self.redis].into_iter().flatten() {
            // The id of one that was collected before may be another process's by now.
            if let Ok(None) = child.try_wait() {
                Process::with_id(child.id() as i32)
                    .into_iter()
                    .for_each(|process| end(process, limits::API_STOP));
                let _ = child.try_wait();
            }
        }
    }
}
