//! Asks the API to move the traffic, as a person would with curl.

use crate::cluster::NodeId;
use crate::config::Config;
use crate::limits;
use crate::own_api;
use serde_json::Value;
use std::time::{Duration, Instant};

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
    let address = own_api::reachable(config.listens_on());
    let token = config.admin_token.as_ref();
    let (status, body) = own_api::post(address, &path(to, force), token, limits::RESTORE_ORDER)
        .map_err(|error| format!("http://{address}: {error}"))?;
    let body = serde_json::from_str(body.trim()).unwrap_or(Value::Null);
    Ok(Answer { status, body })
}

/// Waits until the API has seen that `node` is out of service, for [`limits::RESTORE_ORDER`] at the most. Until its next probe it would
/// fail over there when the other master is stopped. An API that does not answer is not waited for.
pub fn wait_unfit(config: &Config, node: NodeId) {
    let address = own_api::reachable(config.listens_on());
    let deadline = Instant::now() + limits::RESTORE_ORDER;
    while Instant::now() < deadline {
        match own_api::get(address, "/status", limits::API_ASK) {
            Ok((200, body)) if serves(&body, node) => {
                std::thread::sleep(Duration::from_millis(20));
            }
            _ => return,
        }
    }
}

/// Whether the API would serve from a master, by its own word.
fn serves(status: &str, node: NodeId) -> bool {
    let status: Value = serde_json::from_str(status.trim()).unwrap_or(Value::Null);
    let state = status["masters"][node.name()]["state"].as_str();
    state.is_some_and(|state| ["up", "suspect"].contains(&state))
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

    #[test]
    fn only_a_master_that_is_up_is_served_from() {
        let status =
            |state: &str| json!({ "masters": { "master2": { "state": state } } }).to_string();
        assert!(serves(&status("up"), NodeId::Master2));
        assert!(serves(&status("suspect"), NodeId::Master2));
        assert!(!serves(&status("catching-up"), NodeId::Master2));
        assert!(!serves(&status("up"), NodeId::Master1));
        assert!(!serves("<html>", NodeId::Master2));
    }
}
