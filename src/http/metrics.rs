//! `GET /metrics`: the picture of now in the text format of Prometheus. Everything is read off the board
//! at the moment of the question, so there is nothing to register and nothing to keep in step.

use super::{App, Problem, Reply, Req, handlers, input};
use crate::cluster::{ClusterView, Level, NodeId, NodeState, Role};
use serde_json::Value;
use std::fmt::Write;
use std::sync::Arc;

/// One family of figures.
struct Metric {
    name: &'static str,
    /// `gauge` or `counter`.
    kind: &'static str,
    help: &'static str,
    /// Its figures: the labels as they are written, and the value. A figure that is not known is left out.
    figures: fn(&Seen) -> Vec<(String, f64)>,
}

/// What the figures are read off.
struct Seen<'a> {
    app: &'a App,
    view: Arc<ClusterView>,
    now_ms: u64,
    compare: Value,
    backups: Value,
}

const fn gauge(
    name: &'static str,
    help: &'static str,
    figures: fn(&Seen) -> Vec<(String, f64)>,
) -> Metric {
    Metric {
        name,
        kind: "gauge",
        help,
        figures,
    }
}

#[rustfmt::skip] // one row, one line
const METRICS: &[Metric] = &[
    gauge("imdb_ha_build_info", "1, with the version of the program.", |_| vec![(format!("{{version=\"{}\"}}", env!("CARGO_PKG_VERSION")), 1.0)]),
    gauge("imdb_ha_serving", "Whether a master serves.", |seen| one(truth(seen.view.serving))),
    gauge("imdb_ha_active", "Whether a master is the active one.", |seen| of_masters(|node| Some(truth(seen.view.active == node)))),
    gauge("imdb_ha_master_state", "1 for the state that a master is in.", states),
    gauge("imdb_ha_master_heard_seconds", "How long ago a master answered.", |seen| of_masters(|node| Some(seconds(seen.now_ms.saturating_sub(seen.view.node(node).heard_ms))))),
    gauge("imdb_ha_replication_streaming", "Whether a master's changes are on their way to its peer.", |seen| of_masters(|node| seen.view.node(node).facts.as_ref().map(|facts| truth(facts.peer_streaming)))),
    gauge("imdb_ha_replication_behind_bytes", "WAL of its peer that a master has not confirmed.", |seen| of_masters(|node| seen.view.node(node.peer()).facts.as_ref()?.peer_lag_bytes().map(|bytes| bytes as f64))),
    gauge("imdb_ha_replication_behind_seconds", "Age of the newest change of its peer that a master has confirmed.", |seen| of_masters(|node| seen.view.node(node.peer()).facts.as_ref()?.peer_lag_ms.map(seconds))),
    gauge("imdb_ha_commit_wait_seconds", "How long the oldest commit on a master that waits for its peer has waited; 0 when none does.", |seen| of_masters(|node| Some(seconds(seen.view.node(node).facts.as_ref()?.longest_wait_ms.unwrap_or(0))))),
    Metric { name: "imdb_ha_walsender_wakeups_total", kind: "counter", help: "Walsenders of a master that had missed a wake-up and were woken by this process.", figures: |seen| of_masters(|node| Some(seen.app.board.wakeups(node) as f64)) },
    gauge("imdb_ha_durability", "1 for the durability that a write has now.", |seen| levels(seen.view.durability_at(seen.now_ms).level)),
    gauge("imdb_ha_writes_under_way", "Updates, deletions and batches of inserts that run on the active master.", |seen| one(seen.app.board.writes_under_way(seen.view.active) as f64)),
    gauge("imdb_ha_conflicts", "Settled conflicts in the log of a master.", |seen| of_masters(|node| Some(seen.app.board.details(node)?.conflicts? as f64))),
    gauge("imdb_ha_compare_differing_rows", "Rows in which the masters differed at the last comparison.", |seen| compared(seen, "differing")),
    gauge("imdb_ha_compare_unsettled_rows", "Rows of which the last comparison could not tell.", |seen| compared(seen, "unsettled")),
    gauge("imdb_ha_compare_rows", "Rows of the last comparison.", |seen| compared(seen, "rows")),
    gauge("imdb_ha_compare_duration_seconds", "How long the last comparison took.", |seen| compared(seen, "seconds")),
    gauge("imdb_ha_compare_timestamp_seconds", "When the last comparison began.", compared_at),
    gauge("imdb_ha_backup_age_seconds", "How long ago the newest usable backup of a master ended.", |seen| of_masters(|node| seen.backup(node)["newest_good"]["age_seconds"].as_f64())),
    gauge("imdb_ha_backup_size_bytes", "Bytes of the database in that backup.", |seen| of_masters(|node| seen.backup(node)["newest_good"]["size_bytes"].as_f64())),
    gauge("imdb_ha_backups", "Backups of a master.", |seen| of_masters(|node| seen.backup(node)["backups"].as_f64())),
    gauge("imdb_ha_backups_bad", "Backups of a master that cannot be restored.", |seen| of_masters(|node| seen.backup(node)["bad"].as_f64())),
    gauge("imdb_ha_backup_running", "Whether something is being done to the backups.", |seen| one(truth(!seen.backups["running"].is_null()))),
    gauge("imdb_ha_backup_drill_ok", "Whether the last trial restore found a good backup.", |seen| seen.backups["last_drill"]["verified"]["ok"].as_bool().map_or(vec![], |ok| one(truth(ok)))),
    gauge("imdb_ha_alarms", "What a person has to look at; /status has the words.", |seen| one(handlers::alarms(seen.app).len() as f64)),
    gauge("imdb_ha_paused", "Whether a person holds the traffic where it is.", |seen| one(truth(seen.view.paused_until_ms.is_some()))),
    gauge("imdb_ha_leader", "Whether this process decides, of those that serve the same pair.", |seen| one(truth(*seen.view.role_at(seen.now_ms) == Role::Leader))),
    gauge("imdb_ha_redis_up", "Whether Redis takes writes.", |seen| one(truth(seen.app.history.redis().state == "up"))),
    Metric { name: "imdb_ha_changes_total", kind: "counter", help: "Changes since the start of this process, by what changed.", figures: |seen| seen.app.history.counts().into_iter().map(|(what, count)| (format!("{{what=\"{what}\"}}"), count as f64)).collect() },
];

