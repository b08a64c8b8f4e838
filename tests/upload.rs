//! Files on their way to `POST /load`: those that are cut off, that nobody wants, that come slowly or have no room. One cluster serves
//! all tests of this file but the last.

mod common;

use common::{Cluster, IN_THE_END, NO_HANG, wait_until};
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

const BASICS: &str = "tconst\ttitleType\tprimaryTitle\toriginalTitle\tisAdult\tstartYear\tendYear\truntimeMinutes\tgenres\n";
const TOKEN: &str = "a-token-of-this-test";
const MB: usize = 1024 * 1024;

/// The cluster, for one test at a time: files that arrive have few places.
fn cluster() -> (&'static Cluster, MutexGuard<'static, ()>) {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let start = || Cluster::start_with(&[("ADMIN_TOKEN", TOKEN)]);
    (CLUSTER.get_or_init(start), turn)
}

/// So many titles, as a file has them.
fn titles(count: usize) -> String {
    let mut text = BASICS.to_string();
    for id in 1..=count {
        text.push_str(&format!(
            "tt{id:07}\tmovie\tT\tT\t0\t1994\t\\N\t142\tDrama\n"
        ));
    }
    text
}

/// Begins an upload with this header about its body.
fn begin(cluster: &Cluster, token: &str, header: &str) -> TcpStream {
    let address = cluster.api.strip_prefix("http://").expect("an address");
    let mut stream = TcpStream::connect(address).expect("connect");
    stream
        .set_read_timeout(Some(Duration::from_secs(15)))
        .expect("a time limit");
    let head = format!(
        "POST /load HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n{header}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).expect("send");
    stream
}

/// What is answered until the connection ends, which it must.
fn answer(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let ended = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    ended.unwrap_or_else(|error| panic!("{error}: {answer}"));
    answer
}

fn assert_refused(answer: &str, status: u16, code: &str) {
    let expected = format!("HTTP/1.1 {status} ");
    assert!(
        answer.starts_with(&expected) && answer.contains(code),
        "{code}: {answer}"
    );
}

fn load(cluster: &Cluster, file: &str) {
    let authorization = format!("Bearer {TOKEN}");
    let headers = [("Authorization", authorization.as_str())];
    let path = "/load?allow_shrink=true";
    let answer = cluster.ask("POST", path, Some(file), &headers);
    assert_eq!(answer.status, 202, "{answer:?}");
    let place = answer.header("Location").expect("a job").to_string();
    let mut job = Value::Null;
    wait_until("the load has ended", || {
        job = cluster.get(&place).body["job"].clone();
        job["state"] != "running"
    });
    assert_eq!(job["state"], "done", "{job}");
}

fn loaded(cluster: &Cluster) -> i64 {
    let row = cluster
        .sql("master1")
        .query_one("SELECT count(*) FROM titulos", &[]);
    row.expect("a count").get(0)
}

/// Sends what curl reads from its standard input.
fn curl(cluster: &Cluster, token: &str, input: &[u8], file: &str) -> (Duration, Output) {
    let began = Instant::now();
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--max-time", "15", "-X", "POST", "-T", file])
        .arg("-H")
        .arg(format!("Authorization: Bearer {token}"))
        .arg(format!("{}/load", cluster.api))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut curl = curl.spawn().expect("curl");
    // It need not read all of it.
    let _ = curl.stdin.take().expect("piped").write_all(input);
    let output = curl.wait_with_output().expect("its end");
    (began.elapsed(), output)
}

#[test]
fn a_body_that_was_cut_off_is_not_loaded() {
    let (cluster, _turn) = cluster();
    load(cluster, &titles(100));
    let part = titles(60);
    // In the middle of a chunk, where a decoder that looks no closer takes the end of the connection for the end of the body.
    let mut stream = begin(cluster, TOKEN, "Transfer-Encoding: chunked");
    let chunk = format!("{:x}\r\n{part}", part.len() + 5_000);
    stream.write_all(chunk.as_bytes()).expect("send");
    stream.shutdown(Shutdown::Write).expect("the end");
    assert_refused(&answer(&mut stream), 411, "length_required");
    // Of a body whose length is known, of any size.
    for length in [part.len() + 5_000, 40 * MB, 16_000 * MB] {
        let header = format!("Content-Length: {length}");
        let mut stream = begin(cluster, TOKEN, &header);
        stream.write_all(part.as_bytes()).expect("send");
        stream.shutdown(Shutdown::Write).expect("the end");
        assert_refused(&answer(&mut stream), 400, "body_incomplete");
        // Without waiting for what is told.
        let mut stream = begin(cluster, TOKEN, &header);
        stream.write_all(part.as_bytes()).expect("send");
        drop(stream);
        std::thread::sleep(Duration::from_millis(300));
        // Without a farewell.
        let mut stream = begin(cluster, TOKEN, &header);
        stream.write_all(part.as_bytes()).expect("send");
        let socket = socket2::SockRef::from(&stream);
        socket
            .set_linger(Some(Duration::ZERO))
            .expect("no farewell");
    }
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(loaded(cluster), 100);
    load(cluster, &titles(101));
    assert_eq!(loaded(cluster), 101);
}

/// Descriptors and threads of the API.
fn held(cluster: &Cluster) -> (usize, usize) {
    let pid = cluster.status["pids"]["api"].as_u64().expect("a process");
    let count = |of: &str| {
        let entries = fs::read_dir(format!("/proc/{pid}/{of}"));
        entries.expect("a process").count()
    };
    (count("fd"), count("task"))
}

#[test]
fn refused_uploads_are_answered_at_once_and_leave_nothing() {
    const LARGEST: &str = "Content-Length: 17179869185";
    let (cluster, _turn) = cluster();
    let waiting = format!("{LARGEST}\r\nExpect: 100-continue");
    let before = held(cluster);
    for (token, header, status, code) in [
        ("x", "Content-Length: 100000000", 401, "unauthorized"),
        ("x", "Transfer-Encoding: chunked", 401, "unauthorized"),
        (TOKEN, "Transfer-Encoding: chunked", 411, "length_required"),
        (TOKEN, "Connection: close", 411, "length_required"),
        (TOKEN, LARGEST, 413, "body_too_large"),
        (TOKEN, &waiting, 413, "body_too_large"),
    ] {
        for _ in 0..10 {
            let began = Instant::now();
            let mut stream = begin(cluster, token, header);
            // It has sent some of it before it hears the answer.
            let chunk = format!("{:x}\r\n{}\r\n", 2 * MB, "x".repeat(2 * MB));
            if header != "Connection: close" {
                stream.write_all(chunk.as_bytes()).expect("send");
            }
            assert_refused(&answer(&mut stream), status, code);
            let took = began.elapsed();
            assert!(took < NO_HANG, "{header}: {took:?}");
        }
    }
    wait_until("nothing is left of them", || {
        let now = held(cluster);
        now.0 <= before.0 + 10 && now.1 <= before.1 + 10
    });
}

#[test]
fn curl_tells_at_once_why_nothing_is_loaded() {
    let (cluster, _turn) = cluster();
    let folder = tempfile::tempdir().expect("a folder");
    let large = folder.path().join("large.tsv");
    let file = fs::File::create(&large).expect("a file");
    file.set_len(3_000 * MB as u64).expect("a hole");
    let large = large.display().to_string();
    let input = titles(400_000);
    for (token, file, code) in [
        (TOKEN, "-", "length_required"),
        ("x", "-", "unauthorized"),
        ("x", large.as_str(), "unauthorized"),
    ] {
        let (took, output) = curl(cluster, token, input.as_bytes(), file);
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(told.contains(code), "{file}: {output:?}");
        assert!(took < Duration::from_secs(9), "{file}: {took:?}");
    }
}

#[test]
fn who_stops_sending_keeps_his_place_for_seconds_and_nobody_waiting() {
    let (cluster, _turn) = cluster();
    // It is told to go on when its place is taken.
    let slow = || {
        let header = "Content-Length: 5000000\r\nExpect: 100-continue";
        let mut stream = begin(cluster, TOKEN, header);
        let mut told = Vec::new();
        while !told.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("its place");
            told.extend(byte);
        }
        assert!(told.starts_with(b"HTTP/1.1 100"), "{told:?}");
        stream.write_all(b"tconst").expect("send");
        stream
    };
    let mut held = [slow(), slow()];
    let began = Instant::now();
    let mut third = begin(cluster, TOKEN, "Content-Length: 5000000");
    assert_refused(&answer(&mut third), 503, "overloaded");
    assert!(began.elapsed() < NO_HANG);
    for stream in &mut held {
        assert_refused(&answer(stream), 408, "request_timeout");
    }
    assert!(began.elapsed() < IN_THE_END);
    load(cluster, &titles(7));
}

