//! The one loop that owns the state of the cluster. Everything that happens arrives as an event on
//! one channel; the pure core decides; here it is published and carried out.

use crate::board::Board;
use crate::cluster::{Change, Cluster, Effect, Event, NodeId, Refusal};
use crate::history::History;
use crate::limits;
use crate::pg::Sessions;
use crate::quiet;
use crate::standby::Standby;
use crate::vital;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A handle on the supervisor, for everyone who has something to tell it.
#[derive(Clone)]
pub struct Supervisor {
    inbox: Sender<Message>,
}

enum Message {
    Happened(Event),
    Commanded {
        command: Command,
        reply: Sender<Result<(), Refusal>>,
    },
}

/// What a person can ask for.
#[derive(Clone, Copy, Debug)]
enum Command {
    Switch { to: NodeId, force: bool },
    Pause { for_ms: Option<u64> },
}

/// Why a command has no outcome to tell.
#[derive(Debug)]
pub enum CommandError {
    Refused(Refusal),
    /// The supervisor did not answer in time; what will come of it is not known.
    NoAnswer,
}

/// What the loop needs to carry out its decisions.
pub struct Hands {
    pub board: Arc<Board>,
    pub sessions: [Sessions; 2],
    pub standby: Standby,
    /// Wakes the probe of each master.
    pub probes: [Sender<()>; 2],
    pub history: History,
}

/// The receiving end, made before the threads that send to it.
pub struct Inbox(Receiver<Message>);

/// The channel to the supervisor: its handle, and what [`start`] reads.
pub fn channel() -> (Supervisor, Inbox) {
    let (inbox, messages) = crossbeam_channel::bounded(limits::EVENT_QUEUE);
    (Supervisor { inbox }, Inbox(messages))
}

impl Supervisor {
    /// Tells what happened. Never waits: when the queue is full the event is dropped, because the
    /// probes keep saying the same until it is heard.
    pub fn report(&self, event: Event) {
        if self.inbox.try_send(Message::Happened(event)).is_err() {
            log::debug!("the supervisor's queue is full; an event was dropped");
        }
    }

    /// Moves the traffic to `to`, in order or by `force`, and waits for the outcome.
    ///
    /// # Errors
    /// The reason when the switch did not happen.
    pub fn switch(&self, to: NodeId, force: bool) -> Result<(), CommandError> {
        self.command(Command::Switch { to, force })
    }

    /// Holds the traffic where it is for a time, or, with nothing, no longer.
    ///
    /// # Errors
    /// The reason when that did not happen.
    pub fn pause(&self, time: Option<Duration>) -> Result<(), CommandError> {
        let for_ms = time.map(|time| time.as_millis() as u64);
        self.command(Command::Pause { for_ms })
    }

    fn command(&self, command: Command) -> Result<(), CommandError> {
        let patience = Duration::from_millis(limits::HANDOVER_DEADLINE_MS) + Duration::from_secs(1);
        let (reply, answer) = crossbeam_channel::bounded(1);
        self.inbox
            .send_timeout(Message::Commanded { command, reply }, patience)
            .map_err(|_| CommandError::NoAnswer)?;
        match answer.recv_timeout(patience) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(refusal)) => Err(CommandError::Refused(refusal)),
            Err(_) => Err(CommandError::NoAnswer),
        }
    }
}

/// Starts the loop.
///
/// # Errors
/// When the thread cannot be started.
pub fn start(cluster: Cluster, inbox: Inbox, hands: Hands) -> std::io::Result<()> {
    vital::spawn("supervisor".to_string(), move || {
        Loop {
            cluster,
            hands,
            tickets: HashMap::new(),
            next_ticket: 0,
            alarms: Vec::new(),
            looked: Instant::now(),
        }
        .run(&inbox.0)
    })
}

struct Loop {
    cluster: Cluster,
    hands: Hands,
    /// Who waits for the outcome of which switch.
    tickets: HashMap<u64, Sender<Result<(), Refusal>>>,
    next_ticket: u64,
    /// The alarms that have been logged, and when they were last looked at.
    alarms: Vec<String>,
    looked: Instant,
}

