//! The state machine of one master, as a table. Each row says why, in the sentence that becomes the
//! log line, the history entry and the `reason` of `/status`. Nothing here has a clock or does I/O.

use super::node::{NodeState, NodeState::*, Signal, Signal::*};

/// What a transition asks of the world, beyond the new state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask this master at once, without waiting for its turn.
    ProbeNow,
    /// Remember where the peer stands at its next answer: that is what must be caught up with.
    NoteBarrier,
    /// Move the id sequences past the rows that arrived meanwhile.
    AlignSequences,
}

/// One row: in state `from`, when `on` is heard, go to `to`, do `act`, because of `why`.
#[derive(Debug)]
pub struct Transition {
    pub from: NodeState,
    pub on: Signal,
    pub to: NodeState,
    pub act: &'static [Action],
    pub why: &'static str,
}

const fn row(
    from: NodeState,
    on: Signal,
    to: NodeState,
    act: &'static [Action],
    why: &'static str,
) -> Transition {
    Transition {
        from,
        on,
        to,
        act,
        why,
    }
}

/// Every transition there is.
#[rustfmt::skip] // one row, one line
pub const TRANSITIONS: &[Transition] = &[
    // The start: an answer shows that it lives, not that it is complete.
    row(Unknown, Answered, CatchingUp, &[Action::NoteBarrier], "it answers; whether it holds all that its peer has is being checked"),
    row(Unknown, Refused, Down, &[], "it refuses connections"),
    row(Unknown, Stranger, Down, &[], "another server answers"),
    row(Unknown, Silence, Down, &[], "it has not answered since the start"),
    // A living master: doubt is cheap and asks again, proof and silence end it.
    row(Up, Doubt, Suspect, &[Action::ProbeNow], "its answer is late or a call on it failed; asking again"),
    row(Up, Refused, Down, &[], "it refuses connections"),
    row(Up, Stranger, Down, &[], "another server answers"),
    row(Up, Silence, Down, &[], "it has been silent past the deadline"),
    row(Suspect, Answered, Up, &[], "it answered again before the deadline"),
    row(Suspect, Refused, Down, &[], "it refuses connections"),
    row(Suspect, Stranger, Down, &[], "another server answers"),
    row(Suspect, Silence, Down, &[], "it has been silent past the deadline"),
    // A master that answers and takes no writes serves reads for as long as its peer can do no better.
    row(Up, WritesRefused, Unfit, &[], "it answers and refuses writes"),
    row(Suspect, WritesRefused, Unfit, &[], "it answers and refuses writes"),
    row(Unfit, WritesTaken, Up, &[], "it takes writes again"),
    row(Unfit, Refused, Down, &[], "it refuses connections"),
    row(Unfit, Silence, Down, &[], "it has been silent past the deadline"),
    // Only the master that does not serve is judged by this: the other may have lost its peer for good.
    row(Up, Unlinked, CatchingUp, &[Action::NoteBarrier], "it takes no changes from its peer: its subscription is missing or still copies tables"),
    row(Suspect, Unlinked, CatchingUp, &[Action::NoteBarrier], "it takes no changes from its peer: its subscription is missing or still copies tables"),
    row(Unfit, Unlinked, CatchingUp, &[Action::NoteBarrier], "it takes no changes from its peer: its subscription is missing or still copies tables"),
    // Put back from an old copy, a snapshot or a backup: what it was told since then is gone from it.
    row(Up, Older, CatchingUp, &[Action::NoteBarrier], "it is an older copy of itself"),
    row(Suspect, Older, CatchingUp, &[Action::NoteBarrier], "it is an older copy of itself"),
    row(Unfit, Older, CatchingUp, &[Action::NoteBarrier], "it is an older copy of itself"),
    row(Unfit, Stranger, Down, &[], "another server answers"),
    // The way back leads through catching up, always.
    row(Down, Answered, CatchingUp, &[Action::NoteBarrier], "it answers again; it must hold all that its peer has before it serves"),
    row(CatchingUp, Current, Up, &[Action::AlignSequences], "it holds everything that its peer held when it came back"),
    row(CatchingUp, NobodyBetter, Up, &[Action::AlignSequences], "nobody else can serve and nobody is nearer to complete"),
    row(CatchingUp, Forced, Up, &[Action::AlignSequences], "a person wants the traffic on it although it may lack rows"),
    row(CatchingUp, Refused, Down, &[], "it refuses connections again"),
    row(CatchingUp, Stranger, Down, &[], "another server answers"),
    row(CatchingUp, Silence, Down, &[], "it fell silent again while catching up"),
];

