//! Which tables can be compared, and the statements that read them. Texts go through the session
//! settings of `reach.rs`, so that the same row has the same text on both masters.

use super::verdict::Key;
use postgres::Row;
use std::collections::BTreeMap;

/// One column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Column {
    pub name: String,
    pub kind: String,
    pub generated: bool,
    /// Its place in the primary key.
    pub key: Option<i32>,
    /// By which texts are ordered; empty for what has no collation.
    pub collation: String,
}

/// The tables of one master: columns by name, `schema.table` first.
pub(super) type Catalog = BTreeMap<String, Vec<Column>>;

/// What can be done about one table.
#[derive(Debug)]
pub(super) enum Pairing {
    Comparable(Table),
    /// It is not there, or not the same, on both masters: the reason.
    Unlike(String),
    /// It has no primary key, by which its rows could be told apart.
    NoKey,
}

/// A table that both masters have alike.
#[derive(Debug)]
pub(super) struct Table {
    pub columns: Vec<Column>,
    /// Positions in `columns`, in the order of the key.
    key: Vec<usize>,
    /// Quoted, with its schema.
    target: String,
    /// Whether both masters order the key's texts alike.
    ordered_alike: bool,
}

/// Reads the catalog off the rows of `sql/compare_tables.sql`.
pub(super) fn catalog(rows: &[Row]) -> Result<Catalog, postgres::Error> {
    let mut tables = Catalog::new();
    for row in rows {
        let (schema, name): (&str, &str) = (row.try_get("schema")?, row.try_get("name")?);
        let columns = tables.entry(format!("{schema}.{name}")).or_default();
        let Some(name) = row.try_get::<_, Option<String>>("column_name")? else {
            continue;
        };
        columns.push(Column {
            name,
            kind: row.try_get("type")?,
            generated: row.try_get("generated")?,
            key: row.try_get("key_position")?,
            collation: row.try_get("collation")?,
        });
    }
    Ok(tables)
}

/// How a table is called towards people: those of schema public by their name alone.
pub(super) fn shown(name: &str) -> &str {
    name.strip_prefix("public.").unwrap_or(name)
}

/// Pairs the tables of both masters: those named, or all of schema public.
///
/// # Errors
/// The first name that neither master has.
pub(super) fn pair(
    catalogs: &[Catalog; 2],
    wanted: &[String],
) -> Result<Vec<(String, Pairing)>, String> {
    let [first, second] = catalogs;
    let mut names: Vec<String> = Vec::new();
    for name in wanted {
        let full = match first.contains_key(name) || second.contains_key(name) {
            true => name.clone(),
            false => format!("public.{name}"),
        };
        if !first.contains_key(&full) && !second.contains_key(&full) {
            return Err(name.clone());
        }
        names.push(full);
    }
    if wanted.is_empty() {
        let of_both = first.keys().chain(second.keys());
        names.extend(of_both.filter(|name| name.starts_with("public.")).cloned());
    }
    names.sort();
    names.dedup();
    Ok(names
        .into_iter()
        .map(|name| {
            let pairing = pairing(&name, first.get(&name), second.get(&name));
            (name, pairing)
        })
        .collect())
}

fn pairing(name: &str, first: Option<&Vec<Column>>, second: Option<&Vec<Column>>) -> Pairing {
    let (first, second) = match (first, second) {
        (Some(first), Some(second)) => (first, second),
        (None, _) => return Pairing::Unlike("master1 does not have it".to_string()),
        (_, None) => return Pairing::Unlike("master2 does not have it".to_string()),
    };
    if let Some(reason) = unlike_columns(first, second) {
        return Pairing::Unlike(reason);
    }
    let mut key: Vec<usize> = (0..first.len())
        .filter(|index| first[*index].key.is_some())
        .collect();
    key.sort_by_key(|index| first[*index].key);
    if key.is_empty() {
        return Pairing::NoKey;
    }
    let collation_there = |name: &str| {
        let there = second.iter().find(|column| column.name == name);
        there.map(|column| column.collation.as_str())
    };
    let ordered_alike = key.iter().all(|index| {
        let here = &first[*index];
        collation_there(&here.name) == Some(here.collation.as_str())
    });
    let (schema, table) = name.split_once('.').unwrap_or(("public", name));
    Pairing::Comparable(Table {
        columns: first.clone(),
        key,
        target: format!("{}.{}", quoted(schema), quoted(table)),
        ordered_alike,
    })
}

