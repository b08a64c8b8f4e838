//! Processes of this machine, run with a deadline and looked at through /proc. A process is known by its id and its start
//! time together, so that an id that was given to somebody else is never signalled.

use anyhow::{Context, bail};
use crossbeam_channel::Receiver;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// One process, for as long as it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: i32,
    /// Start time, in clock ticks since the machine started.
    started: u64,
}

/// What /proc says of a process.
struct Stat {
    name: String,
    state: char,
    parent: i32,
    started: u64,
}

/// Reads `/proc/PID/stat`. The name in it is in parentheses and may hold anything, so the fields are
/// counted from the last one.
fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (name, fields) = text.split_once('(')?.1.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    Some(Stat {
        name: name.to_string(),
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

impl Process {
    /// The process with this id, if it lives. One that has ended and waits for its parent does not.
    pub fn with_id(pid: i32) -> Option<Process> {
        let stat = stat(pid)?;
        (stat.state != 'Z').then_some(Process {
            pid,
            started: stat.started,
        })
    }

    /// This process.
    pub fn current() -> Option<Process> {
        Process::with_id(std::process::id() as i32)
    }

    /// The processes of these programs with `words` in their command lines.
    pub fn naming(words: &[u8], programs: &[&str]) -> Vec<Process> {
        let ids = fs::read_dir("/proc").into_iter().flatten();
        let ids = ids.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
        let named = |id: &i32| {
            let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
            let program = line.split(|byte| *byte == 0).next().unwrap_or_default();
            let program = program
                .rsplit(|byte| *byte == b'/')
                .next()
                .unwrap_or_default();
            programs.iter().any(|name| name.as_bytes() == program)
                && line.windows(words.len()).any(|part| part == words)
        };
        ids.filter(named).filter_map(Process::with_id).collect()
    }

    fn stat(self) -> Option<Stat> {
        stat(self.pid).filter(|stat| stat.started == self.started && stat.state != 'Z')
    }

    pub fn lives(self) -> bool {
        self.stat().is_some()
    }

    /// Whether it is stopped by SIGSTOP.
    pub fn is_frozen(self) -> bool {
        self.stat().is_some_and(|stat| stat.state == 'T')
    }

    /// The name of its program, as the kernel has it.
    pub fn name(self) -> Option<String> {
        Some(self.stat()?.name)
    }

    /// Its program and arguments; none while it starts or ends. Unlike its working folder, which only
    /// whoever may trace it is told, everybody may read them.
    pub fn command_line(self) -> Vec<OsString> {
        let text = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        if !self.lives() {
            return Vec::new();
        }
        text.split(|byte| *byte == 0)
            .map(|part| OsString::from_vec(part.to_vec()))
            .filter(|part| !part.is_empty())
            .collect()
    }

    /// Sends a signal; one that is gone already needs none.
    pub fn signal(self, signal: Signal) {
        if self.lives() {
            let _ = kill(Pid::from_raw(self.pid), signal);
        }
    }

    /// Everything that it started and what those started, without itself.
    pub fn descendants(self) -> Vec<Process> {
        let everyone: Vec<(Process, i32)> = fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter_map(|pid| {
                let stat = stat(pid)?;
                Some((
                    Process {
                        pid,
                        started: stat.started,
                    },
                    stat.parent,
                ))
            })
            .collect();
        let mut family = vec![self.pid];
        let mut found = Vec::new();
        let mut next = 0;
        while let Some(parent) = family.get(next).copied() {
            next += 1;
            for (process, of) in &everyone {
                if *of == parent && !family.contains(&process.pid) {
                    family.push(process.pid);
                    found.push(*process);
                }
            }
        }
        found
    }

    /// Waits until it is gone; returns whether it is.
    pub fn wait_gone(self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while self.lives() {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }
}

/// Keeps the files that this process inherited, beyond the standard three, from the servers that it
/// starts. They outlive it, and whoever waits for the end of such a pipe would wait for them.
pub fn keep_inherited_files_private() {
    let open = fs::read_dir("/proc/self/fd").into_iter().flatten();
    let inherited = open.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    for number in inherited.filter(|number| *number > 2) {
        // The folder being read is one of them, and may be closed by then.
        let _ = fcntl(number, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC));
    }
}

/// The process and all its descendants, stopped first so that it cannot start another meanwhile.
pub fn freeze_family(head: Process) -> Vec<Process> {
    head.signal(Signal::SIGSTOP);
    let mut family = vec![head];
    family.extend(head.descendants());
    for process in &family {
        process.signal(Signal::SIGSTOP);
    }
    family
}

/// Lets a process and all its descendants go on.
pub fn thaw_family(head: Process) {
    for process in head.descendants() {
        process.signal(Signal::SIGCONT);
    }
    head.signal(Signal::SIGCONT);
}

/// SIGKILL to a process and all its descendants; waits until they are gone.
pub fn kill_family(head: Process) {
    let family = freeze_family(head);
    for process in &family {
        process.signal(Signal::SIGKILL);
    }
    for process in &family {
        process.wait_gone(Duration::from_secs(2));
    }
}

/// How long a command may run.
pub struct Bound<'a> {
    pub patience: Duration,
    /// Whether nobody wants its outcome any more; asked every 10 ms.
    pub give_up: &'a dyn Fn() -> bool,
    /// Ends it before its time.
    pub end: &'a dyn Fn(Process),
}

/// How a command ended, and what it said.
pub struct Ended {
    pub status: ExitStatus,
    pub out: Vec<u8>,
    pub err: Vec<u8>,
}

/// Why a command was ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    GivenUp,
    TookTooLong,
}

