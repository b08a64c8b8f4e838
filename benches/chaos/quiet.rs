//! The walk of a quiet system: every kind of fault on either master, for different times, with and without a
//! switch back and with and without load. After each of them it is timed how long the API takes to say
//! `zero-loss` again. `scripts/quiet.sh` builds and runs it.
//!
//! What is timed begins when zero-loss is possible again: a master serves and both are `up`, and the switch,
//! if one was asked for, has been answered. It ends when `/health` says `zero-loss` and goes on saying so.

use crate::lab::{Lab, MASTERS, RECOVERY, of_role, until};
use crate::load::{CONNECTIONS, Ends, Load};
use crate::schedule::{Blow, Role};
use clap::ValueEnum;
use serde_json::json;
use std::fmt;
use std::sync::RwLockWriteGuard;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::{Duration, Instant};

/// A row that takes longer is late.
const GOAL_MS: u64 = 1_000;
/// After this nobody waits for the level any more, and the walk ends.
const GIVE_UP: Duration = Duration::from_secs(40);
/// No load and no command for this long before each fault.
const STILL: Duration = Duration::from_millis(700);
/// The pause before a switch that is not asked for at once.
const LATER: Duration = Duration::from_secs(2);
/// The level has come back when it has stayed for this long.
const STAYS: Duration = Duration::from_millis(700);
const TURN: Duration = Duration::from_millis(5);

/// What is done to a master.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    Kill,
    Restart,
    Freeze,
    /// Nothing passes between it and anybody else.
    Cut,
}

/// When the traffic is asked back onto the struck master.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// As soon as the API takes the order.
    Once,
    Later,
    Never,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    pub role: Role,
    pub kind: Kind,
    pub away_s: u64,
    pub switch: Switch,
    pub load: bool,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = match self.role {
            Role::Active => "active",
            Role::Passive => "standby",
        };
        let load = if self.load { "load" } else { "idle" };
        let (kind, switch) = (
            format!("{:?}", self.kind).to_lowercase(),
            format!("{:?}", self.switch).to_lowercase(),
        );
        write!(
            f,
            "{role:<8} {kind:<8} {:>4} {switch:<6} {load:<5}",
            self.away_s
        )
    }
}

impl Row {
    fn blow(&self) -> Blow {
        match self.kind {
            Kind::Kill => Blow::Kill(self.role),
            Kind::Restart => Blow::Restart(self.role),
            Kind::Freeze => Blow::Freeze(self.role),
            Kind::Cut => Blow::Isolate(self.role),
        }
    }
}

/// The table for these times, or the rows of it that have all of these words.
pub fn table(away_s: &[u64], words: &[String]) -> Vec<Row> {
    let mut rows = Vec::new();
    for &away_s in away_s {
        for kind in [Kind::Kill, Kind::Restart, Kind::Freeze, Kind::Cut] {
            for switch in [Switch::Once, Switch::Later, Switch::Never] {
                for role in [Role::Active, Role::Passive] {
                    for load in [false, true] {
                        rows.push(Row {
                            role,
                            kind,
                            away_s,
                            switch,
                            load,
                        });
                    }
                }
            }
        }
    }
    rows.retain(|row| {
        let text = row.to_string();
        let has = |word: &String| text.split_whitespace().any(|own| own == word);
        words.iter().all(has)
    });
    rows
}

/// What one row came to.
pub struct Walked {
    pub row: Row,
    /// From the moment from which it is possible; nothing when the level did not come back.
    pub back_ms: Option<u64>,
    /// From the end of the fault to the moment from which it is possible.
    pub possible_ms: u64,
    /// What `/status` gave as the reason meanwhile, and for how long.
    pub reasons: Reasons,
}

/// Reasons, each with its time in ms.
type Reasons = Vec<(String, u64)>;

impl Walked {
    /// Whether the goal was missed.
    pub fn is_late(&self) -> bool {
        self.back_ms.is_none_or(|ms| ms > GOAL_MS)
    }
}

/// Walks all rows, hands each to `tell` when it is over, and returns them.
///
/// # Errors
/// When the system does not get well, after which no other row would show anything.
pub fn walk(
    lab: &mut Lab,
    rate: u64,
    rows: &[Row],
    tell: impl Fn(&Walked),
) -> Result<Vec<Walked>, String> {
    let load = Load::new(lab.address(), lab.mark.clone(), rate, 1);
    thread::scope(|scope| {
        let _ends = Ends(&load);
        let mut held = Some(load.gate.write().expect("the gate"));
        for number in 0..CONNECTIONS {
            let load = &load;
            scope.spawn(move || load.work(number));
        }
        let mut walked = Vec::new();
        for row in rows {
            let one = step(lab, &load, &mut held, *row).map_err(|why| format!("{row}: {why}"))?;
            tell(&one);
            let never = one.back_ms.is_none();
            walked.push(one);
            if never {
                break;
            }
        }
        Ok(walked)
    })
}

