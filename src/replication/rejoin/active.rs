//! Asks the API which master it holds to be the active one. A plain request over a socket: it needs
//! no client library, and an API that does not answer is no reason to wait.

use crate::cluster::NodeId;
use crate::config::Config;
use crate::limits;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Instant;

/// The master that the API serves from, or served from last.
///
/// # Errors
/// Why the API could not be asked, in words.
pub(super) fn ask(config: &Config) -> Result<NodeId, String> {
    let ip = match config.bind {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    let address = SocketAddr::new(ip, config.port);
    let answer = request(address).map_err(|error| format!("http://{address}: {error}"))?;
    understand(&answer)
        .ok_or_else(|| format!("http://{address} answers, but not as this program's API"))
}

fn request(address: SocketAddr) -> std::io::Result<Vec<u8>> {
    let deadline = Instant::now() + limits::API_ASK;
    let mut stream = TcpStream::connect_timeout(&address, limits::API_ASK)?;
    stream.set_write_timeout(Some(limits::API_ASK))?;
    stream.set_read_timeout(Some(limits::API_ASK))?;
    let request =
        format!("GET /active-node HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut piece = [0; 1024];
    while answer.len() < limits::API_ANSWER_MAX_BYTES && Instant::now() < deadline {
        match stream.read(&mut piece)? {
            0 => break,
            count => answer.extend_from_slice(&piece[..count]),
        }
    }
    Ok(answer)
}

fn understand(answer: &[u8]) -> Option<NodeId> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n")?;
    if head.split(' ').nth(1) != Some("200") {
        return None;
    }
    let body: Value = serde_json::from_str(body.trim()).ok()?;
    let name = body["active_node"].as_str()?;
    NodeId::BOTH.into_iter().find(|node| node.name() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_of_the_api_names_a_master() {
        let answer = |status: &str, body: &str| {
            understand(format!("HTTP/1.1 {status}\r\nA: b\r\n\r\n{body}").as_bytes())
        };
        let named = answer("200 OK", r#"{"active_node":"master2"}"#);
        assert_eq!(named, Some(NodeId::Master2));
        assert_eq!(answer("200 OK", r#"{"active_node":"master3"}"#), None);
        assert_eq!(answer("404 No", r#"{"active_node":"master2"}"#), None);
        assert_eq!(answer("200 OK", "<html>"), None);
        assert_eq!(understand(b""), None);
    }
}
