//! What `pgbackrest info --output=json` says, as far as it is used here.

use super::Kind;
use super::failure::printable;
use crate::limits;
use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// What is known of one stanza.
#[derive(Clone, Debug)]
pub struct Stanza {
    pub state: State,
    /// Oldest first.
    pub backups: Vec<Backup>,
    /// Bytes copied by a running backup, of how many.
    pub progress: Option<(u64, u64)>,
    /// The whole answer, for whoever reads it as pgBackRest wrote it.
    pub raw: Value,
}

/// What the status code means (pgBackRest's command/info/info.c).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Ready,
    /// There is nothing yet that could be restored.
    NoBackup,
    /// The stanza has not been made, or its files are gone.
    Missing,
    /// Anything else: another user's, another passphrase's, damaged.
    Unreadable(String),
}

/// One backup.
#[derive(Clone, Debug, Deserialize)]
pub struct Backup {
    pub label: String,
    #[serde(rename = "type")]
    pub kind: Kind,
    /// The other backups that it cannot be restored without.
    pub reference: Option<Vec<String>>,
    pub timestamp: Timestamp,
    pub info: Sizes,
    /// Whether a page failed its checksum; not that the backup failed, since such a one is not listed.
    pub error: Option<bool>,
    #[serde(default)]
    pub annotation: BTreeMap<String, String>,
    pub lsn: Option<Lsn>,
    pub archive: Option<Archive>,
}

/// Seconds since 1970. A label has local time in it, so it is not used for that.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Timestamp {
    pub start: i64,
    pub stop: i64,
}

/// Bytes.
#[derive(Clone, Debug, Deserialize)]
pub struct Sizes {
    /// Of the whole database.
    pub size: u64,
    /// Of what was copied for this backup.
    pub delta: u64,
    pub repository: InRepository,
}

/// Bytes in the repository.
#[derive(Clone, Debug, Deserialize)]
pub struct InRepository {
    /// Of this backup alone.
    pub delta: u64,
}

/// The WAL position from which on the backup is consistent.
#[derive(Clone, Debug, Deserialize)]
pub struct Lsn {
    pub stop: String,
}

/// The last WAL segment without which the backup is not consistent.
#[derive(Clone, Debug, Deserialize)]
pub struct Archive {
    pub stop: Option<String>,
}

impl Stanza {
    /// The backup with this label.
    pub fn backup(&self, label: &str) -> Option<&Backup> {
        self.backups.iter().find(|backup| backup.label == label)
    }
}

