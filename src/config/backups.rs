//! What can be configured about backups.

use super::variables::duration_or_off;
use super::{Check, Secret};
use crate::limits;
use std::fs;
use std::time::Duration;

/// The backups.
#[derive(Clone, Debug)]
pub struct Backups {
    /// The folder with `master1/pgbackrest.conf` and `master2/pgbackrest.conf`; without one there are no backups.
    pub folder: Option<String>,
    /// The passphrase of the repositories, unless their own configuration has it.
    pub passphrase: Option<Secret>,
    pub plan: Plan,
    /// Time between two trial restores of a master's newest backup, if there are any beside those of full backups.
    pub drill_every: Option<Duration>,
    /// What all keys in Redis begin with.
    pub key_prefix: String,
    /// How a restore stops and starts both masters, when they are servers that something else runs.
    pub commands: Option<[ServerCommands; 2]>,
}

/// The commands for one server, each as its words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerCommands {
    pub stop: Vec<String>,
    pub start: Vec<String>,
}

/// When backups are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Each kind after its time; none of a kind without one.
    Every {
        full: Option<Duration>,
        diff: Option<Duration>,
        incr: Option<Duration>,
    },
    /// The manual's six days in turn, one after each such time.
    Cycle(Duration),
}

impl Plan {
    /// A schedule on which nothing ever is due.
    pub const NONE: Plan = Plan::Every {
        full: None,
        diff: None,
        incr: None,
    };
}

/// The variables with the commands that stop and start each master.
const COMMANDS: [[&str; 2]; 2] = [
    ["MASTER1_STOP_COMMAND", "MASTER1_START_COMMAND"],
    ["MASTER2_STOP_COMMAND", "MASTER2_START_COMMAND"],
];

