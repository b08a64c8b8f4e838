//! What HTTP asks of a server, as a table of bytes and answers: RFC 9110 and 9112, and what clients do that have read neither. No
//! request is answered twice, none is left without an answer, and nobody waits but for a client.

mod common;

use common::{Cluster, NO_HANG, clean_command_named, wait_until};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(Cluster::start)
}

fn address() -> SocketAddr {
    let address = cluster().api.strip_prefix("http://").expect("an address");
    address.parse().expect("an address")
}

/// Longer than a client that sends nothing is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

const HOST: &str = "Host: localhost\r\n";
const JSON: &str = "Host: localhost\r\nContent-Type: application/json\r\n";
/// A request that hides behind another one.
const HIDDEN: &str = "DELETE /generos/28 HTTP/1.1\r\nHost: localhost\r\n\r\n";
const PROBE: &str = "GET /active-node HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// One answer.
#[derive(Debug)]
struct Told {
    status: u16,
    head: String,
    body: String,
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).expect("connect");
    stream
        .set_read_timeout(Some(PATIENCE))
        .expect("a time limit");
    stream
}

/// The next answer; none at the end of the connection.
fn next(stream: &mut TcpStream, of_head: bool) -> Option<Told> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(1..) => head.push(byte[0]),
            Ok(0) if head.is_empty() => return None,
            other => panic!("{other:?} after {}", String::from_utf8_lossy(&head)),
        }
    }
    let head = String::from_utf8(head).expect("a head in ASCII");
    let status = head.get(9..12).expect("a status").parse();
    let status = status.expect("a status");
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "));
    let length = match status {
        100 => 0,
        _ => length.expect("a length").parse().expect("a length"),
    };
    let mut body = vec![0; if of_head { 0 } else { length }];
    stream.read_exact(&mut body).expect("the body");
    let body = String::from_utf8(body).expect("text");
    Some(Told { status, head, body })
}

/// Sends the bytes and reads as many answers as are expected. Then the connection must have ended, or serve another request.
fn check(bytes: &[u8], statuses: &[u16], ends: bool) -> Vec<Told> {
    let name = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned();
    let of_head = bytes.starts_with(b"HEAD ");
    let to = address();
    let began = Instant::now();
    let mut stream = connect(to);
    // It may end before all of it is read.
    let _ = stream.write_all(bytes);
    let mut told = Vec::new();
    for status in statuses {
        let answer = next(&mut stream, of_head).unwrap_or_else(|| panic!("no answer: {name}"));
        assert_eq!(answer.status, *status, "{name}\n{answer:?}");
        if answer.status >= 400 && !of_head {
            let body: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
            assert_eq!(body["ok"], false, "{name}\n{answer:?}");
            assert!(
                body["code"].is_string() && body["error"].is_string(),
                "{name}\n{answer:?}"
            );
        }
        told.push(answer);
    }
    let last = &told.last().expect("an answer").head;
    assert_eq!(
        last.contains("\r\nConnection: close"),
        ends,
        "{name}\n{last}"
    );
    if !ends {
        stream.write_all(PROBE.as_bytes()).expect("send");
        let probed = next(&mut stream, false).unwrap_or_else(|| panic!("it ended: {name}"));
        assert!(probed.body.contains("active_node"), "{name}\n{probed:?}");
    }
    let more = next(&mut stream, false);
    assert!(more.is_none(), "one answer more: {name}\n{more:?}");
    let took = began.elapsed();
    assert!(took < NO_HANG, "{took:?}: {name}");
    told
}

/// A request that is refused, and what hides behind it is not answered.
fn refused(text: &str, status: u16) {
    check(format!("{text}{HIDDEN}").as_bytes(), &[status], true);
}

fn get(target: &str, headers: &str) -> String {
    format!("GET {target} HTTP/1.1\r\n{headers}\r\n")
}

fn post(headers: &str, body: &str) -> String {
    format!("POST /generos HTTP/1.1\r\n{headers}\r\n{body}")
}

fn sized(headers: &str, body: &str) -> String {
    post(
        &format!("{headers}Content-Length: {}\r\n", body.len()),
        body,
    )
}

fn chunked(body: &str) -> String {
    post(&format!("{JSON}Transfer-Encoding: chunked\r\n"), body)
}

fn insert(name: &str) -> String {
    format!("{{\"genero\": \"{name}\"}}")
}

