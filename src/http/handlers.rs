//! What each route does.

use super::input;
use super::messages as msg;
use super::router::ROUTES;
use super::{App, Problem, Reply, Req, keyed};
use crate::cluster::{ClusterView, NodeId, Role};
use crate::dispatch::{DispatchError, Failed};
use crate::genres::Changed;
use crate::limits;
use crate::pg;
use crate::quiet::Quiet;
use postgres::error::SqlState;
use serde_json::{Map, Value, json};

type Handled = Result<Reply, Problem>;

/// `GET /`: what there is.
pub fn index(_: &App, req: &Req) -> Handled {
    input::no_parameters(&req.query)?;
    let endpoints: Vec<Value> = ROUTES
        .iter()
        .map(|route| json!({ "method": route.method, "path": route.path, "about": route.about }))
        .collect();
    let body = json!({ "ok": true, "name": "imdb-ha", "version": env!("CARGO_PKG_VERSION"), "endpoints": endpoints });
    Ok(Reply::ok(200, body))
}

/// `GET /generos`: a page. `next` is the `after` of the next one, and null on the last.
pub fn list(app: &App, req: &Req) -> Handled {
    let page = input::page(&req.query)?;
    let (mut rows, node) = app
        .store
        .list(page.after, page.genero, page.limit + 1, req.deadline)
        .map_err(|failed| problem_of(&app.verdicts, &failed))?;
    let more = rows.len() as i64 > page.limit;
    rows.truncate(page.limit as usize);
    let next = rows.last().filter(|_| more).map(|row| row.id_genero);
    Ok(Reply::ok(
        200,
        json!({ "ok": true, "data": rows, "next": next, "node_used": node }),
    ))
}

/// `GET /generos/{id}`.
pub fn read(app: &App, req: &Req) -> Handled {
    input::no_parameters(&req.query)?;
    let id = path_id(req)?;
    let (row, node) = app
        .store
        .read(id, req.deadline)
        .map_err(|failed| problem_of(&app.verdicts, &failed))?;
    let row = row.ok_or_else(|| Problem::new(msg::GENERO_NOT_FOUND, id.to_string()))?;
    Ok(Reply::ok(200, written(json!(row), node, vec![])))
}

/// `PUT /generos/{id}`.
pub fn update(app: &App, req: &Req) -> Handled {
    input::no_parameters(&req.query)?;
    let id = path_id(req)?;
    let body = input::genre(&req.body)?;
    if body.id.is_some_and(|of_body| of_body != id) {
        return Err(msg::ID_MISMATCH.into());
    }
    if let Some(key) = req.idempotency_key.clone() {
        return keyed::change(app, req, key, (id, Some(body.genero)), body.ignored);
    }
    let (row, node) = app
        .store
        .update(id, body.genero, req.deadline)
        .map_err(|failed| problem_of(&app.verdicts, &failed))?;
    changed(row, id, node, body.ignored)
}

/// `DELETE /generos/{id}`.
pub fn delete(app: &App, req: &Req) -> Handled {
    input::no_parameters(&req.query)?;
    let id = path_id(req)?;
    if let Some(key) = req.idempotency_key.clone() {
        return keyed::change(app, req, key, (id, None), vec![]);
    }
    let (row, node) =
        app.store
            .delete(id, req.deadline)
            .map_err(|failed| match is_in_use(&failed) {
                true => Problem::new(msg::GENERO_IN_USE, id.to_string()),
                false => problem_of(&app.verdicts, &failed),
            })?;
    changed(row, id, node, vec![])
}

/// Whether a row was kept because others belong to it.
pub(super) fn is_in_use(failed: &Failed) -> bool {
    let DispatchError::Verdict { error, .. } = &*failed.error else {
        return false;
    };
    error.code() == Some(&SqlState::FOREIGN_KEY_VIOLATION)
}

