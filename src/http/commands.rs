//! What a person tells the cluster, and what it tells of its past.

use super::handlers::at;
use super::input;
use super::messages as msg;
use super::{App, Problem, Reply, Req};
use crate::cluster::{NodeId, Refusal};
use crate::limits;
use crate::span;
use crate::supervisor::CommandError;
use serde_json::json;
use std::time::Duration;

type Handled = Result<Reply, Problem>;

/// `POST /switch-to-primary`.
pub fn switch_to_primary(app: &App, req: &Req) -> Handled {
    switch(app, req, NodeId::Master1)
}

/// `POST /switch-to-secondary`.
pub fn switch_to_secondary(app: &App, req: &Req) -> Handled {
    switch(app, req, NodeId::Master2)
}

fn switch(app: &App, req: &Req, to: NodeId) -> Handled {
    let [force] = input::parameters(&req.query, ["force"])?;
    let force = input::flag("force", force.as_deref())?;
    let done = app.supervisor.switch(to, force);
    done.map_err(|error| problem_of(app, to, error))?;
    Ok(Reply::ok(200, json!({ "ok": true, "active_node": to })))
}

/// `POST /pause?for=...`: nobody moves the traffic but a person, for so long.
pub fn pause(app: &App, req: &Req) -> Handled {
    let [time] = input::parameters(&req.query, ["for"])?;
    let in_range = |time: &Duration| *time >= Duration::from_secs(1) && *time <= limits::PAUSE_MAX;
    let time = time.as_deref().and_then(span::parse).filter(in_range);
    let wrong = || Problem::new(msg::PARAMETER_INVALID, "for (1s..24h: 90s, 10m, 2h)");
    hold(app, Some(time.ok_or_else(wrong)?))
}

/// `POST /resume`.
pub fn resume(app: &App, req: &Req) -> Handled {
    input::no_parameters(&req.query)?;
    hold(app, None)
}

fn hold(app: &App, time: Option<Duration>) -> Handled {
    let active = app.board.active();
    let done = app.supervisor.pause(time);
    done.map_err(|error| problem_of(app, active, error))?;
    let now_ms = app.board.now_ms();
    let until = time.map(|time| at(now_ms, now_ms + time.as_millis() as u64));
    let body = json!({ "ok": true, "paused_until": until, "active_node": app.board.active() });
    Ok(Reply::ok(200, body))
}

/// `GET /history`: every change, newest first, with its reason and how long it took.
pub fn history(app: &App, req: &Req) -> Handled {
    let [limit] = input::parameters(&req.query, ["limit"])?;
    let most = limits::HISTORY_MAX;
    let limit = match limit {
        None => most,
        Some(text) => text
            .parse()
            .ok()
            .filter(|limit| (1..=most).contains(limit))
            .ok_or_else(|| Problem::new(msg::PARAMETER_INVALID, format!("limit (1..{most})")))?,
    };
    let (entries, source, why) = app.history.shared_by_all(limit);
    let mut body = json!({ "ok": true, "source": source, "data": entries });
    if let Some(why) = why {
        body["reason"] = json!(why);
    }
    Ok(Reply::ok(200, body))
}

fn problem_of(app: &App, to: NodeId, error: CommandError) -> Problem {
    let Refusal { code, detail } = match error {
        CommandError::Refused(refusal) => refusal,
        CommandError::NoAnswer => {
            let why = "the supervisor did not answer in time";
            return Problem::from(msg::OUTCOME_UNKNOWN).because(why);
        }
    };
    let message = match code {
        "target_down" => msg::TARGET_DOWN,
        "target_behind" => msg::TARGET_BEHIND,
        "target_unfit" => msg::TARGET_UNFIT,
        "handover_busy" => msg::HANDOVER_BUSY,
        "not_leader" => msg::NOT_LEADER,
        _ => msg::NO_MASTER,
    };
    let mut problem = Problem::new(message, to.name()).because(detail);
    let active = json!(app.board.active());
    problem.fields.push(("active_node", active));
    problem
}