/// The pairs that mean nothing, each listed, so that a missing row cannot hide.
pub const IGNORED: &[(NodeState, Signal)] = &[
    (Unknown, Current), // nothing can be current that has not answered
    (Unknown, NobodyBetter),
    (Unknown, Doubt), // it is asked all the time as it is
    (Up, Answered),
    (Up, Current),
    (Up, NobodyBetter),
    (Suspect, Current), // it lost nothing by being late
    (Suspect, NobodyBetter),
    (Suspect, Doubt), // already being asked
    (Down, Current),
    (Down, NobodyBetter),
    (Down, Doubt),
    (Down, Refused), // known, but for the reason
    (Down, Stranger),
    (Down, Silence), // known
    (CatchingUp, Answered),
    (CatchingUp, Doubt), // it serves nobody; only proof or silence matter
    (Unknown, Unlinked), // the way up asks for a link by itself
    (Down, Unlinked),
    (CatchingUp, Unlinked),
    (Unknown, Older), // it has not answered
    (Down, Older),
    (CatchingUp, Older), // it does not come up, as long as it is one
    (Unknown, Forced),   // nobody can serve from a master that does not answer
    (Down, Forced),
    (Up, Forced), // it serves as it is
    (Suspect, Forced),
    (Unfit, Forced),
    (Unfit, Answered), // that it answers is not what it lacks
    (Unfit, Current),
    (Unfit, NobodyBetter),
    (Unfit, Doubt),         // only proof or silence matter
    (Unfit, WritesRefused), // known
    (Up, WritesTaken),
    (Suspect, WritesTaken),
    (Unknown, WritesRefused), // it serves nobody, and is tried when it could
    (Unknown, WritesTaken),
    (Down, WritesRefused),
    (Down, WritesTaken),
    (CatchingUp, WritesRefused),
    (CatchingUp, WritesTaken),
];

/// The row for this state and signal; nothing when the pair is one of [`IGNORED`].
pub fn step(from: NodeState, on: Signal) -> Option<&'static Transition> {
    TRANSITIONS
        .iter()
        .find(|row| row.from == from && row.on == on)
}

/// The table as a picture, in the language of Mermaid.
pub fn as_diagram() -> String {
    let mut text = String::from("stateDiagram-v2\n    [*] --> unknown\n");
    for (index, row) in TRANSITIONS.iter().enumerate() {
        let edge = |row: &Transition| (row.from, row.to);
        // One arrow for all signals that lead from one state to the same other.
        if TRANSITIONS[..index]
            .iter()
            .any(|earlier| edge(earlier) == edge(row))
        {
            continue;
        }
        let signals: Vec<&str> = TRANSITIONS
            .iter()
            .filter(|other| edge(other) == edge(row))
            .map(|other| other.on.name())
            .collect();
        text.push_str(&format!(
            "    {} --> {}: {}\n",
            row.from,
            row.to,
            signals.join(", ")
        ));
    }
    text
}

/// The table as Markdown, as ARCHITECTURE.md shows it.
pub fn as_markdown() -> String {
    let mut text = String::from("| from | on | to | actions | why |\n|---|---|---|---|---|\n");
    for row in TRANSITIONS {
        let actions: Vec<String> = row.act.iter().map(|action| format!("{action:?}")).collect();
        text.push_str(&format!(
            "| {} | {} | {} | {} | {} |\n",
            row.from,
            row.on.name(),
            row.to,
            actions.join(", "),
            row.why
        ));
    }
    let ignored: Vec<String> = IGNORED
        .iter()
        .map(|(state, signal)| format!("{state} on {}", signal.name()))
        .collect();
    text.push_str(&format!(
        "\nAnything else means nothing: {}.\n",
        ignored.join(", ")
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_is_one_row_or_one_listed_ignore() {
        for state in NodeState::ALL {
            for signal in Signal::ALL {
                let rows = TRANSITIONS
                    .iter()
                    .filter(|row| row.from == state && row.on == signal)
                    .count();
                let ignores = IGNORED
                    .iter()
                    .filter(|pair| pair.0 == state && pair.1 == signal)
                    .count();
                assert_eq!(rows + ignores, 1, "{state} on {}", signal.name());
            }
        }
    }

    #[test]
    fn a_master_serves_again_only_after_catching_up() {
        for row in TRANSITIONS
            .iter()
            .filter(|row| row.to.serves() && !row.from.serves())
        {
            assert_eq!(row.from, CatchingUp, "{} on {}", row.from, row.on.name());
            assert!(row.act.contains(&Action::AlignSequences));
        }
    }

    #[test]
    fn catching_up_always_notes_what_to_catch_up_with() {
        for row in TRANSITIONS.iter().filter(|row| row.to == CatchingUp) {
            assert!(
                row.act.contains(&Action::NoteBarrier),
                "{} on {}",
                row.from,
                row.on.name()
            );
        }
    }
}