/// `GET /health`.
pub fn health(app: &App, req: &Req) -> Handled {
    input::no_parameters(&req.query)?;
    let view = app.board.look().0;
    let now_ms = app.board.now_ms();
    if view.serving {
        let durability = view.durability_at(now_ms);
        let seen = view.node(view.active);
        let writes = view.takes_writes();
        // A master that serves nothing but reads is better than none: a proxy that asks here must not turn them away too.
        let body = json!({
            "ok": writes,
            "active_node": view.active,
            "state": seen.state,
            "writes": if writes { "ok" } else { "refused" },
            "reason": (!writes).then_some(&seen.reason),
            "cluster": app.config.roster.cluster(),
            "alarms": alarms(app),
            "durability": durability.level,
            "durability_since": at(now_ms, durability.since_ms),
            "redis": app.history.redis().state,
        });
        return Ok(Reply::ok(200, body));
    }
    let mut problem = Problem::from(msg::UNHEALTHY).because(view.outage_reason());
    problem.fields.push(("active_node", json!(view.active)));
    let cluster = app.config.roster.cluster();
    problem.fields.push(("cluster", json!(cluster)));
    Err(problem)
}

/// `GET /active-node`.
pub fn active_node(app: &App, req: &Req) -> Handled {
    input::no_parameters(&req.query)?;
    Ok(Reply::ok(200, json!({ "active_node": app.board.active() })))
}

/// `GET /status`.
pub fn status(app: &App, req: &Req) -> Handled {
    input::no_parameters(&req.query)?;
    let view = app.board.look().0;
    let now_ms = app.board.now_ms();
    let durability = view.durability_at(now_ms);
    let masters: Map<String, Value> = NodeId::BOTH
        .into_iter()
        .map(|node| {
            (
                node.name().to_string(),
                master_status(app, &view, node, now_ms),
            )
        })
        .collect();
    let config = &app.config;
    let body = json!({
        "ok": view.takes_writes(),
        "version": env!("CARGO_PKG_VERSION"),
        "started": at(now_ms, 0),
        "cluster": app.config.roster.cluster(),
        "active_node": view.active,
        "serving": view.serving,
        "since": at(now_ms, view.route_since_ms),
        "reason": (!view.serving).then(|| view.outage_reason()),
        "holding_writes": view.holding_writes,
        "writes_under_way": app.board.writes_under_way(view.active),
        "durability": {
            "level": durability.level,
            "since": at(now_ms, durability.since_ms),
            "reason": durability.why,
        },
        "role": role(view.role_at(now_ms)),
        "paused_until": view.paused_until_ms.map(|until| at(now_ms, until)),
        "conflicts": conflicts(app),
        "masters": masters,
        "alarms": alarms(app),
        "redis": app.history.redis(),
        "api": {
            "address": config.listens_on().to_string(),
            "advertised": config.advertised,
            "workers": config.http_workers,
            "connections_per_master": config.pool_size,
            "admin": if config.admin_token.is_some() { "token" } else { "loopback" },
        },
        "compare": app.comparer.summary(),
        "backups": app.backups.summary(),
        "history": app.history.newest(limits::HISTORY_IN_STATUS),
    });
    Ok(Reply::ok(200, body))
}

/// What a person has to look at, in words.
pub(super) fn alarms(app: &App) -> Vec<String> {
    let of_node = |node: NodeId| {
        let alarms = app.board.details(node).map(|seen| seen.alarms());
        let named = move |alarm| format!("{node}: {alarm}");
        alarms.unwrap_or_default().into_iter().map(named)
    };
    let of_nodes = NodeId::BOTH.into_iter().flat_map(of_node);
    let view = app.board.look().0;
    let of_backups = app.backups.alarms().into_iter();
    let of_backups = of_backups.map(|alarm| format!("{}: {}", alarm.node, alarm.text));
    let of_view = view.alarms(app.board.now_ms(), limits::ALARM_AFTER_MS);
    of_view
        .into_iter()
        .chain(of_nodes)
        .chain(app.watch.alarms())
        .chain(app.comparer.alarm())
        .chain(of_backups)
        .chain(app.history.alarms())
        .chain(app.privileges.alarms())
        .collect()
}