/// A body that goes on after it was given up does not become a request.
#[test]
fn the_rest_of_a_body_is_never_a_request() {
    let (cluster, _turn) = cluster();
    let mut stream = begin(cluster, "x", "Transfer-Encoding: chunked");
    stream.write_all(b"fff\r\nab").expect("send");
    let mut start = [0; 12];
    stream.read_exact(&mut start).expect("an answer");
    assert_eq!(&start, b"HTTP/1.1 401");
    let next = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let _ = stream.write_all(next.as_bytes());
    let rest = answer(&mut stream);
    assert!(!rest.contains("HTTP/1.1 "), "{rest}");
}

/// The size of a chunk is read until it ends, whoever sends it.
#[test]
fn a_chunk_whose_size_never_ends_holds_nobody_for_long() {
    let (cluster, _turn) = cluster();
    let address = cluster.api.strip_prefix("http://").expect("an address");
    let json = "Host: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n";
    let send = |text: &str| {
        let mut stream = TcpStream::connect(address).expect("connect");
        let patience = Some(Duration::from_secs(15));
        stream.set_read_timeout(patience).expect("a time limit");
        stream.write_all(text.as_bytes()).expect("send");
        stream
    };
    // As many as there are threads that read bodies, and that throw them away.
    let endless = |method: &str| {
        send(&format!(
            "{method} /generos HTTP/1.1\r\n{json}Transfer-Encoding: chunked\r\n\r\n1;"
        ))
    };
    let read = (0..8).map(|_| endless("POST"));
    let mut held: Vec<TcpStream> = read.chain((0..4).map(|_| endless("PATCH"))).collect();
    wait_until("they are let go", || {
        std::thread::sleep(Duration::from_millis(500));
        held.retain_mut(|stream| stream.write_all(b"x").is_ok());
        held.is_empty()
    });
    let body = format!(r#"{{"genero": "tarde"{}}}"#, " ".repeat(2_000));
    let length = body.len();
    for (method, status) in [("POST", "201"), ("PATCH", "405")] {
        let head = format!("{method} /generos HTTP/1.1\r\n{json}Content-Length: {length}\r\n\r\n");
        let answer = answer(&mut send(&format!("{head}{body}")));
        let expected = format!("HTTP/1.1 {status}");
        assert!(answer.starts_with(&expected), "{answer}");
    }
}

#[test]
fn without_room_for_the_file_it_is_said_and_the_next_one_is_taken() {
    let folder = tempfile::tempdir().expect("a folder");
    let room: PathBuf = folder.path().join("room");
    fs::create_dir(&room).expect("a folder");
    let shown = room.display().to_string();
    let cluster = Cluster::start_with(&[("ADMIN_TOKEN", TOKEN), ("LOAD_DIR", &shown)]);
    fs::remove_dir(&room).expect("empty");
    for length in [500, 5_000, 50 * MB] {
        let mut stream = begin(
            &cluster,
            TOKEN,
            &format!("Connection: close\r\nContent-Length: {length}"),
        );
        stream.write_all(&vec![b'x'; length]).expect("send");
        assert_refused(&answer(&mut stream), 500, "load_no_room");
    }
    fs::create_dir(&room).expect("a folder");
    load(&cluster, &titles(7));
    assert_eq!(fs::read_dir(&room).expect("a folder").count(), 0);
}
