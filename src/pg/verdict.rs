//! Whose fault it is that a server refused a statement.

use postgres::error::SqlState;

/// Classes of codes, or whole codes, with which a server refuses a good statement for a reason of its own. Those of class 42
/// are among them because the statements of this program are fixed: a column that they name is gone from the server.
const OF_THE_SERVER: &[&str] = &[
    "25006", // read-only
    "42",    // a table, column, key, function or privilege is missing
    "3F000", // a schema is missing
    "53",    // out of disk, memory or files
    "54000", // transaction ids are running out
    "58",    // an error of the operating system
    "XX",    // corruption
];

/// Whether a server that refuses with this code would refuse any client's write. That a value is wrong, a key taken, a lock held
/// or a time limit over is no reason of the server's, nor are too many connections, of which a session knows nothing.
pub fn is_of_the_server(code: &SqlState) -> bool {
    let is = |prefix: &&str| code.code().starts_with(*prefix);
    *code != SqlState::TOO_MANY_CONNECTIONS && OF_THE_SERVER.iter().any(is)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_mistake_is_no_fault_of_the_server() {
        for code in [
            "25006", "53100", "53200", "58030", "42703", "42501", "XX001",
        ] {
            assert!(is_of_the_server(&SqlState::from_code(code)), "{code}");
        }
        for code in [
            "22001", "23505", "23502", "40001", "55P03", "57014", "P0001", "53300",
        ] {
            assert!(!is_of_the_server(&SqlState::from_code(code)), "{code}");
        }
    }
}
