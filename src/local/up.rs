//! `imdb-ha local up`: starts everything in order, says one line per event, and stops everything that
//! it started when it is told to.

use super::layout::{Layout, Owner, Ports, State};
use super::master::{DATABASE, Master, Programs};
use super::process::Process;
use super::{ports, stop};
use crate::cluster::NodeId;
use crate::config::{Config, SecretUrl, Values};
use crate::limits;
use crate::replication::setup;
use anyhow::{Context, bail};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use nix::sys::signal::Signal;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::fs::{self, File, OpenOptions};
use std::io::{IsTerminal, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use url::Url;

/// How to start.
pub struct Options {
    pub ephemeral: bool,
    pub json: bool,
}

/// Restarts of the API within a minute before it is given up.
const API_RESTARTS_MAX: usize = 5;

/// One line about one event.
pub fn say(line: &str) {
    let now = jiff::Zoned::now();
    eprintln!("{} {line}", now.strftime("%H:%M:%S"));
}

/// Runs until it is told to stop, in the foreground.
///
/// # Errors
/// What could not be started; everything that had been is stopped again then.
pub fn run(config: &Config, values: &Values, options: &Options) -> anyhow::Result<ExitCode> {
    let stopped = listen_for_the_end(options.ephemeral)?;
    let layout = match options.ephemeral {
        true => temporary_layout()?,
        false => Layout::of(config)?,
    };
    let lock = layout.claim()?;
    let mut up = Up { config, values, options, layout, stopped, api: None, redis: None, follow: None };
    let outcome = up.start().and_then(|state| up.watch(state));
    if let Ok(Some(state)) = up.layout.state() {
        say("stopping");
        stop(&up.layout, &state);
        say("stopped");
    }
    up.reap();
    up.layout.remove_state();
    drop(lock);
    if options.ephemeral {
        let root = &up.layout.root;
        fs::remove_dir_all(root).with_context(|| format!("remove {}", root.display()))?;
    }
    match outcome {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) if error.is::<Interrupted>() => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error),
    }
}

/// The start was broken off by whoever asked for it.
#[derive(Debug)]
struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// What ends when the end is asked for: by a signal or, for an ephemeral cluster, by the end of
/// standard input, so that it does not outlive whoever started it.
fn listen_for_the_end(tied: bool) -> anyhow::Result<Receiver<()>> {
    let (tell, told) = crossbeam_channel::bounded(1);
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("listen for signals")?;
    let by_signal = tell.clone();
    std::thread::Builder::new().name("signals".to_string()).spawn(move || {
        for signal in signals.forever() {
            // Whoever logs out leaves a detached cluster running.
            if signal != SIGHUP || std::io::stdin().is_terminal() {
                let _ = by_signal.try_send(());
            }
        }
    })?;
    if tied {
        std::thread::Builder::new().name("stdin".to_string()).spawn(move || {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            let _ = tell.try_send(());
        })?;
    }
    Ok(told)
}

fn temporary_layout() -> anyhow::Result<Layout> {
    let unique = format!("imdb-ha-{}-{}", std::process::id(), jiff::Timestamp::now().as_millisecond());
    let root = std::env::temp_dir().join(unique);
    fs::create_dir(&root).with_context(|| format!("make the folder {}", root.display()))?;
    // The servers may run as another user, who must get through to their own folders.
    fs::set_permissions(&root, fs::Permissions::from_mode(0o755))?;
    Ok(Layout { root })
}