#[test]
fn requests_that_are_ones_are_served() {
    let text = insert("Conforme");
    let (first, second) = text.split_at(9);
    let pieces = |extension: &str, trailer: &str| {
        let (one, two) = (first.len(), second.len());
        chunked(&format!(
            "{one:X}{extension}\r\n{first}\r\n{two:x}\r\n{second}\r\n000{extension}\r\n{trailer}\r\n"
        ))
    };
    let long = format!("/active-node?{}", "x".repeat(7_000));
    for (bytes, statuses, ends) in [
        (get("/active-node", HOST), &[200][..], false),
        (
            get("/active-node", &format!("{HOST}Connection: close\r\n")),
            &[200],
            true,
        ),
        (
            get(
                "/active-node",
                &format!("{HOST}Connection: Upgrade\r\nUpgrade: h2c\r\n"),
            ),
            &[200],
            false,
        ),
        // Characters of other languages, in headers and in the target, raw and in another spelling.
        (
            get(
                "/active-node",
                &format!("{HOST}User-Agent: Café\r\nCookie: ciudad=Málaga\r\n"),
            ),
            &[200],
            false,
        ),
        (get("/generos?genero=acción", HOST), &[200], false),
        (get("/generos/%37", HOST), &[200], false),
        (get("/%67eneros/7", HOST), &[200], false),
        (get("/generos/ñ", HOST), &[400], false),
        (get("/ñ", HOST), &[404], false),
        // The other forms of a target.
        (get("http://localhost:5000/generos/7", HOST), &[200], false),
        (get("HTTP://localhost/active-node", HOST), &[200], false),
        (get("http://localhost", HOST), &[200], false),
        (
            "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n".to_string(),
            &[200],
            false,
        ),
        (
            "OPTIONS /generos HTTP/1.1\r\nHost: localhost\r\n\r\n".to_string(),
            &[200],
            false,
        ),
        (
            "OPTIONS /nada HTTP/1.1\r\nHost: localhost\r\n\r\n".to_string(),
            &[404],
            false,
        ),
        // Hosts, versions, empty lines.
        (get("/active-node", "Host: [::1]:5000\r\n"), &[200], false),
        (get("/active-node", "hOsT:localhost\r\n"), &[200], false),
        (
            get("/active-node", HOST).replace("1.1", "1.2"),
            &[200],
            false,
        ),
        (
            get("/active-node", HOST).replace("1.1", "1.0"),
            &[200],
            true,
        ),
        (get("/active-node", "").replace("1.1", "1.0"), &[200], true),
        (
            format!("\r\n\r\n{}", get("/active-node", HOST)),
            &[200],
            false,
        ),
        // Methods.
        (
            "HEAD /generos/7 HTTP/1.1\r\nHost: localhost\r\n\r\n".to_string(),
            &[200],
            false,
        ),
        (
            "HEAD /nada HTTP/1.1\r\nHost: localhost\r\n\r\n".to_string(),
            &[404],
            false,
        ),
        (
            "TRACE /generos HTTP/1.1\r\nHost: localhost\r\n\r\n".to_string(),
            &[405],
            false,
        ),
        (
            "PATCH /generos HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc"
                .to_string(),
            &[405],
            false,
        ),
        // Bodies.
        (sized(JSON, &text), &[201], false),
        (
            sized(&JSON.replace("json", "JSON; charset=utf8"), &text),
            &[201],
            false,
        ),
        (
            sized(&JSON.replace("json", "json;charset=\"UTF-8\""), &text),
            &[201],
            false,
        ),
        (sized(JSON, &format!("\u{feff}{text}")), &[201], false),
        (
            sized(&format!("{JSON}Content-Encoding: identity\r\n"), &text),
            &[201],
            false,
        ),
        (
            sized(
                &format!("{JSON}Content_Length: 99\r\nTransfer_Encoding: x\r\n"),
                &text,
            ),
            &[201],
            false,
        ),
        (
            sized(&format!("{JSON}Expect: 100-continue\r\n"), &text),
            &[201],
            false,
        ),
        (pieces("", ""), &[201], false),
        (pieces(";a=b ; c=\"d;\\\" e\"", ""), &[201], false),
        (
            pieces("", "Checksum: 1\r\nContent-Length: 99\r\n"),
            &[201],
            false,
        ),
        (chunked("0\r\n\r\n"), &[400], false),
        (sized(JSON, ""), &[400], false),
        (post(JSON, ""), &[400], false),
        (
            get("/active-node", &format!("{HOST}Content-Length: 3\r\n")) + "abc",
            &[200],
            false,
        ),
        // One after the other.
        (
            get("/active-node", HOST)
                + &sized(JSON, &text)
                + &pieces("", "A: b\r\n")
                + &get("/nada", HOST),
            &[200, 201, 201, 404],
            false,
        ),
        // What is too long for the path is not for the line.
        (get(&long, HOST), &[400], false),
    ] {
        check(bytes.as_bytes(), statuses, ends);
    }
    let old = "GET /active-node HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    let told = check(old.as_bytes(), &[200], false);
    assert!(
        told[0].head.contains("\r\nConnection: keep-alive\r\n"),
        "{told:?}"
    );
    let star = check(
        b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
        &[200],
        false,
    );
    assert!(
        star[0].head.contains("\r\nAllow: GET, HEAD, POST"),
        "{star:?}"
    );
    let raw = check(
        get("/generos?genero=acción", HOST).as_bytes(),
        &[200],
        false,
    );
    assert!(raw[0].body.contains("\"Acción\""), "{raw:?}");
    let encoded = check(
        get("/generos?genero=acci%C3%B3n", HOST).as_bytes(),
        &[200],
        false,
    );
    assert_eq!(raw[0].body, encoded[0].body);
}

