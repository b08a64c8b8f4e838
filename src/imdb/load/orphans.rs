//! Rows of tables that stay, and whose title or person goes: they become rejects. They are looked for before anything is locked, since that
//! reads whole tables; the exchange then deletes them by their keys. What somebody writes by hand into such a table after that, for a
//! title that goes, stays and belongs to nothing until the next load of that kind finds it.

use super::Load;
use super::cells::Reason;
use super::read::lines;
use super::report::OfFile;
use super::sink::Sink;
use super::stage::{self, Definitions};
use crate::imdb::format::{self, LAYOUTS};
use crate::pg::unsent;
use crate::replication::literal;
use anyhow::bail;
use std::collections::BTreeMap;

/// A table that stays and refers to tables that are exchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    table: &'static [format::Table],
    file: &'static str,
    key: Vec<String>,
    /// Its columns that refer to something, each with the table and the column there.
    parents: Vec<(String, String, String)>,
}

impl Load<'_> {
    /// Looks for them on those masters that are loaded the first, and makes them rejects on all; returns the tables that have some.
    pub(super) fn find_orphans(&mut self, made: &Definitions) -> anyhow::Result<Vec<Child>> {
        let (mut bereft, mut left) = (Vec::new(), Vec::new());
        for child in children(made, &self.progress.files)? {
            // The same rows on all masters, whatever somebody writes at this moment.
            let mut sink = Sink::open(&self.masters, child.table, &self.origin)?;
            let what = format!("what {} loses", child.name());
            stage::copied_out(&self.masters, &what, &child.orphans(), |block| {
                if lines(block).next().is_some() {
                    sink.send(0, block.to_vec())?;
                }
                self.check_interrupt()
            })?;
            let lost = sink.end()?.first().copied().unwrap_or(0);
            if lost == 0 {
                continue;
            }
            if !self.wanted.allow.shrink {
                for (name, there) in self.count(vec![child.name()])? {
                    self.before.push((name, there));
                    left.push((name, there.saturating_sub(lost)));
                }
            }
            self.reject(&child)?;
            bereft.push(child);
        }
        self.check_shrink(&left)?;
        self.count_orphans()?;
        Ok(bereft)
    }

    fn reject(&self, child: &Child) -> anyhow::Result<()> {
        let (sql, origin) = (child.rejects(self.progress.load), self.origin.clone());
        let doing = format!("note what {} loses", child.name());
        self.masters.run_long_on_all(&doing, move |session| {
            unsent(session.client(), &origin, |client| {
                client.batch_execute(&sql)
            })
        })?;
        Ok(())
    }

    /// Counts all that loses what it belongs to, the ratings too.
    fn count_orphans(&mut self) -> anyhow::Result<()> {
        let counts = self
            .masters
            .run_long_on_all("count what is lost", |session| {
                let sql =
                    "SELECT archivo, count(*) FROM imdb_carga.rechazos WHERE linea = 0 GROUP BY 1";
                let rows = session.client().query(sql, &[])?;
                let counts = rows
                    .iter()
                    .map(|row| Ok((row.try_get(0)?, row.try_get::<_, i64>(1)?.unsigned_abs())));
                counts.collect::<Result<BTreeMap<String, u64>, postgres::Error>>()
            })?;
        self.progress.orphans = counts.into_iter().next().unwrap_or_default();
        Ok(())
    }
}

/// The tables in which there may be some. Those that are none of a file's are somebody else's, and are left alone. Pure.
fn children(made: &Definitions, files: &[OfFile]) -> anyhow::Result<Vec<Child>> {
    // Titles that only got other ratings are all there.
    let is_filled = |table: &str| {
        let mut files = files.iter();
        format::filler_of(table)
            .is_some_and(|filler| files.any(|file| file.layout.file == filler.file))
    };
    let ours = made.foreign_keys.iter().filter(|key| {
        key.schema == "public"
            && key.parent_exchanged
            && !key.child_exchanged
            && is_filled(&key.parent)
    });
    let mut found: Vec<Child> = Vec::new();
    for key in ours {
        let (Some((file, table)), Some((column, of_parent))) = (table(&key.child), &key.columns)
        else {
            continue;
        };
        if key.child_key.is_empty() {
            bail!(
                "{} has no primary key, by which its rows could be told apart",
                key.child
            );
        }
        let parent = (column.clone(), key.parent.clone(), of_parent.clone());
        match found.iter_mut().find(|child| child.name() == key.child) {
            Some(child) => child.parents.push(parent),
            None => found.push(Child {
                table,
                file,
                key: key.child_key.clone(),
                parents: vec![parent],
            }),
        }
    }
    Ok(found)
}

fn table(name: &str) -> Option<(&'static str, &'static [format::Table])> {
    LAYOUTS.iter().find_map(|layout| {
        let table = layout.tables.iter().find(|table| table.name == name)?;
        Some((layout.name, std::slice::from_ref(table)))
    })
}