/// Runs a command to its end, whatever that is.
///
/// # Errors
/// When it could not be started or waited for; the inner one says why it was ended before its time.
pub fn finish(command: &mut Command, bound: &Bound) -> std::io::Result<Result<Ended, Cut>> {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let out = child.stdout.take().map(collect).transpose()?;
    let err = child.stderr.take().map(collect).transpose()?;
    let deadline = Instant::now() + bound.patience;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        let given_up = (bound.give_up)();
        if !given_up && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
            continue;
        }
        if let Some(process) = Process::with_id(child.id() as i32) {
            (bound.end)(process);
            process.wait_gone(Duration::from_secs(1));
        }
        let _ = child.try_wait();
        return Ok(Err(match given_up {
            true => Cut::GivenUp,
            false => Cut::TookTooLong,
        }));
    };
    // Somebody who lives on may hold a pipe open.
    let all_of = |pipe: Option<Receiver<Vec<u8>>>| {
        let said = pipe.map(|pipe| pipe.recv_timeout(Duration::from_secs(1)));
        said.and_then(Result::ok).unwrap_or_default()
    };
    Ok(Ok(Ended {
        status,
        out: all_of(out),
        err: all_of(err),
    }))
}

/// Runs a command that must succeed, and keeps what it said for the error.
///
/// # Errors
/// What it said when it failed, or why it was ended before its time.
pub fn run(command: &mut Command, doing: &str, bound: &Bound) -> anyhow::Result<()> {
    let finished = finish(command, bound).with_context(|| {
        format!(
            "{doing}: run {}",
            std::path::Path::new(command.get_program()).display()
        )
    })?;
    let ended = match finished {
        Ok(ended) => ended,
        Err(Cut::GivenUp) => bail!("{doing}: interrupted"),
        Err(Cut::TookTooLong) => bail!("{doing}: not done after {} s", bound.patience.as_secs()),
    };
    match ended.status.success() {
        true => Ok(()),
        false => bail!("{doing}: {} ({})", ended.last_words(), ended.status),
    }
}

impl Ended {
    /// The last lines of what it said, in one.
    pub fn last_words(&self) -> String {
        let all = [self.out.as_slice(), self.err.as_slice()].concat();
        let all = String::from_utf8_lossy(&all);
        let lines = all.lines().map(str::trim).filter(|line| !line.is_empty());
        let last: Vec<&str> = lines.collect();
        last[last.len().saturating_sub(4)..].join(" | ")
    }
}

/// Reads to the end beside everything else, so that a command never waits for its reader.
fn collect(mut from: impl Read + Send + 'static) -> std::io::Result<Receiver<Vec<u8>>> {
    let (tell, told) = crossbeam_channel::bounded(1);
    std::thread::Builder::new()
        .name("collect".to_string())
        .spawn(move || {
            let mut text = Vec::new();
            let _ = from.read_to_end(&mut text);
            let _ = tell.send(text);
        })?;
    Ok(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_frozen_thawed_and_killed() {
        let mut shell = Command::new("sh")
            .args(["-c", "sleep 60 & sleep 60 & wait"])
            .stdin(Stdio::null())
            .spawn()
            .expect("start sh");
        let head = Process::with_id(shell.id() as i32).expect("it lives");
        let deadline = Instant::now() + Duration::from_secs(5);
        while head.descendants().len() < 2 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let children = head.descendants();
        assert_eq!(children.len(), 2);

        freeze_family(head);
        std::thread::sleep(Duration::from_millis(20));
        assert!(head.is_frozen() && children.iter().all(|child| child.is_frozen()));
        thaw_family(head);
        std::thread::sleep(Duration::from_millis(20));
        assert!(!head.is_frozen() && children.iter().all(|child| !child.is_frozen()));

        kill_family(head);
        shell.wait().expect("reap it");
        assert!(!head.lives() && children.iter().all(|child| !child.lives()));
    }

    #[test]
    fn an_id_with_another_start_time_is_another_process() {
        let me = Process::current().expect("this process lives");
        assert!(me.lives());
        assert!(
            !Process {
                started: me.started + 1,
                ..me
            }
            .lives()
        );
    }
    #[test]
    fn a_command_is_ended_when_it_is_given_up_or_takes_too_long_and_its_words_are_kept() {
        let shell = |script: &str, patience, give_up| {
            let bound = Bound {
                patience,
                give_up: &|| give_up,
                end: &kill_family,
            };
            let mut command = Command::new("sh");
            let outcome = run(command.args(["-c", script]), "try", &bound);
            outcome.map_err(|error| error.to_string())
        };
        let (short, long) = (Duration::from_millis(50), Duration::from_secs(60));
        let began = Instant::now();
        assert_eq!(shell("true", long, false), Ok(()));
        let told = shell("echo out; echo why >&2; exit 3", long, false);
        assert_eq!(told, Err("try: out | why (exit status: 3)".to_string()));
        let told = shell("sleep 60; true", long, true);
        assert_eq!(told, Err("try: interrupted".to_string()));
        let told = shell("sleep 60; true", short, false);
        assert_eq!(told, Err("try: not done after 0 s".to_string()));
        assert!(began.elapsed() < Duration::from_secs(10));
    }
}
