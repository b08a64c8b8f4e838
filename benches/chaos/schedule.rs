//! Which faults there are, and the order into which a seed puts them. Pure: what a fault does to real
//! servers is in `local.rs` and `compose.rs`.

use clap::ValueEnum;

/// Where the system runs that is struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Place {
    /// A cluster of its own, started for the run and thrown away after it
    Local,
    /// The containers of docker-compose.yml, which must be up and healthy
    Compose,
}

/// What a blow hits, as seen at the moment of the fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Active,
    Passive,
}

/// How a connection is taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// What is open is reset, and what is new is refused: it is noticed at once.
    Reset,
    /// Everything stays open and nothing passes, and it goes on after the heal: only silence tells.
    Hole,
}

/// One thing that is done to the system, and undone again when the fault is healed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// SIGKILL to the whole server.
    Kill(Role),
    /// SIGSTOP to the whole server.
    Freeze(Role),
    /// An orderly stop, and a start by the heal at the latest.
    Restart(Role),
    /// Between the API and the active master.
    CutApi(Way),
    /// Between the two masters, both directions.
    CutLink(Way),
    /// Nothing passes between a master and anybody else.
    Isolate(Role),
    /// `POST /switch-to-...` away from the active master, and back again.
    Handover,
    /// SIGKILL to the API.
    KillApi,
    /// SIGKILL to Redis.
    KillRedis,
}

/// One kind of fault.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    pub name: &'static str,
    /// Where it can be done: the engine of the containers has nothing that cuts one way alone.
    pub places: &'static [Place],
    pub blows: &'static [Blow],
    /// From the fault to its heal, at least.
    pub hold_ms: u64,
    /// The longest time without an acknowledged write that is aimed at.
    pub goal_ms: Option<u64>,
}

const fn fault(
    name: &'static str,
    places: &'static [Place],
    blows: &'static [Blow],
    hold_ms: u64,
    goal_ms: Option<u64>,
) -> Fault {
    Fault {
        name,
        places,
        blows,
        hold_ms,
        goal_ms,
    }
}

/// Every kind of fault. Those that are noticed by silence last longer than the second after which a
/// silent master is down, so that they are met and not sat out.
#[rustfmt::skip] // one fault, one line
pub const FAULTS: &[Fault] = {
    use Blow::{CutApi, CutLink, Freeze, Handover, Isolate, Kill, KillApi, KillRedis, Restart};
    use Role::{Active, Passive};
    use Way::{Hole, Reset};
    const BOTH: &[Place] = &[Place::Local, Place::Compose];
    const LOCAL: &[Place] = &[Place::Local];
    &[
        fault("kill-active",     BOTH,  &[Kill(Active)],                1_000, Some(500)),
        fault("freeze-active",   BOTH,  &[Freeze(Active)],              2_500, Some(2_000)),
        fault("restart-active",  BOTH,  &[Restart(Active)],             1_000, None),
        fault("cut-api-active",  LOCAL, &[CutApi(Reset)],               1_500, Some(2_000)),
        fault("hole-api-active", LOCAL, &[CutApi(Hole)],                2_500, Some(2_000)),
        fault("kill-passive",    BOTH,  &[Kill(Passive)],               1_500, Some(1_500)),
        fault("freeze-passive",  BOTH,  &[Freeze(Passive)],             2_500, Some(1_500)),
        fault("cut-masters",     LOCAL, &[CutLink(Reset)],              1_500, Some(1_500)),
        fault("hole-masters",    LOCAL, &[CutLink(Hole)],               2_500, Some(1_500)),
        fault("isolate-active",  BOTH,  &[Isolate(Active)],             2_500, Some(2_000)),
        fault("isolate-passive", BOTH,  &[Isolate(Passive)],            2_500, Some(1_500)),
        fault("kill-both",       BOTH,  &[Kill(Active), Kill(Passive)], 1_000, None),
        fault("handover",        BOTH,  &[Handover],                      500, Some(250)),
        fault("kill-api",        BOTH,  &[KillApi],                       300, None),
        fault("kill-redis",      BOTH,  &[KillRedis],                   2_500, Some(500)),
    ]
};

