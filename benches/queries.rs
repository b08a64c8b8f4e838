//! How long searches, titles and persons take over HTTP, with 16 connections that each send the next request when the last one is
//! answered. What is asked for is picked from the films that the API shows. Run it by scripts/bench-queries.sh.

#[path = "../tests/common/mod.rs"]
mod common;

use common::Cluster;
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use url::form_urlencoded::byte_serialize;

const CLIENTS: u64 = 16;

/// For making and loading films, and until what that leaves to be done has been done.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// Time before counting, in which connections are made and statements prepared.
const WARM_UP: Duration = Duration::from_secs(2);

/// Participations in the films that are made when there is no API to ask; everything else is in proportion, such as 630,000 titles.
const PRINCIPALS: u64 = 5_000_000;

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect();
    let address = arguments
        .iter()
        .find_map(|word| word.strip_prefix("http://"));
    let mut numbers = arguments.iter().filter_map(|word| word.parse().ok());
    let seconds = numbers.next().unwrap_or(20).clamp(1, 600);
    let Some(address) = address else {
        let cluster = Cluster::start();
        let principals = numbers.next().unwrap_or(PRINCIPALS);
        load(&cluster, principals.clamp(10_000, 200_000_000));
        return measure(
            cluster.api.strip_prefix("http://").expect("an address"),
            seconds,
        );
    };
    measure(address.trim_end_matches('/'), seconds);
}

