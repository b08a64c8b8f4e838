//! `imdb-ha health`: what `GET /health` of the API on this machine says, for whoever watches over it and has no curl, such as the engine that runs
//! its container.

use crate::config::Config;
use crate::limits;
use crate::output;
use crate::own_api;
use serde_json::Value;
use std::process::ExitCode;

/// Exit code of a strict question when a master serves and a person has to look at something.
const TO_LOOK_AT: u8 = 2;

/// Prints the answer; exit code 0 only when a master serves. Alarms change nothing about that unless it is asked for, since whoever
/// restarts what is not healthy would end the one API that serves, and mend no master by it.
pub fn report(config: &Config, strict: bool) -> ExitCode {
    let address = own_api::reachable(config.listens_on());
    match own_api::get(address, "/health", limits::API_ASK) {
        Ok((status, body)) => {
            output::print(body.trim_end());
            match status {
                200 if strict && !is_well(&body) => ExitCode::from(TO_LOOK_AT),
                200 => ExitCode::SUCCESS,
                _ => ExitCode::FAILURE,
            }
        }
        Err(error) => {
            output::say(&format!("ask the API at {address}: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Whether an answer says that writes are taken and that there is no alarm.
fn is_well(body: &str) -> bool {
    let Ok(body) = serde_json::from_str::<Value>(body) else {
        return false;
    };
    let quiet = body["alarms"].as_array().is_some_and(Vec::is_empty);
    quiet && body["ok"] == true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_and_refused_writes_are_not_well() {
        assert!(is_well(r#"{"ok":true,"alarms":[]}"#));
        for unwell in [
            r#"{"ok":true,"alarms":["master2: down"]}"#,
            r#"{"ok":false,"alarms":[]}"#,
            r#"{"ok":true}"#,
            "",
        ] {
            assert!(!is_well(unwell), "{unwell}");
        }
    }
}
