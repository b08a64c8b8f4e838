//! Whose fault it is that a backup could not be restored. A backup is called bad only for what is its own, or that of its WAL; a full disk
//! or a killed process says nothing about it.

use super::failure::Failure;
use super::tablespaces::{self, Stopped};

/// Exit codes of pgBackRest (its build/error.yaml) that a restore has because of what is in the repository: checksum, file-invalid,
/// format, file-read, file-missing, crypto, json-format. The wrong passphrase or a repository that is gone have some of them too, but
/// then nothing can be listed either, which is asked before and after.
const OF_THE_BACKUP: &[u32] = &[26, 28, 29, 42, 55, 95, 99];

/// Words of a server that ends for a reason outside of its data folder.
const OF_THE_MACHINE: &[&str] = &[
    "No space left on device",
    "Cannot allocate memory",
    "could not create shared memory segment",
    "could not map anonymous shared memory",
    "could not create lock file",
    "could not create Unix socket",
    "could not create any Unix-domain sockets",
    "Permission denied",
    "Too many open files",
    // A setting that holds on the master's machine and not here: a locale, or a library to load. A damaged file of settings fails
    // its checksum before that.
    "invalid value for parameter",
    "could not access file",
    // The shell, or the program that fetches WAL, is not there.
    "command not found",
    // pgBackRest's complaints about its options, when the server asks it for WAL.
    "ERROR: [031]",
    "ERROR: [032]",
    "ERROR: [037]",
    "terminated by signal 9",
    "received fast shutdown request",
    "received smart shutdown request",
    "received immediate shutdown request",
];

/// Words of a program that the server does not let look, or not any more.
const KEPT_FROM_LOOKING: &[&str] = &[
    "out of memory",
    "Connection refused",
    "connection to server",
    "server closed the connection unexpectedly",
    "terminating connection due to",
    "the database system is",
];

/// Whether a failed restore speaks against what is in the repository.
pub fn is_of_the_backup(failure: &Failure) -> bool {
    // Some classes are told by words, and none of those is about the contents.
    let elsewhere = ["No space left on device", "Permission denied"];
    if elsewhere.iter().any(|words| failure.cause.contains(words)) {
        return false;
    }
    let code = failure.cause.strip_prefix('[').and_then(|rest| {
        let (code, _) = rest.split_once(']')?;
        code.parse().ok()
    });
    code.is_some_and(|code: u32| OF_THE_BACKUP.contains(&code))
}

/// Why a server on restored data ended before it served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The WAL did not reach to the point; the last segment that there was.
    WalEnds(Option<String>),
    /// The WAL makes a tablespace, which it must not here.
    Tablespace(Stopped),
    /// Something about the machine, or somebody.
    OfTheMachine,
    /// What was restored.
    OfTheData,
}

/// Whether what `pg_amcheck` said when it failed speaks against the data: it has this code for damage that it found, and
/// also when the server could not let it look to the end.
pub fn is_damage(said: &str) -> bool {
    let mut elsewhere = OF_THE_MACHINE.iter().chain(KEPT_FROM_LOOKING);
    said.contains("(exit status: 2)") && !elsewhere.any(|words| said.contains(words))
}

/// Tells by its log why a server ended. That somebody sent it a signal, such as the kernel for want of memory, is no fault of
/// the data.
pub fn ending(log: &str, by_signal: bool) -> Ending {
    if let Some(which) = tablespaces::stopped_at(log) {
        return Ending::Tablespace(which);
    }
    if by_signal || OF_THE_MACHINE.iter().any(|words| log.contains(words)) {
        return Ending::OfTheMachine;
    }
    if log.contains("recovery ended before configured recovery target was reached") {
        let last = log.lines().rev().find_map(|line| {
            let (_, rest) = line.split_once("restored log file \"")?;
            let (name, _) = rest.split_once('"')?;
            (name.len() == 24).then(|| name.to_string())
        });
        return Ending::WalEnds(last);
    }
    Ending::OfTheData
}