/// In what the columns of a table differ; their order does not matter to the replication.
fn unlike_columns(first: &[Column], second: &[Column]) -> Option<String> {
    let describe = |column: &Column| {
        let generated = if column.generated { ", generated" } else { "" };
        let key = match column.key {
            Some(place) => format!(", column {} of the primary key", place + 1),
            None => String::new(),
        };
        format!("{}{generated}{key}", column.kind)
    };
    let by_name = |columns: &[Column]| -> BTreeMap<String, String> {
        let described = columns
            .iter()
            .map(|column| (column.name.clone(), describe(column)));
        described.collect()
    };
    let (first, second) = (by_name(first), by_name(second));
    let mut reasons = Vec::new();
    for (name, here) in &first {
        match second.get(name) {
            None => reasons.push(format!("master2 has no column {name}")),
            Some(there) if there != here => reasons.push(format!(
                "column {name} is {here} on master1 and {there} on master2"
            )),
            Some(_) => {}
        }
    }
    let missing = second.keys().filter(|name| !first.contains_key(*name));
    reasons.extend(missing.map(|name| format!("master1 has no column {name}")));
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

impl Table {
    /// The names of the key's columns.
    pub fn key_names(&self) -> impl Iterator<Item = &str> {
        self.key_columns().map(|column| column.name.as_str())
    }

    /// The key of the `$3`rd row (counted from 0) after key `$1` and up to key `$2`.
    pub fn bound(&self) -> String {
        format!(
            "SELECT {} FROM {} AS t WHERE {} ORDER BY {} OFFSET $3 LIMIT 1",
            self.key_texts(),
            self.target,
            self.in_range(),
            self.order(),
        )
    }

    /// Number and checksum of the rows after key `$1` and up to key `$2`, of the first `$3` at most.
    pub fn sum(&self) -> String {
        format!(
            "SELECT count(*), coalesce(sum(pg_catalog.hashtextextended(r.whole, 0)::numeric), 0)::text \
             FROM (SELECT {} AS whole FROM {} AS t WHERE {} ORDER BY {} LIMIT $3) AS r",
            self.whole(),
            self.target,
            self.in_range(),
            self.order(),
        )
    }

    /// The same rows, each with its key and version.
    pub fn rows(&self) -> String {
        format!(
            "SELECT {}, {} FROM {} AS t WHERE {} ORDER BY {} LIMIT $3",
            self.key_texts(),
            self.version(),
            self.target,
            self.in_range(),
            self.order(),
        )
    }

    /// The versions of rows by key: an array for each column of the key, and out comes the place in
    /// the arrays with the version.
    pub fn lookup(&self) -> String {
        self.lookup_with(&self.version())
    }

    /// The same, with all columns as texts.
    pub fn lookup_values(&self) -> String {
        let values: Vec<String> = self.columns.iter().map(text_of).collect();
        self.lookup_with(&format!("{}, ARRAY[{}]", self.version(), values.join(", ")))
    }

    fn lookup_with(&self, what: &str) -> String {
        let names: Vec<String> = (1..=self.key.len())
            .map(|place| format!("k{place}"))
            .collect();
        let arrays: Vec<String> = (1..=self.key.len())
            .map(|place| format!("pg_catalog.unnest(${place}::text[])"))
            .collect();
        let equal: Vec<String> = self
            .key_columns()
            .zip(&names)
            .map(|(column, name)| format!("t.{} = k.{name}::{}", quoted(&column.name), column.kind))
            .collect();
        format!(
            "SELECT k.place, {what} FROM ROWS FROM ({}) WITH ORDINALITY AS k ({}, place) \
             JOIN {} AS t ON {}",
            arrays.join(", "),
            names.join(", "),
            self.target,
            equal.join(" AND "),
        )
    }

    /// The version of the row with key `$1`, locked.
    pub fn lock(&self) -> String {
        format!(
            "SELECT {} FROM {} AS t WHERE {} FOR UPDATE OF t",
            self.version(),
            self.target,
            self.with_key()
        )
    }

    /// The version of the row with key `$1`.
    pub fn read(&self) -> String {
        format!(
            "SELECT {} FROM {} AS t WHERE {}",
            self.version(),
            self.target,
            self.with_key()
        )
    }

    /// Deletes the row with key `$1`.
    pub fn delete(&self) -> String {
        format!("DELETE FROM {} AS t WHERE {}", self.target, self.with_key())
    }

    /// Gives the row with key `$1` the values `$2`; nothing if it has no column that can be given one.
    pub fn update(&self) -> Option<String> {
        let given: Vec<String> = self
            .written()
            .filter(|(_, column)| column.key.is_none())
            .map(|(place, column)| {
                format!("{} = {}", quoted(&column.name), value(2, place, column))
            })
            .collect();
        (!given.is_empty()).then(|| {
            format!(
                "UPDATE {} AS t SET {} WHERE {}",
                self.target,
                given.join(", "),
                self.with_key()
            )
        })
    }

    /// Inserts a row with the values `$1`, unless its key is taken.
    pub fn insert(&self) -> String {
        let names: Vec<String> = self
            .written()
            .map(|(_, column)| quoted(&column.name))
            .collect();
        let values: Vec<String> = self
            .written()
            .map(|(place, column)| value(1, place, column))
            .collect();
        let keys: Vec<String> = self
            .key_columns()
            .map(|column| quoted(&column.name))
            .collect();
        format!(
            "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE VALUES ({}) ON CONFLICT ({}) DO NOTHING",
            self.target,
            names.join(", "),
            values.join(", "),
            keys.join(", ")
        )
    }

    /// The keys of a batch, as an array for each column of the key.
    pub fn transposed<'a>(&self, keys: impl Iterator<Item = &'a Key>) -> Vec<Vec<String>> {
        let mut arrays = vec![Vec::new(); self.key.len()];
        for key in keys {
            for (array, part) in arrays.iter_mut().zip(key) {
                array.push(part.clone());
            }
        }
        arrays
    }

    fn key_columns(&self) -> impl Iterator<Item = &Column> {
        self.key.iter().map(|index| &self.columns[*index])
    }

    /// The columns that can be written, with their place among all.
    fn written(&self) -> impl Iterator<Item = (usize, &Column)> {
        let all = self.columns.iter().enumerate();
        all.filter(|(_, column)| !column.generated)
    }

    /// The whole row as one text, with the columns in the order of master1.
    fn whole(&self) -> String {
        let names: Vec<String> = self.columns.iter().map(column_of).collect();
        format!("ROW({})::text", names.join(", "))
    }

    fn version(&self) -> String {
        format!(
            "pg_catalog.md5({}), pg_catalog.concat_ws(' ', t.tableoid, t.xmin, t.ctid)",
            self.whole()
        )
    }

    fn key_texts(&self) -> String {
        let texts: Vec<String> = self.key_columns().map(text_of).collect();
        format!("ARRAY[{}]", texts.join(", "))
    }

    fn order(&self) -> String {
        self.ordered_key().join(", ")
    }

    /// Where the masters would order texts differently, by their bytes: an order that no index has, so
    /// that each chunk sorts the whole table, but the same on both.
    fn ordered_key(&self) -> Vec<String> {
        let ordered = |column: &Column| match self.ordered_alike || column.collation.is_empty() {
            true => column_of(column),
            false => format!("{} COLLATE \"C\"", column_of(column)),
        };
        self.key_columns().map(ordered).collect()
    }

    fn in_range(&self) -> String {
        let key = self.ordered_key().join(", ");
        let (lower, upper) = (self.key_value(1), self.key_value(2));
        format!(
            "($1::text[] IS NULL OR ROW({key}) > ROW({lower})) \
             AND ($2::text[] IS NULL OR ROW({key}) <= ROW({upper}))"
        )
    }

    fn with_key(&self) -> String {
        let key: Vec<String> = self.key_columns().map(column_of).collect();
        format!("ROW({}) = ROW({})", key.join(", "), self.key_value(1))
    }

    /// The key in the array that is a parameter, as values of its own types.
    fn key_value(&self, parameter: usize) -> String {
        let values: Vec<String> = self
            .key_columns()
            .enumerate()
            .map(|(place, column)| value(parameter, place, column))
            .collect();
        values.join(", ")
    }
}

