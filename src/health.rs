//! `imdb-ha health`: what `GET /health` of the API on this machine says, for whoever watches over it and has no curl, such as the engine that runs
//! its container.

use crate::config::Config;
use crate::limits;
use crate::output;
use crate::own_api;
use std::net::SocketAddr;
use std::process::ExitCode;

/// Prints the answer; exit code 0 only when a master serves.
pub fn report(config: &Config) -> ExitCode {
    let address = own_api::reachable(SocketAddr::new(config.bind, config.port));
    match own_api::get(address, "/health", limits::API_ASK) {
        Ok((status, body)) => {
            output::print(body.trim_end());
            match status {
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
