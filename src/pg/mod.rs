//! Access to PostgreSQL: connections with bounds, and calls that their caller can give up on.

pub mod identity;
mod pool;
mod sessions;
mod settings;
pub mod tls;
mod unsent;
mod verdict;

pub use pool::Session;
pub use sessions::{Call, CallError, Sessions};
pub use settings::{
    ConnectError, InvalidUrl, Settings, connection_settings, for_probes, for_requests,
    master_settings, over_socket, without_waiting,
};
pub use unsent::unsent;
pub use verdict::{is_of_a_rule, is_of_the_server};

use std::error::Error;

/// The whole cause of a PostgreSQL error on one line: the server's message with its code and
/// detail, or the chain of causes of the driver.
pub fn explain(error: &postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => {
            let detail = db
                .detail()
                .map(|detail| format!(" ({detail})"))
                .unwrap_or_default();
            format!(
                "{} {}: {}{detail}",
                db.severity(),
                db.code().code(),
                db.message()
            )
        }
        None => explain_any(error),
    }
}

/// The chain of causes of any error on one line.
pub fn explain_any(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Some errors of the driver repeat their source in their own text.
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text.replace('\n', " ")
}