/// How many conflicts each master has in its log; null for one that does not answer.
fn conflicts(app: &App) -> Map<String, Value> {
    let of_node = |node: NodeId| {
        let count = app.board.details(node).and_then(|seen| seen.conflicts);
        (node.name().to_string(), json!(count))
    };
    NodeId::BOTH.into_iter().map(of_node).collect()
}

fn path_id(req: &Req) -> Result<i32, Problem> {
    Ok(input::path_id(req.id.as_deref().unwrap_or_default())?)
}

/// The answer to an update or a deletion.
fn changed(changed: Changed, id: i32, node: NodeId, ignored: Vec<String>) -> Handled {
    match changed {
        Changed::Row(row) => Ok(Reply::ok(200, written(json!(row), node, ignored))),
        Changed::NotThere => Err(Problem::new(msg::GENERO_NOT_FOUND, id.to_string())),
        Changed::Unknown => Err(msg::OUTCOME_UNKNOWN.into()),
    }
}

/// The manual's answer about one row, and what of the body meant nothing.
pub(super) fn written(row: Value, node: NodeId, ignored: Vec<String>) -> Value {
    let mut body = json!({ "ok": true, "data": row, "node_used": node });
    if !ignored.is_empty() {
        body["ignored"] = json!(ignored);
    }
    body
}

/// What this process is among those that serve the same pair, and where the one that decides is.
fn role(role: &Role) -> Value {
    let leader = match role {
        Role::Follower(leader) => Some(&leader.address),
        _ => None,
    };
    json!({ "name": role.name(), "leader": leader })
}

fn master_status(app: &App, view: &ClusterView, node: NodeId, now_ms: u64) -> Value {
    let seen = view.node(node);
    let peer_facts = view.node(node.peer()).facts.as_ref();
    json!({
        "address": app.config.master(node).address(),
        "state": seen.state,
        "since": at(now_ms, seen.since_ms),
        "reason": seen.reason,
        "heard_ms_ago": now_ms.saturating_sub(seen.heard_ms),
        // How far this master is behind its peer, as the peer knows it.
        "behind_bytes": peer_facts.and_then(|facts| facts.peer_lag_bytes()),
        "behind_ms": peer_facts.and_then(|facts| facts.peer_lag_ms),
        "replication": app.board.details(node),
    })
}

/// A time of the picture, past or to come, as a point in time.
pub(super) fn at(now_ms: u64, then_ms: u64) -> String {
    let ahead = jiff::SignedDuration::from_millis(then_ms as i64 - now_ms as i64);
    let then = jiff::Timestamp::now()
        .checked_add(ahead)
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{then:.3}")
}

/// The answer to a call that failed.
pub(super) fn problem_of(verdicts: &Quiet, failed: &Failed) -> Problem {
    let unknown = failed.may_have_happened;
    match &*failed.error {
        DispatchError::NoMaster { reason } | DispatchError::Late { reason } if unknown => {
            Problem::from(msg::OUTCOME_UNKNOWN).because(reason)
        }
        DispatchError::NoMaster { reason } => Problem::from(msg::NO_MASTER).because(reason),
        DispatchError::Late { reason } => Problem::from(msg::LATE).because(reason),
        DispatchError::Overloaded if unknown => msg::OUTCOME_UNKNOWN.into(),
        DispatchError::Overloaded => msg::OVERLOADED.into(),
        DispatchError::Verdict { node, error } => {
            let text = format!("{node}: {}", pg::explain(error));
            if !unknown && error.code() == Some(&SqlState::SEQUENCE_GENERATOR_LIMIT_EXCEEDED) {
                return Problem::from(msg::NO_FREE_ID).because(text);
            }
            if let Some(before) = verdicts.admit(&text) {
                log::error!("{text} ({before} more like the last one)");
            }
            let timeouts = [SqlState::QUERY_CANCELED, SqlState::LOCK_NOT_AVAILABLE];
            let late = error.code().is_some_and(|code| timeouts.contains(code));
            let message = match (unknown, late) {
                (true, _) => msg::OUTCOME_UNKNOWN,
                (false, true) => msg::LATE,
                (false, false) => msg::DATABASE_ERROR,
            };
            Problem::from(message).because(text)
        }
    }
}
