//! Which faults there are, and the order into which a seed puts them. Pure: what a fault does to real
//! servers is in `lab.rs`.

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
    /// An orderly stop.
    Stop(Role),
    /// Between the API and the active master.
    CutApi(Way),
    /// Between the two masters, both directions.
    CutLink(Way),
    /// `POST /switch-to-...` away from the active master, and back again.
    Handover,
    /// SIGKILL to the API.
    KillApi,
}

/// One kind of fault.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    pub name: &'static str,
    pub blows: &'static [Blow],
    /// From the fault to its heal, at least.
    pub hold_ms: u64,
    /// The longest time without an acknowledged write that is aimed at.
    pub goal_ms: Option<u64>,
}

const fn fault(
    name: &'static str,
    blows: &'static [Blow],
    hold_ms: u64,
    goal_ms: Option<u64>,
) -> Fault {
    Fault {
        name,
        blows,
        hold_ms,
        goal_ms,
    }
}

/// Every kind of fault. Those that are noticed by silence last longer than the second after which a
/// silent master is down, so that they are met and not sat out.
#[rustfmt::skip] // one fault, one line
pub const FAULTS: &[Fault] = {
    use Blow::{CutApi, CutLink, Freeze, Handover, Kill, KillApi, Stop};
    use Role::{Active, Passive};
    use Way::{Hole, Reset};
    &[
        fault("kill-active",     &[Kill(Active)],                  1_000, Some(500)),
        fault("freeze-active",   &[Freeze(Active)],                2_500, Some(2_000)),
        fault("restart-active",  &[Stop(Active)],                  1_000, None),
        fault("cut-api-active",  &[CutApi(Reset)],                 1_500, Some(2_000)),
        fault("hole-api-active", &[CutApi(Hole)],                  2_500, Some(2_000)),
        fault("kill-passive",    &[Kill(Passive)],                 1_500, Some(1_500)),
        fault("freeze-passive",  &[Freeze(Passive)],               2_500, Some(1_500)),
        fault("cut-masters",     &[CutLink(Reset)],                1_500, Some(1_500)),
        fault("hole-masters",    &[CutLink(Hole)],                 2_500, Some(1_500)),
        fault("isolate-active",  &[CutApi(Hole), CutLink(Hole)],   2_500, Some(2_000)),
        fault("kill-both",       &[Kill(Active), Kill(Passive)],   1_000, None),
        fault("handover",        &[Handover],                        500, Some(250)),
        fault("kill-api",        &[KillApi],                         300, None),
    ]
};

impl Fault {
    /// Whether the traffic must be on the other master before the fault is healed.
    pub fn moves_traffic(&self) -> bool {
        let hits_active = |blow: &Blow| match blow {
            Blow::Kill(role) | Blow::Freeze(role) | Blow::Stop(role) => *role == Role::Active,
            Blow::CutApi(_) => true,
            Blow::CutLink(_) | Blow::Handover | Blow::KillApi => false,
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

/// The faults of a run: round after round, each in an order of its own, until there are `count`. Only
/// those named in `only`, unless that is empty.
pub fn schedule(seed: u64, count: usize, only: &[String]) -> Vec<Planned> {
    let wanted = |fault: &&Fault| only.is_empty() || only.iter().any(|name| name == fault.name);
    let chosen: Vec<&'static Fault> = FAULTS.iter().filter(wanted).collect();
    let mut dice = Dice::new(seed);
    let mut planned = Vec::new();
    while planned.len() < count && !chosen.is_empty() {
        let mut round = chosen.clone();
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
