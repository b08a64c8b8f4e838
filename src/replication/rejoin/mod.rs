//! `imdb-ha rejoin NODE`: rebuilds a master that lost its data or its slot from the other one, which
//! goes on taking writes. The order of the steps is what makes it safe to end at any of them, and to
//! run it again; ARCHITECTURE.md has the reasons in one place.

mod active;
mod copying;
mod judge;
mod retire;
mod steps;
mod tables;

use super::compare;
use super::identity;
use super::password;
use super::plan::{Found, Link, Step, literal};
use super::publication::{self, publish};
use super::reach::Reach;
use super::setup::{is_as_safe_as_the_urls, look, prepare, tell_the_peer, wait_until_streaming};
use crate::cluster::NodeId;
use crate::config::Config;
use crate::limits;
use crate::output;
use crate::output::say;
pub use active::ask as active;
use anyhow::{Context, bail};
use judge::Condition;
pub use retire::{bears_mark, is_marked, retire};
use serde_json::json;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Instant;
use tables::Table;

/// The comment on schema imdb_ha of a master that a rejoin has begun to clear and has not completed. A
/// comment is part of the same transaction as what it speaks of, and is never sent to the peer.
pub(super) const MARK: &str = "imdb-ha rejoin has not ended";

/// `imdb-ha rejoin NODE`: what is being done goes to standard error, the outcome to standard output.
///
/// # Errors
/// Why the master is not rebuilt, or not completely.
pub fn report(config: &Config, node: NodeId, yes: bool, json: bool) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    let compared = rebuild(config, node, yes)?;
    let (rows, equal) = (compared.rows, compared.state == compare::State::Equal);
    let (from, seconds) = (node.peer(), began.elapsed().as_secs_f64());
    match json {
        true => {
            let seconds = (seconds * 10.0).round() / 10.0;
            output::print(json!({
                "ok": true, "node": node, "from": from, "rows": rows, "equal": equal, "seconds": seconds,
            }));
        }
        false => {
            let rows = match equal {
                true => format!("both hold the same {rows} rows"),
                false => format!("{rows} rows compared; what is not proven equal is above"),
            };
            output::print(format_args!(
                "{node} is rebuilt from {from} after {seconds:.1} s: {rows}"
            ));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Rebuilds a master from its peer, saying each step on standard error, and returns what both hold in the end.
///
/// # Errors
/// Why the master is not rebuilt, or not completely.
pub fn rebuild(config: &Config, node: NodeId, yes: bool) -> anyhow::Result<compare::Report> {
    is_as_safe_as_the_urls(config)?;
    let rejoin = Rejoin {
        config: config.clone(),
        reach: Reach::unproven(config)?,
        node,
        yes,
        retired: false,
    };
    rejoin.run()
}

/// The same as the last step of a restore, which has taken the master out of service.
///
/// # Errors
/// As those of [`rebuild`].
pub fn rebuild_retired(config: &Config, node: NodeId) -> anyhow::Result<compare::Report> {
    let rejoin = Rejoin {
        config: config.clone(),
        reach: Reach::unproven(config)?,
        node,
        yes: true,
        retired: true,
    };
    rejoin.run()
}

struct Rejoin {
    config: Config,
    reach: Reach,
    node: NodeId,
    yes: bool,
    /// Whether it was a restore that took it out of service.
    retired: bool,
}

impl Rejoin {
    /// Returns what the masters hold in the end.
    fn run(mut self) -> anyhow::Result<compare::Report> {
        let (node, survivor) = (self.node, self.node.peer());
        let found = self.greet()?;
        self.refuse_active()?;
        self.config = password::settled(&self.reach, &self.config)?;
        for node in [survivor, node] {
            let mut done = Vec::new();
            prepare(&self.reach, &self.config, node, &mut done)?;
            done.iter().for_each(|line| say(line));
        }
        let on_both = publication::on_both(&self.reach)?;
        for node in [survivor, node] {
            let mut done = Vec::new();
            publish(&self.reach, node, &on_both, &mut done)?;
            done.iter().for_each(|line| say(line));
        }
        let way_in = look(&self.reach, self.way_in())?;
        let way_out = look(&self.reach, self.way_out())?;
        let tables = tables::shared(&self.reach, survivor, node)?;
        let condition = match judge::judge(node, &way_in, &way_out) {
            Condition::Whole(why) => self
                .is_older()?
                .map_or(Condition::Whole(why), Condition::Broken),
            condition => condition,
        };
        if condition != Condition::AlmostDone {
            self.refuse_loss(&condition, &tables)?;
            self.rebuild(&found, &way_in, &way_out, &tables)?;
        }
        self.complete(&tables)
    }

    /// The changes of the survivor, on their way to the master that is rebuilt.
    fn way_in(&self) -> Link {
        Link {
            from: self.node.peer(),
            to: self.node,
        }
    }

    fn way_out(&self) -> Link {
        Link {
            from: self.node,
            to: self.node.peer(),
        }
    }

    /// Sees that both masters answer, and that they are two that belong together.
    fn greet(&self) -> anyhow::Result<identity::Found> {
        let (node, survivor) = (self.node, self.node.peer());
        let source = identity::ask(&self.reach, survivor).with_context(|| {
            format!("{node} is not rebuilt, because {survivor} would be its source")
        })?;
        let target = identity::ask(&self.reach, node).with_context(|| {
            format!("{node} must run, with an empty database at least, to be rebuilt")
        })?;
        let said = match node {
            NodeId::Master1 => [target, source],
            NodeId::Master2 => [source, target],
        };
        let found = identity::Found::new(said, &self.reach, &self.config)?;
        if found.is_replaced(survivor) && !self.yes {
            bail!(
                "{survivor} is another server than the one that {node} was joined to, and would be the source; to rebuild {node} from it \
                 all the same, add --yes"
            );
        }
        Ok(found)
    }

    /// The master that serves is nobody's copy.
    fn refuse_active(&self) -> anyhow::Result<()> {
        match active::ask(&self.config) {
            Ok(active) if active == self.node => bail!(
                "{} is the active master of the API; hand over to {} first (POST /switch-to-{})",
                self.node,
                self.node.peer(),
                match self.node.peer() {
                    NodeId::Master1 => "primary",
                    NodeId::Master2 => "secondary",
                }
            ),
            Ok(_) => {}
            Err(why) => say(&format!(
                "the API was not asked which master is active: {why}"
            )),
        }
        Ok(())
    }

    /// Refuses to throw away what may be wanted, unless told to.
    fn refuse_loss(&self, condition: &Condition, tables: &[Table]) -> anyhow::Result<()> {
        let (node, survivor) = (self.node, self.node.peer());
        match condition {
            Condition::Cleared if self.retired => return Ok(()),
            Condition::Cleared => {
                say(&format!(
                    "{node}: an earlier rejoin has not ended; beginning anew"
                ));
                return Ok(());
            }
            Condition::Whole(why) if !self.yes => bail!(
                "{node} does not look as if it had to be rebuilt: {why}. To rebuild it all the same, add --yes"
            ),
            Condition::Whole(why) => say(&format!("{node}: {why}; rebuilding it because of --yes")),
            Condition::Broken(why) => say(&format!("{node}: {why}")),
            Condition::AlmostDone => return Ok(()),
        }
        match tables::only_on(&self.reach, node, tables) {
            Ok(0) => {}
            Ok(rows) if !self.yes => bail!(
                "{node} has {rows} rows that {survivor} lacks, or has in an older version: changes that \
                 were never sent, or rows that were deleted on {survivor} meanwhile. They would be lost; \
                 look at them first, or add --yes"
            ),
            Ok(rows) => say(&format!(
                "{node}: {rows} rows that {survivor} lacks, or has in an older version, are thrown away"
            )),
            Err(error) if !self.yes => {
                return Err(error.context(format!(
                    "see what would be lost of {node}; --yes rebuilds it without"
                )));
            }
            Err(error) => say(&format!(
                "{node}: what is lost of it could not be seen: {error:#}"
            )),
        }
        Ok(())
    }

    /// Clears the master and lets it copy everything.
    fn rebuild(
        &self,
        servers: &identity::Found,
        way_in: &Found,
        way_out: &Found,
        tables: &[Table],
    ) -> anyhow::Result<()> {
        let (node, survivor) = (self.node, self.node.peer());
        for link in [self.way_in(), self.way_out()] {
            self.try_link(link)?;
        }
        // From here on the master is unfit to serve, whoever asks.
        let mark = format!("COMMENT ON SCHEMA imdb_ha IS {}", literal(MARK));
        self.unsubscribe(self.way_in(), way_in.subscription.is_some(), mark)?;
        self.refuse_active()?;
        self.drop_slots(survivor)?;
        // The survivor must have stopped listening before anything is cleared, or it would take the
        // clearing for a change like any other and clear itself.
        self.unsubscribe(
            self.way_out(),
            way_out.subscription.is_some(),
            String::new(),
        )?;
        self.drop_slots(node)?;
        self.clear(tables)?;
        // Only now: what the survivor has applied belongs to the subscription that is gone, and would make an older copy of the new master.
        self.begin_counts_anew()?;
        say(&servers.write_down(&self.reach, &self.config, survivor)?);
        self.subscribe(self.way_out(), Step::Create { create_slot: true })?;
        self.subscribe(self.way_in(), Step::CreateWithRows)?;
        copying::wait(&self.reach, node, tables, &mut Progress::new().show())
    }

    /// What is left when all rows are there.
    fn complete(&self, tables: &[Table]) -> anyhow::Result<compare::Report> {
        let node = self.node;
        let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
        // Nobody has counted the new rows yet, and until somebody does their queries are planned blindly.
        let count = format!("ANALYZE {}", names.join(", "));
        self.change(node, "analyze and align the sequences", move |session| {
            let align = include_str!("../../../sql/align_sequences.sql");
            session.client().batch_execute(&count)?;
            session.client().batch_execute(align)
        })?;
        for node in NodeId::BOTH {
            tell_the_peer(&self.reach, node)?;
        }
        wait_until_streaming(&self.config, limits::SERVER_START)?;
        say("both directions are streaming");
        let compared = self.see_equality()?;
        self.change(node, "remove the mark", |session| {
            session
                .client()
                .batch_execute("COMMENT ON SCHEMA imdb_ha IS NULL")
        })?;
        Ok(compared)
    }

    /// Compares every row, while writes go on.
    fn see_equality(&self) -> anyhow::Result<compare::Report> {
        let masters = compare::Masters::new(&self.config)?;
        let report = compare::run(&masters, &[], compare::Pace::FAST, &mut |_, _| {})
            .map_err(anyhow::Error::from)?;
        if report.differing > 0 {
            bail!(
                "all rows were copied, and yet the masters differ:\n{}",
                report.as_text()
            );
        }
        // Rows that never stand still, or a table without a key, are no reason to begin anew.
        if report.state != compare::State::Equal {
            say(report.as_text().trim_end());
        }
        Ok(report)
    }
}

/// Shows how far the copying is: on a terminal one line that changes, elsewhere one after the other.
struct Progress {
    on_a_terminal: bool,
}

impl Progress {
    fn new() -> Progress {
        Progress {
            on_a_terminal: std::io::stderr().is_terminal(),
        }
    }

    fn show(self) -> impl FnMut(&str) {
        move |line: &str| {
            let ends = line.contains("(100 %)");
            let _ = match self.on_a_terminal {
                true => write!(
                    std::io::stderr(),
                    "\r\x1b[K{line}{}",
                    if ends { "\n" } else { "" }
                ),
                false => writeln!(std::io::stderr(), "{line}"),
            };
        }
    }
}
