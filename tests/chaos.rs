//! The parts of `benches/chaos` that can be tried alone: a checker that finds nothing proves nothing
//! unless it can find something, and a relay must do to a connection what it is said to do.

#[allow(dead_code)]
#[path = "../benches/chaos/checker.rs"]
mod checker;
#[allow(dead_code)]
#[path = "../benches/chaos/load.rs"]
mod load;
#[allow(dead_code)]
#[path = "../benches/chaos/relay.rs"]
mod relay;
#[allow(dead_code)]
#[path = "../benches/chaos/report.rs"]
mod report;
#[allow(dead_code)]
#[path = "../benches/chaos/schedule.rs"]
mod schedule;

use checker::{
    Figures, Findings, Ledger, Mark, Request, Row, Verdict, differing, doubled, figures, judge,
};
use relay::{Mode, Relay};
use report::{Outcome, Rest, Sum};
use schedule::{FAULTS, Place, chosen, schedule};
use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

fn row(id: i64, text: &str) -> Row {
    Row {
        id,
        text: text.to_string(),
        whole: format!("({id},{text},now,1)"),
    }
}

fn some(text: &str) -> Option<String> {
    Some(text.to_string())
}

/// Three acknowledged inserts, of which the second was renamed and the third deleted.
fn ledger() -> Ledger {
    let mut ledger = Ledger::default();
    for (id, text) in [(29, "caos a"), (31, "caos b"), (33, "caos c")] {
        ledger.inserted(id, text.to_string());
    }
    ledger.change_begins(31, some("caos b2"));
    ledger.change_done(31, some("caos b2"));
    ledger.change_begins(33, None);
    ledger.change_done(33, None);
    ledger
}

fn found(missing: &[i64], wrong: &[i64]) -> Findings {
    Findings {
        missing: missing.to_vec(),
        wrong: wrong.to_vec(),
    }
}

#[test]
fn what_was_acknowledged_is_missed_when_it_is_not_there() {
    let ledger = ledger();
    let judged = |rows: &[Row]| judge(&ledger, &ledger, rows);
    let right = [row(1, "Acción"), row(29, "caos a"), row(31, "caos b2")];
    assert_eq!(judged(&right), found(&[], &[]));
    assert_eq!(judged(&right[..2]), found(&[31], &[]));
    assert_eq!(judged(&right[..1]), found(&[29, 31], &[]));
    // The update or the deletion is not in effect.
    let old = [row(29, "caos a"), row(31, "caos b")];
    assert_eq!(judged(&old), found(&[], &[31]));
    let undeleted = [&right[..], &[row(33, "caos c")]].concat();
    assert_eq!(judged(&undeleted), found(&[], &[33]));
}

#[test]
fn a_change_of_unknown_outcome_may_have_happened_or_not_and_nothing_else() {
    let mut ledger = ledger();
    ledger.change_begins(29, some("caos a2"));
    ledger.change_begins(31, None);
    let judged = |rows: &[Row]| judge(&ledger, &ledger, rows);
    assert!(judged(&[row(29, "caos a"), row(31, "caos b2")]).is_empty());
    assert!(judged(&[row(29, "caos a2")]).is_empty());
    assert_eq!(judged(&[row(29, "caos x")]), found(&[], &[29]));
    assert_eq!(judged(&[]), found(&[29], &[]));
}

#[test]
fn a_row_that_changed_while_it_was_read_is_not_judged_by_what_it_was() {
    let before = ledger();
    let mut after = before.clone();
    after.change_begins(29, some("caos a2"));
    after.change_done(29, some("caos a2"));
    after.inserted(35, "caos d".to_string());
    let read = [row(29, "caos a2"), row(31, "caos b2")];
    assert!(judge(&before, &after, &read).is_empty());
    assert_eq!(judge(&before, &before, &read), found(&[], &[29]));
    // The others are judged all the same.
    assert_eq!(judge(&before, &after, &read[..1]), found(&[31], &[]));
}

#[test]
fn an_id_that_was_given_to_two_rows_is_wrong() {
    let mut ledger = ledger();
    ledger.inserted(29, "caos e".to_string());
    let read = [row(29, "caos e"), row(31, "caos b2")];
    assert_eq!(judge(&ledger, &ledger, &read), found(&[], &[29]));
}

#[test]
fn a_write_that_was_applied_twice_is_found() {
    let mut ledger = ledger();
    ledger.insert_unknown("caos u".to_string());
    let right = [
        row(1, "Drama"),
        row(2, "Drama"),
        row(29, "caos a"),
        row(31, "caos b2"),
    ];
    let mark = Mark {
        prefix: "caos ".to_string(),
        ids_from: 500,
    };
    let judged = |rows: &[Row]| doubled(&ledger, rows, &mark);
    assert_eq!(judged(&right), Vec::<i64>::new());
    let with = |rows: &[Row]| judged(&[&right[..], rows].concat());
    assert_eq!(with(&[row(30, "caos a")]), [30]);
    // Renamed since, so that the text of the second row is in one row only.
    assert_eq!(with(&[row(30, "caos b")]), [30]);
    // An insert of unknown outcome may be there, once.
    assert_eq!(with(&[row(35, "caos u")]), Vec::<i64>::new());
    assert_eq!(with(&[row(35, "caos u"), row(36, "caos u")]), [36]);
    // Somebody else's rows are nobody's business, however alike they are.
    assert_eq!(with(&[row(40, "otro"), row(41, "otro")]), Vec::<i64>::new());
}

