//! How many inserts a second the API takes, beside pgbench on the same masters in the same run: each
//! client has a connection of its own that it keeps, and sends its next insert when the last one is
//! answered. Run it by scripts/bench-writes.sh.

#[path = "../tests/common/mod.rs"]
mod common;

use common::Cluster;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

const CLIENTS: [usize; 3] = [1, 16, 64];

/// Time before counting, in which connections are made and statements prepared.
const WARM_UP: Duration = Duration::from_millis(500);

/// An insert that takes longer has waited for something else than its turn.
const SLOW: Duration = Duration::from_millis(30);

fn main() {
    let arguments: Vec<u64> = std::env::args()
        .filter_map(|word| word.parse().ok())
        .collect();
    let rounds = arguments.first().copied().unwrap_or(3).clamp(1, 50);
    let seconds = arguments.get(1).copied().unwrap_or(5).clamp(1, 600);
    let cluster = Cluster::start();
    let script = format!("{}/insert.sql", cluster.data);
    std::fs::write(&script, "INSERT INTO generos (genero) VALUES ('Medida');\n").expect("a script");
    let mut figures: Vec<(String, Vec<Rate>)> = Vec::new();
    for _ in 0..rounds {
        for clients in CLIENTS {
            for (what, rate) in [
                ("pgbench", pgbench(&cluster, &script, clients, seconds)),
                (
                    "HTTP",
                    load(&cluster, clients, Duration::from_secs(seconds)),
                ),
            ] {
                let name = format!("{what:8} {clients:3} clients");
                match figures.iter_mut().find(|(other, _)| *other == name) {
                    Some((_, rates)) => rates.push(rate),
                    None => figures.push((name, vec![rate])),
                }
                wait_replicated(&cluster);
            }
        }
    }
    let cores = std::thread::available_parallelism().map_or(0, |cores| cores.get());
    println!("{rounds} rounds of {seconds} s on {cores} cores; medians over the rounds");
    figures.sort_by(|(one, _), (two, _)| one.cmp(two));
    for (name, rates) in &figures {
        let rate = median(rates.iter().map(|rate| rate.per_second).collect());
        let middle = median(rates.iter().map(|rate| rate.median_ms).collect());
        let slow = median(rates.iter().map(|rate| rate.p99_ms).collect());
        let late: Option<usize> = rates.iter().map(|rate| rate.slow).sum();
        let late = late.map_or(String::new(), |late| {
            format!("   {late} over {} ms", SLOW.as_millis())
        });
        println!("{name}  {rate:7.0} inserts/s   median {middle:6.2} ms   p99 {slow:6.2} ms{late}");
    }
}

/// Whatever is left to replicate is not the business of the next measurement.
fn wait_replicated(cluster: &Cluster) {
    let mut sql = cluster.sql("master1");
    let row = sql
        .query_one("SELECT pg_current_wal_lsn()::text", &[])
        .expect("a position");
    let end: String = row.get(0);
    let behind =
        "SELECT count(*) FROM pg_replication_slots WHERE confirmed_flush_lsn < $1::text::pg_lsn";
    let began = Instant::now();
    while sql
        .query_one(behind, &[&end])
        .expect("the slots")
        .get::<_, i64>(0)
        > 0
    {
        assert!(
            began.elapsed() < Duration::from_secs(300),
            "master2 does not catch up"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What one measurement found. Of pgbench it is the mean that stands for both times.
struct Rate {
    per_second: f64,
    median_ms: f64,
    p99_ms: f64,
    /// How many took longer than [`SLOW`]; of pgbench it is not known.
    slow: Option<usize>,
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Inserts by HTTP, each of which must be acknowledged.
fn load(cluster: &Cluster, clients: usize, time: Duration) -> Rate {
    let address = cluster.api.strip_prefix("http://").expect("an address");
    let times = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                let own = client(address, time);
                times.lock().expect("the times").extend(own);
            });
        }
    });
    let mut times = times.into_inner().expect("the times");
    times.sort_unstable();
    let at = |part: usize| times[times.len() * part / 100].as_secs_f64() * 1_000.0;
    Rate {
        per_second: times.len() as f64 / time.as_secs_f64(),
        median_ms: at(50),
        p99_ms: at(99),
        slow: Some(times.iter().filter(|time| **time > SLOW).count()),
    }
}

/// Life of one client: the time of each insert after the warm-up.
fn client(address: &str, time: Duration) -> Vec<Duration> {
    let body = r#"{"genero": "Medida"}"#;
    let head = "POST /generos HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json";
    let request = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let mut stream = TcpStream::connect(address).expect("connect");
    stream.set_nodelay(true).expect("no delay");
    let mut answers = BufReader::new(stream.try_clone().expect("a copy"));
    let mut times = Vec::new();
    let (mut line, mut rest) = (String::new(), Vec::new());
    let began = Instant::now();
    while began.elapsed() < WARM_UP + time {
        let sent = Instant::now();
        stream.write_all(request.as_bytes()).expect("send");
        line.clear();
        answers.read_line(&mut line).expect("a status");
        assert!(line.starts_with("HTTP/1.1 201"), "{line}");
        let mut length = 0;
        while line != "\r\n" {
            line.clear();
            answers.read_line(&mut line).expect("a header");
            if let Some(value) = line.strip_prefix("Content-Length: ") {
                length = value.trim().parse().expect("a length");
            }
        }
        rest.resize(length, 0);
        answers.read_exact(&mut rest).expect("a body");
        if began.elapsed() > WARM_UP {
            times.push(sent.elapsed());
        }
    }
    times
}

/// The same row as single prepared statements, without HTTP.
fn pgbench(cluster: &Cluster, script: &str, clients: usize, seconds: u64) -> Rate {
    let clients_text = clients.to_string();
    let output = Command::new("pgbench")
        .args([
            "-n",
            "-M",
            "prepared",
            "-f",
            script,
            "-T",
            &seconds.to_string(),
        ])
        .args(["-c", &clients_text, "-j", &clients.min(4).to_string()])
        .arg(cluster.url("master1"))
        .output()
        .expect("run pgbench");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    let number = |name: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let word = line.and_then(|line| line.split_whitespace().next());
        word.and_then(|word| word.parse().ok())
            .unwrap_or_else(|| panic!("{name} is not in {text}"))
    };
    let mean = number("latency average = ");
    Rate {
        per_second: number("tps = "),
        median_ms: mean,
        p99_ms: mean,
        slow: None,
    }
}
