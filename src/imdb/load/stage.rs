//! What is on the masters before and beside a load: how the tables are made that it exchanges, what is known there, and what an earlier
//! load has left.

use super::known::{Catalogue, Ids};
use super::masters::Masters;
use super::read;
use crate::cluster::NodeId;
use crate::limits;
use anyhow::{Context, bail};
use crossbeam_channel::{RecvTimeoutError, bounded};
use std::collections::{BTreeSet, HashMap};
use std::io::{self, BufReader, Read};

/// How one table of a master is made, apart from its columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    pub name: String,
    /// Statements for its keys and indexes in schema imdb_carga.
    pub keys: Vec<String>,
    pub grants: Vec<String>,
    obstacles: Vec<String>,
}

/// A foreign key from or to a table that is exchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignKey {
    pub schema: String,
    pub child: String,
    /// The columns of its primary key.
    pub child_key: Vec<String>,
    pub parent_schema: String,
    pub parent: String,
    pub parent_exchanged: bool,
    pub child_exchanged: bool,
    /// The statement that drops it, and the one that makes it anew without reading the rows.
    pub without: String,
    pub with: String,
    /// The two columns, if it is over one.
    pub columns: Option<(String, String)>,
}

/// What a master says of the tables that are exchanged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Definitions {
    pub tables: Vec<Made>,
    pub foreign_keys: Vec<ForeignKey>,
}

/// Reads how the tables are made.
///
/// # Errors
/// When a master cannot be asked, lacks one of them, or has something that depends on one.
pub fn definitions(
    masters: &Masters,
    node: NodeId,
    names: &[&'static str],
) -> anyhow::Result<Definitions> {
    let wanted: Vec<&'static str> = names.to_vec();
    let found = masters.run(node, "look at the tables", move |session| {
        let client = session.client();
        let rows = client.query(include_str!("../../../sql/load_tables.sql"), &[&wanted])?;
        let tables = rows.iter().map(|row| {
            Ok(Made {
                name: row.try_get("name")?,
                keys: row.try_get("keys")?,
                grants: row.try_get("grants")?,
                obstacles: row.try_get("obstacles")?,
            })
        });
        let tables = tables.collect::<Result<_, postgres::Error>>()?;
        let rows = client.query(
            include_str!("../../../sql/load_foreign_keys.sql"),
            &[&wanted],
        )?;
        let keys = rows.iter().map(|row| {
            let columns = (row.try_get("child_column")?, row.try_get("parent_column")?);
            Ok(ForeignKey {
                schema: row.try_get("schema")?,
                child: row.try_get("child")?,
                child_key: row.try_get("child_key")?,
                parent_schema: row.try_get("parent_schema")?,
                parent: row.try_get("parent")?,
                parent_exchanged: row.try_get("parent_exchanged")?,
                child_exchanged: row.try_get("child_exchanged")?,
                without: row.try_get("without")?,
                with: row.try_get("with")?,
                columns: match columns {
                    (Some(child), Some(parent)) => Some((child, parent)),
                    _ => None,
                },
            })
        });
        Ok(Definitions {
            tables,
            foreign_keys: keys.collect::<Result<_, postgres::Error>>()?,
        })
    })?;
    let missing = names
        .iter()
        .find(|name| !found.tables.iter().any(|table| table.name == **name));
    if let Some(name) = missing {
        bail!("{node} has no table {name}; `imdb-ha replication setup` makes it");
    }
    let obstacles: Vec<String> = found
        .tables
        .iter()
        .filter(|table| !table.obstacles.is_empty())
        .map(|table| format!("{} ({})", table.name, table.obstacles.join(", ")))
        .collect();
    if !obstacles.is_empty() {
        bail!(
            "a load exchanges whole tables, and on {node} something hangs on them: {}; drop it, and make it again \
             afterwards",
            obstacles.join("; ")
        );
    }
    Ok(found)
}

/// A catalogue, with the values of all masters; one that a master lacks counts as new.
///
/// # Errors
/// When a master cannot be asked, or a value has another number there.
pub fn catalogue(
    masters: &Masters,
    table: &'static str,
    columns: &'static str,
) -> anyhow::Result<Catalogue> {
    let of_masters = values(masters, table, columns)?;
    merged(table, of_masters)
}

fn merged(table: &'static str, of_masters: Vec<Values>) -> anyhow::Result<Catalogue> {
    let all: BTreeSet<&(i32, String)> = of_masters.iter().flatten().collect();
    let numbers: BTreeSet<i32> = all.iter().map(|(number, _)| *number).collect();
    let texts: BTreeSet<&str> = all.iter().map(|(_, value)| value.as_str()).collect();
    if numbers.len() != all.len() || texts.len() != all.len() {
        bail!(
            "the masters have different rows in {table}; `imdb-ha compare --repair` makes them the same"
        );
    }
    let lacking = all
        .iter()
        .filter(|value| of_masters.iter().any(|rows| !rows.contains(value)));
    let lacking: Vec<(i32, String)> = lacking.map(|value| (*value).clone()).collect();
    let mut catalogue = Catalogue::new(table, all.into_iter().cloned());
    catalogue.new = lacking;
    Ok(catalogue)
}

/// Rows of a number and a text.
type Values = Vec<(i32, String)>;

fn values(
    masters: &Masters,
    table: &'static str,
    columns: &'static str,
) -> anyhow::Result<Vec<Values>> {
    let read = |node: &NodeId| {
        let sql = format!("SELECT {columns} FROM public.{table} ORDER BY 1, 2");
        masters.run(*node, &format!("read {table}"), move |session| {
            let rows = session.client().query(&sql, &[])?;
            let values = rows
                .iter()
                .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
            values.collect::<Result<Values, postgres::Error>>()
        })
    };
    masters.nodes.iter().map(read).collect()
}

/// The ids that a table has, of those masters that are loaded the first.
///
/// # Errors
/// When they cannot be read.
pub fn ids(masters: &Masters, table: &'static str, column: &'static str) -> anyhow::Result<Ids> {
    let sql = format!("COPY public.{table} ({column}) TO STDOUT");
    let mut ids = Ids::default();
    copied_out(masters, &format!("the ids of {table}"), &sql, |block| {
        for line in read::lines(block) {
            ids.add(std::str::from_utf8(line)?.parse()?);
        }
        Ok(())
    })?;
    Ok(ids)
}

/// Reads what a COPY gives out, on those masters that are loaded the first; `take` gets some whole lines at a time, and none when nothing has
/// come for a while, so that it can say that it wants no more.
///
/// # Errors
/// When it cannot be read, or `take` does not want it.
pub fn copied_out(
    masters: &Masters,
    what: &str,
    sql: &str,
    mut take: impl FnMut(&[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let node = masters.nodes[0];
    let doing = || format!("read {what} on {node}");
    let sql = sql.to_string();
    let (blocks, queue) = bounded(limits::LOAD_BLOCKS);
    let call = masters.begin(node, move |session| {
        let mut reader = BufReader::new(UntilEnd(Some(session.client().copy_out(&sql)?)));
        loop {
            let mut block = Vec::new();
            match read::next_block(&mut reader, &mut block) {
                Ok(true) => {}
                Ok(false) => return Ok(Ok(())),
                Err(error) => return Ok(Err(error)),
            }
            // Nobody listens any more: the other side has given up.
            if blocks.send(block).is_err() {
                return Ok(Ok(()));
            }
        }
    });
    let call = call.with_context(doing)?;
    loop {
        match queue.recv_timeout(limits::LOAD_BEAT) {
            Ok(block) => take(&block).with_context(doing)?,
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                masters.is_alive(node).with_context(doing)?;
                take(&[]).with_context(doing)?;
            }
        }
    }
    let ended = masters.wait(node, call).with_context(doing)?;
    ended.with_context(doing)
}

/// A reader that is not asked again once it has ended. The driver takes what comes after the end of a COPY for an error of the server.
struct UntilEnd<R>(Option<R>);

impl<R: Read> Read for UntilEnd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(reader) = &mut self.0 else {
            return Ok(0);
        };
        let count = reader.read(buffer)?;
        if count == 0 && !buffer.is_empty() {
            self.0 = None;
        }
        Ok(count)
    }
}

