//! Chaos: real masters under load, one fault after the other, and a checker that knows every write
//! that was acknowledged. `scripts/chaos.sh` builds and runs it.

mod checker;
#[path = "../../tests/common/mod.rs"]
mod common;
mod compose;
mod docker;
mod lab;
mod load;
mod local;
mod peace;
mod quiet;
mod relay;
mod report;
mod schedule;

use checker::{Figures, Ledger, differing, doubled, figures, judge};
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use compose::Compose;
use lab::{Lab, MASTERS, RECOVERY, System, until};
use load::{CONNECTIONS, Ends, Load};
use local::Local;
use report::{Outcome, Rest, Sum};
use schedule::{Blow, Fault, Place, Planned, chosen, kinds, schedule};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::collections::BTreeSet;
use std::io::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::{Duration, Instant};

/// From a fault that takes the active master to another one serving. Over it nothing is measured any
/// more: the fault counts as one that was not survived.
const MOVED: Duration = Duration::from_secs(15);
/// From the heal until both masters hold what was acknowledged before it.
const SETTLED: Duration = Duration::from_secs(30);
/// Without any load: the masters are as equal as they get when nothing has arrived for this long.
const QUIET: Duration = Duration::from_secs(5);
/// And for this long altogether. The apply worker makes up for minutes of load in it.
const EQUAL: Duration = Duration::from_secs(60);

/// A deployment must be well when a run begins, and is given this long to say so.
const FOUND_WELL: Duration = Duration::from_secs(10);

/// Puts real masters under load, strikes them with one fault after the other, and checks that no
/// acknowledged write is lost, none is applied twice, no request fails and both masters end equal.
///
/// With --on compose it strikes the running containers of docker-compose.yml, whose clients feel it. It
/// neither starts nor stops the deployment. It writes rows of its own to `generos`, counts only those, and
/// deletes them at the end; rows of others are only compared. Containers, network and traffic are left as
/// they were found, also after Ctrl-C, which ends the run with the fault that is under way; after a second
/// Ctrl-C, or kill -9, that is left to you.
#[derive(Parser)]
#[command(name = "scripts/chaos.sh", version, after_help = all_kinds())]
struct Options {
    /// Where the system is that is struck
    #[arg(long, value_enum, default_value = "local")]
    on: Place,
    /// How many faults; by default each of the chosen kinds once
    #[arg(long)]
    faults: Option<usize>,
    /// Makes their order and the load; the same seed gives the same
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only these kinds, with commas between them; with --quiet, only rows that have all of these words
    #[arg(long, value_delimiter = ',', value_name = "KINDS")]
    only: Vec<String>,
    /// Writes and reads per second, over all connections, at the most
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(16..=20_000))]
    rate: u64,
    /// One line of JSON per fault, and one for the whole run at the end
    #[arg(long)]
    json: bool,
    /// Exit code 1 for a missed goal too
    #[arg(long)]
    strict: bool,
    /// Append the API's log to this file; with --on compose the engine keeps it
    #[arg(long)]
    log: Option<String>,
    /// Walk the table of a quiet system instead: how soon it says zero-loss again after each fault
    #[arg(long)]
    quiet: bool,
    /// With --quiet: how long a master is away, in seconds, with commas between them
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "0,1,5,30",
        value_name = "SECONDS"
    )]
    away: Vec<u64>,
    /// Run the load for so many seconds without any fault instead; whatever the history notes then is a failure
    #[arg(long, value_name = "SECONDS", conflicts_with = "quiet", value_parser = clap::value_parser!(u64).range(1..=3_600))]
    peace: Option<u64>,
    /// What `cargo bench` adds by itself, for whoever runs it that way
    #[arg(long, hide = true)]
    bench: bool,
}

/// The kinds of each place, for the help.
fn all_kinds() -> String {
    let of = |place| {
        kinds(place)
            .map(|fault| fault.name)
            .collect::<Vec<_>>()
            .join(", ")
    };
    format!(
        "Kinds with --on local: {}\n\nKinds with --on compose: {}",
        of(Place::Local),
        of(Place::Compose)
    )
}

fn main() -> ExitCode {
    let options = Options::parse();
    let refuse = |error: String| {
        Options::command()
            .error(ErrorKind::InvalidValue, error)
            .exit()
    };
    if options.on == Place::Compose && options.log.is_some() {
        refuse("--log is for --on local; `docker compose logs imdb-api` has it here".to_string());
    }
    let only: &[String] = if options.quiet { &[] } else { &options.only };
    let chosen: Vec<&'static Fault> = chosen(options.on, only).unwrap_or_else(refuse);
    let count = options.faults.unwrap_or(chosen.len());
    let plan = schedule(options.seed, count, &chosen);
    let (lab, stop) = match take(&options) {
        Ok(taken) => taken,
        Err(error) => {
            eprintln!("chaos: {error}");
            return ExitCode::FAILURE;
        }
    };
    if options.quiet {
        return walk(lab, &options);
    }
    if let Some(seconds) = options.peace {
        return keep_peace(lab, &options, Duration::from_secs(seconds), &stop);
    }
    if !options.json {
        println!(
            "{} faults, seed {}, up to {} requests/s",
            plan.len(),
            options.seed,
            options.rate
        );
        println!("{}", report::heading());
    }
    run(lab, &options, &plan, &stop)
}

