//! Where the socket of a server on restored data is: in the server's folder, unless its path would be too long for a socket.

use crate::programs::Owner;
use anyhow::Context;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The port in the socket's name; no TCP port is taken.
pub const PORT: u16 = 5432;

/// The longest path of a socket, without the zero behind it (Linux's `sockaddr_un`).
const PATH_MAX: usize = 107;

/// The file that names a folder elsewhere.
const ELSEWHERE: &str = "sockets";

fn name() -> String {
    format!(".s.PGSQL.{PORT}")
}

/// The folder for the socket of a server in `folder`. One that is elsewhere is new, so that nobody can have put anything in it, and is
/// written down for whoever has to remove it.
///
/// # Errors
/// When it cannot be made.
pub fn place(folder: &Path, owner: Owner) -> anyhow::Result<PathBuf> {
    if folder.join(name()).as_os_str().len() <= PATH_MAX {
        return Ok(folder.to_path_buf());
    }
    let now = jiff::Timestamp::now().as_nanosecond();
    let other = std::env::temp_dir().join(format!("imdb-ha-{}-{now}", std::process::id()));
    fs::write(folder.join(ELSEWHERE), other.as_os_str().as_encoded_bytes())?;
    fs::create_dir(&other).with_context(|| format!("make the folder {}", other.display()))?;
    owner.make_folder(&other)?;
    Ok(other)
}

/// Removes what was made elsewhere for the server in `folder`: a folder with a socket and nothing else. Its name was read from a
/// file that the servers' user can write, so nothing else is removed along with it.
///
/// # Errors
/// Those of the file system.
pub fn remove(folder: &Path) -> anyhow::Result<()> {
    let Ok(elsewhere) = fs::read_to_string(folder.join(ELSEWHERE)) else {
        return Ok(());
    };
    let elsewhere = Path::new(&elsewhere);
    let outcomes = [
        fs::remove_file(elsewhere.join(name())),
        fs::remove_file(elsewhere.join(format!("{}.lock", name()))),
        fs::remove_dir(elsewhere),
    ];
    for outcome in outcomes {
        match outcome {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("remove {}", elsewhere.display()));
            }
            _ => {}
        }
    }
    Ok(())
}