impl Child {
    fn name(&self) -> &'static str {
        self.table[0].name
    }

    /// The joins from `c` to the new tables, and what is true of a row that is in none.
    fn joined(&self) -> (String, String) {
        let (mut joins, mut lost) = (Vec::new(), Vec::new());
        for ((column, parent, of_parent), number) in self.parents.iter().zip(0..) {
            let (column, of_parent) = (ident(column), ident(of_parent));
            joins.push(format!(
                "LEFT JOIN imdb_carga.{parent} AS p{number} ON p{number}.{of_parent} = c.{column}"
            ));
            lost.push(format!(
                "c.{column} IS NOT NULL AND p{number}.{of_parent} IS NULL"
            ));
        }
        (joins.join(" "), lost.join(" OR "))
    }

    /// The statement that gives them out.
    fn orphans(&self) -> String {
        let columns = self.table[0].columns.split(", ");
        let columns: Vec<String> = columns.map(|column| format!("c.{column}")).collect();
        let (joins, lost) = self.joined();
        format!(
            "COPY (SELECT {} FROM public.{} AS c {joins} WHERE {lost}) TO STDOUT",
            columns.join(", "),
            self.name()
        )
    }

    /// The statements that make rejects of those that were found. Their numbers follow from their keys, and so are the same on all masters.
    fn rejects(&self, load: i64) -> String {
        let (joins, _) = self.joined();
        let which = |what: &dyn Fn(&str) -> String| {
            let cases = self.parents.iter().zip(0..).map(|(parent, number)| {
                let (column, of_parent) = (ident(&parent.0), ident(&parent.2));
                format!(
                    "WHEN c.{column} IS NOT NULL AND p{number}.{of_parent} IS NULL THEN {}",
                    what(&parent.0)
                )
            });
            format!("CASE {} END", cases.collect::<Vec<_>>().join(" "))
        };
        let key = self.key.iter().map(|column| format!("c.{}", ident(column)));
        include_str!("../../../sql/load_orphans.sql")
            .replace("{{tabla}}", self.name())
            .replace("{{uniones}}", &joins)
            .replace("{{carga}}", &load.to_string())
            .replace("{{archivo}}", &literal(self.file))
            .replace("{{clave}}", &key.collect::<Vec<_>>().join(", "))
            .replace("{{columna}}", &which(&literal))
            .replace("{{motivo}}", &literal(Reason::Dangling.in_database()))
            .replace(
                "{{valor}}",
                &which(&|column| format!("c.{}::text", ident(column))),
            )
    }

    /// The statement of the exchange that deletes them. One that refers to something else by now stays.
    pub fn without_orphans(&self) -> String {
        let columns = self
            .key
            .iter()
            .chain(self.parents.iter().map(|(column, ..)| column));
        let same: Vec<String> = columns
            .map(|column| format!("c.{0} = o.{0}", ident(column)))
            .collect();
        format!(
            "DELETE FROM public.{0} AS c USING imdb_carga.{0} AS o WHERE {1}",
            self.name(),
            same.join(" AND ")
        )
    }
}

/// A name as an SQL identifier.
fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::super::report::Progress;
    use super::super::stage::ForeignKey;
    use super::*;

    fn key(child: &str, column: &str, parent: &str, of_parent: &str) -> ForeignKey {
        ForeignKey {
            schema: "public".to_string(),
            child: child.to_string(),
            child_key: vec!["id_titulo".to_string(), "id_persona".to_string()],
            parent_schema: "public".to_string(),
            parent: parent.to_string(),
            parent_exchanged: true,
            child_exchanged: false,
            without: String::new(),
            with: String::new(),
            columns: Some((column.to_string(), of_parent.to_string())),
        }
    }

    #[test]
    fn what_stays_and_loses_something_is_read_once_and_deleted_by_its_key() {
        let exchanged = ForeignKey {
            child_exchanged: true,
            ..key("titulo_genero", "id_titulo", "titulos", "id_titulo")
        };
        let made = Definitions {
            tables: Vec::new(),
            foreign_keys: vec![
                key("titulo_director", "id_persona", "personas", "id_persona"),
                key("titulo_director", "id_titulo", "titulos", "id_titulo"),
                // Somebody else's, and one that goes itself.
                key("notas", "id_titulo", "titulos", "id_titulo"),
                exchanged,
            ],
        };
        let of = |numbers: &[usize]| {
            let layouts = numbers.iter().map(|number| &LAYOUTS[*number]);
            Progress::of(layouts.map(|layout| (layout.name, layout))).files
        };
        let found = children(&made, &of(&[0, 1])).expect("they have keys");
        assert_eq!(found.len(), 1);
        let child = &found[0];
        assert_eq!(
            (child.name(), child.file),
            ("titulo_director", "title.crew")
        );
        let sql = child.orphans();
        assert_eq!(sql.matches("LEFT JOIN imdb_carga.").count(), 2, "{sql}");
        assert!(!sql.contains("public.titulos") && !sql.contains("public.personas"));
        assert_eq!(
            child.without_orphans(),
            "DELETE FROM public.titulo_director AS c USING imdb_carga.titulo_director AS o \
             WHERE c.\"id_titulo\" = o.\"id_titulo\" AND c.\"id_persona\" = o.\"id_persona\" \
             AND c.\"id_persona\" = o.\"id_persona\" AND c.\"id_titulo\" = o.\"id_titulo\""
        );
        // Titles alone; and ratings, for which all titles are made anew.
        let of_titles = children(&made, &of(&[0])).expect("they have keys");
        assert_eq!(of_titles[0].parents.len(), 1);
        let ratings = LAYOUTS.len() - 1;
        assert_eq!(children(&made, &of(&[ratings])).expect("none"), []);
        let keyless = Definitions {
            foreign_keys: vec![ForeignKey {
                child_key: Vec::new(),
                ..key("titulo_director", "id_titulo", "titulos", "id_titulo")
            }],
            ..Definitions::default()
        };
        assert!(children(&keyless, &of(&[0])).is_err());
    }
}