/// Draws numbers for genres that nobody has had yet, and returns all codes with their numbers and the new ones.
///
/// # Errors
/// When a master cannot be asked, or the masters differ.
pub fn genres(
    masters: &Masters,
    codes: &BTreeSet<Vec<u8>>,
) -> anyhow::Result<(HashMap<Vec<u8>, i32>, Values)> {
    let mut of_masters = values(masters, "generos_imdb", "id_genero, codigo_imdb")?;
    if of_masters.iter().any(|rows| *rows != of_masters[0]) {
        bail!(
            "the masters have different rows in generos_imdb; `imdb-ha compare --repair` makes them the same"
        );
    }
    let known = of_masters.swap_remove(0);
    let mut numbers: HashMap<Vec<u8>, i32> = known
        .into_iter()
        .map(|(number, code)| (code.into_bytes(), number))
        .collect();
    let mut new = Vec::new();
    for code in codes {
        if numbers.contains_key(code) {
            continue;
        }
        // From the half of the first master, which nobody else draws from; as an insert there would.
        let number = masters.run(masters.nodes[0], "draw a number for a genre", |session| {
            let sql = include_str!("../../../sql/load_genre.sql");
            session.client().query_one(sql, &[])?.try_get::<_, i32>(0)
        })?;
        numbers.insert(code.clone(), number);
        new.push((number, String::from_utf8_lossy(code).into_owned()));
    }
    Ok((numbers, new))
}

/// What an earlier load has left on one master.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// There is something of it.
    pub any: bool,
    /// It was complete, and only had to be exchanged: its number, and the statements for that.
    pub ready: Option<(i64, String)>,
    /// Loads that are complete here.
    pub done: Vec<i64>,
}

