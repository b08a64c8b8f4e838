//! What `pgbackrest verify` says of the files of a backup. Its exit code is 0 whatever it finds, and so is `status: ok` when a
//! manifest is missing; so every line counts.

/// What it found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// How many files of the backup, and of those that it needs, were read and are as they were written.
    pub valid: u64,
    /// What is wrong, in its own words; nothing when all is well.
    pub wrong: Option<String>,
    /// The backups whose own files are damaged or missing, which can be others than the one that was asked about.
    pub damaged: Vec<String>,
}

/// Understands what `verify --set=LABEL --output=text --verbose` wrote.
pub fn parse(text: &str, label: &str) -> Files {
    // A complaint about the configuration stands before it, and is about no backup.
    let begins = |line: &&str| !line.starts_with("stanza: ");
    let lines = text.lines().map(str::trim).skip_while(begins);
    let lines: Vec<&str> = lines.filter(|line| !line.contains("   WARN: ")).collect();
    let mut wrong: Vec<String> = Vec::new();
    let mut damaged = Vec::new();
    let mut valid = 0;
    let mut found = false;
    for (index, line) in lines.iter().enumerate() {
        let figures = || lines.get(index + 1).filter(|next| is_figures(next));
        if let Some(rest) = line.strip_prefix("backup: ") {
            let (name, rest) = rest.split_once(", ").unwrap_or((rest, ""));
            found |= name == label;
            let state = rest.strip_prefix("status: ").unwrap_or(rest);
            let state = state.split(',').next().unwrap_or(state);
            valid += last_number(rest);
            if state != "valid" {
                wrong.push(with_figures(
                    &format!("backup {name} is {state}"),
                    figures().copied(),
                ));
                damaged.push(name.to_string());
            }
        } else if let Some(rest) = line.strip_prefix("archiveId: ") {
            let figures = figures().copied().filter(|figures| counts_any(figures));
            if figures.is_some() {
                wrong.push(with_figures(&format!("archive {rest}"), figures));
            }
        } else if !line.is_empty() && !is_known(line) && !is_figures(line) {
            wrong.push((*line).to_string());
        }
    }
    if !lines.contains(&"status: ok") && wrong.is_empty() {
        wrong.push("pgbackrest verify does not say that all is well".to_string());
    }
    if !found && wrong.is_empty() {
        wrong.push(format!("pgbackrest verify says nothing of backup {label}"));
    }
    Files {
        valid,
        wrong: (!wrong.is_empty()).then(|| wrong.join("; ")),
        damaged,
    }
}

/// The lines around what was found.
fn is_known(line: &str) -> bool {
    line.starts_with("stanza: ") || line.starts_with("status: ")
}

/// Such as `missing: 0, checksum invalid: 1, size invalid: 0, other: 0`.
fn is_figures(line: &str) -> bool {
    [
        "missing: ",
        "checksum invalid: ",
        "size invalid: ",
        "other: ",
    ]
    .iter()
    .any(|start| line.starts_with(start))
}

fn counts_any(figures: &str) -> bool {
    figures.split(", ").any(|part| last_number(part) > 0)
}

fn last_number(text: &str) -> u64 {
    let last = text.rsplit(' ').next();
    last.and_then(|word| word.parse().ok()).unwrap_or(0)
}

fn with_figures(what: &str, figures: Option<&str>) -> String {
    let parts: Vec<&str> = figures
        .iter()
        .flat_map(|figures| figures.split(", "))
        .filter(|part| last_number(part) > 0)
        .collect();
    match parts.is_empty() {
        true => what.to_string(),
        false => format!("{what} ({})", parts.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = "20261124-120219F";

    #[test]
    fn all_is_well_only_when_it_says_so_of_the_very_backup() {
        let said = "stanza: imdb-master1\nstatus: ok\n  archiveId: 17-1, total WAL checked: 2, total valid WAL: 2\n    \
                    missing: 0, checksum invalid: 0, size invalid: 0, other: 0\n  \
                    backup: 20261124-120219F, status: valid, total files checked: 1289, total valid files: 1289\n    \
                    missing: 0, checksum invalid: 0, size invalid: 0, other: 0\n";
        let files = parse(said, FULL);
        assert_eq!((files.valid, files.wrong), (1289, None));
        assert!(
            parse(said, "20261124-120219F_20261124-120220I")
                .wrong
                .is_some()
        );
        assert!(parse("", FULL).wrong.is_some());
        assert!(
            parse("stanza: imdb-master1\nstatus: ok\n", FULL)
                .wrong
                .is_some()
        );
    }

    #[test]
    fn a_complaint_about_the_configuration_is_no_damage() {
        let said = "P00   WARN: configuration file contains invalid option 'repo1-retention-incr'\n\
                    stanza: imdb-master1\nstatus: ok\n  \
                    backup: 20261124-120219F, status: valid, total files checked: 9, total valid files: 9\n";
        assert_eq!(parse(said, FULL).wrong, None);
    }

    #[test]
    fn damage_is_named_with_the_backup_that_has_it() {
        let said = "stanza: imdb-master1\nstatus: error\n  \
                    backup: 20261124-120219F, status: invalid, total files checked: 1289, total valid files: 1288\n    \
                    checksum invalid: 1\n";
        let files = parse(said, "20261124-120219F_20261124-120220I");
        assert_eq!(
            files.wrong.as_deref(),
            Some("backup 20261124-120219F is invalid (checksum invalid: 1)")
        );
        assert_eq!(files.damaged, [FULL]);
    }

    #[test]
    fn it_says_ok_and_lies() {
        let missing = "stanza: imdb-master1\nstatus: ok\n  archiveId: 17-1, total WAL checked: 0, total valid WAL: 0\n  \
                       backup: 20261124-120219F, status: manifest missing, total files checked: 0, total valid files: 0\n";
        let files = parse(missing, FULL);
        assert_eq!(
            files.wrong.as_deref(),
            Some("backup 20261124-120219F is manifest missing")
        );
        let gone =
            "stanza: imdb-master1\nstatus: error\n  backup set 20261124-120219F is not valid\n";
        let files = parse(gone, FULL);
        assert_eq!(
            files.wrong.as_deref(),
            Some("backup set 20261124-120219F is not valid")
        );
        assert!(files.damaged.is_empty());
    }
}