/// Understands the answer about one stanza. A complaint about the configuration may stand before the JSON.
///
/// # Errors
/// When it is no JSON, or does not have the parts that are used here.
pub fn parse(text: &str, stanza: &str) -> anyhow::Result<Stanza> {
    let at = match text.starts_with('[') {
        true => 0,
        false => text.find("\n[").map_or(text.len(), |at| at + 1),
    };
    // What it deciphered with another passphrase it repeats as it is, and bytes like those are no JSON.
    let json = text[at..].replace(|byte| byte < ' ' && byte != '\n', "?");
    let shown = || printable(text, limits::BACKUP_ANSWER_SHOWN);
    let all: Value = serde_json::from_str(&json)
        .with_context(|| format!("understand what pgbackrest info said: {}", shown()))?;
    let found = all.as_array().into_iter().flatten();
    let Some(of) = found.into_iter().find(|entry| entry["name"] == stanza) else {
        bail!("pgbackrest info says nothing of {stanza}: {}", shown());
    };
    let status = &of["status"];
    // "other" is what it says of a stanza of which each repository has its own reason.
    let of_repository = &of["repo"][0]["status"]["message"];
    let said = of_repository.as_str().or(status["message"].as_str());
    let said = said.map_or("without a message".to_string(), |said| {
        printable(said, limits::BACKUP_ANSWER_SHOWN)
    });
    let state = match status["code"].as_i64() {
        Some(0) => State::Ready,
        Some(2) => State::NoBackup,
        Some(1 | 3) => State::Missing,
        code => State::Unreadable(format!("{said} (code {})", code.unwrap_or(-1))),
    };
    let lock = &status["lock"]["backup"];
    let bytes = |name: &str| lock[name].as_u64();
    Ok(Stanza {
        state,
        backups: serde_json::from_value(of["backup"].clone())
            .context("understand the backups in what pgbackrest info said")?,
        progress: bytes("size-cplt").zip(bytes("size")),
        raw: all.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::failure::Class;
    use super::*;

    /// As pgBackRest 2.55.1 wrote it, with block incremental on, which leaves `size` out of `repository`.
    const SAID: &str = r#"P00   WARN: configuration file contains invalid option 'x'
[{"archive":[],"backup":[{"annotation":{"imdb-ha-day":"3"},"archive":{"start":"000000010000000000000007","stop":"000000010000000000000008"},"backrest":{"format":5,"version":"2.55.1"},"database":{"id":1,"repo-key":1},"error":false,"info":{"delta":8450,"repository":{"delta":408,"delta-map":0,"size-map":30264},"size":37594284},"label":"20261124-015735F_20261124-015739I","lsn":{"start":"0/7000028","stop":"0/8000050"},"prior":"20261124-015735F_20261124-015738D","reference":["20261124-015735F"],"timestamp":{"start":1795485459,"stop":1795485460},"type":"incr"}],"cipher":"aes-256-cbc","db":[{"id":1,"repo-key":1,"system-id":7711551302494088529,"version":"17"}],"name":"imdb-master1","repo":[],"status":{"code":0,"lock":{"backup":{"held":true,"size":100,"size-cplt":40}},"message":"ok"}}]"#;

    #[test]
    fn backups_are_read_past_a_warning() {
        let stanza = parse(SAID, "imdb-master1").expect("JSON");
        assert_eq!(stanza.state, State::Ready);
        assert_eq!(stanza.progress, Some((40, 100)));
        let backup = stanza.backups.last().expect("one");
        assert_eq!(backup.kind, Kind::Incr);
        assert_eq!(backup.info.repository.delta, 408);
        assert_eq!(backup.annotation["imdb-ha-day"], "3");
        // Past 2^53, where a reader with floating-point numbers loses digits; here it stays exact.
        assert_eq!(stanza.raw[0]["db"][0]["system-id"], 7711551302494088529_u64);
    }

    #[test]
    fn the_status_code_counts_and_not_the_exit_code() {
        let of = |code: i64| {
            let text = format!(
                r#"[{{"backup":[],"name":"imdb-master1","status":{{"code":{code},"message":"m"}}}}]"#
            );
            parse(&text, "imdb-master1").expect("JSON").state
        };
        assert_eq!(of(1), State::Missing);
        assert_eq!(of(2), State::NoBackup);
        assert!(matches!(of(99), State::Unreadable(_)));
        assert!(parse("[]", "imdb-master1").is_err());
        assert!(parse("", "imdb-master1").is_err());
    }

    #[test]
    fn another_passphrase_is_told_from_the_bytes_that_it_makes() {
        // As it was written, with the garbage cut short.
        let text = "[{\"archive\":[],\"backup\":[],\"cipher\":\"aes-256-cbc\",\"db\":[],\"name\":\"imdb-master1\",\"repo\":[{\
            \"cipher\":\"aes-256-cbc\",\"key\":1,\"status\":{\"code\":99,\"message\":\"[FormatError] unable to load info file '/b/backup.info':\\n\
            FormatError: key/value found outside of section at line 1: \u{1}\u{b}\u{fffd}\t\u{1b}[2J\\nHINT: has a stanza-create been performed?\"}}],\
            \"status\":{\"code\":99,\"lock\":{\"backup\":{\"held\":false}},\"message\":\"other\"}}]";
        let State::Unreadable(why) = parse(text, "imdb-master1").expect("JSON").state else {
            panic!("it was read");
        };
        assert!(why.starts_with("[FormatError] unable to load"), "{why}");
        assert!(!why.contains(|byte: char| byte.is_control()), "{why:?}");
        assert_eq!(Class::of(Some(0), &why), Class::Passphrase);

        let garbage = format!("[\u{1b}{}", "x".repeat(5_000));
        let error = parse(&garbage, "imdb-master1").expect_err("no JSON");
        let error = format!("{error:#}");
        assert!(error.len() < 600 && !error.contains('\u{1b}'), "{error}");
    }
}