struct Up<'a> {
    config: &'a Config,
    values: &'a Values,
    options: &'a Options,
    layout: Layout,
    stopped: Receiver<()>,
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
        let programs = Programs::find(self.config.pg_bin.as_deref())?;
        owner.check_reach(&self.layout.root)?;
        owner.make_folder(&self.layout.run())?;
        owner.make_folder(&self.layout.redis())?;
        if let Some(old) = self.layout.state()? {
            say("the last start here was not stopped; stopping what it left");
            stop(&self.layout, &old);
        }
        let ports = match self.options.ephemeral {
            true => ports::any()?,
            false => ports::choose(ports::wanted(self.config.port), self.config.bind, &mut |line| say(line))?,
        };
        let up = Process::current().context("read /proc of this process")?;
        let bind = self.config.bind.to_string();
        let mut state = State { up, api: None, redis: None, ports, bind, ready: false };
        self.layout.write_state(&state)?;

        self.start_masters(owner, &programs, ports)?;
        self.check_interrupted()?;
        let joined = self.joined_config(ports)?;
        for line in setup::run(&joined)? {
            say(&format!("replication: {line}"));
        }
        setup::wait_until_streaming(&joined, limits::SERVER_START)?;
        say("replication: both directions are streaming");
        self.check_interrupted()?;

        state.redis = Some(self.start_redis(owner, ports.redis)?);
        self.layout.write_state(&state)?;
        self.follow = Some(follow(self.layout.api_log())?);
        state.api = Some(self.start_api(ports)?);
        self.layout.write_state(&state)?;
        self.wait_for_api(&state)?;
        state.ready = true;
        self.layout.write_state(&state)?;
        say(&format!("ready after {:.1} s", began.elapsed().as_secs_f32()));
        match self.options.json {
            true => println!("{}", super::status_json(&self.layout, &state)?),
            false => println!("{}", super::banner(&self.layout, &state)),
        }
        std::io::stdout().flush()?;
        Ok(state)
    }

    fn check_interrupted(&self) -> anyhow::Result<()> {
        match self.stopped.try_recv() {
            Ok(()) => bail!(Interrupted),
            Err(_) => Ok(()),
        }
    }

    /// Makes and starts both masters side by side, and their database.
    fn start_masters(&self, owner: Owner, programs: &Programs, ports: Ports) -> anyhow::Result<()> {
        let durable = !self.options.ephemeral;
        let start = |node: NodeId| -> anyhow::Result<()> {
            let master = Master::new(&self.layout, node, owner);
            if !master.exists() {
                say(&format!("{node}: making {}", master.data.display()));
                master.create(programs, durable)?;
            }
            let port = ports.masters[node.index()];
            master.start(programs, port)?;
            say(&format!("{node}: up on port {port}"));
            make_database(node, port)
        };
        std::thread::scope(|scope| {
            let both = NodeId::BOTH.map(|node| scope.spawn(move || start(node)));
            // Both are waited for, so that neither is left half-started behind an error of the other.
            let outcomes = both.map(|thread| thread.join().map_err(|_| anyhow::anyhow!("a start panicked")));
            outcomes.into_iter().try_for_each(|outcome| outcome?)
        })
    }

    /// The configuration with the masters as they run here.
    fn joined_config(&self, ports: Ports) -> anyhow::Result<Config> {
        let [first, second] = ports.masters;
        let mut values = self.values.clone();
        values.insert("MASTER1_URL", Master::url(first, DATABASE)?.reveal().to_string());
        values.insert("MASTER2_URL", Master::url(second, DATABASE)?.reveal().to_string());
        values.insert("REDIS_URL", format!("redis://127.0.0.1:{}", ports.redis));
        values.insert("PORT", ports.api.to_string());
        values.remove("MASTER1_PEER_ADDRESS");
        values.remove("MASTER2_PEER_ADDRESS");
        Ok(Config::check(&values)?)
    }

    fn start_redis(&mut self, owner: Owner, port: u16) -> anyhow::Result<Process> {
        let folder = self.layout.redis();
        let mut command = Command::new("redis-server");
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").args(["--bind", "127.0.0.1"]);
        // Both ways of persistence, as the manual promises.
        command.args(["--appendonly", "yes", "--save", "60 1", "--daemonize", "no", "--loglevel", "notice"]);
        command.arg("--port").arg(port.to_string()).arg("--dir").arg(&folder);
        command.arg("--logfile").arg(folder.join("redis.log"));
        owner.apply(&mut command);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().context("start redis-server; scripts/install.sh installs it")?;
        let process = Process::with_id(child.id() as i32).context("redis-server ended at once")?;
        self.redis = Some(child);
        let deadline = Instant::now() + limits::REDIS_TIMEOUT * 5;
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            if Instant::now() > deadline || !process.lives() {
                bail!("redis-server does not answer on port {port}; see {}", folder.join("redis.log").display());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        say(&format!("redis: up on port {port}"));
        Ok(process)
    }

    /// Starts the API as a process of its own. What it needs to know it gets by its environment,
    /// which nobody but its user can read, and not by flags.
    fn start_api(&mut self, ports: Ports) -> anyhow::Result<Process> {
        let log = OpenOptions::new().create(true).append(true).open(self.layout.api_log())?;
        let joined = self.joined_config(ports)?;
        let url = |url: &SecretUrl| url.reveal().to_string();
        let mut command = Command::new(std::env::current_exe().context("find this program")?);
        command.arg("serve").envs(self.values.iter());
        command.env("MASTER1_URL", url(&joined.masters[0])).env("MASTER2_URL", url(&joined.masters[1]));
        command.env("REDIS_URL", url(&joined.redis_url)).env("PORT", ports.api.to_string());
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().context("start the API")?;
        let process = Process::with_id(child.id() as i32).context("the API ended at once")?;
        self.api = Some(child);
        Ok(process)
    }

    /// Waits until the API says that a master serves.
    fn wait_for_api(&mut self, state: &State) -> anyhow::Result<()> {
        let deadline = Instant::now() + limits::LOCAL_READY;
        while !is_healthy(state) {
            self.check_interrupted()?;
            if let Some(status) = self.api.as_mut().and_then(|child| child.try_wait().ok()).flatten() {
                bail!("the API ended ({status}); its log is {}", self.layout.api_log().display());
            }
            if Instant::now() > deadline {
                bail!("the API is not healthy; its log is {}", self.layout.api_log().display());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Keeps the API running until the end is asked for. A master that dies stays dead: that is what
    /// this cluster is there to show.
    fn watch(&mut self, mut state: State) -> anyhow::Result<()> {
        let mut restarts: Vec<Instant> = Vec::new();
        loop {
            match self.stopped.recv_timeout(Duration::from_millis(200)) {
                Err(RecvTimeoutError::Timeout) => {}
                _ => return Ok(()),
            }
            if let Some(child) = self.redis.as_mut() {
                if let Ok(Some(status)) = child.try_wait() {
                    say(&format!("redis: ended ({status}); the API goes on without it"));
                    self.redis = None;
                }
            }
            let Some(Ok(Some(status))) = self.api.as_mut().map(Child::try_wait) else { continue };
            restarts.retain(|at| at.elapsed() < Duration::from_secs(60));
            if restarts.len() >= API_RESTARTS_MAX {
                bail!("the API ended {API_RESTARTS_MAX} times within a minute, lastly with {status}");
            }
            restarts.push(Instant::now());
            say(&format!("api: ended ({status}); starting it again"));
            state.api = Some(self.start_api(state.ports)?);
            self.layout.write_state(&state)?;
        }
    }

    /// Collects what ended, so that nothing is left as a zombie.
    fn reap(&mut self) {
        self.follow = None;
        for child in [&mut self.api, &mut self.redis].into_iter().flatten() {
            let _ = child.wait();
        }
    }
}

/// Makes the manual's database, unless it is there.
fn make_database(node: NodeId, port: u16) -> anyhow::Result<()> {
    let settings = crate::pg::connection_settings(&Master::url(port, "postgres")?, limits::SETUP_CALL)?;
    let sessions = crate::pg::Sessions::start(node, settings, 1)?;
    sessions
        .run(limits::SETUP_CALL, |session| {
            let found = session
                .client()
                .query("SELECT FROM pg_catalog.pg_database WHERE datname = $1", &[&DATABASE])?;
            if found.is_empty() {
                session.client().batch_execute(&format!("CREATE DATABASE \"{DATABASE}\""))?;
            }
            Ok(())
        })
        .with_context(|| format!("make the database {DATABASE} on {node}"))
}

/// Whether `GET /health` answers 200. One request by hand: a whole HTTP client for it is too much.
fn is_healthy(state: &State) -> bool {
    let ask = || -> std::io::Result<String> {
        let address = super::api_address(state);
        let mut stream = std::net::TcpStream::connect_timeout(&address, limits::CONNECT_TIMEOUT)?;
        stream.set_read_timeout(Some(limits::CONNECT_TIMEOUT))?;
        stream.write_all(b"GET /health HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.split(' ').nth(1) == Some("200"))
}

/// Shows what is added to a file from now on, until the result is dropped.
fn follow(path: PathBuf) -> anyhow::Result<Sender<()>> {
    let mut file = OpenOptions::new().create(true).append(true).read(true).open(&path)?;
    file.seek(SeekFrom::End(0))?;
    let (keep, ended) = crossbeam_channel::bounded::<()>(0);
    std::thread::Builder::new().name("follow".to_string()).spawn(move || {
        let mut show = move || {
            let mut added = Vec::new();
            if file.read_to_end(&mut added).is_ok() {
                let _ = std::io::stderr().write_all(&added);
            }
        };
        while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(Duration::from_millis(100)) {
            show();
        }
        show();
    })?;
    Ok(keep)
}

/// `imdb-ha local up --detach`: starts `up` as a process of its own and returns when it is ready.
///
/// # Errors
/// What the detached process said when it gave up.
pub fn detach(config: &Config, values: &Values, json: bool) -> anyhow::Result<ExitCode> {
    let layout = Layout::of(config)?;
    let running = layout.state()?.filter(|state| state.up.lives() && state.ready);
    let state = match running {
        Some(state) => {
            say("it is running already");
            state
        }
        None => start_detached(&layout, values)?,
    };
    match json {
        true => println!("{}", super::status_json(&layout, &state)?),
        false => println!("{}", super::banner(&layout, &state)),
    }
    Ok(ExitCode::SUCCESS)
}

fn start_detached(layout: &Layout, values: &Values) -> anyhow::Result<State> {
    drop(layout.claim()?);
    let log = File::create(layout.up_log())
        .with_context(|| format!("write {}", layout.up_log().display()))?;
    let shown = follow(layout.up_log())?;
    let mut command = Command::new(std::env::current_exe().context("find this program")?);
    command.args(["local", "up"]).envs(values.iter()).env("IMDB_HA_DATA", &layout.root);
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let mut child = command.spawn().context("start the cluster")?;
    let deadline = Instant::now() + limits::LOCAL_READY + limits::SERVER_START;
    let state = loop {
        if let Some(state) = layout.state()?.filter(|state| state.ready && state.up.pid == child.id() as i32) {
            break state;
        }
        if let Some(status) = child.try_wait()? {
            drop(shown);
            std::thread::sleep(Duration::from_millis(150));
            bail!("the cluster did not start ({status}); what it said is in {}", layout.up_log().display());
        }
        if Instant::now() > deadline {
            Process::with_id(child.id() as i32).into_iter().for_each(|up| up.signal(Signal::SIGTERM));
            bail!("the cluster is not ready; what it said is in {}", layout.up_log().display());
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    drop(shown);
    Ok(state)
}

/// A URL for people, who do not reach 0.0.0.0.
pub fn api_url(address: std::net::SocketAddr) -> String {
    Url::parse(&format!("http://{address}")).map_or(String::new(), |url| {
        url.as_str().trim_end_matches('/').to_string()
    })
}
