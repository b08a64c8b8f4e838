//! Asks the API to move the traffic, as a person would with curl.

use crate::cluster::NodeId;
use crate::config::Config;
use crate::limits;
use crate::own_api;
use serde_json::Value;
use std::net::SocketAddr;

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

/// The path by which the traffic is moved to a master.
pub fn path(to: NodeId, force: bool) -> String {
    let name = match to {
        NodeId::Master1 => "primary",
        NodeId::Master2 => "secondary",
    };
    let force = if force { "?force=true" } else { "" };
    format!("/switch-to-{name}{force}")
}

/// Asks for the traffic to be moved.
///
/// # Errors
/// Why it could not be asked; a refusal is an answer.
pub fn switch(config: &Config, to: NodeId, force: bool) -> Result<Answer, String> {
    let address = own_api::reachable(SocketAddr::new(config.bind, config.port));
    let token = config.admin_token.as_ref();
    let (status, body) = own_api::post(address, &path(to, force), token, limits::RESTORE_ORDER)
        .map_err(|error| format!("http://{address}: {error}"))?;
    let body = serde_json::from_str(body.trim()).unwrap_or(Value::Null);
    Ok(Answer { status, body })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_refusal_is_an_answer_with_its_reason() {
        let answer = Answer {
            status: 409,
            body: json!({ "code": "not_leader", "reason": "ask it" }),
        };
        assert_eq!(answer.reason(), "409 (ask it)");
        let silent = Answer {
            status: 500,
            body: Value::Null,
        };
        assert_eq!(silent.reason(), "500 (no reason)");
    }
}