#[test]
fn requests_that_are_none_are_refused_once_and_nothing_behind_them_is_one() {
    for (target, headers, status) in [
        // Versions.
        ("/health HTTP/2.0", HOST, 505),
        ("/health HTTP/3.0", HOST, 505),
        ("/health HTTP/0.9", HOST, 505),
        ("/health HTTP/1.10", HOST, 400),
        ("/health HTTP/1", HOST, 400),
        ("/health http/1.1", HOST, 400),
        ("/health", HOST, 400),
        // Request lines.
        (" /health HTTP/1.1", HOST, 400),
        ("/health  HTTP/1.1", HOST, 400),
        ("/health HTTP/1.1 x", HOST, 400),
        ("/hea\tlth HTTP/1.1", HOST, 400),
        ("/hea\0lth HTTP/1.1", HOST, 400),
        ("/hea\u{7f}lth HTTP/1.1", HOST, 400),
        ("/health#x HTTP/1.1", HOST, 400),
        ("/%00 HTTP/1.1", HOST, 400),
        ("/%0d%0a HTTP/1.1", HOST, 400),
        ("/%zz HTTP/1.1", HOST, 400),
        ("health HTTP/1.1", HOST, 400),
        ("* HTTP/1.1", HOST, 400),
        ("ftp://localhost/ HTTP/1.1", HOST, 400),
        ("http://a@localhost/ HTTP/1.1", HOST, 400),
        ("http:// HTTP/1.1", HOST, 400),
        // Hosts.
        ("/health HTTP/1.1", "", 400),
        (
            "/health HTTP/1.1",
            "Host: localhost\r\nHost: localhost\r\n",
            400,
        ),
        ("/health HTTP/1.1", "Host:\r\n", 400),
        ("/health HTTP/1.1", "Host: a b/c@d\r\n", 400),
        ("/health HTTP/1.1", "Host: a, b\r\n", 400),
        ("/health HTTP/1.1", "Host: a/b\r\n", 400),
        ("/health HTTP/1.1", "Host: a@b\r\n", 400),
        ("/health HTTP/1.1", "Host: a:b\r\n", 400),
        // Headers.
        ("/health HTTP/1.1", "Host: localhost\r\nA : b\r\n", 400),
        (
            "/health HTTP/1.1",
            "Host: localhost\r\nBad[Name: b\r\n",
            400,
        ),
        ("/health HTTP/1.1", "Host: localhost\r\nÑ: b\r\n", 400),
        ("/health HTTP/1.1", "Host: localhost\r\n: b\r\n", 400),
        ("/health HTTP/1.1", "Host: localhost\r\nno colon\r\n", 400),
        ("/health HTTP/1.1", "Host: localhost\r\nA: b\rc\r\n", 400),
        ("/health HTTP/1.1", "Host: localhost\r\nA: b\0c\r\n", 400),
        ("/health HTTP/1.1", "Host: localhost\r\nA: b\u{1}c\r\n", 400),
        ("/health HTTP/1.1", "Host: localhost\nA: b\r\n", 400),
        ("/health HTTP/1.1", "Host: localhost\r\nA: b\n", 400),
        (" HTTP/1.1", HOST, 400),
        // Folded lines.
        ("/health HTTP/1.1", " Host: localhost\r\n", 400),
        ("/health HTTP/1.1", "Host:\r\n localhost\r\n", 400),
        (
            "/health HTTP/1.1",
            "Host: localhost\r\nA: b\r\n\tc\r\n",
            400,
        ),
        (
            "/health HTTP/1.1",
            "Host: localhost\r\nA: b\r\n Content-Length: 49\r\n",
            400,
        ),
        (
            "/health HTTP/1.1",
            "Host: localhost\r\nA: b\r\n Transfer-Encoding: chunked\r\n",
            400,
        ),
        (
            "/health HTTP/1.1",
            "Host: localhost\r\nExpect: 200-ok\r\n",
            417,
        ),
    ] {
        refused(&format!("GET {target}\r\n{headers}\r\n"), status);
    }
    for (text, status) in [
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        ("GET /health HTTP/1.1\nHost: localhost\n\n", 400),
        ("GET /health HTTP/1.1\rHost: localhost\r\r", 400),
        ("\nGET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (" \r\n\r\n", 400),
        ("\x16\x03\x01\x02", 400),
        ("G(T / HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        ("get /health HTTP/1.1\r\nHost: localhost\r\n\r\n", 501),
        ("BREW /generos HTTP/1.1\r\nHost: localhost\r\n\r\n", 501),
        (
            "CONNECT localhost:5000 HTTP/1.1\r\nHost: localhost\r\n\r\n",
            501,
        ),
        ("CONNECT /x HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    ] {
        refused(text, status);
    }
    check(
        b"GET /generos?genero=acci\xf3n HTTP/1.1\r\nHost: localhost\r\n\r\n",
        &[400],
        true,
    );
    check(
        b"GET /\xc0\xaf HTTP/1.1\r\nHost: localhost\r\n\r\n",
        &[400],
        true,
    );
    assert_eq!(cluster().get("/generos/28").status, 200);
}

#[test]
fn a_body_whose_length_is_not_clear_is_refused_with_its_connection() {
    for headers in [
        "Content-Length: abc\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: +17\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: 0x10\r\n",
        "Content-Length:\r\n",
        "Content-Length: 1e1\r\n",
        "Content-Length: 1_0\r\n",
        "Content-Length: 007\r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length : 5\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
        "Transfer-Encoding: chunked;a=b\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding:\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "Transfer-Encoding: \u{b}chunked\r\n",
        "Transfer-Encoding : chunked\r\n",
    ] {
        // Whatever the method, and whether the path takes it.
        for line in ["POST /generos", "GET /health", "DELETE /nada"] {
            refused(
                &format!("{line} HTTP/1.1\r\n{JSON}{headers}\r\n0\r\n\r\n"),
                400,
            );
        }
    }
    refused(&chunked("0\r\n\r\n").replace("1.1", "1.0"), 400);
    for chunks in [
        "+18\r\n",
        " 11\r\n",
        "11;\r\n",
        "11;bad[=x\r\n",
        "11 \r\n",
        "0x11\r\n",
        "-1\r\n",
        "1_1\r\n",
        "g\r\n",
        "\r\n",
        "11\n",
        "11;a\n",
        "11;a\rb\r\n",
        "11;a\0\r\n",
        "11;a=\"b\r\n",
        "11111111111111111\r\n",
        "3\r\n{}  \r\n",
        "2\r\n{}\n",
        "2\r\n{}0\r\n\r\n",
        "2\r\n{}\rx",
        "0\r\nA\r\n\r\n",
        "0\r\nA : b\r\n\r\n",
        "0\r\n A: b\r\n\r\n",
        "0\r\nA: b\n\n",
        "0\r\nA: \0\r\n\r\n",
    ] {
        refused(&chunked(chunks), 400);
        // Not a 405 before that is known, and never both.
        refused(&chunked(chunks).replace("POST", "PATCH"), 400);
    }
    assert_eq!(cluster().get("/generos/28").status, 200);
}

#[test]
fn what_is_too_large_or_not_understood_is_told() {
    let long = "x".repeat(1024 * 1024);
    for (bytes, status) in [
        (format!("{long} / HTTP/1.1\r\nHost: localhost\r\n\r\n"), 414),
        (get(&format!("/{long}"), HOST), 414),
        (get("/health", &format!("{HOST}A: {long}\r\n")), 431),
        (
            get("/health", &format!("{HOST}{}: b\r\n", "A".repeat(40_000))),
            431,
        ),
        (
            get("/health", &(HOST.to_string() + &"A: b\r\n".repeat(10_000))),
            431,
        ),
        (
            get("/health", &(HOST.to_string() + &"A: b\r\n".repeat(100))),
            431,
        ),
        ("\r\n".repeat(1_000), 400),
        (chunked(&format!("1;{long}\r\n")), 400),
        (chunked(&format!("10001\r\n{long}")), 413),
        (sized(JSON, &long), 413),
        (
            post(
                &format!("{JSON}Content-Length: 18446744073709551615\r\n"),
                "x",
            ),
            413,
        ),
    ] {
        check(bytes.as_bytes(), &[status], true);
    }
    let text = insert("Conforme");
    let coded = sized(&format!("{JSON}Content-Encoding: gzip\r\n"), "\u{1f}x");
    for (bytes, status, code, named) in [
        (coded, 415, "coding_unsupported", "gzip"),
        (
            sized(HOST, &text),
            415,
            "type_unsupported",
            "application/json",
        ),
        (
            sized(&JSON.replace("json", "json; charset=latin1"), &text),
            415,
            "type_unsupported",
            "UTF-8",
        ),
        (
            sized(JSON, r#"{"genero": "a", "genero": "b"}"#),
            400,
            "field_twice",
            "'genero'",
        ),
        (
            sized(JSON, r#"{"a": 1, "genero": "b", "\u0061": 2}"#),
            400,
            "field_twice",
            "'a'",
        ),
    ] {
        let told = check(bytes.as_bytes(), &[status], false);
        let body = &told[0].body;
        assert!(body.contains(code) && body.contains(named), "{body}");
    }
    let english = get("/health", "Accept-Language: en\r\n");
    let told = check(english.as_bytes(), &[400], true);
    assert!(
        told[0]
            .body
            .contains("The request is not valid HTTP/1.1: Host"),
        "{told:?}"
    );
    // A body that is waited for is asked for once; one that is not wanted never, and who waits is not waited for.
    let mut stream = connect(address());
    let head = format!(
        "POST /generos HTTP/1.1\r\n{JSON}Expect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        text.len()
    );
    stream.write_all(head.as_bytes()).expect("send");
    assert_eq!(next(&mut stream, false).map(|told| told.status), Some(100));
    stream.write_all(text.as_bytes()).expect("send");
    assert_eq!(next(&mut stream, false).map(|told| told.status), Some(201));
    let unwanted = head.replace("/generos", "/nada");
    check(unwanted.as_bytes(), &[404], true);
}

/// These wait for their client, and it is told so. Meanwhile nobody else waits.
#[test]
fn a_client_that_stops_in_the_middle_gets_408_and_keeps_nobody_waiting() {
    let halves = [
        "GET /health HTTP/1.1\r\nHost: localhost\r\nA: b".to_string(),
        "G".to_string(),
        post(&format!("{JSON}Content-Length: 50\r\n"), "{"),
        post(
            &format!("{JSON}Content-Length: 50\r\nConnection: close\r\n"),
            "{",
        ),
        post(&format!("{JSON}Content-Length: 50\r\n"), "{").replace("1.1", "1.0"),
        chunked("2\r\n{"),
        chunked("0\r\n"),
        format!("PATCH /generos HTTP/1.1\r\n{HOST}Content-Length: 50\r\n\r\n"),
    ];
    cluster();
    thread::scope(|scope| {
        for half in halves.iter().cycle().take(40) {
            scope.spawn(move || {
                let mut stream = connect(address());
                stream.write_all(half.as_bytes()).expect("send");
                let told = next(&mut stream, false).unwrap_or_else(|| panic!("no answer: {half}"));
                assert_eq!(told.status, 408, "{half}\n{told:?}");
                assert!(told.body.contains("\"request_timeout\""), "{told:?}");
                assert!(next(&mut stream, false).is_none(), "{half}");
            });
        }
        // What refuses these, and then waits, holds nothing.
        let unknown = post(&format!("{JSON}Transfer-Encoding: xchunked\r\n"), "");
        let mut held: Vec<TcpStream> = (0..8)
            .map(|_| {
                let mut stream = connect(address());
                stream.write_all(unknown.as_bytes()).expect("send");
                stream
            })
            .collect();
        let text = insert("Entretanto");
        let whole = chunked(&format!("{:x}\r\n{text}\r\n0\r\n\r\n", text.len()));
        for _ in 0..10 {
            check(whole.as_bytes(), &[201], false);
            check(get("/health", HOST).as_bytes(), &[200], false);
        }
        for stream in &mut held {
            assert_eq!(next(stream, false).map(|told| told.status), Some(400));
            assert!(next(stream, false).is_none());
        }
    });
    // One that was cut off is told so, if it listens.
    for half in [&halves[0], &halves[2], &halves[5]] {
        let mut stream = connect(address());
        stream.write_all(half.as_bytes()).expect("send");
        stream.shutdown(std::net::Shutdown::Write).expect("the end");
        let told = next(&mut stream, false).expect("an answer");
        assert_eq!(told.status, 400, "{told:?}");
        assert!(next(&mut stream, false).is_none());
    }
}

#[test]
fn what_is_refused_leaves_nothing_behind() {
    let pid = cluster().status["pids"]["api"].to_string();
    let held = || {
        let count = |of: &str| {
            fs::read_dir(format!("/proc/{pid}/{of}"))
                .expect("a process")
                .count()
        };
        (count("fd"), count("task"))
    };
    let before = held();
    for _ in 0..300 {
        check(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[505], true);
        check(
            b"GET /health HTTP/2.0\r\nHost: localhost\r\n\r\n",
            &[505],
            true,
        );
        check(
            post(&format!("{JSON}Content-Length: x\r\n"), "").as_bytes(),
            &[400],
            true,
        );
    }
    wait_until("nothing is left of them", || {
        let now = held();
        now.0 <= before.0 + 20 && now.1 <= before.1 + 20
    });
}

/// An API of its own with few descriptors.
struct Api(Child, SocketAddr);

impl Api {
    fn start(files: u32) -> Api {
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = free.local_addr().expect("its address");
        drop(free);
        let mut command = clean_command_named("prlimit");
        command
            .args([&format!("--nofile={files}:{files}"), common::BINARY])
            .args(["serve", "--port", &address.port().to_string()])
            .env("MASTER1_URL", cluster().url("master1"))
            .env("MASTER2_URL", cluster().url("master2"))
            .env(
                "REDIS_URL",
                cluster().status["redis"].as_str().expect("redis"),
            )
            .stderr(Stdio::null());
        let api = Api(command.spawn().expect("start an API"), address);
        wait_until("it listens", || TcpStream::connect(address).is_ok());
        api
    }

    /// Sets its limit of descriptors, below the one it began with.
    fn limit(&self, files: u32) {
        let mut command = clean_command_named("prlimit");
        let pid = format!("--pid={}", self.0.id());
        let set = command.args([&pid, &format!("--nofile={files}:")]).status();
        assert!(set.expect("prlimit").success());
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn clients_have_a_bound_and_a_lack_of_descriptors_passes() {
    let api = Api::start(400);
    let ask = |stream: &mut TcpStream| {
        // One that is turned away may be gone by then.
        let _ = stream.write_all(get("/active-node", HOST).as_bytes());
        next(stream, false).map(|told| told.status)
    };
    let mut open = Vec::new();
    let (mut stream, told) = loop {
        let mut stream = connect(api.1);
        let told = ask(&mut stream);
        if told != Some(200) {
            break (stream, told);
        }
        open.push(stream);
        assert!(open.len() < 400, "it lets everybody in");
    };
    assert_eq!(told, Some(503));
    assert!(next(&mut stream, false).is_none());
    assert!(open.len() >= 16, "{}", open.len());
    assert!(open.iter_mut().all(|stream| ask(stream) == Some(200)));
    drop(open);
    wait_until("there is room again", || {
        ask(&mut connect(api.1)) == Some(200)
    });

    api.limit(10);
    let waiting: Vec<TcpStream> = (0..10)
        .map(|_| {
            let mut stream = connect(api.1);
            stream.write_all(PROBE.as_bytes()).expect("send");
            stream
        })
        .collect();
    thread::sleep(Duration::from_millis(300));
    api.limit(400);
    for mut stream in waiting {
        assert_eq!(next(&mut stream, false).map(|told| told.status), Some(200));
    }
}
