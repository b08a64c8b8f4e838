//! The statements that exchange the tables of one master in one transaction. They are written down on both masters before the first of them
//! runs, so a load that dies in between is finished by the next one.

use super::known::Catalogues;
use super::orphans::Child;
use super::report::OfFile;
use super::stage::Definitions;
use super::{Load, stage};
use crate::cluster::NodeId;
use crate::imdb::format::filler_of;
use crate::replication::literal;
use std::collections::BTreeSet;

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

/// Genres of titles are exchanged with them, and refer to a table that stays and that others write to.
const OF_GENRES: &str = "titulo_genero";

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
        if made.iter().any(|(_, made)| has_genres(made)) {
            self.note_genres(catalogues)?;
        }
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

    /// Notes the genres of the new titles, since somebody may delete one of them until the tables are exchanged.
    fn note_genres(&self, catalogues: &Catalogues) -> anyhow::Result<()> {
        let (codes, numbers): (Vec<String>, Vec<i32>) = catalogues
            .genres
            .iter()
            .map(|(code, number)| (String::from_utf8_lossy(code).into_owned(), *number))
            .unzip();
        let began = self.began.clone();
        let sql = include_str!("../../../sql/load_genres_used.sql");
        let doing = "note the genres of the titles";
        self.masters.run_long_on_all(doing, move |session| {
            session.client().execute(sql, &[&numbers, &codes, &began])
        })?;
        Ok(())
    }
}

fn has_genres(made: &Definitions) -> bool {
    made.tables.iter().any(|table| table.name == OF_GENRES)
}

/// The statements of the exchange on one master, of which the first two take all locks. Pure.
pub fn script(made: &Definitions, news: &News<'_>) -> String {
    let mut sql: Vec<String> = Vec::new();
    sql.extend(locks(made));
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
    sql.push(published(made));
    sql.extend(new_values(news));
    if has_genres(made) {
        sql.push(include_str!("../../../sql/load_genres_again.sql").to_string());
    }
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

/// Publishes the new tables, since a publication names its tables and has lost the old ones.
fn published(made: &Definitions) -> String {
    let names = made.tables.iter();
    let names = names.map(|table| format!("public.{}", table.name));
    format!(
        "DO $$ BEGIN IF EXISTS (SELECT FROM pg_catalog.pg_publication WHERE pubname = 'pub_imdb' AND NOT puballtables) \
         THEN ALTER PUBLICATION pub_imdb ADD TABLE {}; END IF; END $$",
        names.collect::<Vec<_>>().join(", ")
    )
}

/// The locks: on the films' tables, and on the catalogues that they refer to, since a foreign key is dropped and made on both of its sides.
fn locks(made: &Definitions) -> [String; 2] {
    let named = |schema: &str, table: &str| format!("\"{schema}\".\"{table}\"");
    let names = made.tables.iter().map(|table| named("public", &table.name));
    let (mut films, mut others): (BTreeSet<String>, BTreeSet<String>) =
        (names.collect(), BTreeSet::new());
    for key in &made.foreign_keys {
        films.insert(named(&key.schema, &key.child));
        match filler_of(&key.parent) {
            Some(_) => films.insert(named(&key.parent_schema, &key.parent)),
            None => others.insert(named(&key.parent_schema, &key.parent)),
        };
    }
    [films, others].map(|tables| match tables.is_empty() {
        true => "LOCK TABLE public.cargas IN ROW EXCLUSIVE MODE".to_string(),
        false => {
            let tables: Vec<String> = tables.into_iter().collect();
            format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", tables.join(", "))
        }
    })
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
                 OVERRIDING SYSTEM VALUE VALUES ({number}, {code}, {began}, 0)"
            ),
            format!("INSERT INTO public.generos_imdb VALUES ({code}, {number})"),
        ]
    });
    of_catalogues.chain(of_genres).collect()
}
