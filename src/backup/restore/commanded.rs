//! Servers that something else runs, such as systemd: stopped and started by the commands that the configuration names.

use super::Servers;
use crate::backup::command::Place;
use crate::cluster::NodeId;
use crate::config::{Config, ServerCommands};
use crate::limits;
use crate::output::say;
use crate::pg::{self, Sessions};
use crate::process::{self, Bound, Process};
use crate::server::archive::system_of;
use anyhow::{Context, bail};
use nix::sys::signal::Signal;
use nix::unistd::{AccessFlags, access};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Where programs are that a command names without a path.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The servers whose folders the configuration of the backups names.
pub struct Commanded<'a> {
    config: &'a Config,
    place: &'a Place,
    commands: &'a [ServerCommands; 2],
}

impl<'a> Commanded<'a> {
    /// These servers, if there are commands for them.
    pub fn find(config: &'a Config, place: &'a Place) -> Option<Commanded<'a>> {
        let commands = config.backups.commands.as_ref()?;
        Some(Commanded {
            config,
            place,
            commands,
        })
    }

    fn commands(&self, node: NodeId) -> &ServerCommands {
        &self.commands[node.index()]
    }

    /// The postmaster of the data folder, as far as this program sees it.
    fn process(&self, node: NodeId) -> anyhow::Result<Option<Process>> {
        let path = self.data(node)?.join("postmaster.pid");
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("read {}", path.display()));
            }
            text => text.unwrap_or_default(),
        };
        let id = text
            .lines()
            .next()
            .and_then(|line| line.trim().parse().ok());
        let process = id.and_then(Process::with_id);
        Ok(process.filter(|process| process.name().is_some_and(|name| name == "postgres")))
    }

    /// Runs a command of the configuration. It gets none of our environment, and no shell.
    fn run(&self, node: NodeId, doing: &str, words: &[String]) -> anyhow::Result<()> {
        let Some((program, arguments)) = words.split_first() else {
            bail!("{doing} {node}: there is no command");
        };
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", PATH)
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null())
            .current_dir("/")
            .process_group(0);
        let bound = Bound {
            patience: limits::RESTORE_COMMAND,
            give_up: &|| false,
            // Not its children: one of them may be the server.
            end: &|process: Process| process.signal(Signal::SIGKILL),
        };
        process::run(&mut command, &format!("{doing} {node}"), &bound)
    }

    /// Whether the program of a command can be run.
    fn check_program(&self, name: &str, words: &[String]) -> anyhow::Result<()> {
        let program = Path::new(words.first().map_or("", String::as_str));
        let found = match program.is_absolute() {
            true => access(program, AccessFlags::X_OK).is_ok(),
            false => PATH
                .split(':')
                .any(|folder| access(&Path::new(folder).join(program), AccessFlags::X_OK).is_ok()),
        };
        match found {
            true => Ok(()),
            false => bail!("{name}: there is no program {}", program.display()),
        }
    }
}

/// The number of the server that answers at the address of a master.
///
/// # Errors
/// When none answers.
pub fn system_at(config: &Config, node: NodeId) -> anyhow::Result<u64> {
    let settings = pg::connection_settings(config.master(node), limits::LAUNCHED_ASK)?;
    let sessions = Sessions::start_patient(node, pg::without_waiting(settings))?;
    let found = sessions.run(limits::LAUNCHED_ASK, |session| {
        let row = session.client().query_one(
            "SELECT system_identifier FROM pg_catalog.pg_control_system()",
            &[],
        )?;
        row.try_get::<_, i64>(0)
    });
    // It is unsigned, and PostgreSQL shows it as if it were not.
    Ok(found.with_context(|| format!("ask {node} which server it is"))? as u64)
}

impl Servers for Commanded<'_> {
    fn check(&self, _place: &Place) -> anyhow::Result<()> {
        for node in NodeId::BOTH {
            let upper = node.name().to_uppercase();
            let ServerCommands { stop, start } = self.commands(node);
            self.check_program(&format!("{upper}_STOP_COMMAND"), stop)?;
            self.check_program(&format!("{upper}_START_COMMAND"), start)?;
            let data = self.data(node)?;
            let around = data.parent().unwrap_or(&data);
            if access(around, AccessFlags::W_OK).is_err() {
                bail!(
                    "{} is not here, or cannot be written; a restore exchanges the data folder in it, so run this as root on the \
                     machine that has it",
                    around.display()
                );
            }
            if self.runs(node)? && system_at(self.config, node)? != system_of(&data)? {
                bail!(
                    "{upper}_URL names another server than the one in {}",
                    data.display()
                );
            }
        }
        Ok(())
    }

    fn data(&self, node: NodeId) -> anyhow::Result<PathBuf> {
        let path = self.place.option(node, "pg1-path").map(PathBuf::from);
        path.with_context(|| format!("pgbackrest.conf of {node} has no pg1-path"))
    }

    fn runs(&self, node: NodeId) -> anyhow::Result<bool> {
        let answers = system_at(self.config, node);
        match self.process(node)? {
            Some(process) if process.is_frozen() => bail!(
                "{node} is frozen (process {}), and would come back with what it has now; let it go on or end it first",
                process.pid
            ),
            Some(_) => {
                answers.with_context(|| format!("{node} runs and does not answer"))?;
                Ok(true)
            }
            None => {
                let data = self.data(node)?;
                let own = data.join("global/pg_control").exists();
                if own && answers.ok() == Some(system_of(&data)?) {
                    bail!(
                        "{node} answers, and its process is not on this machine or not to be seen; a restore must stop it"
                    );
                }
                Ok(false)
            }
        }
    }

    fn stop(&self, node: NodeId) -> anyhow::Result<()> {
        let process = self.process(node)?;
        // Also when it is down, so that nobody starts it meanwhile.
        self.run(node, "stop", &self.commands(node).stop)?;
        let gone = process.is_none_or(|process| process.wait_gone(limits::SERVER_START));
        match gone && self.process(node)?.is_none() {
            true => Ok(()),
            false => bail!("{node} runs on after the command that stops it"),
        }
    }

    fn start(&self, node: NodeId) -> anyhow::Result<()> {
        let data = self.data(node)?;
        if !data.join("PG_VERSION").exists() {
            bail!(
                "{node} has no data folder in {}; make one as for a new server (initdb, and the database), start it, and run the \
                 same command again",
                data.display()
            );
        }
        self.run(node, "start", &self.commands(node).start)?;
        let deadline = Instant::now() + limits::RESTORE_COMMAND;
        while let Err(error) = system_at(self.config, node) {
            if Instant::now() >= deadline {
                return Err(error.context(format!("{node} was started and takes no connections")));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        say(&format!("{node}: takes connections"));
        Ok(())
    }

    fn start_by_hand(&self, node: NodeId) -> String {
        format!("`{}`", self.commands(node).start.join(" "))
    }
}
