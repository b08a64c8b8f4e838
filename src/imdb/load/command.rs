//! What `imdb-ha load` prints.

use super::masters::Masters;
use super::report::{Phase, Progress};
use super::{Allow, Wanted, files_in, finish, run};
use crate::bars::Bar;
use crate::cluster::NodeId;
use crate::config::Config;
use crate::interrupt::Interrupt;
use crate::output;
use serde_json::Value;
use std::path::Path;
use std::process::ExitCode;

/// `imdb-ha load DIR`: bars on standard error, the outcome on standard output.
///
/// # Errors
/// Why nothing was loaded.
pub fn report(
    config: &Config,
    folder: &Path,
    only: Option<NodeId>,
    allow: Allow,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let interrupt = Interrupt::listen(false)?;
    let files = files_in(folder)?;
    let mut bars = Bars::default();
    let wanted = Wanted {
        files,
        nodes: only.map_or(NodeId::BOTH.to_vec(), |node| vec![node]),
        allow,
        interrupt: Some(&interrupt),
    };
    let progress = run(config, wanted, &mut |progress| bars.show(progress));
    drop(bars);
    let progress = progress?;
    match json {
        true => {
            let mut outcome = progress.as_json();
            outcome["ok"] = Value::Bool(true);
            output::print(outcome);
        }
        false => output::print(progress.as_text()),
    }
    Ok(ExitCode::SUCCESS)
}

/// One bar at a time: that of the file, or of what is done to all of them.
#[derive(Default)]
struct Bars {
    shown: Option<(String, Bar)>,
}

impl Bars {
    fn show(&mut self, progress: &Progress) {
        let of_files =
            |rows: fn(&super::report::OfFile) -> u64| progress.files.iter().map(rows).sum::<u64>();
        let (what, done, all) = match progress.phase {
            Phase::Preflight => (
                "checking the files".to_string(),
                of_files(|file| file.rows),
                0,
            ),
            Phase::Rows => match progress.files.iter().find(|file| file.phase == Phase::Rows) {
                Some(file) => (file.file.clone(), file.read, file.rows),
                None => return,
            },
            Phase::Keys => ("keys, indexes and statistics".to_string(), 0, 0),
            Phase::Swap => ("exchanging the tables".to_string(), 0, 0),
            _ => {
                self.shown = None;
                return;
            }
        };
        if self.shown.as_ref().is_none_or(|(shown, _)| *shown != what) {
            self.end();
            self.shown = Some((what.clone(), Bar::of_rows(&what)));
        }
        if let Some((_, bar)) = &self.shown {
            bar.set(done, all);
        }
    }

    /// What a bar has shown stays as a line.
    fn end(&mut self) {
        if let Some((_, bar)) = self.shown.take() {
            bar.end();
        }
    }
}

/// Loads the files of `LOAD_AT_START` if nothing has ever been loaded; says so in a sentence, if it did. A load that died in the middle of
/// its exchange is finished first, whatever is to be loaded.
///
/// # Errors
/// Why nothing was loaded. Whoever starts something goes on without.
pub fn at_first_start(config: &Config) -> anyhow::Result<Option<String>> {
    finish(config)?;
    let Some(folder) = config.load_at_start.as_deref() else {
        return Ok(None);
    };
    let masters = Masters::new(config, NodeId::BOTH.to_vec())?;
    for node in NodeId::BOTH {
        let was_loaded: bool = masters.run(node, "see whether anything was loaded", |session| {
            let sql =
                "SELECT EXISTS (SELECT FROM public.cargas) OR EXISTS (SELECT FROM public.titulos)";
            session.query(sql, &[])?[0].try_get(0)
        })?;
        if was_loaded {
            return Ok(None);
        }
    }
    let wanted = Wanted {
        files: files_in(Path::new(folder))?,
        nodes: NodeId::BOTH.to_vec(),
        allow: Allow::default(),
        interrupt: None,
    };
    let progress = run(config, wanted, &mut |_| ())?;
    Ok(Some(format!("{folder}: {}", progress.sentence())))
}
