//! The tables that the masters share, and what of them is on one master alone.

use crate::cluster::NodeId;
use crate::limits;
use crate::replication::reach::Reach;
use anyhow::bail;

/// A table of one master; names are quoted as SQL needs them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table {
    pub name: String,
    pub schema: String,
    pub columns: Vec<String>,
    definition: String,
    key: Vec<String>,
    /// About how many rows it has, from the statistics.
    pub rows: i64,
    published: bool,
}

/// The tables that `from` publishes, after seeing that `to` has each of them in the same form.
/// Only the tables of this program are made by it; any other must be made by whoever made it before.
pub(super) fn shared(reach: &Reach, from: NodeId, to: NodeId) -> anyhow::Result<Vec<Table>> {
    let (mut source, target) = (list(reach, from)?, list(reach, to)?);
    source.retain(|table| table.published);
    for table in &source {
        let (name, on_source) = (&table.name, &table.definition);
        match target.iter().find(|other| other.name == *name) {
            Some(other) if other.definition == *on_source => {}
            Some(other) => bail!(
                "table {name} is ({on_source}) on {from} and ({}) on {to}; make them the same first",
                other.definition
            ),
            None => bail!(
                "{to} has no table {name}, which is none of this program's; make it there first, for \
                 instance with pg_dump --schema-only --table='{name}' on {from}"
            ),
        }
    }
    if source.is_empty() {
        bail!("{from} publishes no table");
    }
    Ok(source)
}

fn list(reach: &Reach, node: NodeId) -> anyhow::Result<Vec<Table>> {
    reach.run(node, "list the tables", |session| {
        let rows = session
            .client()
            .query(include_str!("../../../sql/tables.sql"), &[])?;
        let table = |row: &postgres::Row| {
            Ok(Table {
                name: row.try_get("name")?,
                schema: row.try_get("schema")?,
                columns: row.try_get("columns")?,
                definition: row.try_get("definition")?,
                key: row.try_get("key")?,
                rows: row.try_get("rows")?,
                published: row.try_get("published")?,
            })
        };
        rows.iter().map(table).collect()
    })
}

/// How many rows of `node` its peer lacks, or has in an older version only. They are read in pages and
/// looked for on the peer, which compares them as values of its own table; so neither the size of a
/// table nor the type of a column matters.
pub(super) fn only_on(reach: &Reach, node: NodeId, tables: &[Table]) -> anyhow::Result<i64> {
    let mut count = 0;
    let wanted = |table: &&Table| table.schema == "public" && table.name != MADE_ANEW;
    for table in tables.iter().filter(wanted) {
        let of_table = only_in(reach, node, table);
        // The session goes on to be used, whatever came of this.
        reach.run(node, "end the reading", |session| {
            session.client().batch_execute("ROLLBACK")
        })?;
        count += of_table?;
    }
    Ok(count)
}

/// Rows that are nobody's loss: a master that has lost its data begins with all codes of the genres, also of those that have been deleted since,
/// and the next load makes what is missing.
const MADE_ANEW: &str = "public.generos_imdb";

fn only_in(reach: &Reach, node: NodeId, table: &Table) -> anyhow::Result<i64> {
    let doing = format!("read {}", table.name);
    let cursor = format!(
        "BEGIN READ ONLY; DECLARE imdb_ha_rows CURSOR FOR SELECT row_to_json(t)::text FROM {} AS t",
        table.name
    );
    reach.run(node, &doing, move |session| {
        session.client().batch_execute(&cursor)
    })?;
    let mut count = 0;
    loop {
        let fetch = format!("FETCH {} FROM imdb_ha_rows", limits::REJOIN_PAGE_ROWS);
        let page: Vec<String> = reach.run(node, &doing, move |session| {
            let rows = session.client().query(&fetch, &[])?;
            rows.iter().map(|row| row.try_get(0)).collect()
        })?;
        if page.is_empty() {
            return Ok(count);
        }
        let (sql, page) = (missing_here(table), format!("[{}]", page.join(",")));
        count += reach.run(node.peer(), &doing, move |session| {
            let row = session.client().query_one(&sql, &[&page])?;
            row.try_get::<_, i64>(0)
        })?;
    }
}

/// What the deletions that are on record here say of: see `sql/schema.sql`.
const WITH_DELETIONS: &str = "public.generos";

/// Counts those of the rows in $1 that are not here, nor newer here, nor known here to be deleted. The
/// genres that come with the schema are on a master that has lost its data as well, and one that has
/// been deleted since is nobody's loss.
fn missing_here(table: &Table) -> String {
    let row = |alias: &str| {
        let columns = table
            .columns
            .iter()
            .map(|column| format!("{alias}.{column}"));
        format!("ROW({})::text", columns.collect::<Vec<_>>().join(", "))
    };
    let same_key = table
        .key
        .iter()
        .map(|column| format!("here.{column} = there.{column}"));
    let mut same: Vec<String> = same_key.collect();
    let has = |name: &str| table.columns.iter().any(|column| column == name);
    same.push(
        match !table.key.is_empty() && has("cambiado_en") && has("nodo") {
            true => "(here.cambiado_en, here.nodo) >= (there.cambiado_en, there.nodo)".to_string(),
            false => format!("{} = {}", row("here"), row("there")),
        },
    );
    let deleted = match table.name == WITH_DELETIONS {
        true => {
            " AND NOT EXISTS (SELECT FROM imdb_ha.borrados AS gone \
             WHERE gone.id_genero = there.id_genero \
             AND (gone.cuando, gone.nodo) >= (there.cambiado_en, there.nodo))"
        }
        false => "",
    };
    format!(
        "SELECT count(*) FROM json_populate_recordset(NULL::{0}, $1::text::json) AS there \
         WHERE NOT EXISTS (SELECT FROM {0} AS here WHERE {1}){deleted}",
        table.name,
        same.join(" AND ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_looked_for_by_its_key_and_its_stamp_or_as_a_whole() {
        let columns = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
        let mut table = Table {
            name: "public.t".to_string(),
            schema: "public".to_string(),
            columns: columns(&["cambiado_en", "id", "nodo"]),
            definition: String::new(),
            key: columns(&["id"]),
            rows: 0,
            published: true,
        };
        let sql = missing_here(&table);
        assert!(
            sql.contains("here.id = there.id AND (here.cambiado_en, here.nodo) >="),
            "{sql}"
        );
        table.columns = columns(&["id", "name"]);
        let sql = missing_here(&table);
        assert!(
            sql.contains("ROW(here.id, here.name)::text = ROW(there.id, there.name)::text"),
            "{sql}"
        );
    }
}
