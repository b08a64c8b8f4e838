//! A system on which nobody writes says what is so: after a fault on either master zero-loss comes back by itself,
//! whether the traffic is switched back or not. `scripts/quiet.sh` walks the whole table and judges the times.

#[allow(dead_code)]
#[path = "../benches/chaos/checker.rs"]
mod checker;
mod common;
#[allow(dead_code)]
#[path = "../benches/chaos/lab.rs"]
mod lab;
#[allow(dead_code)]
#[path = "../benches/chaos/load.rs"]
mod load;
#[allow(dead_code)]
#[path = "../benches/chaos/local.rs"]
mod local;
#[allow(dead_code)]
#[path = "../benches/chaos/quiet.rs"]
mod quiet;
#[allow(dead_code)]
#[path = "../benches/chaos/relay.rs"]
mod relay;
#[allow(dead_code)]
#[path = "../benches/chaos/schedule.rs"]
mod schedule;

use lab::{Lab, RECOVERY};
use local::Local;
use quiet::{Kind, Row, Switch, table, walk};
use schedule::Role;

const RATE: u64 = 100;

/// Of the table, each kind of fault once on each master with the traffic switched back at once, and one of the rest.
fn rows() -> Vec<Row> {
    let row = |switch, load, role, kind| Row {
        role,
        kind,
        away_s: 1,
        switch,
        load,
    };
    let mut rows = table(&[1], &["once".to_string(), "idle".to_string()]);
    rows.push(row(Switch::Never, false, Role::Active, Kind::Kill));
    rows.push(row(Switch::Once, true, Role::Active, Kind::Kill));
    rows
}

#[test]
fn zero_loss_comes_back_after_every_fault_without_load() {
    let local = Local::start(None).expect("a cluster with relays");
    let mut lab = Lab::take(Box::new(local), RECOVERY).expect("all is well");
    let rows = rows();
    let walked = walk(&mut lab, RATE, &rows, |one| quiet::tell(one, false));
    let walked = walked.unwrap_or_else(|error| panic!("{error}"));
    for one in &walked {
        assert!(
            one.back_ms.is_some(),
            "{}: zero-loss does not come back",
            one.row
        );
    }
    assert_eq!(walked.len(), rows.len());
}