impl Fault {
    /// Whether the traffic must be on the other master before the fault is healed.
    pub fn moves_traffic(&self) -> bool {
        let hits_active = |blow: &Blow| match blow {
            Blow::Kill(role) | Blow::Freeze(role) | Blow::Restart(role) | Blow::Isolate(role) => {
                *role == Role::Active
            }
            Blow::CutApi(_) => true,
            Blow::CutLink(_) | Blow::Handover | Blow::KillApi | Blow::KillRedis => false,
        };
        self.blows.iter().any(hits_active) && !self.is_outage()
    }

    /// Whether no master is left that could answer, so that a 503 is the right answer.
    pub fn is_outage(&self) -> bool {
        let kills = |role| self.blows.contains(&Blow::Kill(role));
        kills(Role::Active) && kills(Role::Passive)
    }

    /// Whether the API itself goes, and every connection with it.
    pub fn takes_api(&self) -> bool {
        self.blows.contains(&Blow::KillApi)
    }

    /// Whether the masters lose each other and nothing else, so that nothing but the link has to
    /// come back before they are equal.
    pub fn is_link_cut(&self) -> bool {
        self.blows
            .iter()
            .all(|blow| matches!(blow, Blow::CutLink(_)))
    }

    /// Whether somebody who could serve is left throughout, which makes a stall the system's own.
    pub fn is_survivable(&self) -> bool {
        !self.is_outage() && !self.takes_api()
    }
}

/// A fault with its moment.
#[derive(Debug, PartialEq, Eq)]
pub struct Planned {
    pub fault: &'static Fault,
    /// Time under load before it, so that it strikes at another moment each time.
    pub lead_ms: u64,
}

/// The kinds of fault that a place has.
pub fn kinds(place: Place) -> impl Iterator<Item = &'static Fault> {
    let there = move |fault: &&Fault| fault.places.contains(&place);
    FAULTS.iter().filter(there)
}

/// Those of them that are named in `only`, or all if that is empty.
///
/// # Errors
/// The names that the place does not have, and those that it has.
pub fn chosen(place: Place, only: &[String]) -> Result<Vec<&'static Fault>, String> {
    let is_there = |name: &&String| kinds(place).any(|fault| fault.name == *name);
    let strange: Vec<&str> = only
        .iter()
        .filter(|name| !is_there(name))
        .map(String::as_str)
        .collect();
    if !strange.is_empty() {
        let known: Vec<&str> = kinds(place).map(|fault| fault.name).collect();
        return Err(format!(
            "{} has no fault {}; it has {}",
            format!("{place:?}").to_lowercase(),
            strange.join(", "),
            known.join(", ")
        ));
    }
    let wanted = |fault: &&Fault| only.is_empty() || only.iter().any(|name| name == fault.name);
    Ok(kinds(place).filter(wanted).collect())
}

/// The faults of a run: round after round of the chosen kinds, each in an order of its own, until
/// there are `count`.
pub fn schedule(seed: u64, count: usize, chosen: &[&'static Fault]) -> Vec<Planned> {
    let mut dice = Dice::new(seed);
    let mut planned = Vec::new();
    while planned.len() < count && !chosen.is_empty() {
        let mut round = chosen.to_vec();
        for end in (1..round.len()).rev() {
            round.swap(end, dice.below(end as u64 + 1) as usize);
        }
        planned.extend(round.into_iter().map(|fault| Planned {
            fault,
            lead_ms: 300 + dice.below(400),
        }));
    }
    planned.truncate(count);
    planned
}

/// Random numbers that are the same for the same seed (SplitMix64).
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// A number from 0 to `end`, without `end` itself.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % end
    }
}
