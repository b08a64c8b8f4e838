//! Asks the API which master it holds to be the active one.

use crate::cluster::NodeId;
use crate::config::Config;
use crate::limits;
use crate::own_api;
use serde_json::Value;

/// The master that the API serves from, or served from last.
///
/// # Errors
/// Why the API could not be asked, in words.
pub fn ask(config: &Config) -> Result<NodeId, String> {
    let address = own_api::reachable(config.listens_on());
    let (status, body) = own_api::get(address, "/active-node", limits::API_ASK)
        .map_err(|error| format!("http://{address}: {error}"))?;
    understand(status, &body)
        .ok_or_else(|| format!("http://{address} answers, but not as this program's API"))
}

fn understand(status: u16, body: &str) -> Option<NodeId> {
    let body: Value = serde_json::from_str(body.trim()).ok()?;
    let name = body["active_node"].as_str().filter(|_| status == 200)?;
    NodeId::BOTH.into_iter().find(|node| node.name() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_of_the_api_names_a_master() {
        let named = understand(200, "{\"active_node\":\"master2\"}\n");
        assert_eq!(named, Some(NodeId::Master2));
        assert_eq!(understand(200, r#"{"active_node":"master3"}"#), None);
        assert_eq!(understand(404, r#"{"active_node":"master2"}"#), None);
        assert_eq!(understand(200, "<html>"), None);
    }
}
