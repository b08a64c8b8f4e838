//! The two masters, what state each can be in, and what can be heard of one.

use serde::{Deserialize, Serialize};
use std::fmt;

/// One of the two masters. `master1` is the primary: the one that serves when both could.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeId {
    Master1,
    Master2,
}

impl NodeId {
    /// Both masters, the primary first.
    pub const BOTH: [NodeId; 2] = [NodeId::Master1, NodeId::Master2];

    /// Position in an array that holds something for each master.
    pub const fn index(self) -> usize {
        match self {
            NodeId::Master1 => 0,
            NodeId::Master2 => 1,
        }
    }

    /// The other master.
    pub const fn peer(self) -> NodeId {
        match self {
            NodeId::Master1 => NodeId::Master2,
            NodeId::Master2 => NodeId::Master1,
        }
    }

    /// Its name in URLs, JSON, logs and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            NodeId::Master1 => "master1",
            NodeId::Master2 => "master2",
        }
    }

    /// Its number in the database: 1 draws odd ids, 2 even ones, and it breaks ties of time.
    pub const fn number(self) -> i16 {
        match self {
            NodeId::Master1 => 1,
            NodeId::Master2 => 2,
        }
    }

    /// The subscription on this master that brings the peer's changes (the manual's names).
    pub const fn subscription(self) -> &'static str {
        match self {
            NodeId::Master1 => "sub_from_master2",
            NodeId::Master2 => "sub_from_master1",
        }
    }

    /// The slot on this master from which the peer's subscription reads (the manual's names).
    pub const fn slot(self) -> &'static str {
        match self {
            NodeId::Master1 => "slot_1_to_2",
            NodeId::Master2 => "slot_2_to_1",
        }
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is held of a master. `Up`, `Suspect` and, for want of a better one, `Unfit` serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    /// Not heard of since the program started.
    Unknown,
    /// Answers, and holds what its peer had sent: may serve.
    Up,
    /// Late with its answer, or a worker met an error on it: still served from, being asked again.
    Suspect,
    /// Answers, and refuses writes for a reason of its own: its reads serve while its peer can do no better.
    Unfit,
    /// Refuses connections, or has been silent past the deadline.
    Down,
    /// Answers again, and is not yet known to hold everything that its peer has: serves nothing.
    CatchingUp,
}

impl NodeState {
    /// All of them.
    pub const ALL: [NodeState; 6] = [
        NodeState::Unknown,
        NodeState::Up,
        NodeState::Suspect,
        NodeState::Unfit,
        NodeState::Down,
        NodeState::CatchingUp,
    ];

    /// Whether a master in this state may be given requests.
    pub const fn serves(self) -> bool {
        matches!(self, NodeState::Up | NodeState::Suspect | NodeState::Unfit)
    }

    /// Its name in JSON, logs and the documentation.
    pub const fn name(self) -> &'static str {
        match self {
            NodeState::Unknown => "unknown",
            NodeState::Up => "up",
            NodeState::Suspect => "suspect",
            NodeState::Unfit => "unfit",
            NodeState::Down => "down",
            NodeState::CatchingUp => "catching-up",
        }
    }
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What can be heard of a master, or concluded about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Signal {
    /// It answered a probe.
    Answered,
    /// It has applied everything that its peer held when it came back.
    Current,
    /// Nobody is fit to serve, and of those that answer none is nearer to complete.
    NobodyBetter,
    /// Its answer is late, or a worker's call on it failed.
    Doubt,
    /// It refused a connection, or answered with an error: proof.
    Refused,
    /// Another server answers at its address.
    Stranger,
    /// It has been silent past the deadline.
    Silence,
    /// It takes nothing from its peer: it has no subscription, or one that still copies tables.
    Unlinked,
    /// It is an older copy of itself: it lacks what it had before.
    Older,
    /// A person wants the traffic on it, whatever it lacks.
    Forced,
    /// It has refused trial writes for a while, for a reason of its own.
    WritesRefused,
    /// It has taken trial writes for a while.
    WritesTaken,
}

