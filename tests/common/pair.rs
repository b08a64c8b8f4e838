//! Sessions on both masters, whose links can be cut.

use super::{Cluster, wait_until};
use postgres::Client;

pub const MASTERS: [&str; 2] = ["master1", "master2"];

/// Sessions on both masters.
pub struct Pair {
    pub masters: [Client; 2],
}

impl Pair {
    pub fn new(cluster: &Cluster) -> Pair {
        Pair {
            masters: MASTERS.map(|node| cluster.sql(node)),
        }
    }

    pub fn links(&mut self, verb: &str) {
        for (master, peer) in self.masters.iter_mut().zip(["master2", "master1"]) {
            master
                .batch_execute(&format!("ALTER SUBSCRIPTION sub_from_{peer} {verb}"))
                .expect(verb);
        }
        if verb == "DISABLE" {
            for master in &mut self.masters {
                wait_until("the apply worker has gone", || {
                    texts(
                        master,
                        "SELECT pid::text FROM pg_stat_subscription WHERE pid IS NOT NULL",
                    )
                    .is_empty()
                });
            }
        }
    }

    pub fn run(&mut self, master: usize, sql: &str) {
        self.masters[master]
            .batch_execute(sql)
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// Waits until each master has confirmed all that the other holds.
    pub fn settle(&mut self) {
        let ends = self
            .masters
            .each_mut()
            .map(|master| texts(master, "SELECT pg_current_wal_flush_lsn()::text").remove(0));
        for (master, end) in self.masters.iter_mut().zip(ends) {
            let sql = format!(
                "SELECT slot_name::text FROM pg_replication_slots \
                 WHERE slot_name LIKE 'slot\\_%' AND confirmed_flush_lsn >= '{end}'"
            );
            wait_until("the peer has everything", || {
                !texts(master, &sql).is_empty()
            });
        }
    }

    /// What both hold; they must hold the same.
    pub fn equal(&mut self, of: &str) -> Vec<String> {
        let [first, second] = self.masters.each_mut().map(|master| {
            texts(
                master,
                "SELECT 'fila ' || g::text FROM public.generos AS g \
                 UNION ALL SELECT 'borrado ' || b::text FROM imdb_ha.borrados AS b \
                 UNION ALL SELECT 'cambio ' || c::text FROM imdb_ha.cambios AS c \
                 UNION ALL SELECT 'clave ' || k::text FROM imdb_ha.claves AS k ORDER BY 1",
            )
        });
        assert_eq!(first, second, "{of}");
        first
    }
}

/// The first column of what a statement returns.
pub fn texts(client: &mut Client, sql: &str) -> Vec<String> {
    client
        .query(sql, &[])
        .unwrap_or_else(|error| panic!("{sql}: {error:?}"))
        .iter()
        .map(|row| row.get(0))
        .collect()
}
