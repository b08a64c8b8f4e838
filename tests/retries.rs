//! A write whose answer was lost is tried again. A relay in front of the first master loses it, after the
//! commit or before anything has reached the master, and other clients write the same rows meanwhile.

mod common;
#[allow(dead_code)]
#[path = "../benches/chaos/relay.rs"]
mod relay;

use common::{Answer, Cluster, clean_command, wait_until};
use postgres::Client;
use relay::{Mode, Relay};
use std::process::{Child, Stdio};
use std::time::Instant;

/// A write of one client, and what others do between its commit and its next try. `$` is the id.
#[derive(Clone, Copy, Debug)]
struct Case {
    method: &'static str,
    /// Without an id it is looked for by its name.
    chosen: bool,
    /// The rows before; a change needs one.
    before: &'static str,
    between: &'static str,
    /// Its status, with the name that it gives or its code.
    expected: (u16, &'static str),
    /// The name that the row has in the end.
    left: Option<&'static str>,
    /// The same of a first try that is known not to have begun, so that the next one may go by what is there.
    or: Option<((u16, &'static str), Option<&'static str>)>,
}

const ROW: &str = "INSERT INTO public.generos (id_genero, genero) VALUES ($, 'antes');";
const UNKNOWN: (u16, &str) = (503, "outcome_unknown");

const fn case(
    method: &'static str,
    between: &'static str,
    expected: (u16, &'static str),
    left: Option<&'static str>,
) -> Case {
    let before = match method.as_bytes() {
        b"POST" => "",
        _ => ROW,
    };
    Case {
        method,
        chosen: true,
        before,
        between,
        expected,
        left,
        or: None,
    }
}

const INSERT: &str = "INSERT INTO public.generos (id_genero, genero) VALUES ($, 'ajeno');";
const UPDATE: &str = "UPDATE public.generos SET genero = 'ajeno' WHERE id_genero = $;";
const DELETE: &str = "DELETE FROM public.generos WHERE id_genero = $;";
const ANEW: &str = "DELETE FROM public.generos WHERE id_genero = $; \
    INSERT INTO public.generos (id_genero, genero) VALUES ($, 'ajeno');";
const INSERT_UPDATE: &str = "INSERT INTO public.generos (id_genero, genero) VALUES ($, 'x'); \
    UPDATE public.generos SET genero = 'ajeno' WHERE id_genero = $;";
const INSERT_DELETE: &str = "INSERT INTO public.generos (id_genero, genero) VALUES ($, 'x'); \
    DELETE FROM public.generos WHERE id_genero = $;";
const UPDATE_DELETE: &str = "UPDATE public.generos SET genero = 'ajeno' WHERE id_genero = $; \
    DELETE FROM public.generos WHERE id_genero = $;";
const SAME_NAME: &str = "UPDATE public.generos SET genero = genero WHERE id_genero = $;";

/// The first try of each has taken effect. Each line is tried at once, since an insert waits for the
/// one before it.
const DONE: [&[Case]; 8] = [
    &[
        case("POST", "", (201, "mío"), Some("mío")),
        case("PUT", "", (200, "mío"), Some("mío")),
        case("DELETE", "", (200, "antes"), None),
    ],
    &[
        case("POST", UPDATE, UNKNOWN, Some("ajeno")),
        case("PUT", UPDATE, UNKNOWN, Some("ajeno")),
        case("DELETE", INSERT, (200, "antes"), Some("ajeno")),
    ],
    &[
        case("POST", DELETE, (201, "mío"), None),
        case("PUT", DELETE, (200, "mío"), None),
        case("DELETE", INSERT_UPDATE, (200, "antes"), Some("ajeno")),
    ],
    &[
        case("POST", ANEW, (201, "mío"), Some("ajeno")),
        case("PUT", ANEW, (200, "mío"), Some("ajeno")),
        case("DELETE", INSERT_DELETE, (200, "antes"), None),
    ],
    &[
        case("POST", UPDATE_DELETE, UNKNOWN, None),
        case("PUT", SAME_NAME, UNKNOWN, Some("mío")),
        case("PUT", UPDATE_DELETE, UNKNOWN, None),
    ],
    &[drawn("", (201, "mío"), Some("mío"))],
    &[drawn(UPDATE, UNKNOWN, Some("ajeno"))],
    &[drawn(DELETE, (201, "mío"), None)],
];

/// The first try of each has not reached the master.
const LOST: [&[Case]; 3] = [
    &[
        Case {
            or: Some(((409, "id_taken"), Some("ajeno"))),
            ..case("POST", INSERT, UNKNOWN, Some("ajeno"))
        },
        Case {
            or: Some(((200, "mío"), Some("mío"))),
            ..case("PUT", UPDATE, UNKNOWN, Some("ajeno"))
        },
        Case {
            or: Some(((200, "ajeno"), None)),
            ..case("DELETE", UPDATE, UNKNOWN, Some("ajeno"))
        },
    ],
    &[
        Case {
            before: ROW,
            ..case("POST", "", (409, "id_taken"), Some("antes"))
        },
        Case {
            before: "",
            ..case("PUT", "", (404, "genero_not_found"), None)
        },
        Case {
            before: "",
            ..case("DELETE", "", (404, "genero_not_found"), None)
        },
    ],
    &[
        drawn("", (201, "mío"), Some("mío")),
        case("PUT", "", (200, "mío"), Some("mío")),
        case("DELETE", "", (200, "antes"), None),
    ],
];

const fn drawn(
    between: &'static str,
    expected: (u16, &'static str),
    left: Option<&'static str>,
) -> Case {
    Case {
        chosen: false,
        ..case("POST", between, expected, left)
    }
}

/// A cluster whose API reaches the masters by relays.
struct Stage {
    api: Child,
    cluster: Cluster,
    doors: [Relay; 2],
}

/// One case under way.
struct Trial {
    case: Case,
    id: i64,
    name: String,
    /// The row after what the others did.
    left: Vec<String>,
}

impl Stage {
    fn start() -> Stage {
        let mut cluster = Cluster::start_flagged(&["--no-api"], &[]);
        let mut command = clean_command();
        let doors = [1, 2].map(|number| {
            let mut url = url::Url::parse(&cluster.url(&format!("master{number}"))).expect("a URL");
            let door = Relay::start(url.port().expect("a port")).expect("a relay");
            url.set_port(Some(door.port)).expect("a port");
            command.env(format!("MASTER{number}_URL"), url.as_str());
            door
        });
        // After the relays, which have taken the next ports.
        let port = relay::free_port().expect("a port");
        command.args(["serve", "--port", &port.to_string()]);
        // However slow the machine, only a master that refuses connections is given up here.
        command
            .env("SILENCE_DEADLINE_MS", "20000")
            .env("REQUEST_DEADLINE_MS", "40000");
        let redis = cluster.status["redis"].as_str().expect("redis");
        command.env("REDIS_URL", redis).stderr(Stdio::null());
        cluster.api = format!("http://127.0.0.1:{port}");
        Stage {
            api: command.spawn().expect("start an API"),
            cluster,
            doors,
        }
    }

    /// Waits until the first master serves and the second confirms, and until both have answered since. A probe
    /// that still opens a new connection after the last round would have it reset by the next one, and two
    /// breaks in a row are taken for a master that is gone.
    fn ready(&self) {
        let begun = Instant::now();
        wait_until("all is well", || {
            let health = self.cluster.try_ask("GET", "/health", None, &[]);
            let body = health.map_or(serde_json::Value::Null, |answer| answer.body);
            if body["active_node"] == "master2" {
                let _ = self
                    .cluster
                    .try_ask("POST", "/switch-to-primary", None, &[]);
            }
            body["active_node"] == "master1" && body["durability"] == "zero-loss"
        });
        wait_until("both masters have answered since", || {
            let waited = begun.elapsed().as_millis() as u64;
            let status = self.cluster.get("/status").body;
            ["master1", "master2"].iter().all(|node| {
                let ago = status["masters"][*node]["heard_ms_ago"].as_u64();
                ago.is_some_and(|ago| ago < waited)
            })
        });
    }

    fn write(&self, trial: &Trial) -> Answer {
        let (case, id) = (trial.case, trial.id);
        let path = match case.method {
            "POST" => "/generos".to_string(),
            _ => format!("/generos/{id}"),
        };
        let body = match (case.method, case.chosen) {
            ("DELETE", _) => None,
            ("POST", true) => Some(serde_json::json!({ "id_genero": id, "genero": trial.name })),
            _ => Some(serde_json::json!({ "genero": trial.name })),
        };
        let body = body.map(|body| body.to_string());
        let headers: &[(&str, &str)] = match body {
            Some(_) => &[("Content-Type", "application/json")],
            None => &[],
        };
        self.cluster
            .ask(case.method, &path, body.as_deref(), headers)
    }

    /// Has the writes of one round done and loses their answers, or loses the writes themselves, lets others
    /// do theirs, and then lets the tries go on: on the same master, or on the other one.
    fn round(
        &self,
        sql: &mut Client,
        trials: &mut [Trial],
        lost: bool,
        elsewhere: bool,
    ) -> Vec<Answer> {
        self.ready();
        for trial in trials.iter() {
            run(sql, trial.case.before, trial.id);
        }
        let door = &self.doors[0];
        door.set(if lost { Mode::Hole } else { Mode::Mute });
        std::thread::scope(|scope| {
            let asked: Vec<_> = trials
                .iter()
                .map(|trial| {
                    let (case, id, name) = (trial.case, trial.id, trial.name.clone());
                    let asked = Trial {
                        case,
                        id,
                        name,
                        left: Vec::new(),
                    };
                    scope.spawn(move || self.write(&asked))
                })
                .collect();
            wait_until("the writes are under way", || match lost {
                true => {
                    let status = self.cluster.get("/status").body;
                    status["writes_under_way"] == trials.len()
                }
                false => trials.iter().all(|trial| trial.is_done(sql)),
            });
            for trial in trials.iter_mut() {
                trial.interfere(sql, lost);
            }
            match elsewhere {
                true => door.set(Mode::Cut),
                false => door.reset(),
            }
            if !elsewhere {
                door.set(Mode::Pass);
            }
            let answers = asked
                .into_iter()
                .map(|thread| thread.join().expect("a client"));
            let answers = answers.collect();
            door.set(Mode::Pass);
            answers
        })
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for door in &self.doors {
            door.set(Mode::Pass);
        }
        let _ = self.api.kill();
        let _ = self.api.wait();
    }
}

impl Trial {
    /// The rows of the case, with their stamps.
    fn rows(&self, sql: &mut Client) -> Vec<String> {
        let found = sql.query(
            "SELECT g::text FROM public.generos AS g WHERE id_genero = $1::int8 OR genero = $2",
            &[&self.id, &self.name],
        );
        let found = found.expect("look");
        found.iter().map(|row| row.get(0)).collect()
    }

    fn is_done(&self, sql: &mut Client) -> bool {
        let rows = self.rows(sql);
        match self.case.method {
            "DELETE" => rows.is_empty(),
            _ => rows.len() == 1 && rows[0].contains(&self.name),
        }
    }

    /// What other clients do meanwhile.
    fn interfere(&mut self, sql: &mut Client, lost: bool) {
        if !self.case.chosen && !lost {
            let found = sql.query_one(
                "SELECT id_genero::int8 FROM public.generos WHERE genero = $1",
                &[&self.name],
            );
            self.id = found.expect("its row").get(0);
        }
        run(sql, self.case.between, self.id);
        self.left = self.rows(sql);
    }

    /// Whether the answer is the right one, and the row what the last one made it.
    fn judge(&self, answer: &Answer, sql: &mut Client, lost: bool) {
        let word = |word: &str| match word {
            "mío" => self.name.clone(),
            other => other.to_string(),
        };
        let Case { expected, left, .. } = self.case;
        let or = self.case.or.filter(|_| answer.status != expected.0);
        let ((status, expected), left) = or.unwrap_or((expected, left));
        let said = match answer.status {
            200 | 201 => answer.body["data"]["genero"].as_str().unwrap_or(""),
            _ => answer.code(),
        };
        let context = format!("{:?}, lost {lost}: {answer:?}", self.case);
        assert_eq!(
            (answer.status, said),
            (status, &*word(expected)),
            "{context}"
        );
        let rows = self.rows(sql);
        match left {
            Some(left) => assert!(
                rows.len() == 1 && rows[0].contains(&word(left)),
                "{context}: {rows:?}"
            ),
            None => assert!(rows.is_empty(), "{context}: {rows:?}"),
        }
        // Nothing has touched what was there: not even the stamp is another.
        if !lost {
            assert_eq!(rows, self.left, "{context}");
        }
    }
}

/// Runs statements one by one, with `$` as the id.
fn run(sql: &mut Client, statements: &str, id: i64) {
    let statements = statements.replace('$', &id.to_string());
    for statement in statements.split(';').filter(|text| !text.trim().is_empty()) {
        sql.batch_execute(statement).expect(statement);
    }
}

/// Every write is applied once, if at all, and never to what is newer than it; and what is said of it is true.
#[test]
fn a_write_that_is_tried_again_knows_its_own_trace_and_leaves_newer_rows_alone() {
    let stage = Stage::start();
    let mut sql = ["master1", "master2"].map(|node| stage.cluster.sql(node));
    let mut judged = Vec::new();
    let mut id = 7_000_001;
    let rounds = DONE
        .iter()
        .flat_map(|cases| [(cases, false, false), (cases, false, true)])
        .chain(LOST.iter().map(|cases| (cases, true, false)));
    for (cases, lost, elsewhere) in rounds {
        let mut trials = Vec::new();
        for case in *cases {
            id += 2;
            let name = format!("mío {id}");
            trials.push(Trial {
                case: *case,
                id,
                name,
                left: Vec::new(),
            });
        }
        let answers = stage.round(&mut sql[0], &mut trials, lost, elsewhere);
        judged.extend(trials.into_iter().zip(answers).map(|one| (one, lost)));
    }
    stage.ready();
    stage.cluster.wait_equal();
    for ((trial, answer), lost) in &judged {
        for sql in &mut sql {
            trial.judge(answer, sql, *lost);
        }
    }
    let of = |node: &str| {
        let answered = judged
            .iter()
            .filter(|((_, answer), _)| answer.node() == node);
        answered.count()
    };
    println!("{} by master1, {} by master2", of("master1"), of("master2"));
    assert!(of("master2") > 0);
}
