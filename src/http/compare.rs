//! The routes of the comparison.

use super::input::{self, Fault};
use super::messages as msg;
use super::{App, Problem, Reply, Req};
use crate::comparer::Refused;
use crate::limits;
use serde_json::{Value, json};

/// `POST /compare`: begins a comparison, of the tables in the body or of all.
pub fn begin(app: &App, req: &Req) -> Result<Reply, Problem> {
    input::no_parameters(&req.query)?;
    match app.comparer.begin(tables(&req.body)?) {
        Ok(job) => Ok(Reply::ok(202, json!({ "ok": true, "job": job }))),
        Err(Refused::UnknownTable(name)) => Err(Problem::new(
            msg::TABLE_UNKNOWN,
            name.chars().take(130).collect::<String>(),
        )),
        Err(Refused::Busy(job)) => {
            let mut problem = Problem::from(msg::COMPARE_BUSY);
            problem.fields.push(("job", json!(job)));
            Err(problem)
        }
    }
}

/// `GET /compare`: what runs and what came out last.
pub fn result(app: &App, req: &Req) -> Result<Reply, Problem> {
    input::no_parameters(&req.query)?;
    Ok(Reply::ok(200, app.comparer.details()))
}

/// The tables that a body names; none for an empty body.
fn tables(body: &[u8]) -> Result<Vec<String>, Fault> {
    if body.is_empty() {
        return Ok(Vec::new());
    }
    let mut fields = input::object(body, msg::TABLES_INVALID.into())?;
    let named = match fields.remove("tables") {
        None => Vec::new(),
        Some(Value::Array(named)) if named.len() <= limits::COMPARE_TABLES_MAX => named,
        Some(_) => return Err(msg::TABLES_INVALID.into()),
    };
    // A misspelt field would compare everything, which is not what was meant.
    if !fields.is_empty() {
        return Err(msg::TABLES_INVALID.into());
    }
    let names = named.into_iter().map(|name| match name {
        Value::String(name) if !name.is_empty() && !name.contains('\0') => Ok(name),
        _ => Err(Fault::from(msg::TABLES_INVALID)),
    });
    names.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_names_tables_or_is_not_there() {
        let names = |body: &str| tables(body.as_bytes()).map_err(|fault| fault.message.code);
        assert_eq!(names(""), Ok(vec![]));
        assert_eq!(names("{}"), Ok(vec![]));
        assert_eq!(
            names(r#"{"tables": ["generos", "x.y"]}"#),
            Ok(vec!["generos".into(), "x.y".into()])
        );
        for (body, code) in [
            ("[]", "tables_invalid"),
            (r#"{"tables": "generos"}"#, "tables_invalid"),
            (r#"{"tables": [7]}"#, "tables_invalid"),
            (r#"{"tables": [""]}"#, "tables_invalid"),
            (r#"{"tables": ["a\u0000"]}"#, "tables_invalid"),
            (r#"{"table": ["generos"]}"#, "tables_invalid"),
            ("{", "body_invalid"),
        ] {
            assert_eq!(names(body), Err(code), "{body}");
        }
    }
}