/// The words of a command: blanks are between them, and quotes of either kind keep blanks. Nothing else means anything, and no shell sees it.
fn words(text: &str) -> Option<Vec<String>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for letter in text.chars() {
        match (quote, letter) {
            (Some(open), letter) if letter == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, letter) if letter.is_whitespace() => words.extend(word.take()),
            (_, letter) => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

impl Check<'_> {
    pub(super) fn backups(&mut self) -> Backups {
        let cycle = self.optional("BACKUP_CYCLE");
        let every = Plan::Every {
            full: self.schedule("BACKUP_FULL_EVERY"),
            diff: self.schedule("BACKUP_DIFF_EVERY"),
            incr: self.schedule("BACKUP_INCR_EVERY"),
        };
        let plan = match cycle {
            None => every,
            Some(_) => self
                .schedule("BACKUP_CYCLE")
                .map_or(Plan::NONE, Plan::Cycle),
        };
        Backups {
            folder: self.optional("BACKUP_CONFIG_DIR"),
            passphrase: self.passphrase(),
            plan,
            drill_every: self.schedule("BACKUP_DRILL_EVERY"),
            key_prefix: self.key_prefix(),
            commands: self.server_commands(),
        }
    }

    fn schedule(&mut self, name: &'static str) -> Option<Duration> {
        let (least, most) = (limits::BACKUP_EVERY_MIN, limits::BACKUP_EVERY_MAX);
        match duration_or_off(&self.text(name)) {
            Some(None) => None,
            Some(Some(every)) if every >= least && every <= most => Some(every),
            _ => {
                let reason = "must be off or a time from 10s to 365d, such as 6h, 1d or 7d";
                self.complain(name, reason);
                None
            }
        }
    }

    fn passphrase(&mut self) -> Option<Secret> {
        let given = self.optional("BACKUP_PASSPHRASE");
        let (name, text) = match (given, self.optional("BACKUP_PASSPHRASE_FILE")) {
            (None, None) => return None,
            (Some(_), Some(_)) => {
                let reason = "is set beside BACKUP_PASSPHRASE; set one of them";
                self.complain("BACKUP_PASSPHRASE_FILE", reason);
                return None;
            }
            (Some(text), None) => ("BACKUP_PASSPHRASE", text),
            (None, Some(path)) => match fs::read_to_string(&path) {
                Ok(text) => ("BACKUP_PASSPHRASE_FILE", text.trim_end().to_string()),
                Err(error) => {
                    self.complain("BACKUP_PASSPHRASE_FILE", format!("cannot be read: {error}"));
                    return None;
                }
            },
        };
        // A line of pgBackRest's configuration ends where it ends, and blanks around a value are not part of it.
        let usable = text.len() >= 16 && text.bytes().all(|byte| byte.is_ascii_graphic());
        if !usable {
            let reason = "must have at least 16 characters, printable ASCII without spaces";
            self.complain(name, reason);
        }
        Some(Secret(text))
    }

    /// All four commands or none.
    fn server_commands(&mut self) -> Option<[ServerCommands; 2]> {
        let named = COMMANDS.iter().flatten();
        if named.clone().all(|name| self.optional(name).is_none()) {
            return None;
        }
        let mut found = Vec::new();
        for name in named {
            match self.optional(name).as_deref().map(words) {
                Some(Some(words)) if !words.is_empty() => found.push(words),
                Some(_) => {
                    let reason = "must be a program and its arguments with blanks between; quote what has blanks in it";
                    self.complain(name, reason);
                }
                None => {
                    let reason = "is not set and others like it are; a restore needs both commands of both masters";
                    self.complain(name, reason);
                }
            }
        }
        let mut found = found.into_iter();
        let mut next = || {
            Some(ServerCommands {
                stop: found.next()?,
                start: found.next()?,
            })
        };
        Some([next()?, next()?])
    }

    fn key_prefix(&mut self) -> String {
        let text = self.text("BACKUP_KEY_PREFIX");
        let usable = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:".contains(&byte);
        if text.len() > 64 || !text.bytes().all(usable) {
            let reason = "must be at most 64 letters, digits, or any of _ - . :";
            self.complain("BACKUP_KEY_PREFIX", reason);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Values};
    use super::*;

    fn of(values: &[(&'static str, &str)]) -> Result<Backups, Vec<&'static str>> {
        let values: Values = values
            .iter()
            .map(|(name, value)| (*name, (*value).to_string()))
            .collect();
        Config::check(&values)
            .map(|config| config.backups)
            .map_err(|invalid| invalid.0.iter().map(|invalid| invalid.name).collect())
    }

    #[test]
    fn a_cycle_takes_the_place_of_the_kinds() {
        let hours = |hours: u64| Some(Duration::from_secs(hours * 3_600));
        let usual = Plan::Every {
            full: hours(7 * 24),
            diff: hours(24),
            incr: hours(6),
        };
        assert_eq!(of(&[]).expect("valid").plan, usual);
        let cycle = of(&[("BACKUP_CYCLE", "24h")]).expect("valid").plan;
        assert_eq!(cycle, Plan::Cycle(Duration::from_secs(86_400)));
        assert_eq!(
            of(&[("BACKUP_CYCLE", "off")]).expect("valid").plan,
            Plan::NONE
        );
    }

    #[test]
    fn the_commands_for_servers_are_all_there_or_none() {
        let split = |text| words(text).expect("quotes end");
        assert_eq!(split(" a  b"), ["a", "b"]);
        assert_eq!(
            split("a 'b c' \"d'e\" $f ''"),
            ["a", "b c", "d'e", "$f", ""]
        );
        assert_eq!(words("a 'b"), None);
        assert_eq!(of(&[]).expect("valid").commands, None);
        let one = of(&[("MASTER1_STOP_COMMAND", "systemctl stop one")]);
        let others = [
            "MASTER1_START_COMMAND",
            "MASTER2_STOP_COMMAND",
            "MASTER2_START_COMMAND",
        ];
        assert_eq!(one.expect_err("three are missing"), others);
        let all = COMMANDS
            .concat()
            .into_iter()
            .map(|name| (name, "systemctl do it"));
        let all: Vec<(&'static str, &str)> = all.collect();
        let found = of(&all).expect("valid").commands.expect("all are there");
        assert_eq!(found[1].start, ["systemctl", "do", "it"]);
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let names = |values: &[(&'static str, &str)]| of(values).expect_err("invalid");
        assert_eq!(names(&[("BACKUP_FULL_EVERY", "1s")]), ["BACKUP_FULL_EVERY"]);
        assert_eq!(names(&[("BACKUP_CYCLE", "daily")]), ["BACKUP_CYCLE"]);
        assert_eq!(
            names(&[("BACKUP_PASSPHRASE", "short")]),
            ["BACKUP_PASSPHRASE"]
        );
        assert_eq!(
            names(&[("BACKUP_KEY_PREFIX", "a b")]),
            ["BACKUP_KEY_PREFIX"]
        );
        let missing = [("BACKUP_PASSPHRASE_FILE", "/nowhere")];
        assert_eq!(names(&missing), ["BACKUP_PASSPHRASE_FILE"]);
    }
}
