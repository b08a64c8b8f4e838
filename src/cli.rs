//! The command line. Flags for the configuration come from [`crate::config::VARIABLES`].

use crate::backup::Kind;
use crate::cluster::NodeId;
use crate::config::{VARIABLES, Values, flag_of};
use crate::imdb::load::Allow;
use crate::limits;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::time::Duration;

/// Two PostgreSQL masters that replicate to each other, and an API that goes on when one dies.
#[derive(Debug, Parser)]
#[command(
    name = "imdb-ha",
    version,
    about = "Two PostgreSQL masters that replicate to each other, and an API that goes on when one dies.",
    after_help = "Try it:\n  \
        imdb-ha local up                    two masters, Redis and the API on this machine\n  \
        imdb-ha local kill master1          SIGKILL to the whole server; the API goes on with master2\n  \
        imdb-ha local start master1         bring it back; it catches up by itself\n  \
        curl -X POST localhost:5000/switch-to-primary\n\n\
        The configuration comes from flags, the environment and a .env file in the current folder, in\n\
        that order; `imdb-ha --help` lists the flags. Exit codes: 0 done, 1 failed, 2 wrong usage or\n\
        configuration."
)]
pub struct Cli {
    #[command(flatten)]
    pub settings: Settings,
    #[command(subcommand)]
    pub command: Subcommands,
}

#[derive(Debug, Subcommand)]
pub enum Subcommands {
    /// Run the API, the supervisor and the probes in the foreground
    Serve,
    /// Ask the API of this machine how it is; exit code 0 while a master serves
    Health {
        /// Exit code 2 when a master serves and something has to be looked at: writes are refused, or there is an alarm
        #[arg(long)]
        strict: bool,
    },
    /// Run one master in the foreground, in a container or on a machine of its own, with its archive
    Master { node: Node },
    /// A whole cluster on this machine: two masters, Redis and the API
    #[command(subcommand)]
    Local(Local),
    /// The replication between the two masters
    #[command(subcommand)]
    Replication(Replication),
    /// Backups of both masters: make, show, try and restore them
    #[command(subcommand)]
    Backup(Backup),
    /// Rebuild a master that lost its data or its slot from the other one, which goes on serving
    Rejoin {
        node: Node,
        /// Rebuild it even if it looks healthy, or has rows that the other one lacks
        #[arg(long)]
        yes: bool,
        /// The outcome as JSON
        #[arg(long)]
        json: bool,
    },
    /// Load IMDb's files into both masters: title.basics, title.akas, title.crew, title.episode, title.principals,
    /// title.ratings and name.basics, or any of them, as .tsv or .tsv.gz
    Load(Load),
    /// Compare every row of the two masters, while writes go on; exit code 1 unless they are equal
    Compare(Compare),
    /// Show the conflicts that the masters have settled, newest first; exit code 1 when one could not be asked
    Conflicts {
        /// As JSON
        #[arg(long)]
        json: bool,
        /// How many to show
        #[arg(long, value_name = "N", default_value_t = limits::CONFLICTS_SHOWN,
            value_parser = clap::value_parser!(i64).range(1..=limits::PAGE_MAX))]
        limit: i64,
    },
    /// Print what your shell needs to complete commands and flags
    Completions { shell: clap_complete::Shell },
    /// Print a table of the documentation as the program has it
    #[command(hide = true)]
    Table { which: Table },
}

/// What to load.
#[derive(Clone, Debug, Args)]
pub struct Load {
    /// The folder with the files
    #[arg(value_name = "DIR")]
    pub folder: std::path::PathBuf,
    /// The outcome as JSON
    #[arg(long)]
    pub json: bool,
    /// Take a file without rows, which empties its tables
    #[arg(long)]
    pub allow_empty: bool,
    /// Take files that leave fewer than 90 of 100 rows that are there now
    #[arg(long)]
    pub allow_shrink: bool,
    /// One master alone, for measuring: the two differ afterwards
    #[arg(long, hide = true)]
    pub only: Option<Node>,
}

impl Load {
    /// What may happen to the rows that are there.
    pub fn allow(&self) -> Allow {
        Allow {
            empty: self.allow_empty,
            shrink: self.allow_shrink,
        }
    }
}

