//! `GET /conflicts`: what the masters have settled when two versions of one row met.

use super::input::Fault;
use super::messages as msg;
use super::{App, Problem, Reply, Req};
use crate::cluster::{NodeId, NodeState};
use crate::conflicts::Cursor;
use crate::limits;
use serde_json::json;
use std::time::Instant;
use url::form_urlencoded;

/// A page, newest first, of both masters. `next` is the `after` of the next one, and null on the
/// last. A master that is down is not waited for; the answer says so.
pub fn list(app: &App, req: &Req) -> Result<Reply, Problem> {
    let (cursor, limit) = page(&req.query)?;
    let view = app.board.look().0;
    let skip = NodeId::BOTH.map(|node| {
        let seen = view.node(node);
        let silent = matches!(seen.state, NodeState::Down | NodeState::Unknown);
        silent.then(|| format!("it is {}: {}", seen.state, seen.reason))
    });
    let left = req.deadline.saturating_duration_since(Instant::now());
    let patience = limits::CONFLICTS_PATIENCE.min(left);
    let page = app.conflicts.page(skip, cursor, limit, patience);
    if page.not_asked.len() == NodeId::BOTH.len() {
        let mut problem = Problem::from(msg::NO_MASTER);
        problem.fields.push(("not_asked", json!(page.not_asked)));
        return Err(problem);
    }
    Ok(Reply::ok(
        200,
        json!({
            "ok": true,
            "data": page.entries,
            "next": page.next.map(Cursor::text),
            "not_asked": page.not_asked,
        }),
    ))
}

fn page(query: &str) -> Result<(Cursor, usize), Fault> {
    let (mut cursor, mut limit) = (None, None);
    let wrong = |what: String| Fault::new(msg::PARAMETER_INVALID, what);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let twice = match name.as_ref() {
            "after" => {
                let after = Cursor::parse(&value).ok_or_else(|| wrong("after".to_string()))?;
                cursor.replace(after).is_some()
            }
            "limit" => {
                let number = value.parse::<i64>().ok();
                let number = number.filter(|limit| (1..=limits::PAGE_MAX).contains(limit));
                let number =
                    number.ok_or_else(|| wrong(format!("limit (1..{})", limits::PAGE_MAX)))?;
                limit.replace(number).is_some()
            }
            // The name comes from the client: shown shortened, it goes into a JSON string only.
            other => return Err(wrong(other.chars().take(40).collect())),
        };
        if twice {
            return Err(wrong(format!("{name} (twice)")));
        }
    }
    let limit = limit.unwrap_or(limits::PAGE_DEFAULT);
    Ok((cursor.unwrap_or_default(), limit as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters() {
        let (cursor, limit) = page("after=3-&limit=7").expect("valid");
        assert_eq!((cursor.text().as_str(), limit), ("3-", 7));
        assert_eq!(page("").expect("valid").1, limits::PAGE_DEFAULT as usize);
        for bad in ["after=3", "limit=0", "limit=1001", "x=1", "limit=1&limit=2"] {
            assert_eq!(page(bad).expect_err(bad).message, msg::PARAMETER_INVALID);
        }
    }
}
