//! `imdb-ha master`: one master in the foreground, as a container or a machine of its own runs it. It makes the data folder if there is none,
//! readies the archive, starts the server and watches it, and keeps it down for whoever holds it ([`home`]).

mod home;
mod servers;

pub use servers::Launched;

use crate::backup::command::Place;
use crate::cluster::NodeId;
use crate::config::{Config, MANUALS_PASSWORDS, Secret};
use crate::follow;
use crate::interrupt::{Interrupt, Interrupted};
use crate::limits;
use crate::output::say_with_time as say;
use crate::pg::{self, Sessions};
use crate::process;
use crate::programs::{Owner, Programs};
use crate::server::archive::Archive;
use crate::server::{self, Listen, Master};
use anyhow::{Context, bail};
use crossbeam_channel::Sender;
use home::{Claim, Home, Saying};
use postgres::error::SqlState;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::ExitCode;

/// The folder in which the data folders of both masters are when nothing else is said: each has one of its own there, with its name.
const ROOT: &str = "/var/lib/imdb-ha";

/// A launcher and its server.
struct Launcher<'a> {
    config: &'a Config,
    master: Master,
    port: u16,
    home: Home,
    claim: Claim,
    interrupt: Interrupt,
}

/// Runs until it is told to stop, or until its server ends by itself.
///
/// # Errors
/// What could not be started, or that the server has ended.
pub fn run(config: &Config, node: NodeId) -> anyhow::Result<ExitCode> {
    process::keep_inherited_files_private();
    let interrupt = Interrupt::listen(false)?;
    let place = Place::of(config)?;
    let data = match &place {
        Some(place) => place
            .option(node, "pg1-path")
            .map(PathBuf::from)
            .with_context(|| {
                format!("BACKUP_CONFIG_DIR: pgbackrest.conf of {node} has no pg1-path")
            })?,
        None => {
            let root = config.data.as_deref().unwrap_or(ROOT);
            PathBuf::from(root).join(node.name()).join("data")
        }
    };
    let home = Home::around(&data);
    let owner = Owner::find()?;
    owner.make_folder(home.folder())?;
    let url = config.master(node);
    let Some(password) = url.password() else {
        bail!(
            "{}_URL has no password, and the server would have none",
            node.name().to_uppercase()
        );
    };
    refuse_to_publish(config, &password)?;
    let run = home.folder().join("run");
    owner.make_folder(&run)?;
    if place.is_none() {
        say(&format!(
            "{node}: no WAL is archived and no backup can be made: BACKUP_CONFIG_DIR is not set"
        ));
    }
    let launcher = Launcher {
        config,
        port: url.port(),
        claim: home.claim()?,
        home,
        interrupt,
        master: Master {
            node,
            data,
            run,
            owner,
            archive: Archive::new(node, place),
            user: url.user(),
            password,
            listen: Listen::Everywhere,
            patience: limits::LAUNCHER_START,
            stop_patience: limits::LAUNCHER_STOP,
            settings: config.master_settings.clone(),
        },
    };
    launcher.watch()
}

/// A server with a password that everybody knows is nobody's alone where anybody can reach it: everywhere, unless it is said where. The
/// role that replicates reads every table, and drops slots.
fn refuse_to_publish(config: &Config, password: &Secret) -> anyhow::Result<()> {
    let everywhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let reached_at = config.published_on.unwrap_or(everywhere);
    if reached_at.is_loopback() {
        return Ok(());
    }
    let (root, replicator) = MANUALS_PASSWORDS;
    let known = [
        (
            password.reveal() == root,
            "the superuser",
            "POSTGRES_PASSWORD in .env, or in the URLs",
        ),
        (
            config.replication_password.reveal() == replicator,
            "the role that replicates",
            "REPLICATION_PASSWORD",
        ),
    ];
    match known.iter().find(|(is_known, ..)| *is_known) {
        None => Ok(()),
        Some((_, who, what)) => bail!(
            "{who} has the manual's password, which everybody knows; set another ({what}) before the master can be \
             reached at {reached_at}, or PUBLISHED_ON=127.0.0.1 if only this machine reaches it"
        ),
    }
}

