//! The tables of two masters against each other. Pure.

use super::{Seen, Table};
use crate::cluster::NodeId;
use std::collections::{BTreeMap, BTreeSet};

/// What is to be looked at, by the names of the tables.
pub(super) fn alarms(seen: [&Seen; 2]) -> Vec<String> {
    let of = |node: NodeId| {
        let tables = seen[node.index()].tables.iter();
        tables
            .map(|table| (table.name.as_str(), table))
            .collect::<BTreeMap<_, _>>()
    };
    let both = NodeId::BOTH.map(of);
    let names: BTreeSet<&str> = both
        .iter()
        .flat_map(|tables| tables.keys().copied())
        .collect();
    let judge = |name: &str| match [both[0].get(name), both[1].get(name)] {
        [Some(first), Some(second)] => of_both([first, second], seen),
        [Some(table), None] => Some(alone(table, NodeId::Master1)),
        [None, Some(table)] => Some(alone(table, NodeId::Master2)),
        [None, None] => None,
    };
    names.into_iter().filter_map(judge).collect()
}

/// The word for it, and the same for a statement.
fn kind(table: &Table) -> (&'static str, &'static str) {
    match table.kind {
        'v' => ("view", "VIEW"),
        'm' => ("materialized view", "MATERIALIZED VIEW"),
        'f' => ("foreign table", "FOREIGN TABLE"),
        _ => ("table", "TABLE"),
    }
}

fn alone(table: &Table, node: NodeId) -> String {
    let (peer, name, (kind, statement)) = (node.peer(), &table.name, kind(table));
    let harm = match (table.kind, table.sent) {
        ('v' | 'm' | 'f', _) => format!("what reads it fails when {peer} serves"),
        (_, true) => format!("at the next change of its rows {peer} stops applying changes"),
        (_, false) => format!("its rows are not on {peer}"),
    };
    let make = match table.kind {
        'r' => format!(
            "make it on {peer} as well (CREATE TABLE {name} ({})) and run `imdb-ha replication setup`",
            table
                .columns
                .iter()
                .chain(&keys(table))
                .cloned()
                .collect::<Vec<_>>()
                .join(", ")
        ),
        'p' => format!(
            "make it on {peer} as well (pg_dump --schema-only --table='{name}' on {node}) and run `imdb-ha replication setup`"
        ),
        _ => format!("make it on {peer} as well"),
    };
    let dropped = match table.sent {
        // What is in the WAL goes on asking for it.
        true => String::new(),
        false => format!(", or drop it on {node} (DROP {statement} {name})"),
    };
    format!("{kind} {name} is on {node} alone, so {harm}: {make}{dropped}")
}

fn keys(table: &Table) -> Vec<String> {
    let constraints = table.constraints.iter();
    let keys = constraints.filter(|text| !text.starts_with("UNIQUE INDEX"));
    keys.cloned().collect()
}

fn of_both(pair: [&Table; 2], seen: [&Seen; 2]) -> Option<String> {
    let name = &pair[0].name;
    if pair[0].kind != pair[1].kind {
        let kinds = pair.map(|table| kind(table).0);
        return Some(format!(
            "{name} is a {} on master1 and a {} on master2: make it the same on both",
            kinds[0], kinds[1]
        ));
    }
    if !matches!(pair[0].kind, 'r' | 'p') {
        return None;
    }
    if let Some(text) = differing(pair) {
        return Some(format!(
            "table {name} is not the same on both masters ({text}): make it the same, then run `imdb-ha replication setup`"
        ));
    }
    // What holds the rows of a table with partitions is in this list as well.
    if pair[0].kind == 'p' {
        return None;
    }
    let unlogged: Vec<&str> = NodeId::BOTH
        .into_iter()
        .filter(|node| pair[node.index()].unlogged)
        .map(NodeId::name)
        .collect();
    if !unlogged.is_empty() {
        return Some(format!(
            "table {name} is unlogged on {}, so its rows are not replicated and a crash empties it: ALTER TABLE {name} SET LOGGED there, then \
             run `imdb-ha replication setup` and `imdb-ha compare`; or drop it on both",
            unlogged.join(" and ")
        ));
    }
    let stays = |node: &NodeId| {
        let (from, to) = (pair[node.index()], pair[node.peer().index()]);
        // A subscription that is missing is an alarm of its own.
        let taken = to.taken || seen[node.peer().index()].subscription.is_none();
        !(from.sent && taken)
    };
    let staying: Vec<String> = NodeId::BOTH
        .into_iter()
        .filter(stays)
        .map(|node| format!("{node} to {}", node.peer()))
        .collect();
    if !staying.is_empty() {
        return Some(format!(
            "table {name} is not replicated from {}: run `imdb-ha replication setup`, which takes it in, and `imdb-ha compare {name}` for \
             the rows from before",
            staying.join(" nor from ")
        ));
    }
    let refused: Vec<&str> = NodeId::BOTH
        .into_iter()
        .filter(|node| !pair[node.index()].identified)
        .map(NodeId::name)
        .collect();
    (!refused.is_empty()).then(|| {
        format!(
            "table {name} has no primary key on {}, so PostgreSQL refuses UPDATE and DELETE there: add one on both masters (ALTER TABLE {name} \
             ADD PRIMARY KEY ...), or ALTER TABLE {name} REPLICA IDENTITY FULL on both",
            refused.join(" and ")
        )
    })
}

