//! Asks an API of this program, over a plain socket: a whole HTTP client for one short question is too
//! much, and one that does not answer is no reason to wait.

use crate::config::Secret;
use crate::limits;
use std::io::{Error, Read, Result, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Where an API that listens on `address` is reached from the same machine.
pub fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// The status and the body of the answer to a `GET`.
///
/// # Errors
/// Those of the socket, also when `patience` is over, and an answer that is none.
pub fn get(address: SocketAddr, path: &str, patience: Duration) -> Result<(u16, String)> {
    ask(address, "GET", path, "", patience)
}

/// The status and the body, in English, of the answer to a `POST` without a body, with the token of whoever may change the cluster.
///
/// # Errors
/// Those of [`get`].
pub fn post(
    address: SocketAddr,
    path: &str,
    token: Option<&Secret>,
    patience: Duration,
) -> Result<(u16, String)> {
    let token = token.map(|token| format!("Authorization: Bearer {}\r\n", token.reveal()));
    let headers = format!(
        "Content-Length: 0\r\nAccept-Language: en\r\n{}",
        token.unwrap_or_default()
    );
    ask(address, "POST", path, &headers, patience)
}

fn ask(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &str,
    patience: Duration,
) -> Result<(u16, String)> {
    let deadline = Instant::now() + patience;
    // An order may take a while, and connecting to this machine does not.
    let mut stream = TcpStream::connect_timeout(&address, patience.min(limits::API_ASK))?;
    stream.set_write_timeout(Some(patience))?;
    stream.set_read_timeout(Some(patience))?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\n{headers}Connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut piece = [0; 1024];
    loop {
        match stream.read(&mut piece)? {
            0 => break,
            count => answer.extend_from_slice(&piece[..count]),
        }
        if answer.len() > limits::API_ANSWER_MAX_BYTES || Instant::now() > deadline {
            return Err(Error::other("the answer does not end"));
        }
    }
    understand(&answer).ok_or_else(|| Error::other("the answer is not HTTP"))
}

fn understand(answer: &[u8]) -> Option<(u16, String)> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?;
    Some((status.parse().ok()?, body.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_a_status_and_a_body() {
        let found = understand(b"HTTP/1.1 404 Not Found\r\nA: b\r\n\r\n{}\n");
        assert_eq!(found, Some((404, "{}\n".to_string())));
        for none in [&b""[..], b"HTTP/1.1 200 OK", b"220 smtp\r\n\r\nx"] {
            assert_eq!(understand(none), None);
        }
    }
}