/// Makes films and loads them into both masters.
fn load(cluster: &Cluster, principals: u64) {
    let began = Instant::now();
    let folder = tempfile::tempdir().expect("a folder");
    let made = Command::new("python3")
        .arg("scripts/bench/imdb_data.py")
        .args(["--principals", &principals.to_string(), "--out"])
        .arg(folder.path())
        .output()
        .expect("python3");
    assert!(made.status.success(), "{made:?}");
    let loaded = cluster.run(&["load", &folder.path().display().to_string()]);
    assert!(loaded.status.success(), "{loaded:?}");
    // What it has left to be done is not measured: pages to be written, and WAL to be archived.
    for node in ["master1", "master2"] {
        let mut sql = cluster.sql(node);
        sql.batch_execute("CHECKPOINT").expect("a checkpoint");
        let left = "SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'";
        loop {
            let left: i64 = sql.query_one(left, &[]).expect("a count").get(0);
            if left == 0 {
                break;
            }
            assert!(began.elapsed() < PATIENCE, "{node} does not archive");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
    let seconds = began.elapsed().as_secs();
    println!("{principals} participations made and loaded in {seconds} s");
}

/// The requests of one kind.
struct Kind {
    name: &'static str,
    /// Of a hundred requests.
    share: u64,
    paths: Vec<String>,
}

fn measure(address: &str, seconds: u64) {
    let kinds = kinds(address);
    let times: Vec<Mutex<Vec<Duration>>> = kinds.iter().map(|_| Mutex::default()).collect();
    std::thread::scope(|scope| {
        for number in 1..=CLIENTS {
            let (kinds, times) = (&kinds, &times);
            scope
                .spawn(move || client(address, number, Duration::from_secs(seconds), kinds, times));
        }
    });
    let cores = std::thread::available_parallelism().map_or(0, |cores| cores.get());
    println!("{CLIENTS} connections for {seconds} s on {cores} cores");
    let mut all = 0;
    for (kind, times) in kinds.iter().zip(times) {
        let mut times = times.into_inner().expect("the times");
        assert!(!times.is_empty(), "no request of kind {}", kind.name);
        times.sort_unstable();
        all += times.len();
        let at = |part: usize| {
            times[(times.len() * part / 100).min(times.len() - 1)].as_secs_f64() * 1_000.0
        };
        let (count, median, slow, worst) = (times.len(), at(50), at(99), at(100));
        println!(
            "{:32} {count:7}   median {median:6.2} ms   p99 {slow:6.2} ms   worst {worst:6.2} ms",
            kind.name
        );
    }
    println!(
        "{:32} {all:7}   {:.0} per second",
        "all",
        all as f64 / seconds as f64
    );
}

/// What is asked for, from the best known titles of each genre and decade.
fn kinds(address: &str) -> Vec<Kind> {
    let mut connection = Connection::open(address);
    let (titles, mut filters) = best_known(&mut connection);
    assert!(
        titles.len() > 10,
        "the API at {address} shows no films; load some first"
    );
    for tipo in ["movie", "tvSeries", "videoGame"] {
        for orden in ["votos", "promedio", "anio", "-anio"] {
            filters.push(format!("/titulos?tipo={tipo}&orden={orden}"));
            filters.push(format!(
                "/titulos?tipo={tipo}&orden={orden}&votos=1000&desde=1980"
            ));
        }
    }
    let persons = persons(&mut connection, &titles);
    let [two, one, prefix] = searches(&titles);
    let pages = titles
        .iter()
        .map(|(tconst, _)| format!("/titulos/{tconst}"));
    vec![
        Kind {
            name: "search, two words of a title",
            share: 30,
            paths: two,
        },
        Kind {
            name: "search, one word",
            share: 10,
            paths: one,
        },
        Kind {
            name: "search, beginning of a word",
            share: 5,
            paths: prefix,
        },
        Kind {
            name: "filters and orders",
            share: 5,
            paths: filters,
        },
        Kind {
            name: "title",
            share: 45,
            paths: pages.collect(),
        },
        Kind {
            name: "person",
            share: 5,
            paths: persons,
        },
    ]
}

/// The ids and names of the best known titles, and the requests that tell them.
fn best_known(connection: &mut Connection) -> (Vec<(String, String)>, Vec<String>) {
    let mut titles: Vec<(String, String)> = Vec::new();
    let mut paths = Vec::new();
    for genero in 1..=28 {
        for decade in (1900..2030).step_by(10) {
            let last = decade + 9;
            let path = format!("/titulos?genero={genero}&desde={decade}&hasta={last}");
            let answer = connection.json(&format!("{path}&limit=100"));
            let rows = answer["data"].as_array().expect("a page");
            titles.extend(rows.iter().map(|row| {
                let text = |name: &str| row[name].as_str().unwrap_or_default().to_string();
                (text("tconst"), text("titulo_principal"))
            }));
            paths.push(path);
        }
    }
    titles.sort();
    titles.dedup();
    (titles, paths)
}

/// Searches for two words of a title, for one, and for the beginning of one.
fn searches(titles: &[(String, String)]) -> [Vec<String>; 3] {
    let mut random = Random(7);
    let mut searches = [const { Vec::new() }; 3];
    for _ in 0..4_000 {
        let (_, title) = &titles[random.below(titles.len())];
        let words: Vec<&str> = title
            .split(|letter: char| !letter.is_alphanumeric())
            .filter(|word| word.chars().count() > 2)
            .collect();
        if words.is_empty() {
            continue;
        }
        let one = words[random.below(words.len())];
        let others: Vec<&&str> = words.iter().filter(|word| **word != one).collect();
        if !others.is_empty() {
            let other = others[random.below(others.len())];
            searches[0].push(format!("/titulos?q={}", encoded(&format!("{one} {other}"))));
        }
        let half = one.chars().count().div_ceil(2).max(3);
        let half: String = one.chars().take(half).collect();
        searches[1].push(format!("/titulos?q={}", encoded(one)));
        searches[2].push(format!("/titulos?q={}", encoded(&format!("{half}*"))));
    }
    searches
}

/// The people in some of the titles.
fn persons(connection: &mut Connection, titles: &[(String, String)]) -> Vec<String> {
    let mut random = Random(11);
    let mut persons = BTreeSet::new();
    for _ in 0..400 {
        let (tconst, _) = &titles[random.below(titles.len())];
        let title = connection.json(&format!("/titulos/{tconst}"));
        let cast = title["data"]["reparto"].as_array().expect("a cast");
        persons.extend(
            cast.iter()
                .filter_map(|row| row["nconst"].as_str().map(String::from)),
        );
    }
    let path = |nconst: &String| format!("/personas/{nconst}");
    persons.iter().map(path).collect()
}

fn encoded(text: &str) -> String {
    byte_serialize(text.as_bytes()).collect()
}

/// Life of one client: the time of each request after the warm-up, by its kind.
fn client(
    address: &str,
    number: u64,
    time: Duration,
    kinds: &[Kind],
    times: &[Mutex<Vec<Duration>>],
) {
    let mut connection = Connection::open(address);
    let mut random = Random(number * 7_919);
    let mut own = vec![Vec::new(); kinds.len()];
    let began = Instant::now();
    while began.elapsed() < WARM_UP + time {
        let mut share = random.below(100) as u64;
        let index = kinds.iter().position(|kind| {
            let chosen = share < kind.share;
            share = share.saturating_sub(kind.share);
            chosen
        });
        let index = index.expect("the shares are a hundred");
        let paths = &kinds[index].paths;
        let sent = Instant::now();
        connection.get(&paths[random.below(paths.len())]);
        if began.elapsed() > WARM_UP {
            own[index].push(sent.elapsed());
        }
    }
    for (times, own) in times.iter().zip(own) {
        times.lock().expect("the times").extend(own);
    }
}

/// Numbers that are the same in each run: xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

/// A connection that is kept.
struct Connection {
    stream: TcpStream,
    answers: BufReader<TcpStream>,
    body: Vec<u8>,
}

impl Connection {
    fn open(address: &str) -> Connection {
        let stream = TcpStream::connect(address)
            .unwrap_or_else(|error| panic!("connect to {address}: {error}"));
        stream.set_nodelay(true).expect("no delay");
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("a time limit");
        let answers = BufReader::new(stream.try_clone().expect("a copy"));
        Connection {
            stream,
            answers,
            body: Vec::new(),
        }
    }

    /// Gets `path`, which must succeed; the body is in `body` then.
    fn get(&mut self, path: &str) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        self.stream.write_all(request.as_bytes()).expect("send");
        let status = self.line();
        let (mut length, mut chunked) = (0, false);
        loop {
            let line = self.line();
            if line.is_empty() {
                break;
            }
            let line = line.to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().expect("a length");
            }
            chunked |= line == "transfer-encoding: chunked";
        }
        self.body.clear();
        if chunked {
            loop {
                let size = usize::from_str_radix(&self.line(), 16).expect("a size");
                self.read(size);
                self.line();
                if size == 0 {
                    break;
                }
            }
        } else {
            self.read(length);
        }
        let said = String::from_utf8_lossy(&self.body);
        assert!(
            status.starts_with("HTTP/1.1 200"),
            "{path}: {status} {said}"
        );
    }

    fn json(&mut self, path: &str) -> Value {
        self.get(path);
        serde_json::from_slice(&self.body).expect("JSON")
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("a line");
        line.trim_end().to_string()
    }

    fn read(&mut self, length: usize) {
        let had = self.body.len();
        self.body.resize(had + length, 0);
        self.answers
            .read_exact(&mut self.body[had..])
            .expect("a body");
    }
}