/// What is left on `node` of loads that did not end.
///
/// # Errors
/// When it cannot be asked.
pub fn left(masters: &Masters, node: NodeId) -> anyhow::Result<Left> {
    masters.run(node, "look for what an earlier load has left", |session| {
        let client = session.client();
        let row = client.query_one(
            "SELECT pg_catalog.to_regnamespace('imdb_carga') IS NOT NULL, \
             pg_catalog.to_regclass('imdb_carga.estado') IS NOT NULL, \
             pg_catalog.to_regclass('public.cargas') IS NOT NULL",
            &[],
        )?;
        let has_loads: bool = row.try_get(2)?;
        let mut left = Left {
            any: row.try_get(0)?,
            ..Left::default()
        };
        if row.try_get(1)? {
            let row = client.query_opt("SELECT id_carga, guion FROM imdb_carga.estado", &[])?;
            left.ready = row
                .map(|row| Ok::<_, postgres::Error>((row.try_get(0)?, row.try_get(1)?)))
                .transpose()?;
        }
        if !has_loads {
            return Ok(left);
        }
        let rows = client.query("SELECT DISTINCT id_carga FROM public.cargas", &[])?;
        left.done = rows
            .iter()
            .map(|row| row.try_get(0))
            .collect::<Result<_, _>>()?;
        Ok(left)
    })
}

/// Which of the masters has yet to exchange its tables, because the other one has done so already. Pure.
pub fn unfinished(left: &[(NodeId, Left)]) -> Option<(NodeId, i64, String)> {
    left.iter().find_map(|(node, of_node)| {
        let (load, script) = of_node.ready.clone()?;
        let peer = left.iter().find(|(other, _)| other != node)?;
        peer.1.done.contains(&load).then_some((*node, load, script))
    })
}

/// Makes room for a load: removes what an earlier one has left, and makes the schema.
///
/// # Errors
/// When a master cannot be asked, or another loader still works there.
pub fn prepare(masters: &Masters) -> anyhow::Result<()> {
    for node in &masters.nodes {
        clear(masters, *node)?;
        masters.run(*node, "make room for the load", |session| {
            session.client().batch_execute(
                "CREATE SCHEMA imdb_carga; \
                 CREATE TABLE imdb_carga.rechazos (LIKE public.rechazos INCLUDING ALL EXCLUDING INDEXES); \
                 CREATE TABLE imdb_carga.generos (id_genero integer NOT NULL, codigo_imdb text NOT NULL, desde timestamptz NOT NULL); \
                 CREATE TABLE imdb_carga.estado (id_carga bigint NOT NULL, guion text NOT NULL)",
            )
        })?;
    }
    Ok(())
}

/// Writes the statements of the exchange down on a master.
///
/// # Errors
/// When it cannot be asked.
pub fn write_down(masters: &Masters, node: NodeId, load: i64, script: &str) -> anyhow::Result<()> {
    let script = script.to_string();
    masters.run(
        node,
        "write down how to exchange the tables",
        move |session| {
            let sql = "INSERT INTO imdb_carga.estado VALUES ($1, $2)";
            session.client().execute(sql, &[&load, &script]).map(drop)
        },
    )
}

/// Removes what a load has left on a master. Origins that a dying session still holds stay until the next time.
///
/// # Errors
/// When it cannot be asked.
pub fn clear(masters: &Masters, node: NodeId) -> anyhow::Result<()> {
    masters.run(node, "remove what a load has left", |session| {
        session
            .client()
            .batch_execute(include_str!("../../../sql/load_clear.sql"))
    })
}

/// The tables of these layouts.
pub fn tables_of(
    layouts: impl Iterator<Item = &'static crate::imdb::format::Layout>,
) -> Vec<&'static str> {
    layouts
        .flat_map(|layout| layout.tables.iter().map(|table| table.name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_master_lacks_of_a_catalogue_is_new_and_a_contradiction_is_refused() {
        let value = |number: i32, text: &str| (number, text.to_string());
        let one = vec![value(1, "movie"), value(2, "short")];
        let catalogue = merged("tipos_titulo", vec![one.clone(), vec![value(1, "movie")]]);
        assert_eq!(catalogue.expect("they agree").new, [value(2, "short")]);
        for other in [value(2, "video"), value(3, "short")] {
            assert!(merged("tipos_titulo", vec![one.clone(), vec![other]]).is_err());
        }
    }

    #[test]
    fn a_load_is_finished_where_the_peer_has_it_already() {
        let ready = |load| Left {
            any: true,
            ready: Some((load, "script".to_string())),
            done: vec![1],
        };
        let done = |loads: &[i64]| Left {
            done: loads.to_vec(),
            ..Left::default()
        };
        let of = |first, second| unfinished(&[(NodeId::Master1, first), (NodeId::Master2, second)]);
        let expected = Some((NodeId::Master2, 7, "script".to_string()));
        assert_eq!(of(done(&[1, 7]), ready(7)), expected);
        // It never began to be exchanged, so it is nobody's data.
        assert_eq!(of(ready(7), ready(7)), None);
        assert_eq!(of(done(&[1]), ready(7)), None);
        assert_eq!(of(done(&[1]), done(&[1])), None);
    }
}