#[test]
fn rows_differ_also_in_what_no_client_sees_and_where_one_is_missing() {
    let first = [row(1, "a"), row(2, "b"), row(3, "c")];
    let mut second = first.to_vec();
    assert_eq!(differing(&first, &second), Vec::<i64>::new());
    second[1].whole = "(2,b,now,2)".to_string();
    second[2] = row(4, "c");
    assert_eq!(differing(&first, &second), [2, 3, 4]);
}

#[test]
fn a_stall_is_the_longest_time_without_an_acknowledged_write() {
    use Verdict::{Acknowledged, Failed, Read, Refused, Unsure};
    let one = |began_ms, ended_ms, verdict| Request {
        began_ms,
        ended_ms,
        verdict,
    };
    let requests = [
        one(0, 90, Acknowledged),
        one(100, 110, Acknowledged),
        one(110, 400, Read),
        one(120, 450, Failed),
        one(300, 460, Acknowledged),
        one(460, 470, Refused),
        one(470, 480, Unsure),
        one(990, 1_000, Failed),
    ];
    let expected = Figures {
        acknowledged: 2,
        failed: 1,
        refused: 1,
        unsure: 1,
        stall_ms: 540,
        slowest_ms: 330,
    };
    assert_eq!(figures(&requests, 100, 1_000), expected);
    assert_eq!(figures(&requests, 100, 500).stall_ms, 350);
    assert_eq!(
        figures(&requests, 480, 900).stall_ms,
        420,
        "no write at all"
    );
}

fn outcome(fault: usize, durability: &str) -> Outcome {
    Outcome {
        fault: &FAULTS[fault],
        active: "master1",
        durability: durability.to_string(),
        figures: Figures::default(),
        lacking: BTreeSet::new(),
        rest: Rest::default(),
        equal_ms: Some(10),
        well_ms: 400,
        failures: Vec::new(),
    }
}

#[test]
fn each_broken_promise_is_in_the_sum_once() {
    let clean = Sum::of(&[outcome(0, "zero-loss")], &Figures::default());
    assert!(clean.is_clean());
    let with = |break_it: &dyn Fn(&mut Outcome)| {
        let mut pair = [outcome(0, "zero-loss"), outcome(1, "zero-loss")];
        pair.iter_mut().for_each(break_it);
        Sum::of(&pair, &Figures::default())
    };
    let missing = with(&|one| one.rest.missing.extend([29, 31]));
    assert_eq!((missing.missing, missing.is_clean()), (2, false));
    let wrong = with(&|one| one.rest.wrong.extend([29]));
    assert_eq!((wrong.missing, wrong.is_clean()), (1, false));
    let doubled = with(&|one| one.rest.doubled.extend([29]));
    assert_eq!((doubled.doubled, doubled.is_clean()), (1, false));
    let apart = with(&|one| one.rest.differing.extend([29]));
    assert_eq!((apart.differing, apart.is_clean()), (1, false));
    let failed = Figures {
        failed: 1,
        ..Figures::default()
    };
    assert!(!Sum::of(&[], &failed).is_clean());
}

/// Without zero-loss mode a row may be on the dead master alone until that comes back.
#[test]
fn what_the_survivor_lacks_is_lost_only_where_it_was_promised() {
    let lacking = |durability| {
        let mut one = outcome(0, durability);
        one.lacking.insert(29);
        Sum::of(&[one], &Figures::default()).missing
    };
    assert_eq!((lacking("zero-loss"), lacking("async")), (1, 0));
}

#[test]
fn a_missed_goal_is_counted_and_is_no_broken_promise() {
    let mut slow = outcome(0, "zero-loss");
    slow.figures.stall_ms = slow.fault.goal_ms.expect("a goal") + 1;
    let cut = FAULTS.iter().position(|fault| fault.name == "cut-masters");
    let mut apart = outcome(cut.expect("it is there"), "zero-loss");
    apart.equal_ms = Some(2_001);
    let mut ill = outcome(0, "zero-loss");
    ill.well_ms = 30_001;
    let all = [slow, apart, ill, outcome(1, "zero-loss")];
    let sum = Sum::of(&all, &Figures::default());
    assert_eq!((sum.missed_goals, sum.is_clean()), (3, true));
}

