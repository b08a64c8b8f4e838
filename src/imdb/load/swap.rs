//! Exchanges the tables: on each master in one transaction, whose statements are written down on both before the first of them runs.
//! So a load that dies in between is finished by the next one, and whoever reads sees the old rows or the new ones and never neither.

use super::known::Catalogues;
use super::masters::Masters;
use super::orphans::Child;
use super::report::OfFile;
use super::stage::Definitions;
use super::{Load, stage};
use crate::cluster::NodeId;
use crate::limits;
use crate::pg::{CallError, unsent};
use crate::replication::literal;
use anyhow::Context;
use postgres::error::SqlState;
use std::collections::BTreeSet;
use std::time::Instant;

/// What a load adds beside the tables that it exchanges.
pub struct News<'a> {
    pub load: i64,
    pub began: &'a str,
    pub ended: &'a str,
    pub files: &'a [OfFile],
    pub catalogues: &'a Catalogues,
    pub genres: &'a [(i32, String)],
    /// Tables that stay, of which some rows belong to nothing any more.
    pub bereft: &'a [Child],
}

impl Load<'_> {
    /// Finds out what the exchange needs to know beside the new tables, and writes its statements down on each master; from then on it can be
    /// finished by whoever comes.
    pub(super) fn write_down(
        &mut self,
        made: &[(NodeId, Definitions)],
        catalogues: &Catalogues,
        new_genres: &[(i32, String)],
    ) -> anyhow::Result<Vec<(NodeId, String)>> {
        let bereft = match made.first() {
            Some((_, made)) => self.find_orphans(made)?,
            None => Vec::new(),
        };
        let ended = jiff::Timestamp::now().to_string();
        let news = News {
            load: self.progress.load,
            began: &self.began,
            ended: &ended,
            files: &self.progress.files,
            catalogues,
            genres: new_genres,
            bereft: &bereft,
        };
        let scripts: Vec<(NodeId, String)> = made
            .iter()
            .map(|(node, made)| (*node, script(made, &news)))
            .collect();
        self.check_interrupt()?;
        for (node, script) in &scripts {
            stage::write_down(&self.masters, *node, self.progress.load, script)?;
        }
        Ok(scripts)
    }
}

/// The statements of the exchange on one master. Pure.
pub fn script(made: &Definitions, news: &News<'_>) -> String {
    let mut sql: Vec<String> = Vec::new();
    let mut locked: BTreeSet<String> = made
        .tables
        .iter()
        .map(|table| format!("\"public\".\"{}\"", table.name))
        .collect();
    for key in &made.foreign_keys {
        locked.insert(format!("\"{}\".\"{}\"", key.schema, key.child));
    }
    let locked: Vec<String> = locked.into_iter().collect();
    sql.push(format!(
        "LOCK TABLE {} IN ACCESS EXCLUSIVE MODE",
        locked.join(", ")
    ));
    sql.extend(made.foreign_keys.iter().map(|key| key.without.clone()));
    let names = made
        .tables
        .iter()
        .map(|table| format!("public.{}", table.name));
    sql.push(format!(
        "DROP TABLE {}",
        names.collect::<Vec<_>>().join(", ")
    ));
    for table in &made.tables {
        sql.push(format!(
            "ALTER TABLE imdb_carga.{} SET SCHEMA public",
            table.name
        ));
    }
    sql.extend(new_values(news));
    sql.push(format!(
        "DELETE FROM public.rechazos WHERE archivo = ANY (ARRAY[{}])",
        quoted(news.files.iter().map(|file| file.layout.name))
    ));
    sql.extend(news.bereft.iter().map(Child::without_orphans));
    sql.extend(made.foreign_keys.iter().map(|key| key.with.clone()));
    sql.extend(made.tables.iter().flat_map(|table| table.grants.clone()));
    sql.push("INSERT INTO public.rechazos SELECT * FROM imdb_carga.rechazos".to_string());
    for file in news.files {
        sql.push(format!(
            "INSERT INTO public.cargas VALUES ({}, {}, {}, {}, {}, {}, {}, {})",
            news.load,
            literal(file.layout.name),
            file.read,
            file.loaded,
            file.rejected,
            file.parts_rejected,
            literal(news.began),
            literal(news.ended)
        ));
    }
    sql.push("DROP SCHEMA imdb_carga CASCADE".to_string());
    sql.join(";\n")
}

fn quoted<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    texts.map(literal).collect::<Vec<_>>().join(", ")
}

/// Values of the catalogues that a master lacks; the other one may have them. A new genre has the same stamp on both masters, as those that come with the
/// schema.
fn new_values(news: &News<'_>) -> Vec<String> {
    let catalogues = [
        &news.catalogues.types,
        &news.catalogues.categories,
        &news.catalogues.professions,
    ];
    let of_catalogues = catalogues.into_iter().flat_map(|catalogue| {
        let table = catalogue.table;
        let insert = |(number, value): &(i32, String)| {
            let row = format!("{number}, {}", literal(value));
            format!(
                "INSERT INTO public.{table} SELECT {row} \
                 WHERE NOT EXISTS (SELECT FROM public.{table} AS t WHERE t = ROW({row})::public.{table})"
            )
        };
        catalogue.new.iter().map(insert).collect::<Vec<_>>()
    });
    let of_genres = news.genres.iter().flat_map(|(number, code)| {
        let code = literal(code);
        let began = literal(news.began);
        [
            format!(
                "INSERT INTO public.generos (id_genero, genero, cambiado_en, nodo) \
                 VALUES ({number}, {code}, {began}, 0)"
            ),
            format!("INSERT INTO public.generos_imdb VALUES ({code}, {number})"),
        ]
    });
    of_catalogues.chain(of_genres).collect()
}

/// Exchanges the tables of one master, as soon as nobody is in the way.
///
/// # Errors
/// What was in the way for all of [`limits::LOAD_SWAP`].
pub fn exchange(
    masters: &Masters,
    node: NodeId,
    load: i64,
    script: &str,
    origin: &str,
) -> anyhow::Result<()> {
    let doing = || format!("exchange the tables of {node}");
    let deadline = Instant::now() + limits::LOAD_SWAP;
    loop {
        let (sql, origin) = (script.to_string(), origin.to_string());
        let call = masters.begin(node, move |session| {
            let client = session.client();
            // It may have happened at a try whose answer was lost.
            let done = client.query("SELECT FROM public.cargas WHERE id_carga = $1", &[&load])?;
            if !done.is_empty() {
                return Ok(());
            }
            unsent(client, &origin, |client| {
                let mut transaction = client.transaction()?;
                // Whoever reads must not wait long behind this, and a vacuum that is in the way is sent away.
                transaction.batch_execute(&format!(
                    "SET LOCAL lock_timeout = {}; SET LOCAL deadlock_timeout = {}",
                    limits::LOAD_SWAP_LOCK_MS,
                    limits::LOAD_SWAP_LOCK_MS / 4
                ))?;
                transaction.batch_execute(&sql)?;
                transaction.commit()
            })
        });
        let error = match call.and_then(|call| masters.wait(node, call)) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        // Somebody is in the way; or the origin still belongs to a session whose end the server has not noticed.
        let passing = [SqlState::LOCK_NOT_AVAILABLE, SqlState::OBJECT_IN_USE];
        let passes = match &error {
            CallError::Verdict(error) => error.code().is_some_and(|code| passing.contains(code)),
            _ => {
                masters.renew(node);
                true
            }
        };
        if !passes || Instant::now() >= deadline {
            return Err(error).with_context(doing);
        }
        std::thread::sleep(limits::LOAD_SWAP_PAUSE);
    }
}
