//! The API as its users meet it, over real masters. One cluster serves all tests of this file.

mod common;

use common::{Answer, Cluster, NO_HANG, wait_until};
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::OnceLock;
use std::time::Duration;

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(Cluster::start)
}

const JSON: &[(&str, &str)] = &[("Content-Type", "application/json")];

/// Sends bytes and returns what comes back until the server closes or `patience` is over.
fn raw(bytes: &[u8], patience: Duration) -> String {
    let address = cluster().api.strip_prefix("http://").expect("an address");
    let mut stream = TcpStream::connect(address).expect("connect");
    stream
        .set_read_timeout(Some(patience))
        .expect("a time limit");
    stream.write_all(bytes).expect("send");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn put(id: i64, genero: &str) -> Answer {
    let body = json!({ "genero": genero }).to_string();
    cluster().ask(
        "PUT",
        &format!("/generos/{id}"),
        Some(&body),
        &[("Content-Type", "application/json")],
    )
}

#[test]
fn a_genre_is_inserted_read_renamed_and_deleted() {
    let api = cluster();
    let made = api.add("  Telenovela  ");
    assert_eq!(made.status, 201, "{made:?}");
    let id = made.id();
    // The manual's JSON, and not a field more.
    let expected = json!({ "ok": true, "data": { "id_genero": id, "genero": "Telenovela" }, "node_used": "master1" });
    assert_eq!(made.body, expected);

    assert_eq!(
        api.get(&format!("/generos/{id}")).body["data"],
        expected["data"]
    );
    let renamed = put(id, "Culebrón");
    assert_eq!(
        (renamed.status, renamed.body["data"]["genero"].as_str()),
        (200, Some("Culebrón"))
    );
    let deleted = api.ask("DELETE", &format!("/generos/{id}"), None, &[]);
    assert_eq!(
        (deleted.status, deleted.body["data"]["genero"].as_str()),
        (200, Some("Culebrón"))
    );

    for gone in [
        api.get(&format!("/generos/{id}")),
        put(id, "x"),
        api.ask("DELETE", &format!("/generos/{id}"), None, &[]),
    ] {
        assert_eq!((gone.status, gone.code()), (404, "genero_not_found"));
    }
}

#[test]
fn an_id_of_ones_own_is_taken_once() {
    let api = cluster();
    let first = api.post("/generos", r#"{"id_genero": 500001, "genero": "Uno"}"#);
    assert_eq!((first.status, first.id()), (201, 500_001));
    let second = api.post("/generos", r#"{"id_genero": 500001, "genero": "Uno"}"#);
    assert_eq!((second.status, second.code()), (409, "id_taken"));
    assert!(
        second.body["error"]
            .as_str()
            .is_some_and(|text| text.contains("500001"))
    );
    // Names may repeat.
    assert_eq!(api.add("Uno").status, 201);
}

#[test]
fn drawn_ids_step_over_the_ones_that_are_taken() {
    let api = cluster();
    let before = api.add("antes").id();
    // Every id that either master would draw next, and one at the far end of all of them.
    for id in (before + 1)..=(before + 60) {
        api.post(
            "/generos",
            &json!({ "id_genero": id, "genero": "ocupado" }).to_string(),
        );
    }
    api.post(
        "/generos",
        r#"{"id_genero": 2147483647, "genero": "el último"}"#,
    );
    for _ in 0..3 {
        let after = api.add("después");
        assert_eq!(after.status, 201, "{after:?}");
        assert!(
            after.id() > before && after.id() % 2 == 1 && after.id() < 100_000,
            "{after:?}"
        );
    }
}

#[test]
fn the_28_genres_of_imdb_have_their_ids_on_both_masters() {
    let api = cluster();
    let page = api.get("/generos?limit=28");
    let ids: Vec<i64> = page.body["data"]
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| row["id_genero"].as_i64().expect("an id"))
        .collect();
    assert_eq!(ids, (1..=28).collect::<Vec<i64>>());
    assert_eq!(page.body["data"][27]["genero"], "Western");
    let seeds = "SELECT g::text FROM generos AS g WHERE id_genero <= 28 ORDER BY id_genero";
    let of = |node: &str| -> Vec<String> {
        api.sql(node)
            .query(seeds, &[])
            .expect("rows")
            .iter()
            .map(|row| row.get(0))
            .collect()
    };
    assert_eq!(of("master1"), of("master2"));
}

#[test]
fn pages_follow_each_other_and_filters_find() {
    let api = cluster();
    let mut seen = Vec::new();
    let mut after = json!(0);
    while !after.is_null() {
        let page = api.get(&format!("/generos?limit=10&after={after}&genero=O"));
        assert_eq!(page.status, 200);
        let rows = page.body["data"].as_array().expect("rows").clone();
        assert!(rows.len() <= 10);
        seen.extend(
            rows.iter()
                .map(|row| row["id_genero"].as_i64().expect("an id")),
        );
        after = page.body["next"].clone();
    }
    assert!(seen.windows(2).all(|pair| pair[0] < pair[1]));
    assert!(
        seen.contains(&11) || seen.contains(&8),
        "Documental holds an o: {seen:?}"
    );
    let found = api.get("/generos?genero=CI%C3%93N&limit=5");
    assert_eq!(found.body["data"][0]["genero"], "Acción");
    for bad in [
        "limit=0",
        "limit=1001",
        "after=x",
        "nada=1",
        "limit=1&limit=2",
        "genero=%00",
    ] {
        let refused = api.get(&format!("/generos?{bad}"));
        assert_eq!(
            (refused.status, refused.code()),
            (400, "parameter_invalid"),
            "{bad}"
        );
    }
}

#[test]
fn bad_bodies_are_400_with_the_field_and_never_500() {
    let api = cluster();
    let long = "x".repeat(256);
    for (body, code) in [
        ("{}", "genero_required"),
        (r#"{"genero": ""}"#, "genero_required"),
        (r#"{"genero": 7}"#, "genero_required"),
        (r#"{"genero": "a\u0000b"}"#, "genero_nul"),
        (r#"{"id_genero": 2147483648, "genero": "x"}"#, "id_invalid"),
        (r#"{"id_genero": "1", "genero": "x"}"#, "id_invalid"),
        (r#"{"id_genero": 1.5, "genero": "x"}"#, "id_invalid"),
        ("[1]", "body_not_object"),
        ("{\"genero\": ", "body_invalid"),
        (&format!(r#"{{"genero": "{long}"}}"#), "genero_too_long"),
    ] {
        let answer = api.post("/generos", body);
        assert_eq!((answer.status, answer.code()), (400, code), "{body}");
        assert_eq!(answer.body["ok"], false);
    }
    let head = "POST /generos HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n";
    let broken = [
        head.as_bytes(),
        b"Content-Length: 14\r\n\r\n{\"genero\":\"\xc3\"}",
    ]
    .concat();
    let answer = raw(&broken, Duration::from_secs(5));
    assert!(
        answer.starts_with("HTTP/1.1 400") && answer.contains("body_not_utf8"),
        "{answer}"
    );
    assert_eq!(api.get("/generos/0").code(), "id_invalid");
    assert_eq!(api.get("/generos/99999999999").code(), "id_invalid");
    let mismatch = api.ask(
        "PUT",
        "/generos/5",
        Some(r#"{"id_genero": 6, "genero": "x"}"#),
        JSON,
    );
    assert_eq!(mismatch.code(), "id_mismatch");
}

#[test]
fn the_wrong_path_method_type_and_size_have_their_status() {
    let api = cluster();
    assert_eq!(
        (api.get("/nada").status, api.get("/nada").code()),
        (404, "not_found")
    );
    let method = api.ask("PATCH", "/generos", None, &[]);
    assert_eq!(
        (method.status, method.header("Allow")),
        (405, Some("GET, POST, HEAD"))
    );
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json; charset=latin1",
    ] {
        let answer = api.ask(
            "POST",
            "/generos",
            Some(r#"{"genero": "x"}"#),
            &[("Content-Type", kind)],
        );
        assert_eq!(
            (answer.status, answer.code()),
            (415, "type_unsupported"),
            "{kind}"
        );
    }
    let utf8 = [("Content-Type", "application/json; charset=UTF-8")];
    assert_eq!(
        api.ask("POST", "/generos", Some(r#"{"genero": "ñ"}"#), &utf8)
            .status,
        201
    );

    let large = format!(r#"{{"genero": "x", "relleno": "{}"}}"#, "x".repeat(70_000));
    let answer = api.post("/generos", &large);
    assert_eq!((answer.status, answer.code()), (413, "body_too_large"));
    let chunked = format!(
        "POST /generos HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{large}\r\n0\r\n\r\n",
        large.len()
    );
    assert!(raw(chunked.as_bytes(), Duration::from_secs(5)).starts_with("HTTP/1.1 413"));
    // A length that could not even be allocated must not end the process.
    for length in ["99999999999999", "18446744073709551615"] {
        let absurd = format!(
            "POST /generos HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\nx"
        );
        let answer = raw(absurd.as_bytes(), Duration::from_secs(2));
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    }
    assert_eq!(api.get("/health").status, 200);
}

#[test]
fn ambiguous_framing_is_refused() {
    for headers in [
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Transfer-Encoding: xchunked\r\n",
    ] {
        let request = format!(
            "POST /generos HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n0\r\n\r\n"
        );
        let answer = raw(request.as_bytes(), Duration::from_secs(5));
        assert!(answer.contains("framing_invalid"), "{headers} {answer}");
    }
}

#[test]
fn a_chunked_body_and_an_unknown_field_are_taken() {
    let body = r#"{"genero": "Troceado", "color": "rojo"}"#;
    let (first, second) = body.split_at(9);
    let request = format!(
        "POST /generos HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n\
         {:x}\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n",
        first.len(),
        second.len()
    );
    let answer = raw(request.as_bytes(), Duration::from_secs(5));
    assert!(
        answer.starts_with("HTTP/1.1 201") && answer.contains(r#""ignored":["color"]"#),
        "{answer}"
    );
}

#[test]
fn a_refused_body_does_not_become_the_next_request() {
    let next = "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let long = "x".repeat(5_000);
    for body in [
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".to_string(),
        "Content-Length: 3\r\n\r\nabc".to_string(),
        format!("Content-Length: 5000\r\n\r\n{long}"),
    ] {
        let two = format!("PATCH /generos HTTP/1.1\r\nHost: localhost\r\n{body}{next}");
        let answers = raw(two.as_bytes(), Duration::from_secs(5));
        let statuses: Vec<&str> = answers
            .matches("HTTP/1.1 405")
            .chain(answers.matches("HTTP/1.1 200"))
            .collect();
        assert_eq!(statuses.len(), 2, "{answers}");
    }
}

/// Two connections that send a body byte by byte, and four whose second request must wait for the
/// first: none of them is anybody else's business.
#[test]
fn slow_and_pipelining_clients_keep_nobody_waiting() {
    let api = cluster();
    let address = api.api.strip_prefix("http://").expect("an address");
    let mut sql = api.sql("master1");
    let mut lock = sql.transaction().expect("begin");
    lock.batch_execute("LOCK TABLE generos IN SHARE MODE")
        .expect("lock");
    let send = |text: &str| {
        let mut stream = TcpStream::connect(address).expect("connect");
        stream.write_all(text.as_bytes()).expect("send");
        stream
    };
    let slow = "GET /health HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 500\r\n\r\n";
    let body = r#"{"genero": "en cola"}"#;
    let two = format!(
        "POST /generos HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}\
         GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
        body.len()
    );
    let _held: Vec<TcpStream> = (0..3)
        .map(|_| send(slow))
        .chain((0..4).map(|_| send(&two)))
        .collect();
    std::thread::sleep(Duration::from_millis(100));
    for _ in 0..10 {
        let answer = api.get("/health");
        assert!(answer.status == 200 && answer.took < NO_HANG, "{answer:?}");
    }
    lock.rollback().expect("rollback");
}

#[test]
fn requests_to_upgrade_are_answered_like_others() {
    let body = r#"{"genero": "HTTP/2"}"#;
    let request = format!(
        "POST /generos HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
         HTTP2-Settings: AAMAAABk\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = raw(request.as_bytes(), Duration::from_secs(3));
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
}

#[test]
fn a_foreign_web_page_changes_nothing() {
    let api = cluster();
    let body = r#"{"genero": "ajeno"}"#;
    // What a page may send anywhere without being asked has no type, or another one.
    let untyped = format!(
        "POST /generos HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    assert!(raw(untyped.as_bytes(), Duration::from_secs(3)).starts_with("HTTP/1.1 415"));
    // What it may send to a name of its own that points here has that name.
    let rebound = untyped
        .replace("Host: localhost", "Host: evil.example")
        .replace("POST", "DELETE")
        .replace("/generos", "/generos/1");
    let answer = raw(rebound.as_bytes(), Duration::from_secs(3));
    assert!(
        answer.starts_with("HTTP/1.1 403") && answer.contains("forbidden"),
        "{answer}"
    );
    for header in [
        ("Origin", "https://evil.example"),
        ("X-Forwarded-For", "10.0.0.1"),
    ] {
        let switched = api.ask("POST", "/switch-to-secondary", Some(""), &[header]);
        assert_eq!(
            (switched.status, switched.code()),
            (403, "forbidden"),
            "{header:?}"
        );
    }
}

/// Plain inserts by psql draw from the same sequence, and do not survive a number twice.
#[test]
fn aligning_the_sequence_disturbs_nobody_who_draws_from_it() {
    let api = cluster();
    std::thread::scope(|scope| {
        let aligning = scope.spawn(|| {
            let mut sql = api.sql("master1");
            for _ in 0..300 {
                sql.execute("SELECT imdb_ha.alinear_secuencias()", &[])
                    .expect("align");
            }
        });
        for _ in 0..3 {
            scope.spawn(|| {
                let mut sql = api.sql("master1");
                for _ in 0..200 {
                    sql.execute("INSERT INTO generos (genero) VALUES ('alineado')", &[])
                        .expect("insert");
                }
            });
        }
        aligning.join().expect("the aligning");
    });
}

/// A role that is not the owner of anything may be given the table, and that is enough.
#[test]
fn an_ordinary_role_can_write_genres() {
    let api = cluster();
    let mut sql = api.sql("master1");
    sql.batch_execute(
        "CREATE ROLE lector; GRANT SELECT, INSERT, UPDATE, DELETE ON generos TO lector; \
         GRANT USAGE ON SEQUENCE generos_id_genero_seq TO lector; SET ROLE lector; \
         INSERT INTO generos (id_genero, genero) VALUES (700003, 'de lector'); \
         UPDATE generos SET genero = 'de otro lector' WHERE id_genero = 700003; \
         SELECT imdb_ha.alinear_secuencias()",
    )
    .expect("an ordinary role");
}

#[test]
fn errors_are_spanish_unless_english_is_preferred() {
    let api = cluster();
    let spanish = api.get("/nada");
    assert_eq!(spanish.body["error"], "No existe la ruta.");
    let english = api.ask(
        "GET",
        "/nada",
        None,
        &[("Accept-Language", "en-US,en;q=0.9")],
    );
    assert_eq!(english.body["error"], "There is no such path.");
    assert_eq!(spanish.body["code"], english.body["code"]);
}

#[test]
fn health_active_node_and_status_tell_how_things_are() {
    let api = cluster();
    let health = api.get("/health");
    assert_eq!(
        (
            health.status,
            &health.body["ok"],
            &health.body["active_node"]
        ),
        (200, &json!(true), &json!("master1"))
    );
    assert_eq!(
        api.get("/active-node").body,
        json!({ "active_node": "master1" })
    );
    let status = api.get("/status").body;
    assert_eq!(status["masters"]["master2"]["state"], "up");
    assert_eq!(
        status["masters"]["master2"]["replication"]["out"]["state"],
        "streaming"
    );
    assert!(
        !status.to_string().contains("root:root"),
        "a password in /status"
    );
    assert_eq!(api.ask("HEAD", "/health", None, &[]).status, 200);
    let routes = api.get("/").body["endpoints"].as_array().map(Vec::len);
    assert!(routes.is_some_and(|count| count > 8), "{routes:?}");
}

#[test]
fn a_row_is_on_both_masters_at_once_from_wherever_it_came() {
    let api = cluster();
    let id = api.add("por la API").id();
    // A plain insert by psql, with the manual's two columns only, on the passive master.
    api.sql("master2")
        .execute(
            "INSERT INTO generos (id_genero, genero) VALUES (600002, 'por psql')",
            &[],
        )
        .expect("insert");
    wait_until("both rows are on both masters", || {
        ["master1", "master2"].iter().all(|node| {
            let count = "SELECT count(*) FROM generos WHERE id_genero IN ($1, 600002)";
            api.sql(node)
                .query_one(count, &[&(id as i32)])
                .expect("count")
                .get::<_, i64>(0)
                == 2
        })
    });
    assert_eq!(
        api.get("/generos/600002").body["data"]["genero"],
        "por psql"
    );
}

/// Every line is one that Prometheus understands, and the figures are those of the cluster.
#[test]
fn the_metrics_are_the_picture_in_figures() {
    let api = cluster();
    wait_until("zero-loss", || {
        api.get("/health").body["durability"] == "zero-loss"
    });
    let text = raw(
        b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        Duration::from_secs(5),
    );
    let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    let mut families = Vec::new();
    for line in body.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            families.push(help.split(' ').next().expect("a name").to_string());
        } else if !line.starts_with("# TYPE ") {
            let (name, value) = line.rsplit_once(' ').expect("a name and a value");
            assert!(value.parse::<f64>().is_ok(), "{line}");
            let family = name.split('{').next().expect("a name");
            assert_eq!(Some(family), families.last().map(String::as_str), "{line}");
        }
    }
    assert!(families.len() > 15, "{families:?}");
    for expected in [
        "imdb_ha_serving 1",
        "imdb_ha_active{master=\"master1\"} 1",
        "imdb_ha_active{master=\"master2\"} 0",
        "imdb_ha_master_state{master=\"master2\",state=\"up\"} 1",
        "imdb_ha_durability{level=\"zero-loss\"} 1",
        "imdb_ha_replication_streaming{master=\"master1\"} 1",
        "imdb_ha_redis_up 1",
        "imdb_ha_changes_total{what=\"start\"} 1",
    ] {
        assert!(
            body.lines().any(|line| line == expected),
            "{expected}: {body}"
        );
    }
}

/// A connection that ended with a body unread does not stand in the way of a later one from the same port.
#[test]
fn who_announced_too_much_may_come_again() {
    let cluster = Cluster::start();
    let api = cluster.api.trim_start_matches("http://").to_string();
    let api: std::net::SocketAddr = api.parse().expect("an address");
    let ask = |port: u16, request: &str| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
            .expect("a socket");
        socket.set_reuse_address(true).expect("reuse");
        let own = std::net::SocketAddr::from(([127, 0, 0, 1], port));
        socket.bind(&own.into()).expect("bind");
        socket.connect(&api.into()).expect("connect");
        let mut stream = TcpStream::from(socket);
        let port = stream.local_addr().expect("an address").port();
        let patience = Some(Duration::from_secs(5));
        stream.set_read_timeout(patience).expect("a time limit");
        stream.write_all(request.as_bytes()).expect("send");
        let mut start = [0; 12];
        stream.read_exact(&mut start).expect("an answer");
        (port, String::from_utf8_lossy(&start).into_owned())
    };
    let absurd = "POST /generos HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
        Content-Length: 100000000\r\n\r\n";
    let (port, answer) = ask(0, absurd);
    assert_eq!(answer, "HTTP/1.1 413");
    let (_, answer) = ask(port, "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(answer, "HTTP/1.1 200");
}