/// The segment after this one, on the same timeline.
pub fn next_segment(name: &str, segment_bytes: u64) -> Option<String> {
    let part = |from: usize| u64::from_str_radix(name.get(from..from + 8)?, 16).ok();
    let per_file = (1_u64 << 32).checked_div(segment_bytes)?;
    let next = part(8)? * per_file + part(16)? + 1;
    let (high, low) = (next / per_file, next % per_file);
    Some(format!("{}{high:08X}{low:08X}", name.get(..8)?))
}

#[cfg(test)]
mod tests {
    use super::super::failure::Class;
    use super::*;
    use crate::cluster::NodeId;

    #[test]
    fn only_what_is_in_the_repository_speaks_against_a_backup() {
        let of = |class, cause: &str| {
            is_of_the_backup(&Failure::new(class, NodeId::Master1, "restore", cause))
        };
        assert!(of(
            Class::Damaged,
            "[026]: raised from local-2 protocol: error restoring '/d/base/4/2690': actual checksum 'a' does not match expected checksum 'b'"
        ));
        assert!(of(
            Class::Configuration,
            "[029]: raised from local-1 protocol: zst error: [-20] Data corruption detected"
        ));
        assert!(of(
            Class::StanzaMismatch,
            "[055]: unable to open missing file '/r/bundle/1' for read"
        ));
        assert!(of(Class::Passphrase, "[095]: cipher header missing"));
        assert!(!of(
            Class::DiskFull,
            "[064]: unable to write '/d/base/4/2690': [28] No space left on device"
        ));
        assert!(!of(
            Class::WrongUser,
            "[042]: unable to read '/r/bundle/1': [13] Permission denied"
        ));
        assert!(!of(
            Class::Other,
            "[040]: unable to restore to path '/d' because it contains files"
        ));
        assert!(!of(
            Class::Configuration,
            "[031]: option 'x' not valid for command 'restore'"
        ));
        assert!(!of(Class::Interrupted, "given up"));
    }

    #[test]
    fn a_server_says_why_it_ended() {
        let log = "LOG:  restored log file \"000000010000000000000007\" from archive\n\
                   LOG:  restored log file \"000000010000000000000008\" from archive\n\
                   FATAL:  recovery ended before configured recovery target was reached\n";
        let ends = Ending::WalEnds(Some("000000010000000000000008".to_string()));
        assert_eq!(ending(log, false), ends);
        let data = "PANIC:  could not locate a valid checkpoint record at 0/3000028";
        assert_eq!(ending(data, false), Ending::OfTheData);
        assert_eq!(ending(data, true), Ending::OfTheMachine);
        let full = "FATAL:  could not write to file \"pg_wal/xlogtemp.3\": No space left on device";
        assert_eq!(ending(full, false), Ending::OfTheMachine);
        let options = "ERROR: [031]: option 'spool-path' not valid without option 'archive-async'\n\
                       PANIC:  could not locate a valid checkpoint record";
        assert_eq!(ending(options, false), Ending::OfTheMachine);
        let killed = "LOG:  startup process (PID 4) was terminated by signal 9: Killed";
        assert_eq!(ending(killed, false), Ending::OfTheMachine);
    }

    #[test]
    fn a_check_that_could_not_look_found_no_damage() {
        let of = |said: &str| is_damage(&format!("pg_amcheck: {said} (exit status: 2)"));
        assert!(of(
            "ERROR:  invalid page in block 0 of relation base/5/16390"
        ));
        assert!(of(
            "heap table \"a.public.t\", block 0, offset 1: final toast chunk is bad"
        ));
        for said in [
            "ERROR:  out of memory",
            "connection to server on socket \"/x/.s.PGSQL.5432\" failed: Connection refused",
            "FATAL:  terminating connection due to administrator command",
            "ERROR:  could not write to file \"base/pgsql_tmp/t1\": No space left on device",
        ] {
            assert!(!of(said), "{said}");
        }
        assert!(!is_damage("pg_amcheck: no such database (exit status: 1)"));
    }

    #[test]
    fn segments_are_counted_as_postgresql_does() {
        let next = |name| next_segment(name, 16 << 20).expect("a name");
        assert_eq!(next("000000010000000000000007"), "000000010000000000000008");
        assert_eq!(next("0000000200000001000000FF"), "000000020000000200000000");
        assert_eq!(next_segment("x", 16 << 20), None);
    }
}