/// One fault, from a system that is well and quiet to one that is so again.
fn step<'a>(
    lab: &mut Lab,
    load: &'a Load,
    held: &mut Option<RwLockWriteGuard<'a, ()>>,
    row: Row,
) -> Result<Walked, String> {
    if held.is_none() {
        *held = Some(load.gate.write().expect("the gate"));
    }
    lab.wait_ready(RECOVERY)?;
    if row.load {
        *held = None;
    }
    thread::sleep(STILL);
    let active = lab.active()?;
    let struck = of_role(row.role, active);
    load.outage.store(true, SeqCst);
    lab.strike(row.blow(), active)?;
    thread::sleep(Duration::from_secs(row.away_s));
    lab.mend(row.blow(), active)?;
    let healed = Instant::now();
    match row.switch {
        Switch::Once => {}
        Switch::Later => {
            lab.wait_up(RECOVERY)?;
            thread::sleep(LATER);
        }
        Switch::Never => lab.wait_up(RECOVERY)?,
    }
    if row.switch != Switch::Never {
        until("the traffic is on the struck master", RECOVERY, || {
            lab.switch(struck)?;
            match lab.active()? == struck {
                true => Ok(()),
                false => Err(format!("it is not on {}", MASTERS[struck])),
            }
        })?;
        lab.wait_up(RECOVERY)?;
    }
    let possible = Instant::now();
    let (back_ms, reasons) = wait_back(lab, possible)?;
    load.outage.store(false, SeqCst);
    Ok(Walked {
        row,
        back_ms,
        reasons,
        possible_ms: (possible - healed).as_millis() as u64,
    })
}

/// How long after `since` the level was back for good, and what was in its way until then.
fn wait_back(lab: &Lab, since: Instant) -> Result<(Option<u64>, Reasons), String> {
    let mut back: Option<Instant> = None;
    let mut reasons: Vec<(String, Instant)> = Vec::new();
    let lasted = |reasons: Vec<(String, Instant)>| {
        let ends = reasons
            .iter()
            .skip(1)
            .map(|(_, at)| *at)
            .chain([Instant::now()]);
        let ends: Vec<Instant> = ends.collect();
        let named = reasons.into_iter().zip(ends);
        named
            .map(|((why, at), end)| (why, (end - at).as_millis() as u64))
            .collect()
    };
    while since.elapsed() < GIVE_UP {
        let (level, reason) = lab.durability_and_reason()?;
        match (level == "zero-loss", back) {
            (true, Some(at)) if at.elapsed() >= STAYS => {
                return Ok((Some((at - since).as_millis() as u64), lasted(reasons)));
            }
            (true, at) => back = at.or(Some(Instant::now())),
            (false, _) => back = None,
        }
        if reasons.last().is_none_or(|(last, _)| *last != reason) {
            reasons.push((reason, Instant::now()));
        }
        thread::sleep(TURN);
    }
    Ok((None, lasted(reasons)))
}

/// The line above the table.
pub fn heading() -> String {
    format!(
        "{:<8} {:<8} {:>4} {:<6} {:<5} {:>8} {:>9}",
        "struck", "fault", "away", "switch", "load", "possible", "zero-loss"
    )
}

/// Tells one row.
pub fn tell(one: &Walked, as_json: bool) {
    let Walked {
        row,
        back_ms,
        possible_ms,
        reasons,
    } = one;
    if as_json {
        let words = row.to_string();
        let words: Vec<&str> = words.split_whitespace().collect();
        println!(
            "{}",
            json!({
                "struck": words[0], "fault": words[1], "away_s": row.away_s, "switch": words[3],
                "load": row.load, "possible_ms": possible_ms, "zero_loss_ms": back_ms,
                "late": one.is_late(),
            })
        );
        return;
    }
    let back = back_ms.map_or("never".to_string(), |ms| ms.to_string());
    let late = if one.is_late() { " LATE" } else { "" };
    println!("{row} {possible_ms:>8} {back:>9}{late}");
    if one.is_late() {
        for (why, ms) in reasons {
            println!("    {ms:>6} ms: {why}");
        }
    }
}

/// The table by fault and master, and one line for all.
pub fn sum(walked: &[Walked], as_json: bool) {
    let of = |rows: &[&Walked]| {
        let mut times: Vec<u64> = rows
            .iter()
            .map(|one| one.back_ms.unwrap_or(u64::MAX))
            .collect();
        times.sort_unstable();
        let late = rows.iter().filter(|one| one.is_late()).count();
        let at = |index: usize| times.get(index).copied().unwrap_or(0);
        (at(times.len() / 2), at(times.len().saturating_sub(1)), late)
    };
    let all: Vec<&Walked> = walked.iter().collect();
    let (median, worst, late) = of(&all);
    if as_json {
        println!(
            "{}",
            json!({"rows": walked.len(), "late": late, "median_ms": median, "worst_ms": worst})
        );
        return;
    }
    println!(
        "\n{:<8} {:<8} {:>5} {:>7} {:>7} {:>5}",
        "struck", "fault", "rows", "median", "worst", "late"
    );
    for (role, name) in [(Role::Active, "active"), (Role::Passive, "standby")] {
        for kind in Kind::value_variants() {
            let rows: Vec<&Walked> = walked
                .iter()
                .filter(|one| one.row.role == role && one.row.kind == *kind)
                .collect();
            if rows.is_empty() {
                continue;
            }
            let (median, worst, late) = of(&rows);
            let kind = format!("{kind:?}").to_lowercase();
            println!(
                "{name:<8} {kind:<8} {:>5} {median:>7} {worst:>7} {late:>5}",
                rows.len()
            );
        }
    }
    println!(
        "{} rows, {late} later than {GOAL_MS} ms: zero-loss is back after {median} ms in the median, {worst} ms at worst",
        walked.len()
    );
}
