//! How the API's process begins and ends: it listens when a master serves, and answers what it has accepted before it goes.

mod common;

use common::{Cluster, clean_command, clean_command_named, wait_until};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// An API of its own, on the masters of a cluster that has none.
struct Api {
    process: Child,
    address: SocketAddr,
    said: Arc<Mutex<String>>,
}

impl Api {
    fn start(cluster: &Cluster, port: u16, environment: &[(&str, &str)]) -> Api {
        let mut command = clean_command();
        command.args(["serve", "--port", &port.to_string()]);
        command
            .env("MASTER1_URL", cluster.url("master1"))
            .env("MASTER2_URL", cluster.url("master2"))
            .env(
                "REDIS_URL",
                cluster.status["redis"].as_str().expect("redis"),
            )
            .envs(environment.iter().copied())
            .stderr(Stdio::piped());
        let mut process = command.spawn().expect("start an API");
        let said = Arc::new(Mutex::new(String::new()));
        let mut log = process.stderr.take().expect("piped");
        let heard = Arc::clone(&said);
        thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(count @ 1..) = log.read(&mut piece) {
                let text = String::from_utf8_lossy(&piece[..count]).into_owned();
                heard.lock().expect("the log").push_str(&text);
            }
        });
        Api {
            process,
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            said,
        }
    }

    fn said(&self) -> String {
        self.said.lock().expect("the log").clone()
    }

    fn signal(&self) {
        let mut kill = clean_command_named("kill");
        let sent = kill
            .args(["-s", "TERM", &self.process.id().to_string()])
            .status();
        assert!(sent.expect("kill").success());
    }

    fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the API has ended", || {
            status = self.process.try_wait().expect("its status");
            status.is_some()
        });
        status.expect("a status")
    }

    /// A connection, as soon as the API listens.
    fn connect(&self) -> TcpStream {
        let mut stream = None;
        wait_until("it listens", || {
            stream = TcpStream::connect(self.address).ok();
            stream.is_some()
        });
        let stream = stream.expect("a connection");
        let patience = Some(Duration::from_secs(60));
        stream.set_read_timeout(patience).expect("a time limit");
        stream
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- what the API said ---\n{}", self.said());
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_port() -> u16 {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    socket.local_addr().expect("its address").port()
}

fn insert(id: i32) -> String {
    let body = format!("{{\"id_genero\": {id}, \"genero\": \"G\"}}");
    format!(
        "POST /generos HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// The status of the next answer, and whether it says that the connection ends; none when there is none.
fn answer(from: &mut BufReader<TcpStream>) -> Option<(u16, bool)> {
    let mut line = String::new();
    from.read_line(&mut line).ok().filter(|count| *count > 0)?;
    let status = line.split(' ').nth(1)?.parse().ok()?;
    let (mut length, mut ends) = (0, false);
    loop {
        line.clear();
        from.read_line(&mut line).ok().filter(|count| *count > 0)?;
        let (name, value) = match line.trim_end().split_once(": ") {
            Some((name, value)) => (name.to_ascii_lowercase(), value.to_ascii_lowercase()),
            None => break,
        };
        match name.as_str() {
            "content-length" => length = value.parse().ok()?,
            "connection" => ends |= value == "close",
            _ => {}
        }
    }
    from.read_exact(&mut vec![0; length]).ok()?;
    Some((status, ends))
}

/// What became of the requests of one client.
#[derive(Default)]
struct Seen {
    stored: BTreeSet<i32>,
    /// Of these, how many answers said that the connection ends.
    last_words: usize,
    /// Requests that were sent in time and had another answer, or none.
    failed: Vec<String>,
    first: Option<u16>,
}

/// Posts one row after the other from `id` on, each 16th number, until the port is closed and the end was asked for; on one
/// connection for as long as that goes, or on a new one each time.
fn post(
    address: SocketAddr,
    mut id: i32,
    keep: bool,
    stopped: &AtomicBool,
    count: &AtomicUsize,
) -> Seen {
    // A client that was without a processor for longer is not judged: its connection may have been closed as an idle one.
    const IN_TIME: Duration = Duration::from_millis(200);
    let mut seen = Seen::default();
    let mut open: Option<BufReader<TcpStream>> = None;
    let mut since = Instant::now();
    loop {
        let mut stream = match open.take().filter(|_| keep && since.elapsed() < IN_TIME) {
            Some(stream) => stream,
            None => {
                since = Instant::now();
                match TcpStream::connect(address) {
                    Ok(stream) => BufReader::new(stream),
                    Err(_) if stopped.load(Ordering::SeqCst) => return seen,
                    Err(_) => {
                        thread::sleep(Duration::from_millis(1));
                        continue;
                    }
                }
            }
        };
        id += 16;
        let patience = Some(Duration::from_secs(60));
        stream
            .get_ref()
            .set_read_timeout(patience)
            .expect("a time limit");
        let sent = stream.get_mut().write_all(insert(id).as_bytes());
        let in_time = since.elapsed() < IN_TIME;
        let answered = sent.ok().and_then(|()| answer(&mut stream));
        since = Instant::now();
        seen.first = seen.first.or(answered.map(|(status, _)| status));
        match answered {
            Some((201, ends)) => {
                seen.stored.insert(id);
                count.fetch_add(1, Ordering::SeqCst);
                seen.last_words += usize::from(ends);
                open = Some(stream).filter(|_| !ends);
            }
            Some(_) | None if in_time => seen.failed.push(format!("{id}: {answered:?}")),
            Some(_) | None => {}
        }
    }
}

#[test]
fn a_stop_answers_what_was_accepted_and_a_start_listens_when_it_can_serve() {
    let cluster = Cluster::start_flagged(&["--no-api"], &[]);
    let port = free_port();
    for round in 0..3 {
        let mut api = Api::start(&cluster, port, &[]);
        let (stopped, count) = (AtomicBool::new(false), AtomicUsize::new(0));
        let seen: Vec<Seen> = thread::scope(|scope| {
            // From before it listens until it has ended.
            let clients: Vec<_> = (0..8)
                .map(|client| {
                    let (address, stopped, count) = (api.address, &stopped, &count);
                    let first = 1_000_000 * (round + 1) + client;
                    scope.spawn(move || post(address, first, client < 5, stopped, count))
                })
                .collect();
            wait_until("they are being served", || {
                count.load(Ordering::SeqCst) > 50
            });
            api.signal();
            let status = api.wait();
            stopped.store(true, Ordering::SeqCst);
            assert!(status.success(), "{status}");
            let ended = clients.into_iter().map(|client| client.join());
            ended.map(|seen| seen.expect("a client")).collect()
        });
        let failed: Vec<&String> = seen.iter().flat_map(|seen| &seen.failed).collect();
        assert!(failed.is_empty(), "{failed:?}");
        assert!(
            seen.iter()
                .all(|seen| seen.first.is_none_or(|first| first == 201))
        );
        assert!(
            api.said()
                .contains("everything that was accepted was answered")
        );
        let last_words: usize = seen.iter().map(|seen| seen.last_words).sum();
        assert!(last_words > 0, "nobody was told that the connection ends");

        let stored: BTreeSet<i32> = seen.into_iter().flat_map(|seen| seen.stored).collect();
        let rows = cluster
            .sql("master1")
            .query("SELECT id_genero FROM generos", &[]);
        let there: BTreeSet<i32> = rows.expect("rows").iter().map(|row| row.get(0)).collect();
        let lost: Vec<&i32> = stored.difference(&there).collect();
        assert!(lost.is_empty(), "acknowledged and not there: {lost:?}");
    }
    waits_for_what_takes_long(&cluster, port);
}

/// A write that waits, what was sent behind it, a file that is arriving and a connection that is silent.
fn waits_for_what_takes_long(cluster: &Cluster, port: u16) {
    let mut api = Api::start(cluster, port, &[]);
    let mut silent = api.connect();
    let mut other = cluster.sql("master1");
    let mut held = other.transaction().expect("a transaction");
    held.execute(
        "INSERT INTO generos (id_genero, genero) VALUES (77, 'G')",
        &[],
    )
    .expect("hold the key");
    let mut waiting = api.connect();
    let both = insert(77) + &insert(78);
    waiting.write_all(both.as_bytes()).expect("send");
    let mut file = api.connect();
    let head = "POST /load HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000000\r\n\r\ntconst\t";
    file.write_all(head.as_bytes()).expect("send");
    let mut looks = cluster.sql("master1");
    wait_until("the insert waits for the key", || {
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%generos%'";
        looks.query_one(waits, &[]).expect("look").get::<_, i64>(0) > 0
    });
    api.signal();
    wait_until("it stops", || api.said().contains("stopping on SIGTERM"));
    wait_until("nobody else gets in", || {
        TcpStream::connect_timeout(&api.address, Duration::from_millis(200)).is_err()
    });
    assert_eq!(silent.read(&mut [0; 9]).expect("its end"), 0);
    let mut told = String::new();
    file.read_to_string(&mut told).expect("an answer");
    assert!(
        told.starts_with("HTTP/1.1 503") && told.contains("\"stopping\""),
        "{told}"
    );
    assert!(
        api.process.try_wait().expect("its status").is_none(),
        "it waits for the insert"
    );
    held.rollback().expect("let it go");
    let mut waiting = BufReader::new(waiting);
    assert_eq!(answer(&mut waiting), Some((201, false)));
    assert_eq!(answer(&mut waiting), Some((201, true)));
    assert_eq!(answer(&mut waiting), None);
    assert!(api.wait().success());
}

#[test]
fn frozen_masters_hold_neither_a_start_nor_a_stop_up() {
    let cluster = Cluster::start_flagged(&["--no-api"], &[]);
    let both = |what: &str| ["master1", "master2"].map(|node| cluster.local(&[what, node]));
    let port = free_port();
    // A frozen master is not given up, so a request waits for it for a minute.
    let patient = [
        ("REQUEST_DEADLINE_MS", "60000"),
        ("SILENCE_DEADLINE_MS", "60000"),
    ];
    let start = |stop: &str| {
        let environment = [&patient[..], &[("STOP_DEADLINE_MS", stop)]].concat();
        Api::start(&cluster, port, &environment)
    };
    let stuck = |api: &Api| {
        let mut client = api.connect();
        let request = b"GET /generos/1 HTTP/1.1\r\nHost: localhost\r\n\r\n";
        client.write_all(request).expect("send");
        BufReader::new(client)
    };
    let mut api = start("1000");
    drop(api.connect());
    both("freeze");
    let mut client = stuck(&api);
    api.signal();
    assert!(
        api.wait().success(),
        "within half of the time of the request"
    );
    assert!(
        api.said()
            .contains("requests on 1 connections get no answer")
    );
    assert_eq!(answer(&mut client), None);

    // Nobody serves, and that is told.
    let mut api = start("25000");
    let mut client = api.connect();
    assert!(
        api.said()
            .contains("no master serves; listening all the same")
    );
    client
        .write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .expect("send");
    assert_eq!(answer(&mut BufReader::new(client)), Some((500, false)));

    // A second signal does not wait.
    both("thaw");
    wait_until("it serves", || {
        answer(&mut stuck(&api)) == Some((200, false))
    });
    both("freeze");
    let mut client = stuck(&api);
    api.signal();
    wait_until("it stops", || api.said().contains("stopping on SIGTERM"));
    assert!(api.process.try_wait().expect("its status").is_none());
    api.signal();
    let status = api.wait();
    assert_eq!(status.code(), Some(1));
    assert!(
        api.said().contains("at once on a second signal"),
        "{}",
        api.said()
    );
    assert_eq!(answer(&mut client), None);
    both("thaw");
}
