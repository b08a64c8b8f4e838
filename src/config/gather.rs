//! Where the values come from: flags, the environment and `.env`. What is no text is named. Skipped it would leave a default in its
//! place, which may be another master, or no token.

use super::check::{Invalid, InvalidConfig};
use super::variables::{VARIABLES, Variable};
use super::{Values, secret};
use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io::{ErrorKind, Read};

/// The file in the current folder.
const FILE: &str = ".env";

/// Collects the values: a flag wins over the environment, and the environment over `.env` in the
/// current folder. An empty value counts as not set.
///
/// # Errors
/// An [`InvalidConfig`] that names each variable that is not UTF-8, and the line of `.env` that cannot be used.
pub fn gather(flags: &Values) -> anyhow::Result<Values> {
    let environment = |name: &str| std::env::var_os(name);
    Ok(merge(flags, environment, std::fs::read(FILE))?)
}

fn merge(
    flags: &Values,
    environment: impl Fn(&str) -> Option<OsString>,
    file: std::io::Result<Vec<u8>>,
) -> Result<Values, InvalidConfig> {
    let mut invalid = Vec::new();
    let file = match file {
        Ok(bytes) => entries(&bytes),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(HashMap::new()),
        Err(error) => Err(format!("cannot be read: {error}")),
    };
    let file = file.unwrap_or_else(|reason| {
        invalid.push(Invalid {
            name: FILE,
            reason,
            value: None,
        });
        HashMap::new()
    });
    let mut values = Values::new();
    for variable in VARIABLES {
        let name = variable.name;
        // Also beside a flag: a child of this process would inherit it.
        let set = match environment(name).map(OsString::into_string).transpose() {
            Ok(set) => set,
            Err(raw) => {
                invalid.push(not_text(variable, &raw));
                continue;
            }
        };
        let given = flags.get(name).cloned().or(set);
        let given = given.or_else(|| file.get(name).cloned());
        if let Some(value) = given.filter(|value| !value.is_empty()) {
            values.insert(name, value);
        }
    }
    match invalid.is_empty() {
        true => Ok(values),
        false => Err(InvalidConfig(invalid)),
    }
}

fn not_text(variable: &Variable, raw: &OsStr) -> Invalid {
    let text = raw.to_string_lossy();
    let value = match variable.secret || text.contains('@') {
        true => secret::mask(&text),
        false => format!("{raw:?}"),
    };
    Invalid {
        name: variable.name,
        reason: "is set in the environment and is not UTF-8".to_string(),
        value: Some(value),
    }
}

/// What the file says, by name.
fn entries(bytes: &[u8]) -> Result<HashMap<String, String>, String> {
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err("is UTF-16; save it as UTF-8".to_string());
    }
    // Editors of Windows mark a file as UTF-8 by these three bytes.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = &bytes[..error.valid_up_to()];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        format!("line {line} is not UTF-8")
    })?;
    let read = Cell::new(0);
    let lines = Lines {
        left: text.as_bytes(),
        read: &read,
    };
    dotenvy::from_read_iter(lines)
        .collect::<Result<_, _>>()
        .map_err(|error| explain(&error, read.get()))
}

/// A file that is read line by line, so that it is known at which line its reader is.
struct Lines<'a> {
    left: &'a [u8],
    /// Lines that have been read so far.
    read: &'a Cell<usize>,
}

impl Read for Lines<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let end = self.left.iter().position(|byte| *byte == b'\n');
        let line = end.map_or(self.left.len(), |end| end + 1);
        let count = line.min(into.len());
        let (piece, left) = self.left.split_at(count);
        into[..count].copy_from_slice(piece);
        self.left = left;
        let ended = piece.ends_with(b"\n") || (left.is_empty() && count > 0);
        self.read.set(self.read.get() + usize::from(ended));
        Ok(count)
    }
}

