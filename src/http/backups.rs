//! The routes of the backups.

use super::input::{self, Fault};
use super::messages as msg;
use super::{App, Problem, Reply, Req};
use crate::backup::Kind;
use crate::backup::keeper::{Refused, Wanted};
use crate::cluster::NodeId;
use serde_json::{Value, json};

/// `POST /backups`: begins a backup or a trial restore, and says where to follow it.
pub fn begin(app: &App, req: &Req) -> Result<Reply, Problem> {
    input::no_parameters(&req.query)?;
    let (node, wanted) = wanted(&req.body)?;
    let job = app
        .backups
        .begin(node, &wanted)
        .map_err(|refused| match refused {
            Refused::Off(why) => Problem::from(msg::BACKUPS_OFF).because(why),
            Refused::NotUp(why) => Problem::new(msg::BACKUP_NODE_DOWN, node.name()).because(why),
            Refused::NoBackup => Problem::new(msg::BACKUP_NOT_FOUND, node.name()),
            Refused::Busy(job) => {
                let mut problem = Problem::from(msg::BACKUP_BUSY);
                problem.fields.push(("job", job.as_json()));
                problem
            }
        })?;
    let mut reply = Reply::ok(202, json!({ "ok": true, "job": job.as_json() }));
    reply
        .headers
        .push(("Location", format!("/backups/jobs/{}", job.id)));
    Ok(reply)
}

/// `GET /backups`: what there is, newest first, what runs and what comes next.
pub fn list(app: &App, req: &Req) -> Result<Reply, Problem> {
    input::no_parameters(&req.query)?;
    Ok(Reply::ok(200, app.backups.details()))
}

/// `GET /backups/jobs/{id}`: how far one job is, or what came of it.
pub fn job(app: &App, req: &Req) -> Result<Reply, Problem> {
    input::no_parameters(&req.query)?;
    let id = req.id.as_deref().and_then(|id| id.parse().ok());
    let job = id.and_then(|id| app.backups.job(id));
    let job = job.ok_or_else(|| Problem::from(msg::JOB_NOT_FOUND))?;
    Ok(Reply::ok(200, json!({ "ok": true, "job": job })))
}

/// What a body asks for.
fn wanted(body: &[u8]) -> Result<(NodeId, Wanted), Fault> {
    let example = "{\"node\": \"master1\", \"type\": \"full\"}";
    let mut fields = input::object(body, invalid(example))?;
    let node = fields.remove("node");
    let node = NodeId::BOTH
        .into_iter()
        .find(|known| node.as_ref().is_some_and(|node| node == known.name()));
    let node = node.ok_or_else(|| invalid("node (master1, master2)"))?;
    let kind = fields.remove("type");
    let label = match (
        kind.as_ref().and_then(Value::as_str),
        fields.remove("label"),
    ) {
        (_, None | Some(Value::Null)) => None,
        // A label that is not there is told apart from one that no backup can have; no such thing reaches a command.
        (Some("drill"), Some(Value::String(label))) => Some(label),
        _ => return Err(invalid("label (a text, with type drill)")),
    };
    // A misspelt field would do something else than what was meant.
    if let Some(name) = fields.keys().next() {
        return Err(invalid(&name.chars().take(40).collect::<String>()));
    }
    match kind.as_ref().and_then(Value::as_str) {
        Some("drill") => Ok((node, Wanted::Drill(label))),
        kind => {
            let kind: Option<Kind> = kind.and_then(|kind| kind.parse().ok());
            let kind = kind.ok_or_else(|| invalid("type (full, diff, incr, drill)"))?;
            Ok((node, Wanted::Backup(kind)))
        }
    }
}

fn invalid(what: &str) -> Fault {
    Fault::new(msg::BACKUP_INVALID, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_names_a_master_and_what_is_to_be_done() {
        let read = |body: &str| {
            wanted(body.as_bytes()).map_err(|fault| (fault.message.code, fault.detail))
        };
        let asked = |body: &str| read(body).expect(body);
        assert_eq!(
            asked(r#"{"node": "master2", "type": "diff"}"#),
            (NodeId::Master2, Wanted::Backup(Kind::Diff))
        );
        assert_eq!(
            asked(r#"{"node": "master1", "type": "drill"}"#),
            (NodeId::Master1, Wanted::Drill(None))
        );
        assert_eq!(
            asked(r#"{"node": "master1", "type": "drill", "label": "20261124-015735F"}"#),
            (
                NodeId::Master1,
                Wanted::Drill(Some("20261124-015735F".to_string()))
            )
        );
        for (body, named) in [
            (r#"{"type": "full"}"#, "node "),
            (r#"{"node": "master3", "type": "full"}"#, "node "),
            (r#"{"node": 1, "type": "full"}"#, "node "),
            (r#"{"node": "master1"}"#, "type "),
            (r#"{"node": "master1", "type": "Full"}"#, "type "),
            (
                r#"{"node": "master1", "type": "full", "label": "x"}"#,
                "label ",
            ),
            (
                r#"{"node": "master1", "type": "drill", "label": 7}"#,
                "label ",
            ),
            (
                r#"{"node": "master1", "type": "full", "kind": "x"}"#,
                "kind",
            ),
            ("[]", "{"),
        ] {
            let (code, detail) = read(body).expect_err(body);
            assert_eq!(code, "backup_invalid", "{body}");
            assert!(detail.starts_with(named), "{body}: {detail}");
        }
        assert_eq!(read("{").expect_err("no JSON").0, "body_invalid");
    }
}