/// `GET /metrics`.
pub fn metrics(app: &App, req: &Req) -> Result<Reply, Problem> {
    input::no_parameters(&req.query)?;
    let seen = Seen {
        app,
        view: app.board.look().0,
        now_ms: app.board.now_ms(),
        compare: app.comparer.summary(),
        backups: app.backups.summary(),
    };
    let mut text = String::new();
    for metric in METRICS {
        let Metric {
            name, kind, help, ..
        } = metric;
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in (metric.figures)(&seen) {
            let _ = writeln!(text, "{name}{labels} {value}");
        }
    }
    Ok(Reply::text(200, text))
}

impl Seen<'_> {
    /// What is known of the backups of a master.
    fn backup(&self, node: NodeId) -> &Value {
        &self.backups["masters"][node.name()]
    }
}

fn one(value: f64) -> Vec<(String, f64)> {
    vec![(String::new(), value)]
}

fn truth(is: bool) -> f64 {
    f64::from(u8::from(is))
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1_000.0
}

fn of_masters(figure: impl Fn(NodeId) -> Option<f64>) -> Vec<(String, f64)> {
    let label = |node: NodeId| Some((format!("{{master=\"{node}\"}}"), figure(node)?));
    NodeId::BOTH.into_iter().filter_map(label).collect()
}

fn states(seen: &Seen) -> Vec<(String, f64)> {
    let of_node = |node: NodeId| {
        let now = seen.view.node(node).state;
        NodeState::ALL.map(|state| {
            let labels = format!("{{master=\"{node}\",state=\"{state}\"}}");
            (labels, truth(state == now))
        })
    };
    NodeId::BOTH.into_iter().flat_map(of_node).collect()
}

fn levels(now: Level) -> Vec<(String, f64)> {
    let all = [Level::ZeroLoss, Level::Degraded, Level::Async];
    let figure = |level: Level| {
        (
            format!("{{level=\"{}\"}}", level.name()),
            truth(level == now),
        )
    };
    all.map(figure).to_vec()
}

fn compared(seen: &Seen, field: &str) -> Vec<(String, f64)> {
    seen.compare[field].as_f64().map_or(vec![], one)
}

fn compared_at(seen: &Seen) -> Vec<(String, f64)> {
    let at = seen.compare["at"].as_str().and_then(|at| at.parse().ok());
    at.map_or(vec![], |at: jiff::Timestamp| one(at.as_second() as f64))
}
