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

/// With which a rule of the database refuses a row: a constraint, or a trigger. It may hold for this row or for all of them.
const OF_A_RULE: &[&str] = &["23502", "23514", "P0001"];

/// Whether a rule of the database has refused the row, which only a row that should pass can judge: there is none in the schema that
/// a row of this program would break.
pub fn is_of_a_rule(code: &SqlState) -> bool {
    OF_A_RULE.contains(&code.code())
}

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
        for (code, rule) in [("23514", true), ("P0001", true), ("23505", false)] {
            assert_eq!(is_of_a_rule(&SqlState::from_code(code)), rule, "{code}");
        }
    }
}
