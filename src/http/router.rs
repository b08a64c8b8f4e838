//! The routes, as one table, and the way from a method and a path to one of them.

use super::messages as msg;
use super::{App, Done, Problem, Reply, Req};
use super::{backups, commands, compare, conflicts, create, handlers, load, metrics, titulos};
use serde_json::json;
use std::fs::File;

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Anyone,
    /// Whoever may change the cluster; see `access.rs`.
    Admin,
}

/// What a route waits for. What needs a master may have to wait for one, and what does not must be
/// answered all the same, however many requests are waiting; see `gate.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nothing: the front answers it from memory.
    Front,
    /// A master, as a read or a switch.
    Worker,
    /// A master, as a change: one that is held up by a commit must not take the workers of the reads.
    Writer,
    /// The same, with a JSON body.
    WriterWithBody,
    /// What is no data: the history in Redis, the conflict logs, a comparison, the backups. It must not take the workers of the rows.
    Aside,
    /// The same, with a JSON body.
    AsideWithBody,
    /// The same, with a JSON body or without any.
    AsideMaybeWithBody,
    /// The same, with the body as a file.
    Upload,
    /// Nothing, with a JSON body: the write lane answers later.
    Lane,
}

impl Place {
    /// Whether it is what is no data.
    pub const fn is_aside(self) -> bool {
        matches!(
            self,
            Place::Aside | Place::AsideWithBody | Place::AsideMaybeWithBody | Place::Upload
        )
    }

    /// Whether the handler reads a JSON body.
    pub const fn takes_body(self) -> bool {
        matches!(
            self,
            Place::WriterWithBody | Place::AsideWithBody | Place::AsideMaybeWithBody | Place::Lane
        )
    }
}

/// A handler.
#[derive(Clone, Copy)]
pub enum Handler {
    /// Returns the answer.
    Now(fn(&App, &Req) -> Result<Reply, Problem>),
    /// Never waits; the answer is handed to [`Done`] later.
    Later(fn(&App, &Req, Done)),
    /// Gets the body as a file.
    File(fn(&App, &Req, File) -> Result<Reply, Problem>),
}

/// One route. A path has at most one `{id}`.
pub struct Route {
    pub method: &'static str,
    pub path: &'static str,
    pub access: Access,
    pub place: Place,
    pub handler: Handler,
    pub about: &'static str,
}

impl Route {
    /// Whether it is a write that an `Idempotency-Key` makes safe to repeat.
    pub fn takes_key(&self) -> bool {
        self.method != "GET" && self.path.starts_with("/generos")
    }

    /// Whether it begins what goes on after its answer, and ends with the process.
    pub fn begins_a_job(&self) -> bool {
        self.method == "POST" && ["/load", "/compare", "/backups"].contains(&self.path)
    }
}

const fn route(
    method: &'static str,
    path: &'static str,
    access: Access,
    place: Place,
    handler: fn(&App, &Req) -> Result<Reply, Problem>,
    about: &'static str,
) -> Route {
    Route {
        method,
        path,
        access,
        place,
        handler: Handler::Now(handler),
        about,
    }
}

/// A route whose answer comes later.
const fn later(
    method: &'static str,
    path: &'static str,
    access: Access,
    handler: fn(&App, &Req, Done),
    about: &'static str,
) -> Route {
    Route {
        method,
        path,
        access,
        place: Place::Lane,
        handler: Handler::Later(handler),
        about,
    }
}

