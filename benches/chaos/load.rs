//! The load: threads with a connection each, which write, change, delete and read rows of their own
//! and note down what they were told.

use crate::checker::{Ledger, Mark, Request, State, Verdict};
use crate::schedule::Dice;
use serde_json::{Value, json};
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, RwLock};
use std::thread;
use std::time::{Duration, Instant};

pub const CONNECTIONS: u64 = 16;

/// The API answers within 8 s, whatever its masters do. A request that takes this long has hung, and
/// counts as failed even if it was answered.
const HANG_MS: u64 = 10_000;
/// After this nobody waits for an answer any more.
const PATIENCE: Duration = Duration::from_secs(20);
/// Ids that each connection has for itself, of those that the load chooses.
const IDS_EACH: u64 = 1_000_000;
/// And all of them together.
pub const IDS: u64 = CONNECTIONS * IDS_EACH;
/// Time until a thread tries the killed API again.
const AWAY: Duration = Duration::from_millis(10);
/// Failures that are kept to be shown; all of them are counted.
const EXAMPLES: usize = 200;

/// What the threads of the load and the driver share.
pub struct Load {
    pub api: String,
    pub mark: Mark,
    pub ledger: Mutex<Ledger>,
    pub requests: Mutex<Vec<Request>>,
    pub failures: Mutex<Vec<Failure>>,
    /// Whoever holds it for writing has no request under way and none beginning.
    pub gate: RwLock<()>,
    /// No master is left, so that a 503 is the right answer.
    pub outage: AtomicBool,
    /// The API is dead, so that connections break.
    pub api_down: AtomicBool,
    pub over: AtomicBool,
    /// Part of each text: the number of the fault.
    pub fault: AtomicU64,
    writes_per_s: u64,
    seed: u64,
    began: Instant,
}

/// A request that failed, for whoever looks into it.
#[derive(Debug)]
pub struct Failure {
    pub at_ms: u64,
    pub what: String,
}

/// What was asked and what came back.
enum Answer {
    Status(u16, Value),
    /// The connection broke, or there was no answer in time.
    Broken(String),
    /// Nobody listens, so nothing was sent.
    Away,
}

/// A row that a thread owns, as it was last told.
struct Own {
    id: i64,
    text: String,
}

impl Load {
    pub fn new(api: String, mark: Mark, writes_per_s: u64, seed: u64) -> Load {
        Load {
            api,
            mark,
            ledger: Mutex::default(),
            requests: Mutex::default(),
            failures: Mutex::default(),
            gate: RwLock::default(),
            outage: AtomicBool::new(false),
            api_down: AtomicBool::new(false),
            over: AtomicBool::new(false),
            fault: AtomicU64::new(0),
            writes_per_s,
            seed,
            began: Instant::now(),
        }
    }

    /// Milliseconds since the start.
    pub fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    /// One thread of the load, until it is over.
    pub fn work(&self, number: u64) {
        let period = Duration::from_secs(1) * CONNECTIONS as u32 / self.writes_per_s as u32;
        let mut worker = Worker::new(self, number);
        // Spread over the period, so that they do not all ask at once.
        let mut next = Instant::now() + period * number as u32 / CONNECTIONS as u32;
        while !self.over.load(Ordering::Relaxed) {
            thread::sleep(next.saturating_duration_since(Instant::now()));
            // What was missed during a stall is not made up for.
            next = Instant::now().max(next) + period;
            let _pass = self.gate.read().expect("the gate");
            worker.step();
        }
    }
}

/// Ends the threads of the load when the driver leaves, also when it panics.
pub struct Ends<'a>(pub &'a Load);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::SeqCst);
    }
}

struct Worker<'a> {
    load: &'a Load,
    number: u64,
    agent: ureq::Agent,
    dice: Dice,
    texts: u64,
    own: Vec<Own>,
    deleted: Option<i64>,
}