/// What only one of the two has; the order of the columns makes no difference.
fn differing(pair: [&Table; 2]) -> Option<String> {
    let parts = pair.map(|table| {
        let parts = table.columns.iter().chain(&table.constraints);
        parts.map(String::as_str).collect::<BTreeSet<&str>>()
    });
    let only = |node: NodeId| {
        let (here, there) = (&parts[node.index()], &parts[node.peer().index()]);
        let only: Vec<&str> = here.difference(there).copied().collect();
        (!only.is_empty()).then(|| format!("only on {node}: {}", only.join(", ")))
    };
    let text: Vec<String> = NodeId::BOTH.into_iter().filter_map(only).collect();
    (!text.is_empty()).then(|| text.join("; "))
}

#[cfg(test)]
mod tests {
    use super::super::judge::tests::healthy;
    use super::*;

    fn table() -> Table {
        Table {
            name: "public.t".to_string(),
            kind: 'r',
            unlogged: false,
            columns: vec!["id integer NOT NULL".to_string(), "x text".to_string()],
            constraints: vec!["PRIMARY KEY (id)".to_string()],
            identified: true,
            sent: true,
            taken: true,
        }
    }

    fn with(change: impl FnOnce(&mut Table)) -> Table {
        let mut table = table();
        change(&mut table);
        table
    }

    fn of(first: &[Table], second: &[Table]) -> Vec<String> {
        let seen = [first, second].map(|tables| {
            let mut seen = healthy();
            seen.tables = tables.to_vec();
            seen
        });
        alarms([&seen[0], &seen[1]])
    }

    fn one(first: &[Table], second: &[Table], parts: &[&str]) {
        let told = of(first, second);
        assert_eq!(told.len(), 1, "{told:?}");
        for part in parts {
            assert!(told[0].contains(part), "{part}: {told:?}");
        }
    }

    #[test]
    fn the_same_tables_are_no_alarm_whatever_the_order_of_their_columns() {
        assert_eq!(of(&[table()], &[with(|t| t.columns.reverse())]), [""; 0]);
        let view = with(|t| (t.kind, t.sent, t.taken, t.identified) = ('v', false, false, false));
        assert_eq!(
            of(std::slice::from_ref(&view), std::slice::from_ref(&view)),
            [""; 0]
        );
        // Its partitions are published and not itself.
        let root = with(|t| (t.kind, t.sent, t.taken) = ('p', false, false));
        assert_eq!(
            of(std::slice::from_ref(&root), std::slice::from_ref(&root)),
            [""; 0]
        );
    }

    #[test]
    fn what_is_on_one_master_alone_is_told_with_the_statement_for_the_other() {
        let scratch = with(|t| (t.sent, t.taken) = (false, false));
        one(
            &[],
            &[scratch],
            &[
                "on master2 alone",
                "its rows are not on master1",
                "CREATE TABLE public.t (id integer NOT NULL, x text, PRIMARY KEY (id))",
                "DROP TABLE public.t",
            ],
        );
        let told = of(&[table()], &[]);
        assert!(
            told[0].contains("stops applying") && !told[0].contains("DROP"),
            "{told:?}"
        );
        let view = with(|t| (t.kind, t.sent) = ('m', false));
        one(
            &[view],
            &[],
            &[
                "materialized view",
                "when master2 serves",
                "DROP MATERIALIZED VIEW",
            ],
        );
    }

    #[test]
    fn what_differs_or_is_not_replicated_is_told() {
        one(
            &[table()],
            &[with(|t| t.columns[1] = "x integer".to_string())],
            &["only on master1: x text", "only on master2: x integer"],
        );
        one(
            &[with(|t| t.constraints.push("UNIQUE (x)".to_string()))],
            &[table()],
            &["only on master1: UNIQUE (x)"],
        );
        let new = with(|t| (t.sent, t.taken) = (false, false));
        one(
            std::slice::from_ref(&new),
            std::slice::from_ref(&new),
            &["from master1 to master2 nor from master2 to master1"],
        );
        one(
            &[table()],
            &[with(|t| t.taken = false)],
            &["not replicated from master1 to master2:"],
        );
        let unlogged = with(|t| (t.unlogged, t.sent, t.taken) = (true, false, false));
        one(
            std::slice::from_ref(&unlogged),
            std::slice::from_ref(&unlogged),
            &["unlogged on master1 and master2"],
        );
        let bare = with(|t| (t.identified, t.constraints) = (false, vec![]));
        one(
            std::slice::from_ref(&bare),
            std::slice::from_ref(&bare),
            &["no primary key", "REPLICA IDENTITY FULL"],
        );
        one(
            &[with(|t| t.kind = 'v')],
            &[table()],
            &["a view on master1 and a table on master2"],
        );
    }
}