/// A parse error of dotenvy quotes what it could not understand, which may hold a password; only its place is told.
fn explain(error: &dotenvy::Error, read: usize) -> String {
    match error {
        dotenvy::Error::LineParse(quoted, position) => {
            let line = (read + 1).saturating_sub(quoted.lines().count().max(1));
            format!(
                "line {line} is not NAME=VALUE (at its character {position}); a value with blanks needs quotes"
            )
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    fn of(environment: &[(&str, &[u8])], file: &[u8]) -> Result<Values, String> {
        let set = |name: &str| {
            let (_, value) = environment.iter().find(|(known, _)| *known == name)?;
            Some(OsString::from_vec(value.to_vec()))
        };
        merge(&Values::new(), set, Ok(file.to_vec())).map_err(|invalid| invalid.to_string())
    }

    #[test]
    fn a_variable_that_is_not_text_is_named_and_no_secret_shown() {
        let wrong = of(
            &[
                ("MASTER1_URL", b"postgresql://root:hunter2\xe9@db1/imdb"),
                ("ADMIN_TOKEN", b"hunter2hunter2\xff"),
                ("DURABILITY", b"as\xffync"),
                ("PORT", b"5001"),
            ],
            b"",
        )
        .expect_err("three are not text");
        let lines: Vec<&str> = wrong.lines().collect();
        assert_eq!(lines.len(), 3, "{wrong}");
        for (line, name) in lines
            .iter()
            .zip(["MASTER1_URL", "ADMIN_TOKEN", "DURABILITY"])
        {
            let begin = format!("{name}: is set in the environment and is not UTF-8 (got ");
            assert!(line.starts_with(&begin), "{line}");
        }
        assert!(!wrong.contains("hunter2"), "{wrong}");
        // Every one of the table, not those alone that somebody has thought of.
        for variable in VARIABLES {
            let wrong = of(&[(variable.name, b"\x80")], b"").expect_err(variable.name);
            assert!(
                wrong.starts_with(&format!("{}: ", variable.name)),
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_file_with_a_mark_of_its_encoding_is_read() {
        let found = of(&[], b"\xef\xbb\xbfADMIN_TOKEN='a token'\r\nPORT=5001\r\n").expect("UTF-8");
        assert_eq!(found["ADMIN_TOKEN"], "a token");
        assert_eq!(found["PORT"], "5001");
        let wide = of(&[], b"\xff\xfeP\0O\0").expect_err("UTF-16");
        assert_eq!(wide, ".env: is UTF-16; save it as UTF-8");
    }

    #[test]
    fn a_line_that_cannot_be_used_is_named_and_not_shown() {
        let latin = of(&[], b"# a\nPORT=1\n\nADMIN_TOKEN=hunter2\xe9\n").expect_err("Latin-1");
        assert_eq!(latin, ".env: line 4 is not UTF-8");
        for (file, line) in [
            (&b"PORT=1\nADMIN TOKEN=hunter2\n"[..], 2),
            (b"PORT=1\n\nADMIN_TOKEN=hunter2 and more # no\n", 3),
            (b"ADMIN_TOKEN='hunter2\nPORT=1\n", 1),
            (b"\n# a comment\nBIND=::1\nADMIN_TOKEN=\"hunter2\nPORT=1", 4),
            (b"BIND=::1\nADMIN_TOKEN=hunter2 x", 2),
        ] {
            let told = of(&[], file).expect_err("no value");
            assert!(told.contains(&format!("line {line} is not")), "{told}");
            assert!(!told.contains("hunter2"), "{told}");
        }
    }

    #[test]
    fn the_environment_wins_over_the_file_and_an_empty_value_is_none() {
        let found = of(
            &[("PORT", b"5002"), ("BIND", b"")],
            b"PORT=5001\nBIND=::1\n",
        );
        let found = found.expect("text");
        assert_eq!(found.get("PORT").map(String::as_str), Some("5002"));
        assert_eq!(found.get("BIND"), None);
    }
}
