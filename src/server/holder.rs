//! Which process is the server of a data folder, and what it is doing, by its files and through /proc.

use super::Master;
use crate::process::Process;
use serde::Serialize;
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// What a local server is doing, as its files and processes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ServerState {
    Up,
    Starting,
    Frozen,
    Down,
    /// What its files and processes tell cannot be read or understood.
    Unknown,
}

impl ServerState {
    pub fn name(self) -> &'static str {
        match self {
            ServerState::Up => "up",
            ServerState::Starting => "starting",
            ServerState::Frozen => "frozen",
            ServerState::Down => "down",
            ServerState::Unknown => "unknown",
        }
    }
}

/// Who has the process id that stands in the file `postmaster.pid` of a data folder.
#[derive(Debug, PartialEq, Eq)]
pub enum Holder {
    /// Nobody, or a process that is certainly not the server of this folder.
    NotTheServer,
    Server(Process),
    /// Why it cannot be told.
    Unclear(String),
}

/// Tells by a command line whether it is that of the server of `data`, as pg_ctl starts one; nothing
/// when it is a server's and does not say of which folder.
fn serves(arguments: &[OsString], data: &Path) -> Option<bool> {
    let (program, rest) = arguments.split_first()?;
    // The children of a server call themselves `postgres: ...`.
    if Path::new(program).file_name()? != "postgres" {
        return Some(false);
    }
    let at = rest.iter().position(|argument| argument == "-D")?;
    let folder = Path::new(rest.get(at + 1)?);
    if folder.is_relative() {
        return None;
    }
    let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    Some(folder == data || real(folder) == real(data))
}

impl Master {
    /// Who has the id in its file. An id alone proves nothing: it may be somebody else's by now.
    pub fn holder(&self) -> Holder {
        let path = self.data.join("postmaster.pid");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Holder::NotTheServer,
            Err(error) => return Holder::Unclear(format!("read {}: {error}", path.display())),
        };
        let id = text
            .lines()
            .next()
            .and_then(|line| line.trim().parse().ok());
        let Some(process) = id.and_then(Process::with_id) else {
            return Holder::NotTheServer;
        };
        match serves(&process.command_line(), &self.data) {
            Some(true) => Holder::Server(process),
            Some(false) => Holder::NotTheServer,
            None if process.name().is_none_or(|name| name != "postgres") => Holder::NotTheServer,
            None => Holder::Unclear(format!(
                "{} names process {}, a PostgreSQL server that does not show which folder it serves",
                path.display(),
                process.pid
            )),
        }
    }

    /// The postmaster, if it lives.
    pub fn process(&self) -> Option<Process> {
        match self.holder() {
            Holder::Server(process) => Some(process),
            _ => None,
        }
    }

    /// What it is doing.
    pub fn state(&self) -> ServerState {
        let process = match self.holder() {
            Holder::Server(process) => process,
            Holder::NotTheServer => return ServerState::Down,
            Holder::Unclear(_) => return ServerState::Unknown,
        };
        if process.is_frozen() {
            return ServerState::Frozen;
        }
        let text = fs::read_to_string(self.data.join("postmaster.pid")).unwrap_or_default();
        match text.lines().nth(7).map(str::trim) {
            Some("ready") => ServerState::Up,
            _ => ServerState::Starting,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_known_by_its_command_line() {
        let of = |line: &str| {
            let arguments: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
            serves(&arguments, Path::new("/data/master1"))
        };
        let program = "/usr/lib/postgresql/17/bin/postgres";
        assert_eq!(of(&format!("{program} -D /data/master1")), Some(true));
        assert_eq!(of(&format!("{program} -F -D /data/master1 -i")), Some(true));
        assert_eq!(of(&format!("{program} -D /data/master2")), Some(false));
        assert_eq!(of("postgres: master1: checkpointer"), Some(false));
        assert_eq!(of("/usr/bin/vi -D /data/master1"), Some(false));
        // It may have been started by hand, with the folder in its environment.
        assert_eq!(of(program), None);
        assert_eq!(of("postgres -D master1"), None);
        assert_eq!(of(""), None);
    }
}