impl Loop {
    /// Runs until the last handle is dropped.
    fn run(mut self, messages: &Receiver<Message>) {
        let mut last_tick = Instant::now();
        loop {
            let holding = self.cluster.holding_writes();
            let patience = if holding {
                limits::TICK_HANDOVER
            } else {
                limits::TICK
            };
            match messages.recv_timeout(patience) {
                Ok(message) => self.take(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            // Whatever waits is heard before silence is counted: an answer may be among it.
            for message in messages.try_iter().take(limits::EVENT_QUEUE) {
                self.take(message);
            }
            let since_tick = last_tick.elapsed();
            if since_tick >= patience {
                last_tick = Instant::now();
                // A program that was stopped, or had no processor, has not listened.
                if since_tick > limits::SLEPT {
                    log::warn!(
                        "nobody listened to the masters for {} ms",
                        since_tick.as_millis()
                    );
                    self.turn(Event::Slept {
                        ms: since_tick.as_millis() as u64,
                    });
                }
                self.turn(Event::Tick);
                self.tell_alarms();
            }
            let active = self.hands.board.active();
            if self.cluster.holding_writes() && self.hands.board.writes_under_way(active) == 0 {
                self.turn(Event::Drained);
            }
        }
    }

    /// Logs what has become an alarm, or is none any more, once.
    fn tell_alarms(&mut self) {
        if self.looked.elapsed() < limits::ALARM_LOOK {
            return;
        }
        self.looked = Instant::now();
        let board = &self.hands.board;
        let alarms = board
            .look()
            .0
            .alarms(board.now_ms(), limits::ALARM_AFTER_MS);
        quiet::tell_alarms("", &self.alarms, &alarms);
        self.alarms = alarms;
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Happened(event) => self.turn(event),
            Message::Commanded { command, reply } => {
                let ticket = self.next_ticket;
                self.next_ticket += 1;
                self.tickets.insert(ticket, reply);
                self.turn(match command {
                    Command::Switch { to, force } => Event::Switch { to, force, ticket },
                    Command::Pause { for_ms } => Event::Pause { for_ms, ticket },
                });
            }
        }
    }

    /// One event: decide, publish, then carry out. Publishing comes first, so that whoever learns
    /// of an effect finds the new picture.
    fn turn(&mut self, event: Event) {
        let began = Instant::now();
        let name = format!("{event:?}");
        let effects = self.cluster.handle(self.hands.board.now_ms(), event);
        self.hands.history.settle(self.cluster.writes_history());
        self.hands.board.publish(self.cluster.view());
        for effect in effects {
            self.carry_out(effect);
        }
        if began.elapsed() > limits::SLOW_TURN {
            log::warn!(
                "a turn of the supervisor took {} ms: {name}",
                began.elapsed().as_millis()
            );
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            // A full channel means that the probe has been told already.
            Effect::ProbeNow(node) => drop(self.hands.probes[node.index()].try_send(())),
            Effect::AlignSequences(node) => {
                // Connections that were made before the master was away are dead without knowing it.
                self.hands.sessions[node.index()].begin_new_life();
                self.hands.standby.begin_new_life(node);
                self.hands.standby.align_sequences(node);
                self.hands.standby.count_start(node);
            }
            Effect::TryWrite(node) => {
                self.hands.board.ask_trial(node);
                let _ = self.hands.probes[node.index()].try_send(());
            }
            Effect::NoteStarts { on, starts } => self.hands.standby.note_starts(on, starts),
            Effect::ApplyStrictly { node, strict } => self.hands.standby.apply(node, strict),
            Effect::FreeCommits(node) => self.hands.standby.free_commits(node),
            Effect::ReleaseApply(node) => self.hands.standby.release_apply(node),
            // Who does not decide gives no orders: it only frees what the master itself says is kept in vain.
            Effect::WaitForPeer { node, wait } => match self.cluster.leads() {
                true => self.hands.standby.order(node, wait),
                false => self.hands.standby.stop_waiting_in_vain(node),
            },
            Effect::Record(change) => self.record(change),
            Effect::Answer { ticket, outcome } => {
                if let Some(reply) = self.tickets.remove(&ticket) {
                    // Whoever asked may have stopped waiting.
                    let _ = reply.send(outcome);
                }
            }
        }
    }

    fn record(&self, change: Change) {
        let cause = change
            .cause
            .as_ref()
            .map(|cause| format!(" ({cause})"))
            .unwrap_or_default();
        let Change {
            what,
            node,
            from,
            to,
            why,
            duration_ms,
            ..
        } = &change;
        // A doubt that passes is no event: under a slow master it would fill the history.
        let passing = matches!((*from, *to), ("up", "suspect") | ("suspect", "up"));
        if *what == "node" && passing {
            log::debug!("{node}: {from} -> {to} after {duration_ms} ms: {why}{cause}");
            return;
        }
        match *what {
            "node" => log::info!("{node}: {from} -> {to} after {duration_ms} ms: {why}{cause}"),
            "outage" => log::error!("outage: {why}{cause}"),
            _ => log::warn!("{what}: {from} -> {to} ({duration_ms} ms): {why}{cause}"),
        }
        // What happens to all is written down once, by the process that decides.
        self.hands
            .history
            .record(change, self.cluster.writes_history());
    }
}