/// Every route of the API.
#[rustfmt::skip] // one row, one line
pub const ROUTES: &[Route] = &[
    route("GET", "/", Access::Anyone, Place::Front, handlers::index, "this list"),
    route("GET", "/generos", Access::Anyone, Place::Worker, handlers::list, "genres by id: `?limit=`, `?after=` (the `next` of the page before), `?genero=` (part of the name, however it is typed: `accion` is in `Acción`)"),
    later("POST", "/generos", Access::Anyone, create::create, "inserts `{\"genero\": text}`, with an `id_genero` or without"),
    route("GET", "/generos/{id}", Access::Anyone, Place::Worker, handlers::read, "one genre"),
    route("PUT", "/generos/{id}", Access::Anyone, Place::WriterWithBody, handlers::update, "renames one genre"),
    route("DELETE", "/generos/{id}", Access::Anyone, Place::Writer, handlers::delete, "deletes one genre"),
    route("GET", "/generos/{id}/titulos", Access::Anyone, Place::Worker, titulos::of_genre, "the titles of one genre, with the parameters of `/titulos`"),
    route("GET", "/titulos", Access::Anyone, Place::Worker, titulos::list, "titles by words, genre, years, type and votes, sorted; see [Films](#films)"),
    route("GET", "/titulos/{id}", Access::Anyone, Place::Worker, titulos::read, "one title, `tt0111161` or `111161`, with ratings, directors, writers and cast"),
    route("GET", "/personas/{id}", Access::Anyone, Place::Worker, titulos::person, "one person, `nm0000151` or `151`, with a page of films: `?limit=`, `?after=`"),
    Route { method: "POST", path: "/load", access: Access::Admin, place: Place::Upload, handler: Handler::File(load::begin), about: "loads the body, one of IMDb's files (.tsv or .tsv.gz), into both masters; answers 202 with the job. `?allow_empty=true` takes one without rows, `?allow_shrink=true` one that leaves far fewer rows" },
    route("GET", "/load/{id}", Access::Anyone, Place::Front, load::job, "how far a load is, or what came of it"),
    route("GET", "/health", Access::Anyone, Place::Front, handlers::health, "200 while a master serves (`ok` is false when it refuses writes), else 500; with the alarms"),
    route("GET", "/active-node", Access::Anyone, Place::Front, handlers::active_node, "the master that serves, or served last"),
    route("GET", "/status", Access::Anyone, Place::Front, handlers::status, "everything the program knows"),
    route("GET", "/metrics", Access::Anyone, Place::Front, metrics::metrics, "the figures of it for Prometheus"),
    route("POST", "/switch-to-primary", Access::Admin, Place::Worker, commands::switch_to_primary, "moves the traffic to master1; `?force=true` at once, whatever has not arrived there yet"),
    route("POST", "/switch-to-secondary", Access::Admin, Place::Worker, commands::switch_to_secondary, "moves the traffic to master2, likewise"),
    route("POST", "/pause", Access::Admin, Place::Worker, commands::pause, "`?for=10m`: nobody but a person moves the traffic for so long"),
    route("POST", "/resume", Access::Admin, Place::Worker, commands::resume, "ends the pause"),
    route("GET", "/history", Access::Anyone, Place::Aside, commands::history, "what changed, why, from what to what, for how long, and how long writes stood still; newest first, `?limit=`"),
    route("POST", "/compare", Access::Admin, Place::AsideMaybeWithBody, compare::begin, "begins to compare the masters: all tables, or those of `{\"tables\": [name]}`"),
    route("GET", "/compare", Access::Anyone, Place::Front, compare::result, "the comparison that runs, and the result of the last one"),
    route("GET", "/conflicts", Access::Anyone, Place::Aside, conflicts::list, "settled conflicts of both masters, newest first: `?limit=`, `?after=` (the `next` of the page before)"),
    route("GET", "/backups", Access::Anyone, Place::Front, backups::list, "the backups of both masters, newest first, what is being done, what comes next, and the alarms"),
    route("POST", "/backups", Access::Admin, Place::AsideWithBody, backups::begin, "begins a backup, `{\"node\": \"master1\", \"type\": \"full\"}` (or diff, incr), or a trial restore, `\"type\": \"drill\"` with a `label` or of the newest; answers 202 with the job"),
    route("GET", "/backups/jobs/{id}", Access::Anyone, Place::Front, backups::job, "how far a job is, or what came of it"),
];