impl Signal {
    #[cfg(test)]
    pub const ALL: [Signal; 12] = [
        Signal::Answered,
        Signal::Current,
        Signal::NobodyBetter,
        Signal::Doubt,
        Signal::Refused,
        Signal::Stranger,
        Signal::Silence,
        Signal::Unlinked,
        Signal::Older,
        Signal::Forced,
        Signal::WritesRefused,
        Signal::WritesTaken,
    ];

    /// Its name in the documentation.
    pub const fn name(self) -> &'static str {
        match self {
            Signal::Answered => "answered",
            Signal::Current => "current",
            Signal::NobodyBetter => "nobody-better",
            Signal::Doubt => "doubt",
            Signal::Refused => "refused",
            Signal::Stranger => "stranger",
            Signal::Silence => "silence",
            Signal::Unlinked => "unlinked",
            Signal::Older => "older",
            Signal::Forced => "forced",
            Signal::WritesRefused => "writes-refused",
            Signal::WritesTaken => "writes-taken",
        }
    }
}

/// What one probe saw on a master. Positions are WAL positions of that master, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// End of the WAL that is safely on disk; every acknowledged commit is before it.
    pub wal_lsn: u64,
    /// Up to where the peer has confirmed to have applied it; nothing without a slot for the peer.
    pub peer_confirmed_lsn: Option<u64>,
    /// Whether a walsender is streaming to the peer right now.
    pub peer_streaming: bool,
    /// How long ago the newest change that the peer has confirmed was made here, in ms; PostgreSQL
    /// forgets it when both are idle, and then it is 0.
    pub peer_lag_ms: Option<u64>,
    /// Whether this master's own apply worker is running.
    pub applying: bool,
    /// How this master is joined to what its peer sends.
    pub link: Link,
    /// Whether its apply worker waits for the disk at each transaction of its peer.
    pub apply_strict: bool,
    /// Whose confirmation a commit on this master waits for.
    pub waits_for: WaitsFor,
    /// Whether PostgreSQL counts the peer as the standby that commits wait for.
    pub peer_synchronous: bool,
    /// Whether the checkpointer, which tells the commits whom to wait for, listens for news.
    pub checkpointer_hears: bool,
    /// How long the commit that has waited longest for the peer has waited, in ms; nothing when none
    /// is waiting.
    pub longest_wait_ms: Option<u64>,
    /// How far it has applied its peer's WAL, as a position of the peer.
    pub applied_lsn: Option<u64>,
    /// How often it has begun to serve, by its own count.
    pub starts: Option<u64>,
    /// How often its peer has, as far as it was told.
    pub peer_starts: Option<u64>,
    /// When it was written down which servers the masters are, in ms since 1970; 0 when it was not.
    pub written: u64,
}

/// How a master is joined to what its peer sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Link {
    /// It has no subscription.
    #[default]
    Missing,
    /// Its subscription is still copying the rows of a table.
    Copying,
    /// Everything that its peer sends is applied as it arrives.
    Ready,
}

/// Whose confirmation the commits of a master wait for, by its `synchronous_standby_names`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WaitsFor {
    #[default]
    Nobody,
    /// For that of its peer's subscription, as this program sets it.
    Peer,
    /// For somebody's that this program does not know; it leaves such a setting alone.
    Other,
}

impl Facts {
    /// Whether there is WAL that its walsender has to send, or a commit that waits for the peer to have it.
    pub fn has_something_to_send(&self) -> bool {
        let behind = self.peer_lag_bytes().is_some_and(|lag| lag > 0);
        self.peer_streaming && (behind || self.longest_wait_ms.is_some())
    }

    /// Bytes of WAL that the peer has not confirmed yet; nothing without a slot.
    pub fn peer_lag_bytes(&self) -> Option<u64> {
        self.peer_confirmed_lsn
            .map(|confirmed| self.wal_lsn.saturating_sub(confirmed))
    }
}
