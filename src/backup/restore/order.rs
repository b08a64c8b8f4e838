//! Asks the API to move the traffic, as a person would with curl.

use crate::cluster::NodeId;
use crate::config::Config;
use crate::limits;
use serde_json::Value;
use std::io::{Error, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Instant;

/// What the API said.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
}

impl Answer {
    /// Its reason for a refusal, in its own words.
    pub fn reason(&self) -> String {
        let text = |name: &str| self.body[name].as_str();
        let words = text("reason")
            .or_else(|| text("code"))
            .unwrap_or("no reason");
        format!("{} ({words})", self.status)
    }
}

/// Where the API is, for programs on this machine.
fn address(config: &Config) -> SocketAddr {
    let ip = match config.bind {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, config.port)
}

/// The path by which the traffic is moved to a master.
pub fn path(to: NodeId, force: bool) -> String {
    let name = match to {
        NodeId::Master1 => "primary",
        NodeId::Master2 => "secondary",
    };
    let force = if force { "?force=true" } else { "" };
    format!("/switch-to-{name}{force}")
}

/// The master that the API serves from, or served from last.
///
/// # Errors
/// Why it could not be asked.
pub fn active(config: &Config) -> Result<NodeId, String> {
    let answer = ask(config, "GET", "/active-node")?;
    let name = answer.body["active_node"].as_str().unwrap_or_default();
    let node = NodeId::BOTH.into_iter().find(|node| node.name() == name);
    node.ok_or_else(|| format!("http://{} is not this program's API", address(config)))
}

/// Asks for the traffic to be moved.
///
/// # Errors
/// Why it could not be asked; a refusal is an answer.
pub fn switch(config: &Config, to: NodeId, force: bool) -> Result<Answer, String> {
    ask(config, "POST", &path(to, force))
}

fn ask(config: &Config, method: &str, path: &str) -> Result<Answer, String> {
    let address = address(config);
    let answer = request(config, address, method, path);
    let answer = answer.map_err(|error| format!("http://{address}: {error}"))?;
    understand(&answer).ok_or_else(|| format!("http://{address} answers, but not in HTTP"))
}

fn request(
    config: &Config,
    address: SocketAddr,
    method: &str,
    path: &str,
) -> std::io::Result<Vec<u8>> {
    let patience = limits::RESTORE_ORDER;
    let deadline = Instant::now() + patience;
    let mut stream = TcpStream::connect_timeout(&address, limits::API_ASK)?;
    stream.set_write_timeout(Some(patience))?;
    stream.set_read_timeout(Some(patience))?;
    let token = match &config.admin_token {
        Some(token) => format!("Authorization: Bearer {}\r\n", token.reveal()),
        None => String::new(),
    };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nAccept-Language: en\r\n{token}Content-Length: 0\r\n\
         Connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut piece = [0; 1024];
    loop {
        match stream.read(&mut piece)? {
            0 => return Ok(answer),
            count => answer.extend_from_slice(&piece[..count]),
        }
        if answer.len() > limits::API_ANSWER_MAX_BYTES || Instant::now() > deadline {
            return Err(Error::other("the answer does not end"));
        }
    }
}

fn understand(answer: &[u8]) -> Option<Answer> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?;
    Some(Answer {
        status: status.parse().ok()?,
        body: serde_json::from_str(body.trim()).unwrap_or(Value::Null),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_refusal_is_an_answer_with_its_reason() {
        let answer = understand(
            b"HTTP/1.1 409 Conflict\r\nA: b\r\n\r\n{\"code\":\"not_leader\",\"reason\":\"ask it\"}",
        );
        let answer = answer.expect("an answer");
        assert_eq!(answer.body["code"], json!("not_leader"));
        assert_eq!(answer.reason(), "409 (ask it)");
        assert_eq!(understand(b"HTTP/1.1 200 OK"), None);
        assert_eq!(understand(b"220 smtp\r\n\r\n"), None);
    }
}