/// The system, once it is well, and whether somebody wants the run to end.
fn take(options: &Options) -> Result<(Lab, Arc<AtomicBool>), String> {
    let stop = Arc::new(AtomicBool::new(false));
    let (system, patience): (Box<dyn System>, _) = match options.on {
        Place::Local => (Box::new(Local::start(options.log.clone())?), RECOVERY),
        Place::Compose => {
            // A local cluster ends with this program, however that ends. This one must be set right first.
            let listen = |signal| -> Result<(), Error> {
                flag::register_conditional_shutdown(signal, 1, Arc::clone(&stop))?;
                flag::register(signal, Arc::clone(&stop)).map(drop)
            };
            let listening = listen(SIGINT).and_then(|()| listen(SIGTERM));
            listening.map_err(|error| format!("listen for signals: {error}"))?;
            (Box::new(Compose::find()?), FOUND_WELL)
        }
    };
    Ok((Lab::take(system, patience)?, stop))
}

/// The table of a quiet system.
fn walk(mut lab: Lab, options: &Options) -> ExitCode {
    let rows = quiet::table(&options.away, &options.only);
    if !options.json {
        println!("{}", quiet::heading());
    }
    let tell = |one: &_| quiet::tell(one, options.json);
    let walked = quiet::walk(&mut lab, options.rate, &rows, tell);
    let given_back = lab.give_back();
    match walked.and_then(|walked| given_back.map(|()| walked)) {
        Ok(walked) => {
            quiet::sum(&walked, options.json);
            ExitCode::from(u8::from(walked.iter().any(quiet::Walked::is_late)))
        }
        Err(error) => {
            eprintln!("chaos: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Load and nothing else.
fn keep_peace(mut lab: Lab, options: &Options, time: Duration, stop: &AtomicBool) -> ExitCode {
    let kept = peace::keep(&lab, options.rate, options.seed, time, stop);
    let given_back = lab.give_back();
    match kept.and_then(|kept| given_back.map(|()| kept)) {
        Ok(peace) => {
            peace.tell(options.json);
            ExitCode::from(u8::from(!peace.is_kept()))
        }
        Err(error) => {
            eprintln!("chaos: {error}");
            ExitCode::FAILURE
        }
    }
}

/// All faults, the sum of them, and the exit code.
fn run(mut lab: Lab, options: &Options, plan: &[Planned], stop: &AtomicBool) -> ExitCode {
    let load = Load::new(lab.address(), lab.mark.clone(), options.rate, options.seed);
    let mut outcomes = Vec::new();
    let mut trouble = thread::scope(|scope| {
        let _ends = Ends(&load);
        for number in 0..CONNECTIONS {
            let load = &load;
            scope.spawn(move || load.work(number));
        }
        let wanted = plan.iter().take_while(|_| !stop.load(SeqCst));
        wanted.enumerate().find_map(|(number, planned)| {
            load.fault.store(number as u64 + 1, SeqCst);
            match strike(&mut lab, &load, planned) {
                Ok(outcome) => {
                    report::tell(&outcome, options.json);
                    outcomes.push(outcome);
                    None
                }
                Err(error) => Some(format!("{}: {error}", planned.fault.name)),
            }
        })
    });
    if trouble.is_none() && outcomes.len() < plan.len() {
        trouble = Some(format!("ended by a signal after {} faults", outcomes.len()));
    }
    if let Err(error) = lab.give_back() {
        let more = format!("the deployment is not as it was: {error}");
        trouble = Some(trouble.map_or(more.clone(), |first| format!("{first}\nchaos: {more}")));
    }
    drop(lab);
    let whole = figures(&load.requests.lock().expect("the requests"), 0, u64::MAX);
    let sum = Sum::of(&outcomes, &whole);
    if let Some(trouble) = &trouble {
        eprintln!("chaos: {trouble}");
        for failure in load.failures.lock().expect("the failures").iter().take(10) {
            eprintln!("    failed at {} ms: {}", failure.at_ms, failure.what);
        }
    }
    match options.json {
        true => println!("{}", sum.as_json()),
        false => println!("{}", sum.as_text()),
    }
    let kept = trouble.is_none() && sum.is_clean() && !(options.strict && sum.missed_goals > 0);
    ExitCode::from(u8::from(!kept))
}

/// One fault from a system that is well to one that is well again.
///
/// # Errors
/// When it does not get well, after which no other fault would show anything.
fn strike(lab: &mut Lab, load: &Load, planned: &Planned) -> Result<Outcome, String> {
    let fault = planned.fault;
    lab.wait_ready(RECOVERY)?;
    thread::sleep(Duration::from_millis(planned.lead_ms));
    let active = lab.active()?;
    let durability = lab.durability()?;
    load.outage.store(fault.is_outage(), SeqCst);
    load.api_down.store(fault.takes_api(), SeqCst);
    let struck_ms = load.now_ms();
    fault
        .blows
        .iter()
        .try_for_each(|blow| lab.strike(*blow, active))?;
    let lacking = match fault.moves_traffic() {
        true => {
            lab.wait_moved(active, MOVED)?;
            lacking(lab, load, 1 - active)?
        }
        false => BTreeSet::new(),
    };
    let held_ms = load.now_ms() - struck_ms;
    thread::sleep(Duration::from_millis(fault.hold_ms.saturating_sub(held_ms)));

    let acknowledged = load.ledger.lock().expect("the ledger").clone();
    let undo = |blow: &Blow| lab.mend(*blow, active);
    fault.blows.iter().rev().try_for_each(undo)?;
    let healed_ms = load.now_ms();
    let settled = until("both masters hold what was acknowledged", SETTLED, || {
        (0..MASTERS.len()).try_for_each(|node| holds(lab, load, node, &acknowledged))
    });
    let equal_ms = settled.ok().map(|()| load.now_ms() - healed_ms);
    lab.wait_ready(RECOVERY)?;
    load.outage.store(false, SeqCst);
    load.api_down.store(false, SeqCst);
    let well_ms = load.now_ms();

    let no_request = load.gate.write().expect("the gate");
    let rest = at_rest(lab, load)?;
    drop(no_request);
    let all = load.requests.lock().expect("the requests").clone();
    let until_well = figures(&all, struck_ms, well_ms);
    let figures = Figures {
        stall_ms: until_well.stall_ms,
        // What was under way when all was well belongs to this fault too.
        ..figures(&all, struck_ms, u64::MAX)
    };
    let mut failures = load.failures.lock().expect("the failures");
    Ok(Outcome {
        fault,
        active: MASTERS[active],
        durability,
        figures,
        lacking,
        rest,
        equal_ms,
        well_ms: well_ms - healed_ms,
        failures: failures.drain(..).collect(),
    })
}

/// Rows that were acknowledged and that `node` does not hold as they were, under load.
fn lacking(lab: &Lab, load: &Load, node: usize) -> Result<BTreeSet<i64>, String> {
    let before = load.ledger.lock().expect("the ledger").clone();
    let rows = lab.rows(node, &lab.mark.prefix)?;
    let found = judge(&before, &load.ledger.lock().expect("the ledger"), &rows);
    Ok(found.missing.into_iter().chain(found.wrong).collect())
}

/// Whether `node` holds what `acknowledged` says and has not been changed since.
fn holds(lab: &Lab, load: &Load, node: usize, acknowledged: &Ledger) -> Result<(), String> {
    let rows = lab.rows(node, &lab.mark.prefix)?;
    let found = judge(
        acknowledged,
        &load.ledger.lock().expect("the ledger"),
        &rows,
    );
    match found.is_empty() {
        true => Ok(()),
        false => Err(format!("{}: {found:?}", MASTERS[node])),
    }
}

/// Everything that can be told of the rows while no request is under way.
fn at_rest(lab: &Lab, load: &Load) -> Result<Rest, String> {
    let ledger = load.ledger.lock().expect("the ledger");
    let mut pair = [Vec::new(), Vec::new()];
    let mut apart = Vec::new();
    let (mut fewest, mut since) = (usize::MAX, Instant::now());
    // That they stay apart is a finding, which is told below.
    let _ = until("both masters hold the same rows", EQUAL, || {
        pair = [lab.rows(0, "")?, lab.rows(1, "")?];
        apart = differing(&pair[0], &pair[1]);
        let right = pair
            .iter()
            .all(|rows| judge(&ledger, &ledger, rows).is_empty());
        if apart.len() < fewest {
            (fewest, since) = (apart.len(), Instant::now());
        }
        match apart.is_empty() && right || since.elapsed() > QUIET {
            true => Ok(()),
            false => Err(format!("{} rows differ", apart.len())),
        }
    });
    if pair.iter().any(Vec::is_empty) {
        return Err("the rows of the masters cannot be read at rest".to_string());
    }
    let mut rest = Rest {
        differing: apart.into_iter().collect(),
        ..Rest::default()
    };
    for rows in &pair {
        let found = judge(&ledger, &ledger, rows);
        rest.missing.extend(found.missing);
        rest.wrong.extend(found.wrong);
        rest.doubled.extend(doubled(&ledger, rows, &lab.mark));
    }
    Ok(rest)
}