impl Worker<'_> {
    fn new(load: &Load, number: u64) -> Worker<'_> {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE));
        Worker {
            load,
            number,
            agent: config.build().into(),
            dice: Dice::new(load.seed ^ (number << 32)),
            texts: 0,
            own: Vec::new(),
            deleted: None,
        }
    }

    /// One request of a kind that is drawn: mostly inserts, some of each other kind.
    fn step(&mut self) {
        match self.dice.below(100) {
            0..60 => self.insert(None),
            60..68 => self.insert(Some(self.own_id())),
            68..78 => self.update(),
            78..84 => self.delete(),
            84..88 => self.read_deleted(),
            _ => self.read(),
        }
    }

    fn new_text(&mut self) -> String {
        self.texts += 1;
        let fault = self.load.fault.load(Ordering::Relaxed);
        format!(
            "{}{fault}/{}/{}",
            self.load.mark.prefix, self.number, self.texts
        )
    }

    fn own_id(&self) -> i64 {
        self.load.mark.ids_from + (self.number * IDS_EACH + self.texts) as i64
    }

    fn insert(&mut self, id: Option<i64>) {
        let text = self.new_text();
        let mut body = json!({ "genero": text });
        if let Some(id) = id {
            body["id_genero"] = json!(id);
        }
        let as_asked = |answer: &Value| {
            let told = answer["data"]["id_genero"].as_i64()?;
            let right = answer["data"]["genero"] == text && id.is_none_or(|id| id == told);
            right.then_some(told)
        };
        match self.ask("POST", "/generos", Some(&body), 201, as_asked) {
            Some(id) => {
                self.ledger(|ledger| ledger.inserted(id, text.clone()));
                self.own.push(Own { id, text });
            }
            None => self.ledger(|ledger| ledger.insert_unknown(text)),
        }
    }

    fn update(&mut self) {
        let Some(mut row) = self.draw_row() else {
            return;
        };
        let text = self.new_text();
        let body = json!({ "genero": text });
        if self.change("PUT", row.id, Some(&body), Some(text.clone())) {
            row.text = text;
            self.own.push(row);
        }
    }

    fn delete(&mut self) {
        let Some(row) = self.draw_row() else {
            return;
        };
        if self.change("DELETE", row.id, None, None) {
            self.deleted = Some(row.id);
        }
    }

    /// Whether the change was acknowledged. A row with a change of unknown outcome is left alone,
    /// since that change may still come.
    fn change(&mut self, method: &str, id: i64, body: Option<&Value>, to: State) -> bool {
        self.ledger(|ledger| ledger.change_begins(id, to.clone()));
        let as_asked = |answer: &Value| (answer["data"]["id_genero"] == id).then_some(());
        let done = self.ask(method, &format!("/generos/{id}"), body, 200, as_asked);
        if done.is_some() {
            self.ledger(|ledger| ledger.change_done(id, to));
        }
        done.is_some()
    }

    fn read(&mut self) {
        let Some(row) = self.draw_row() else {
            return;
        };
        let as_told = |answer: &Value| (answer["data"]["genero"] == row.text).then_some(());
        self.ask("GET", &format!("/generos/{}", row.id), None, 200, as_told);
        self.own.push(row);
    }

    fn read_deleted(&mut self) {
        if let Some(id) = self.deleted {
            let not_there = |answer: &Value| (answer["code"] == "genero_not_found").then_some(());
            self.ask("GET", &format!("/generos/{id}"), None, 404, not_there);
        }
    }

    /// Takes one of the rows out, rather a new one: those are what a failover could lose.
    fn draw_row(&mut self) -> Option<Own> {
        let count = self.own.len() as u64;
        let back = self.dice.below(count.clamp(1, 20));
        let index = count.checked_sub(1 + back)?;
        Some(self.own.swap_remove(index as usize))
    }

    fn ledger(&self, note: impl FnOnce(&mut Ledger)) {
        note(&mut self.load.ledger.lock().expect("the ledger"));
    }

    /// Sends a request and notes what came of it. Nothing unless it was answered with `status` and
    /// `judge` made something of the body.
    fn ask<T>(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        status: u16,
        judge: impl FnOnce(&Value) -> Option<T>,
    ) -> Option<T> {
        let load = self.load;
        let flags = || {
            (
                load.outage.load(Ordering::SeqCst),
                load.api_down.load(Ordering::SeqCst),
            )
        };
        let (began_ms, before) = (load.now_ms(), flags());
        let answer = self.send(method, path, body);
        let (ended_ms, after) = (load.now_ms(), flags());
        let (outage, api_down) = (before.0 || after.0, before.1 || after.1);
        let mut came = None;
        let (verdict, why) = match answer {
            Answer::Away if api_down => {
                thread::sleep(AWAY);
                return None;
            }
            Answer::Away => (Verdict::Failed, "nobody listens".to_string()),
            Answer::Broken(_) if api_down => (Verdict::Unsure, String::new()),
            Answer::Broken(error) => (Verdict::Failed, error),
            Answer::Status(503, _) if outage || api_down => (Verdict::Refused, String::new()),
            Answer::Status(got, answer) => {
                came = (got == status).then(|| judge(&answer)).flatten();
                match (&came, method) {
                    (Some(_), _) if ended_ms - began_ms > HANG_MS => {
                        (Verdict::Failed, "right, and far too late".to_string())
                    }
                    (Some(_), "GET") => (Verdict::Read, String::new()),
                    (Some(_), _) => (Verdict::Acknowledged, String::new()),
                    (None, _) => (Verdict::Failed, format!("{got} {answer}")),
                }
            }
        };
        load.requests.lock().expect("the requests").push(Request {
            began_ms,
            ended_ms,
            verdict,
        });
        let mut failures = load.failures.lock().expect("the failures");
        if verdict == Verdict::Failed && failures.len() < EXAMPLES {
            let asked = body.map(|body| format!(" {body}")).unwrap_or_default();
            failures.push(Failure {
                at_ms: ended_ms,
                what: format!(
                    "{method} {path}{asked} after {} ms: {why}",
                    ended_ms - began_ms
                ),
            });
        }
        came
    }

    fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.load.api));
        let answered = match body {
            Some(body) => {
                let request = request.header("Content-Type", "application/json");
                self.agent
                    .run(request.body(body.to_string()).expect("a request"))
            }
            None => self.agent.run(request.body(()).expect("a request")),
        };
        let read = answered.and_then(|mut response| {
            let text = response.body_mut().read_to_string()?;
            Ok((response.status().as_u16(), text))
        });
        match read {
            Ok((status, text)) => {
                let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
                Answer::Status(status, body)
            }
            Err(ureq::Error::ConnectionFailed) => Answer::Away,
            Err(ureq::Error::Io(error)) if error.kind() == ErrorKind::ConnectionRefused => {
                Answer::Away
            }
            Err(error) => Answer::Broken(error.to_string()),
        }
    }
}
