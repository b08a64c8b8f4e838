//! Load without any fault: nothing may happen. What does is told, as the history has it.

use crate::checker::{Figures, figures};
use crate::lab::Lab;
use crate::load::{CONNECTIONS, Ends, Load};
use serde_json::{Value, json};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks at whether somebody wants the run to end.
const TURN: Duration = Duration::from_millis(200);

/// What was seen.
pub struct Peace {
    seconds: u64,
    figures: Figures,
    /// Walsenders that had missed a wake-up and were woken.
    woken: u64,
    /// New entries of the history, newest first.
    events: Vec<Value>,
}

/// Runs the load for so long, or until somebody wants it to end.
///
/// # Errors
/// When the API cannot be asked.
pub fn keep(
    lab: &Lab,
    rate: u64,
    seed: u64,
    time: Duration,
    stop: &AtomicBool,
) -> Result<Peace, String> {
    let load = Load::new(lab.address(), lab.mark.clone(), rate, seed);
    let (before, woken) = (lab.history()?, lab.wakeups()?);
    let began = Instant::now();
    thread::scope(|scope| {
        let _ends = Ends(&load);
        for number in 0..CONNECTIONS {
            let load = &load;
            scope.spawn(move || load.work(number));
        }
        while began.elapsed() < time && !stop.load(SeqCst) {
            thread::sleep(TURN);
        }
    });
    let requests = load.requests.lock().expect("the requests");
    let mut events = lab.history()?;
    events.retain(|event| !before.contains(event));
    Ok(Peace {
        seconds: began.elapsed().as_secs(),
        figures: figures(&requests, 0, load.now_ms()),
        woken: lab.wakeups()? - woken,
        events,
    })
}

impl Peace {
    pub fn is_kept(&self) -> bool {
        self.events.is_empty() && self.figures.failed + self.figures.refused == 0
    }

    pub fn tell(&self, as_json: bool) {
        let figures = &self.figures;
        if as_json {
            let told = json!({
                "seconds": self.seconds,
                "acknowledged": figures.acknowledged,
                "failed": figures.failed + figures.refused,
                "stall_ms": figures.stall_ms,
                "slowest_ms": figures.slowest_ms,
                "woken": self.woken,
                "events": self.events,
            });
            return println!("{told}");
        }
        println!(
            "{} s without a fault: {} writes acknowledged, {} requests failed, longest stall {} ms, slowest request {} ms, \
             {} walsenders woken, {} events",
            self.seconds,
            figures.acknowledged,
            figures.failed + figures.refused,
            figures.stall_ms,
            figures.slowest_ms,
            self.woken,
            self.events.len(),
        );
        for event in &self.events {
            println!("    {event}");
        }
    }
}