/// What can be done with the local cluster.
#[derive(Debug, Subcommand)]
pub enum Local {
    /// Start everything; Ctrl-C stops it again
    Up {
        /// Return when the API is ready and leave everything running
        #[arg(long)]
        detach: bool,
        /// Use a temporary folder and free ports, stop when standard input ends, and leave nothing behind
        #[arg(long, conflicts_with = "detach")]
        ephemeral: bool,
        /// Start no API: the masters, joined, and Redis, for an API of your own (`imdb-ha serve`)
        #[arg(long)]
        no_api: bool,
        /// Take other ports where somebody has those that this cluster had before, or that were asked for
        #[arg(long)]
        move_ports: bool,
        #[command(flatten)]
        ports: LocalPorts,
        /// Print the state as one line of JSON instead of the banner
        #[arg(long)]
        json: bool,
    },
    /// Stop everything that `up` started
    Down {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what runs, where and in which state
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Stop a master in an orderly way
    Stop(OneMaster),
    /// Start a master again
    Start(OneMaster),
    /// Send SIGKILL to every process of a master
    Kill(OneMaster),
    /// Send SIGSTOP to every process of a master: it holds its connections and answers nothing
    Freeze(OneMaster),
    /// Let a frozen master go on
    Thaw(OneMaster),
}

/// Ports of a local cluster. Its API's is a variable, as it is for an API without a cluster around it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Args)]
pub struct LocalPorts {
    /// Port of master1, kept for the next start; an error if somebody has it
    #[arg(long, value_name = "PORT", value_parser = port(), conflicts_with = "ephemeral")]
    pub master1_port: Option<u16>,
    /// Port of master2, likewise
    #[arg(long, value_name = "PORT", value_parser = port(), conflicts_with = "ephemeral")]
    pub master2_port: Option<u16>,
    /// Port of Redis, likewise
    #[arg(long, value_name = "PORT", value_parser = port(), conflicts_with = "ephemeral")]
    pub redis_port: Option<u16>,
}

fn port() -> clap::builder::RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(1..)
}

