//! Sends the rows of one file into bare tables of all masters at once: one COPY per table and master, each in a transaction that also
//! makes the table, so that its rows are frozen as they come. The sessions have a replication origin, and so no walsender looks
//! at what they write twice.

use super::masters::Masters;
use crate::cluster::NodeId;
use crate::imdb::format::Table;
use crate::limits;
use crate::pg::{Call, Session, explain, unsent};
use anyhow::bail;
use crossbeam_channel::{Receiver, SendTimeoutError, Sender, bounded};
use postgres::Client;
use std::io::Write;
use std::sync::Arc;

/// The table of what was rejected, which each file adds to.
const REJECTS: Table = Table {
    name: "rechazos",
    columns: "id_carga, archivo, linea, num, columna, motivo, detalle, fila",
};

/// A piece of what goes into a table, or its end. Without the end the transaction is rolled back.
enum Piece {
    Rows(Arc<Vec<u8>>),
    End,
}

/// One COPY.
struct Way {
    node: NodeId,
    table: &'static str,
    pieces: Sender<Piece>,
    call: Call<Result<u64, String>>,
}

/// All COPYs of a file.
pub struct Sink<'a> {
    masters: &'a Masters,
    /// Per table of the file, and last for the rejects: the way to each master.
    ways: Vec<Vec<Way>>,
}

impl<'a> Sink<'a> {
    /// Begins.
    ///
    /// # Errors
    /// When it cannot be begun on a master.
    pub fn open(
        masters: &'a Masters,
        tables: &'static [Table],
        origin: &str,
    ) -> anyhow::Result<Sink<'a>> {
        let tables = tables.iter().chain(std::iter::once(&REJECTS)).zip(0..);
        let mut ways = Vec::new();
        for (table, index) in tables {
            let mut of_table = Vec::new();
            for node in &masters.nodes {
                let (pieces, queue) = bounded(limits::LOAD_PIECES);
                let origin = format!("{origin}_{index}");
                let call =
                    masters.begin(*node, move |session| copy(session, table, &origin, &queue))?;
                of_table.push(Way {
                    node: *node,
                    table: table.name,
                    pieces,
                    call,
                });
            }
            ways.push(of_table);
        }
        Ok(Sink { masters, ways })
    }

    /// Sends rows into a table, by its place among those it was opened with.
    ///
    /// # Errors
    /// Why a master does not take them.
    pub fn send(&mut self, table: usize, rows: Vec<u8>) -> anyhow::Result<()> {
        self.send_to(table, rows)
    }

    /// Sends rejects.
    ///
    /// # Errors
    /// Why a master does not take them.
    pub fn send_rejects(&mut self, rows: Vec<u8>) -> anyhow::Result<()> {
        self.send_to(self.ways.len() - 1, rows)
    }

    fn send_to(&mut self, table: usize, rows: Vec<u8>) -> anyhow::Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let rows = Arc::new(rows);
        for way in &self.ways[table] {
            way.send(Piece::Rows(Arc::clone(&rows)))?;
        }
        Ok(())
    }

    /// Ends all of them; returns how many rows each table got.
    ///
    /// # Errors
    /// Why a master did not keep them, or that the masters got different numbers of rows.
    pub fn end(self) -> anyhow::Result<Vec<u64>> {
        for way in self.ways.iter().flatten() {
            way.send(Piece::End)?;
        }
        let mut counts = Vec::new();
        for of_table in self.ways {
            let mut of_masters = Vec::new();
            for way in of_table {
                let doing = format!("copy into {} on {}", way.table, way.node);
                match self.masters.wait(way.node, way.call) {
                    Ok(Ok(rows)) => of_masters.push(rows),
                    Ok(Err(why)) => bail!("{doing}: {why}"),
                    Err(error) => bail!("{doing}: {error}"),
                }
            }
            if of_masters.iter().any(|rows| *rows != of_masters[0]) {
                bail!("the masters took different numbers of rows: {of_masters:?}");
            }
            counts.extend(of_masters.first());
        }
        Ok(counts)
    }
}

impl Way {
    fn send(&self, piece: Piece) -> anyhow::Result<()> {
        let doing = || format!("copy into {} on {}", self.table, self.node);
        match self.pieces.send_timeout(piece, limits::LOAD_STALL) {
            Ok(()) => Ok(()),
            Err(SendTimeoutError::Timeout(_)) => {
                bail!(
                    "{}: it has taken no rows for {} s",
                    doing(),
                    limits::LOAD_STALL.as_secs()
                )
            }
            // It has ended too early, and says why.
            Err(SendTimeoutError::Disconnected(_)) => {
                match self.call.reply().recv_timeout(limits::LOAD_BEAT) {
                    Ok(Err(error)) => bail!("{}: {error}", doing()),
                    Ok(Ok(Err(why))) => bail!("{}: {why}", doing()),
                    _ => bail!("{}: it ended without an answer", doing()),
                }
            }
        }
    }
}

fn copy(
    session: &mut Session,
    table: &Table,
    origin: &str,
    pieces: &Receiver<Piece>,
) -> Result<Result<u64, String>, postgres::Error> {
    unsent(session.client(), origin, |client| {
        copy_all(client, table, pieces)
    })
}

fn copy_all(
    client: &mut Client,
    table: &Table,
    pieces: &Receiver<Piece>,
) -> Result<Result<u64, String>, postgres::Error> {
    let mut transaction = client.transaction()?;
    let name = table.name;
    // Rows may be frozen only in a table that the same transaction has made.
    let freeze = match name == REJECTS.name {
        true => "",
        false => {
            transaction.batch_execute(&format!(
                "CREATE TABLE imdb_carga.{name} (LIKE public.{name} INCLUDING ALL EXCLUDING INDEXES)"
            ))?;
            " WITH (FREEZE)"
        }
    };
    let sql = format!(
        "COPY imdb_carga.{name} ({}) FROM STDIN{freeze}",
        table.columns
    );
    let mut writer = transaction.copy_in(&sql)?;
    let rows = loop {
        match pieces.recv() {
            Ok(Piece::Rows(rows)) => {
                if let Err(error) = writer.write_all(&rows) {
                    // The end of the COPY has the server's own words, if there are any.
                    return writer.finish().map(|_| Err(cause(error)));
                }
            }
            Ok(Piece::End) => break writer.finish()?,
            Err(_) => {
                drop(writer);
                transaction.rollback()?;
                return Ok(Err("broken off".to_string()));
            }
        }
    };
    transaction.commit()?;
    Ok(Ok(rows))
}

/// What the server has said, which the driver has wrapped up.
fn cause(error: std::io::Error) -> String {
    match error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<postgres::Error>())
    {
        Some(error) => explain(error),
        None => error.to_string(),
    }
}