impl Launcher<'_> {
    fn watch(mut self) -> anyhow::Result<ExitCode> {
        let node = self.master.node;
        loop {
            if !self.wait_until_free()? {
                return Ok(ExitCode::SUCCESS);
            }
            self.claim.say(Saying::Starting)?;
            let log = match self.start() {
                Err(error) if error.is::<Interrupted>() => {
                    self.master.stop()?;
                    return Ok(ExitCode::SUCCESS);
                }
                started => started?,
            };
            self.claim.say(Saying::Up)?;
            let asked = self.until_something_happens()?;
            drop(log);
            if !asked {
                // Not tidied up here: whoever starts it again does, and PostgreSQL recovers by itself.
                bail!("{node}: the server has ended by itself; its log is above");
            }
            say(&format!("{node}: stopping"));
            self.master.stop()?;
            say(&format!("{node}: stopped"));
            if self.interrupt.is_asked() {
                return Ok(ExitCode::SUCCESS);
            }
        }
    }

    /// Waits while somebody holds the server down; says whether to go on.
    fn wait_until_free(&mut self) -> anyhow::Result<bool> {
        let mut told = false;
        while self.home.is_held()? {
            if !told {
                say(&format!(
                    "{}: kept down by another process",
                    self.master.node
                ));
                // Outside a container it may have outlived a launcher that was killed.
                self.master.stop()?;
                self.claim.say(Saying::Held)?;
                told = true;
            }
            if self.interrupt.within(limits::LAUNCHER_LOOK) {
                return Ok(false);
            }
        }
        Ok(!self.interrupt.is_asked())
    }

    /// Makes what is missing and starts the server. Dropping the result ends the thread that shows its log.
    fn start(&self) -> anyhow::Result<Sender<()>> {
        let (master, node) = (&self.master, self.master.node);
        let give_up = || self.interrupt.is_asked();
        let programs = Programs::find(self.config.pg_bin.as_deref(), &master.data)?;
        if !master.exists() {
            say(&format!("{node}: making {}", master.data.display()));
            let made = master.create(&programs, true, &give_up);
            self.interrupt.check()?;
            made?;
        }
        let of_log = master.clone();
        let log = follow::follow(move || of_log.log_file())?;
        match master.process() {
            // In a container it would have ended with its launcher.
            Some(process) => say(&format!(
                "{node}: it runs already, as process {} of a launcher that is gone",
                process.pid
            )),
            None => {
                let started = master.start(&programs, self.port, &give_up);
                self.interrupt.check()?;
                started?;
            }
        }
        let database = self.config.master(node).database();
        let settings = pg::over_socket(&master.run, self.port, &master.user, "postgres");
        let (work, port) = (master.clone(), self.port);
        self.interrupt.unless(move || {
            server::make_database(node, settings.clone(), &database)?;
            keep_password(&work, port, settings)
        })?;
        say(&format!("{node}: up on port {}", self.port));
        Ok(log)
    }

    /// Waits until the server is to be stopped, which is true, or has ended.
    fn until_something_happens(&self) -> anyhow::Result<bool> {
        loop {
            if self.interrupt.is_asked() || self.home.is_held()? {
                return Ok(true);
            }
            if self.master.process().is_none() {
                return Ok(false);
            }
            // The word stays where it is.
            std::thread::sleep(limits::LAUNCHER_LOOK);
        }
    }
}

/// Sees that the superuser's password is the one that is configured, which may be another than when the data folder was made: whoever
/// reaches the socket owns the data.
fn keep_password(master: &Master, port: u16, over_socket: pg::Settings) -> anyhow::Result<()> {
    let (node, user) = (master.node, master.user.clone());
    let mut over_tcp = postgres::Config::new();
    over_tcp
        .host("127.0.0.1")
        .port(port)
        .user(&user)
        .password(master.password.reveal())
        .dbname("postgres")
        .connect_timeout(limits::CONNECT_TIMEOUT);
    let sessions = Sessions::start_patient(node, pg::Settings::from(over_tcp))?;
    match sessions.run(limits::SETUP_CALL, |session| {
        session.client().batch_execute("")
    }) {
        Err(error)
            if error
                .to_string()
                .contains(SqlState::INVALID_PASSWORD.code()) => {}
        // Whatever else it is, another password would not mend it.
        _ => return Ok(()),
    }
    let password = master.password.clone();
    let sessions = Sessions::start_patient(node, pg::without_waiting(over_socket))?;
    let changed = sessions.run(limits::SETUP_CALL, move |session| {
        let client = session.client();
        // A failing statement is logged by the server with its text.
        client.batch_execute(
            "SET log_statement = 'none'; SET log_min_error_statement = 'panic'; \
             SET log_min_duration_statement = -1",
        )?;
        let row = client.query_one(
            "SELECT pg_catalog.format('ALTER ROLE %I PASSWORD %L', $1::text, $2::text)",
            &[&user, &password.reveal()],
        )?;
        client.batch_execute(row.try_get(0)?)
    });
    changed.with_context(|| format!("set the password of {} on {node}", master.user))?;
    say(&format!(
        "{node}: the password of {} is the configured one now",
        master.user
    ));
    Ok(())
}