/// Which master, and how to tell what came of it.
#[derive(Clone, Copy, Debug, Args)]
pub struct OneMaster {
    pub node: Node,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum Replication {
    /// Join the masters; repeating it changes nothing
    Setup {
        /// Wait for masters that are just starting; if one must be rebuilt or does not answer, say so, and leave it to the
        /// API to serve from the other one
        #[arg(long)]
        at_start: bool,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show both directions with their lag; exit code 1 when one is not streaming
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// What can be done with backups.
#[derive(Debug, Subcommand)]
pub enum Backup {
    /// Make a backup of a master now
    Run {
        node: Node,
        /// full, diff (since the last full one) or incr (since the last one)
        #[arg(long = "type", value_name = "TYPE", default_value = "incr", value_parser = kind)]
        kind: Kind,
        /// The outcome as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show all backups, oldest first, and what came of restoring them
    Info {
        /// One master alone
        node: Option<Node>,
        /// As JSON
        #[arg(long)]
        json: bool,
        /// As pgBackRest itself says it, for programs that know that
        #[arg(long, conflicts_with = "json")]
        raw: bool,
    },
    /// Restore a backup beside the running masters, start it, check it and remove it again; exit code 1 when it is bad
    Drill {
        /// Which; the newest of each master if none is named
        label: Option<String>,
        /// One master alone
        #[arg(long)]
        node: Option<Node>,
        /// The outcome as JSON
        #[arg(long)]
        json: bool,
    },
    /// Take both masters back to a backup or a moment; what was written since then is gone from both
    Restore(Restore),
    /// Make the manual's six days of backups one after the other, with five rows before each
    Cycle {
        #[arg(default_value = "master1")]
        node: Node,
        /// Time between two backups, such as 1s
        #[arg(long, value_name = "TIME", default_value = "1s", value_parser = span)]
        delay: Duration,
        /// The outcome as JSON
        #[arg(long)]
        json: bool,
    },
    /// Write the catalogue of all backups to Redis, if it is not there; the API does so by itself
    Publish,
    /// See that both masters can be backed up: their stanzas, and that WAL reaches the repositories
    Bootstrap {
        /// The outcome as JSON
        #[arg(long)]
        json: bool,
    },
}

/// What to restore.
#[derive(Clone, Debug, Args)]
pub struct Restore {
    /// The master whose backups are used; the other one becomes like it
    pub node: Node,
    /// The backup with this label, as it was when it ended
    #[arg(long, value_name = "LABEL", conflicts_with = "to")]
    pub set: Option<String>,
    /// The moment, such as 2026-11-24T12:00:00Z; without a zone it is local time
    #[arg(long, value_name = "TIME")]
    pub to: Option<String>,
    /// The history to follow, for a moment that an earlier restore has gone back past; the newest if none is named
    #[arg(long, value_name = "N")]
    pub timeline: Option<u32>,
    /// Only show what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// The outcome as JSON
    #[arg(long)]
    pub json: bool,
}

/// Says which of the arguments are not UTF-8; of those that are, the user knows what they say.
pub fn not_text(arguments: impl Iterator<Item = OsString>) -> String {
    let wrong = arguments.enumerate().filter_map(|(number, argument)| {
        let wrong = argument.to_str().is_none();
        wrong.then(|| format!("argument {number}, {argument:?}"))
    });
    let wrong: Vec<String> = wrong.collect();
    format!("not UTF-8: {}", wrong.join("; "))
}

fn kind(text: &str) -> Result<Kind, String> {
    text.parse()
        .map_err(|()| "must be full, diff or incr".to_string())
}

fn span(text: &str) -> Result<Duration, String> {
    crate::span::parse(text).ok_or_else(|| "must be a time such as 1s or 500ms".to_string())
}

/// What to compare, and what to do about differences.
#[derive(Clone, Debug, Args)]
pub struct Compare {
    /// Tables, with their schema unless it is public; all of schema public if none is named
    pub tables: Vec<String>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
    /// Make the rows of the other master like those of this one, where they differ
    #[arg(long, value_name = "MASTER")]
    pub repair: Option<Node>,
}

/// A master, as named on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Node {
    Master1,
    Master2,
}

impl Node {
    /// The master.
    pub fn id(self) -> NodeId {
        match self {
            Node::Master1 => NodeId::Master1,
            Node::Master2 => NodeId::Master2,
        }
    }
}

/// The tables that the documentation shows; a test compares them.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Table {
    States,
    Diagram,
    Routes,
    Variables,
    Errors,
}

/// The configuration given as flags.
#[derive(Clone, Debug, Default)]
pub struct Settings(pub Values);

impl Args for Settings {
    fn augment_args(mut command: Command) -> Command {
        for variable in VARIABLES.iter().filter(|variable| !variable.secret) {
            let default = match variable.default {
                "" => String::new(),
                default => format!(" [default: {default}]"),
            };
            command = command.arg(
                Arg::new(variable.name)
                    .long(flag_of(variable))
                    .value_name("VALUE")
                    .global(true)
                    .hide_short_help(true)
                    .help_heading("Configuration")
                    .help(format!(
                        "{} [env: {}]{default}",
                        variable.about, variable.name
                    )),
            );
        }
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        Settings::augment_args(command)
    }
}

impl FromArgMatches for Settings {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Settings, clap::Error> {
        let mut settings = Settings::default();
        settings.update_from_arg_matches(matches)?;
        Ok(settings)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for variable in VARIABLES.iter().filter(|variable| !variable.secret) {
            if let Some(value) = matches.get_one::<String>(variable.name) {
                self.0.insert(variable.name, value.clone());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_arguments_that_are_no_text_are_named() {
        use std::os::unix::ffi::OsStringExt;
        let arguments = ["imdb-ha", "serve", "--bind"].map(OsString::from);
        let wrong = OsString::from_vec(b"\xff::1".to_vec());
        let told = not_text(arguments.into_iter().chain([wrong]));
        assert_eq!(told, r#"not UTF-8: argument 3, "\xFF::1""#);
    }

    #[test]
    fn ports_of_a_local_cluster_are_no_ports_of_an_ephemeral_one() {
        let parse = |flags: &[&str]| {
            Cli::try_parse_from([&["imdb-ha", "local", "up"], flags].concat()).is_ok()
        };
        assert!(parse(&["--master1-port", "5444", "--redis-port", "6390"]));
        for wrong in [
            &["--master1-port", "0"][..],
            &["--master1-port", "65536"],
            &["--ephemeral", "--master2-port", "5444"],
        ] {
            assert!(!parse(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn flags_are_taken_after_the_subcommand_and_secrets_have_none() {
        let cli = Cli::try_parse_from(["imdb-ha", "serve", "--port", "5001", "--data", "/x"]);
        let values = cli.expect("valid").settings.0;
        assert_eq!(values.get("PORT").map(String::as_str), Some("5001"));
        assert_eq!(values.get("IMDB_HA_DATA").map(String::as_str), Some("/x"));
        assert!(Cli::try_parse_from(["imdb-ha", "serve", "--admin-token", "x"]).is_err());
    }
}
