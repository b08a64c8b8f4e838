//! The configuration as a process gets it: bytes in its environment, its arguments and its `.env`, and addresses of IPv6.

mod common;

use common::{IN_THE_END, clean_command, wait_until};
use serde_json::Value;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, Output, Stdio};
use std::time::Instant;

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// An API without masters, ended with the test.
struct Api(Child);

impl Drop for Api {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn bytes_that_are_no_text_are_named_and_nothing_starts() {
    let began = Instant::now();
    for (name, value) in [
        ("MASTER1_URL", &b"postgresql://root:hunter2@db\xe9/imdb"[..]),
        ("ADMIN_TOKEN", b"hunter2hunter2hunter2\xff"),
        ("BIND", b"\x80"),
    ] {
        for command in [&["serve"][..], &["local", "up", "--ephemeral"]] {
            let output = clean_command()
                .args(command)
                .env(name, OsStr::from_bytes(value))
                .stdin(Stdio::null())
                .output()
                .expect("run imdb-ha");
            let told = said(&output);
            assert_eq!(output.status.code(), Some(2), "{name}: {told}");
            assert!(
                told.contains(&format!(
                    "{name}: is set in the environment and is not UTF-8"
                )),
                "{told}"
            );
            assert!(!told.contains("hunter2"), "{told}");
        }
    }
    let output = clean_command()
        .args(["serve", "--bind"])
        .arg(OsStr::from_bytes(b"\xff::1"))
        .output()
        .expect("run imdb-ha");
    let told = said(&output);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains(r#"argument 3, "\xFF::1""#), "{told}");
    // What no connection could ever do is refused here, and not by a master that looks down.
    let output = clean_command()
        .arg("serve")
        .env(
            "MASTER2_URL",
            "postgresql://root:hunter2@127.0.0.1:1/imdb?channel_binding=require",
        )
        .output()
        .expect("run imdb-ha");
    let told = said(&output);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(
        told.contains("MASTER2_URL: channel_binding=require") && !told.contains("hunter2"),
        "{told}"
    );
    assert!(began.elapsed() < IN_THE_END);
}

#[test]
fn a_file_of_another_editor_is_read_or_its_line_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let with = |file: &[u8]| {
        std::fs::write(folder.path().join(".env"), file).expect("write .env");
        let output = clean_command()
            .arg("serve")
            .current_dir(folder.path())
            .output()
            .expect("run imdb-ha");
        let told = said(&output);
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(!told.contains("hunter2"), "{told}");
        told
    };
    // It is read: the value of its first line is the one that is refused.
    let told = with(b"\xef\xbb\xbfPORT=0\r\nADMIN_TOKEN='hunter2hunter2hunter2'\r\n");
    assert!(told.contains("PORT: must be a whole number"), "{told}");
    let told = with(b"PORT=5001\nADMIN_TOKEN='hunter2hunter2hunter\xe9'\n");
    assert!(told.contains(".env: line 2 is not UTF-8"), "{told}");
    let told = with(b"PORT=5001\n\nADMIN_TOKEN=hunter2 hunter2\n");
    assert!(told.contains(".env: line 3 is not NAME=VALUE"), "{told}");
}

/// What stands before the first empty line, and what after it.
fn get(address: &str, path: &str) -> Option<(String, Value)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(IN_THE_END)).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.to_string(), serde_json::from_str(body).ok()?))
}

#[test]
fn an_api_on_ipv6_says_addresses_that_can_be_used() {
    let Ok(sockets) = ["[::1]:0", "[::1]:0"]
        .map(TcpListener::bind)
        .into_iter()
        .collect::<Result<Vec<_>, _>>()
    else {
        return; // This machine has no IPv6.
    };
    let ports: Vec<u16> = sockets
        .iter()
        .map(|socket| socket.local_addr().expect("its address").port())
        .collect();
    drop(sockets);
    let folder = tempfile::tempdir().expect("a folder");
    let here = format!("http://[::1]:{}", ports[0]);
    let elsewhere = "https://api.example/imdb".to_string();
    let apis = [
        ("::1", "", here),
        ("::", "https://api.example/imdb/", elsewhere),
    ];
    // Both at once, since each waits some seconds for a master before it listens.
    let running: Vec<Api> = apis
        .iter()
        .zip(&ports)
        .map(|((bind, advertise, _), port)| {
            let log = folder.path().join(port.to_string());
            let mut command = clean_command();
            command
                .args(["serve", "--port", &port.to_string(), "--bind", bind])
                .env("ADVERTISE", advertise)
                // None of these ports has a master or a Redis.
                .env("MASTER1_URL", "postgresql://root:root@[::1]:1/imdb")
                .env("MASTER2_URL", "postgresql://root:root@[::1]:2/imdb")
                .env("REDIS_URL", "redis://[::1]:3")
                .stderr(std::fs::File::create(log).expect("a log"));
            Api(command.spawn().expect("start an API"))
        })
        .collect();
    for ((bind, _, told), port) in apis.iter().zip(&ports) {
        let address = format!("[::1]:{port}");
        let mut status = Value::Null;
        wait_until("it answers", || match get(&address, "/status") {
            Some((_, body)) => {
                status = body;
                true
            }
            None => false,
        });
        assert_eq!(status["api"]["address"], format!("[{bind}]:{port}"));
        assert_eq!(status["api"]["advertised"], told.as_str());
        assert_eq!(status["masters"]["master1"]["address"], "[::1]:1");
        let health = clean_command()
            .args(["health", "--bind", bind, "--port", &port.to_string()])
            .output()
            .expect("run imdb-ha");
        assert!(said(&health).contains("\"ok\":false"), "{}", said(&health));
        let text = std::fs::read_to_string(folder.path().join(port.to_string())).expect("a log");
        let listens = format!("listens on http://[{bind}]:{port}");
        assert!(text.contains(&listens), "{text}");
    }
    drop(running);
}
