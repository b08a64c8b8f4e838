//! From flags to a subcommand to an exit code. ARCHITECTURE.md says how the parts fit together.

mod backup;
mod bars;
mod board;
mod cli;
mod cluster;
mod comparer;
mod config;
mod conflicts;
mod dispatch;
mod follow;
mod genres;
mod health;
mod history;
mod http;
mod imdb;
mod interrupt;
mod launcher;
mod lease;
mod limits;
mod local;
mod logging;
mod output;
mod own_api;
mod pg;
mod privileges;
mod probe;
mod process;
mod programs;
mod quiet;
mod redis_link;
mod replication;
mod serve;
mod server;
mod span;
mod standby;
mod supervisor;
mod trial;
mod vital;
mod wakeup;
mod watch;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use cli::{Cli, Replication, Subcommands, Table};
use config::{Config, InvalidConfig};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.kind() == ErrorKind::InvalidUtf8 => {
            eprintln!("imdb-ha: {}", cli::not_text(std::env::args_os()));
            return ExitCode::from(2);
        }
        Err(error) => error.exit(),
    };
    match run(cli) {
        Ok(code) => code,
        Err(error) if error.is::<InvalidConfig>() => {
            eprintln!("imdb-ha: the configuration cannot be used:\n{error}");
            ExitCode::from(2)
        }
        Err(error) => {
            eprintln!("imdb-ha: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    // These two need no configuration, and so work even with a broken one.
    match cli.command {
        Subcommands::Completions { shell } => {
            // Into memory first: whoever reads it may stop reading, which is no error of ours.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "imdb-ha", &mut script);
            output::print(String::from_utf8_lossy(&script).trim_end());
            return Ok(ExitCode::SUCCESS);
        }
        Subcommands::Table { which } => {
            output::print(table(which).trim_end());
            return Ok(ExitCode::SUCCESS);
        }
        _ => {}
    }
    let values = config::gather(&cli.settings.0)?;
    let named = values.contains_key("MASTER1_URL") || values.contains_key("MASTER2_URL");
    let config = match cli.command {
        Subcommands::Backup(_) => local::adopted(&values)?,
        Subcommands::Serve
        | Subcommands::Health { .. }
        | Subcommands::Master { .. }
        | Subcommands::Local(_) => Config::check(&values)?,
        // Whoever names a master means those, and not what else runs here.
        _ if named => Config::check(&values)?,
        _ => local::adopted(&values)?,
    };
    ask_who_they_are(&cli.command, &config);
    match cli.command {
        Subcommands::Serve => serve::run(config),
        Subcommands::Health { strict } => Ok(health::report(&config, strict)),
        Subcommands::Master { node } => launcher::run(&config, node.id()),
        Subcommands::Local(command) => local::run(command, &config, &cli.settings.0),
        Subcommands::Replication(Replication::Setup { at_start, json }) => {
            let code = replication::report_setup(&config, at_start, json)?;
            if !at_start {
                imdb::load::finish(&config)?;
            } else {
                match imdb::load::at_first_start(&config) {
                    Ok(loaded) => loaded
                        .iter()
                        .for_each(|line| output::say(&format!("load: {line}"))),
                    Err(error) => {
                        output::say(&format!("load: ALARM nothing was loaded: {error:#}"))
                    }
                }
            }
            Ok(code)
        }
        Subcommands::Replication(Replication::Status { json }) => {
            replication::report_status(&config, json)
        }
        Subcommands::Backup(command) => {
            let place = backup::command::Place::needed(&config)?;
            let here = local::Here { config: &config };
            if let Some(commanded) = backup::restore::Commanded::find(&config, &place) {
                return backup::report::run(command, &config, &place, &commanded);
            }
            match launcher::Launched::find(&config, &place) {
                Some(launched) => backup::report::run(command, &config, &place, &launched),
                None => backup::report::run(command, &config, &place, &here),
            }
        }
        Subcommands::Rejoin { node, yes, json } => {
            replication::rejoin::report(&config, node.id(), yes, json)
        }
        Subcommands::Load(load) => {
            let (only, allow) = (load.only.map(cli::Node::id), load.allow());
            imdb::load::report(&config, &load.folder, only, allow, load.json)
        }
        Subcommands::Compare(wanted) => replication::compare::report(&config, &wanted),
        Subcommands::Conflicts { json, limit } => conflicts::report(&config, limit as usize, json),
        Subcommands::Completions { .. } | Subcommands::Table { .. } => Ok(ExitCode::SUCCESS),
    }
}

/// Asks both masters who they are, for a command that needs them: once and both at a time, rather than within the first connection to one of
/// them, which has less patience.
fn ask_who_they_are(command: &Subcommands, config: &Config) {
    let needs_them = matches!(
        command,
        Subcommands::Backup(_)
            | Subcommands::Load(_)
            | Subcommands::Compare(_)
            | Subcommands::Conflicts { .. }
    );
    if needs_them {
        config.roster.ask_all(config);
    }
}

fn table(which: Table) -> String {
    match which {
        Table::States => cluster::fsm::as_markdown(),
        Table::Diagram => cluster::fsm::as_diagram(),
        Table::Routes => http::router::as_markdown(),
        Table::Variables => config::as_markdown(),
        Table::Errors => http::messages::as_markdown(),
    }
}