#[test]
fn a_seed_is_an_order_and_a_run_has_each_kind() {
    let named = |only: &[&str]| {
        let only: Vec<String> = only.iter().map(|name| name.to_string()).collect();
        chosen(Place::Local, &only).expect("they are there")
    };
    let names = |seed, count, only: &[&str]| -> Vec<&str> {
        let planned = schedule(seed, count, &named(only));
        planned.iter().map(|planned| planned.fault.name).collect()
    };
    let all = names(1, FAULTS.len(), &[]);
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), FAULTS.len());
    let forty = |seed| schedule(seed, 40, &named(&[]));
    assert_eq!(forty(1), forty(1));
    assert_ne!(names(2, FAULTS.len(), &[]), all);
    assert_eq!(forty(1).len(), 40);
    let two = names(1, 5, &["handover", "kill-api"]);
    assert_eq!(two.len(), 5);
    assert!(
        two.iter()
            .all(|name| ["handover", "kill-api"].contains(name))
    );
    // What only silence tells must outlast the second after which a silent master is down.
    let silent = FAULTS.iter().filter(|fault| {
        let text = format!("{:?}", fault.blows);
        ["Hole", "Freeze", "Isolate"]
            .iter()
            .any(|word| text.contains(word))
    });
    assert!(silent.into_iter().all(|fault| fault.hold_ms >= 2_000));
}

#[test]
fn each_place_has_its_kinds_and_refuses_the_others_by_name() {
    let kinds = |place| {
        let all = chosen(place, &[]).expect("all that it has");
        all.iter().map(|fault| fault.name).collect::<Vec<_>>()
    };
    let (local, compose) = (kinds(Place::Local), kinds(Place::Compose));
    assert_eq!(local.len(), FAULTS.len());
    // Nothing there cuts one way alone.
    let needs_relay = |fault: &&schedule::Fault| format!("{:?}", fault.blows).contains("Cut");
    let on_compose = FAULTS.iter().filter(|fault| !needs_relay(fault));
    assert_eq!(
        compose,
        on_compose.map(|fault| fault.name).collect::<Vec<_>>()
    );
    assert!(compose.len() > 5);
    let only = ["kill-active", "cut-masters", "kil-api"].map(String::from);
    let refused = chosen(Place::Compose, &only).expect_err("two are not there");
    let known = compose.join(", ");
    assert_eq!(
        refused,
        format!("compose has no fault cut-masters, kil-api; it has {known}")
    );
}

/// A server that answers each byte with the next one, until it is dropped.
fn server() -> (TcpListener, u16) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let accepts = listener.try_clone().expect("a copy");
    std::thread::spawn(move || {
        while let Ok((mut client, _)) = accepts.accept() {
            std::thread::spawn(move || {
                let mut byte = [0];
                while let Ok(1) = client.read(&mut byte) {
                    if byte[0] == 0 || client.write_all(&[byte[0] + 1]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (listener, port)
}

fn connect(relay: &Relay) -> std::io::Result<TcpStream> {
    let client = TcpStream::connect(("127.0.0.1", relay.port))?;
    client.set_read_timeout(Some(Duration::from_millis(300)))?;
    Ok(client)
}

fn ask(client: &mut TcpStream, byte: u8) -> std::io::Result<u8> {
    let mut answer = [0];
    client.write_all(&[byte])?;
    client.read_exact(&mut answer)?;
    Ok(answer[0])
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(
            Instant::now() < deadline,
            "it did not come to pass that {what}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_cut_resets_what_is_open_and_refuses_what_is_new() {
    let (_server, port) = server();
    let relay = Relay::start(port).expect("a relay");
    let mut open = connect(&relay).expect("a connection");
    assert_eq!(ask(&mut open, 7).expect("an answer"), 8);
    relay.set(Mode::Cut);
    let broken = open.read(&mut [0]).expect_err("it was reset");
    assert_eq!(broken.kind(), ErrorKind::ConnectionReset);
    let refused = connect(&relay).expect_err("nobody listens");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    relay.set(Mode::Pass);
    let mut new = connect(&relay).expect("a connection");
    assert_eq!(ask(&mut new, 9).expect("an answer"), 10);
}

#[test]
fn a_hole_takes_everything_and_gives_it_back_when_it_ends() {
    let (_server, port) = server();
    let relay = Relay::start(port).expect("a relay");
    let mut open = connect(&relay).expect("a connection");
    assert_eq!(ask(&mut open, 1).expect("an answer"), 2);
    relay.set(Mode::Hole);
    let mut new = connect(&relay).expect("it is accepted");
    for client in [&mut open, &mut new] {
        let silent = ask(client, 3).expect_err("no answer");
        assert_eq!(silent.kind(), ErrorKind::WouldBlock);
    }
    relay.set(Mode::Pass);
    for client in [&mut open, &mut new] {
        let mut late = [0];
        client.read_exact(&mut late).expect("what was held");
        assert_eq!(late[0], 4);
        assert_eq!(ask(client, 5).expect("an answer"), 6);
    }
}

/// As the server itself would, so that its death looks the same through a relay.
#[test]
fn a_relay_in_front_of_a_dead_server_refuses_until_that_is_back() {
    let gone = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = gone.local_addr().expect("its address").port();
    drop(gone);
    let relay = Relay::start(port).expect("a relay");
    until("it refuses", || {
        connect(&relay).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    });
    let _back = TcpListener::bind(("127.0.0.1", port)).expect("the same port");
    until("it takes connections again", || connect(&relay).is_ok());
}
