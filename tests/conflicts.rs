//! Two versions of one row, settled in the database: over real masters, with their links cut by
//! disabling the subscriptions, and with both masters written at once.

mod common;

use common::{Cluster, wait_until};
use postgres::Client;

const MASTERS: [&str; 2] = ["master1", "master2"];

/// Numbers that are the same at each run with the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Sessions on both masters.
struct Pair {
    masters: [Client; 2],
}

impl Pair {
    fn new(cluster: &Cluster) -> Pair {
        Pair {
            masters: MASTERS.map(|node| cluster.sql(node)),
        }
    }

    fn links(&mut self, verb: &str) {
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

    fn run(&mut self, master: usize, sql: &str) {
        self.masters[master]
            .batch_execute(sql)
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// Waits until each master has confirmed all that the other holds.
    fn settle(&mut self) {
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
    fn equal(&mut self, of: &str) -> Vec<String> {
        let [first, second] = self.masters.each_mut().map(|master| {
            texts(
                master,
                "SELECT 'fila ' || g::text FROM public.generos AS g \
                 UNION ALL SELECT 'borrado ' || b::text FROM imdb_ha.borrados AS b \
                 UNION ALL SELECT 'cambio ' || c::text FROM imdb_ha.cambios AS c ORDER BY 1",
            )
        });
        assert_eq!(first, second, "{of}");
        first
    }
}

fn texts(client: &mut Client, sql: &str) -> Vec<String> {
    client
        .query(sql, &[])
        .unwrap_or_else(|error| panic!("{sql}: {error:?}"))
        .iter()
        .map(|row| row.get(0))
        .collect()
}

fn errors(client: &mut Client) -> i64 {
    client
        .query_one(
            "SELECT sum(apply_error_count)::bigint FROM pg_stat_subscription_stats",
            &[],
        )
        .expect("the statistics")
        .get(0)
}

/// One random transaction on one master, over a few ids, with and without a time of its own.
fn change(dice: &mut Dice, master: &mut Client) {
    let mut statements = vec!["BEGIN".to_string()];
    for _ in 0..=dice.below(3) {
        let (id, other) = (101 + dice.below(6), 101 + dice.below(6));
        let name = format!("n{}", dice.below(1_000_000));
        let time = format!("now() + interval '{} ms'", dice.below(4_000) as i64 - 2_000);
        statements.push(match dice.below(9) {
            0 | 1 => format!("INSERT INTO public.generos VALUES ({id}, '{name}') ON CONFLICT DO NOTHING"),
            2 => format!(
                "INSERT INTO public.generos VALUES ({id}, '{name}', {time}) ON CONFLICT DO NOTHING"
            ),
            3 => format!("UPDATE public.generos SET genero = '{name}' WHERE id_genero = {id}"),
            4 => format!(
                "UPDATE public.generos SET genero = '{name}', cambiado_en = {time} WHERE id_genero = {id}"
            ),
            5 => format!("DELETE FROM public.generos WHERE id_genero = {id}"),
            6 => format!(
                "SELECT set_config('imdb_ha.hora', ({time})::text, true); \
                 DELETE FROM public.generos WHERE id_genero = {id}"
            ),
            7 => format!(
                "UPDATE public.generos SET id_genero = {other} WHERE id_genero = {id} \
                 AND NOT EXISTS (SELECT FROM public.generos WHERE id_genero = {other})"
            ),
            _ => format!(
                "INSERT INTO public.generos VALUES ({id}, '{name}') \
                 ON CONFLICT (id_genero) DO UPDATE SET genero = excluded.genero"
            ),
        });
    }
    statements.push(
        if dice.below(8) == 0 {
            "ROLLBACK"
        } else {
            "COMMIT"
        }
        .to_string(),
    );
    if master.batch_execute(&statements.join("; ")).is_err() {
        // Two sessions that met at one id: one of them lost, as PostgreSQL has it.
        let _ = master.batch_execute("ROLLBACK");
    }
}

#[test]
fn both_masters_end_equal_whatever_was_written_on_both_sides_of_a_cut() {
    let cluster = Cluster::start();
    let mut pair = Pair::new(&cluster);
    let seed =
        std::env::var("IMDB_HA_TEST_SEED").map_or(20_251, |seed| seed.parse().expect("a number"));
    let mut dice = Dice(seed);
    for round in 0..20 {
        pair.links("DISABLE");
        for _ in 0..dice.below(60) {
            let master = dice.below(2) as usize;
            change(&mut dice, &mut pair.masters[master]);
        }
        pair.links("ENABLE");
        pair.settle();
        pair.equal(&format!("seed {seed}, round {round}"));
    }
    let logged = pair.masters.each_mut().map(|master| {
        texts(
            master,
            "SELECT DISTINCT tipo || ' ' || gano FROM imdb_ha.conflictos ORDER BY 1",
        )
    });
    let mut kinds: Vec<String> = logged.concat();
    kinds.sort();
    kinds.dedup();
    let expected = [
        "delete_update local",
        "delete_update remote",
        "insert_delete local",
        "insert_insert local",
        "insert_insert remote",
        "update_delete local",
        "update_delete remote",
        "update_update local",
        "update_update remote",
    ];
    assert_eq!(kinds, expected);
    let errors = pair.masters.each_mut().map(errors);
    assert_eq!(errors, [0, 0], "an apply worker stopped");
}

#[test]
fn both_masters_end_equal_when_both_are_written_at_once() {
    let cluster = Cluster::start();
    let mut pair = Pair::new(&cluster);
    for round in 0..3 {
        std::thread::scope(|scope| {
            for (index, node) in MASTERS.iter().cycle().take(4).enumerate() {
                let mut master = cluster.sql(node);
                // Sessions that wait for each other find out sooner.
                let sooner = master.batch_execute("SET deadlock_timeout = '20ms'");
                sooner.expect("superuser");
                let mut dice = Dice(1_000 * round + index as u64);
                scope.spawn(move || (0..80).for_each(|_| change(&mut dice, &mut master)));
            }
        });
        pair.settle();
        pair.equal(&format!("round {round}"));
    }
    eprintln!("apply errors {:?}", pair.masters.each_mut().map(errors));
}