/// The route of a request and the `{id}` of its path.
///
/// # Errors
/// 404 for an unknown path; 405, with the methods that it takes, for a known one.
pub fn find(method: &str, path: &str) -> Result<(&'static Route, Option<String>), Problem> {
    let path = without_slash(path);
    // tiny_http leaves the body of an answer to HEAD away by itself.
    let wanted = if method == "HEAD" { "GET" } else { method };
    let mut of_method = ROUTES.iter().filter(|route| route.method == wanted);
    if let Some(found) = of_method.find_map(|route| Some((route, matches(route.path, path)?))) {
        return Ok(found);
    }
    let allowed = allowed(path);
    if allowed.is_empty() {
        return Err(msg::NOT_FOUND.into());
    }
    let mut problem = Problem::new(msg::METHOD_NOT_ALLOWED, allowed.clone());
    problem.headers.push(("Allow", allowed));
    Err(problem)
}

fn without_slash(path: &str) -> &str {
    match path {
        "/" => path,
        _ => path.strip_suffix('/').unwrap_or(path),
    }
}

/// The methods that a path takes; empty for an unknown one.
fn allowed(path: &str) -> String {
    let matching = ROUTES
        .iter()
        .filter(|route| matches(route.path, path).is_some());
    let mut allowed: Vec<&str> = matching.map(|route| route.method).collect();
    if allowed.contains(&"GET") {
        allowed.push("HEAD");
    }
    allowed.join(", ")
}

/// The answer to `OPTIONS` of a path, or of `*`.
///
/// # Errors
/// 404 for an unknown path.
pub fn options(path: &str) -> Result<Reply, Problem> {
    let allowed = match path {
        "*" => "GET, HEAD, POST, PUT, DELETE".to_string(),
        path => allowed(without_slash(path)),
    };
    if allowed.is_empty() {
        return Err(msg::NOT_FOUND.into());
    }
    let mut reply = Reply::ok(200, json!({ "ok": true, "methods": allowed }));
    reply.headers.push(("Allow", format!("{allowed}, OPTIONS")));
    Ok(reply)
}

/// Whether `path` fits `pattern`; if so, what stands in the place of `{id}`.
fn matches(pattern: &str, path: &str) -> Option<Option<String>> {
    let Some((before, after)) = pattern.split_once("{id}") else {
        return (pattern == path).then_some(None);
    };
    let id = path.strip_prefix(before)?.strip_suffix(after)?;
    (!id.contains('/')).then(|| Some(id.to_string()))
}

/// The table as Markdown, as README shows it.
pub fn as_markdown() -> String {
    let mut text = String::from("| method | path | who | what it does |\n|---|---|---|---|\n");
    for route in ROUTES {
        let who = match route.access {
            Access::Anyone => "anyone",
            Access::Admin => "admin",
        };
        text.push_str(&format!(
            "| {} | `{}` | {who} | {} |\n",
            route.method, route.path, route.about
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(method: &str, path: &str) -> Result<(&'static str, Option<String>), (u16, String)> {
        find(method, path)
            .map(|(route, id)| (route.path, id))
            .map_err(|problem| {
                let reply = problem.into_reply(super::msg::Language::English);
                let allow = reply.headers.iter().find(|(name, _)| *name == "Allow");
                (
                    reply.status,
                    allow.map(|(_, value)| value.clone()).unwrap_or_default(),
                )
            })
    }

    #[test]
    fn paths_lead_to_routes() {
        assert_eq!(found("GET", "/generos"), Ok(("/generos", None)));
        assert_eq!(found("HEAD", "/generos/"), Ok(("/generos", None)));
        assert_eq!(
            found("PUT", "/generos/7"),
            Ok(("/generos/{id}", Some("7".to_string())))
        );
        assert_eq!(found("GET", "/"), Ok(("/", None)));
    }

    #[test]
    fn other_paths_and_methods_are_told_apart() {
        for unknown in ["/x", "", "/generos/7/8", "///", "/health/x", "/Health"] {
            assert_eq!(
                found("GET", unknown),
                Err((404, String::new())),
                "{unknown}"
            );
        }
        assert_eq!(
            found("PATCH", "/generos"),
            Err((405, "GET, POST, HEAD".to_string()))
        );
        assert_eq!(
            found("GET", "/switch-to-primary"),
            Err((405, "POST".to_string()))
        );
    }
}