fn column_of(column: &Column) -> String {
    format!("t.{}", quoted(&column.name))
}

fn text_of(column: &Column) -> String {
    format!("{}::text", column_of(column))
}

/// One text of the array that is a parameter, as a value of the column's type.
fn value(parameter: usize, place: usize, column: &Column) -> String {
    format!("(${parameter}::text[])[{}]::{}", place + 1, column.kind)
}

/// A name as an SQL identifier.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, kind: &str, key: Option<i32>) -> Column {
        Column {
            name: name.to_string(),
            kind: kind.to_string(),
            generated: false,
            key,
            collation: String::new(),
        }
    }

    fn catalog_of(tables: &[(&str, Vec<Column>)]) -> Catalog {
        let named = tables
            .iter()
            .map(|(name, columns)| (name.to_string(), columns.clone()));
        named.collect()
    }

    #[test]
    fn tables_are_paired_by_name_and_what_is_not_alike_is_said() {
        let both = vec![column("id", "integer", Some(0)), column("a", "text", None)];
        let turned: Vec<Column> = both.iter().rev().cloned().collect();
        let other = vec![column("id", "bigint", Some(0)), column("b", "text", None)];
        let first = catalog_of(&[
            ("public.same", both.clone()),
            ("public.other", both.clone()),
            ("public.alone", both.clone()),
            ("public.keyless", vec![column("a", "text", None)]),
            ("imdb_ha.local", both.clone()),
        ]);
        let second = catalog_of(&[
            ("public.same", turned),
            ("public.other", other),
            ("public.keyless", vec![column("a", "text", None)]),
        ]);
        let catalogs = [first, second];
        let all = pair(&catalogs, &[]).expect("known");
        let told: Vec<(&str, String)> = all
            .iter()
            .map(|(name, pairing)| {
                let told = match pairing {
                    Pairing::Comparable(_) => "comparable".to_string(),
                    Pairing::NoKey => "no key".to_string(),
                    Pairing::Unlike(reason) => reason.clone(),
                };
                (shown(name), told)
            })
            .collect();
        let unlike = "master2 has no column a; column id is integer, column 1 of the primary key on master1 \
                      and bigint, column 1 of the primary key on master2; master1 has no column b";
        assert_eq!(
            told,
            [
                ("alone", "master2 does not have it".to_string()),
                ("keyless", "no key".to_string()),
                ("other", unlike.to_string()),
                ("same", "comparable".to_string()),
            ]
        );
        let wanted = ["imdb_ha.local", "same", "public.same"].map(String::from);
        let named = pair(&catalogs, &wanted).expect("known");
        let names: Vec<&str> = named.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["imdb_ha.local", "public.same"]);
        let nowhere = pair(&catalogs, &["nowhere".to_string()]);
        assert_eq!(nowhere.err().as_deref(), Some("nowhere"));
    }

    #[test]
    fn names_are_quoted_and_bytes_decide_where_collations_differ() {
        let key = |collation: &str| Column {
            collation: collation.to_string(),
            ..column("a \"b\"", "text", Some(0))
        };
        let order = |there: &str| {
            let catalogs = [
                catalog_of(&[("public.t", vec![key("c libc 2.36")])]),
                catalog_of(&[("public.t", vec![key(there)])]),
            ];
            match pair(&catalogs, &[]).expect("known").remove(0).1 {
                Pairing::Comparable(table) => table.order(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(order("c libc 2.36"), "t.\"a \"\"b\"\"\"");
        assert_eq!(order("c libc 2.41"), "t.\"a \"\"b\"\"\" COLLATE \"C\"");
    }
}
