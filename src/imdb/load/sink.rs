//! Sends the rows of one file into bare tables of all masters at once: one COPY per table and master, in a transaction that also
//! makes the table, so that its rows are frozen as they come. The sessions have a replication origin, and so no walsender looks
//! at what they write twice. After many rows the transactions end, and others go on with rows that are not frozen: one that
//! takes all of a big file would cost the peer its slot.

use super::masters::Masters;
use super::room;
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

/// A piece of what goes into a table, or the end of a transaction. Without that it is rolled back.
enum Piece {
    Rows(Arc<Vec<u8>>),
    Commit,
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
    /// Bytes of a transaction, of all tables together, and how many have been sent in the present one.
    batch: usize,
    sent: usize,
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
        let batch = room::batch_bytes(masters)?;
        let mut ways = Vec::new();
        for (table, index) in tables {
            let mut of_table = Vec::new();
            for node in masters.nodes.clone() {
                let (pieces, queue) = bounded(limits::LOAD_PIECES);
                let origin = format!("{origin}_{index}");
                let call = masters.begin(node, move |session| {
                    copy(session, node, table, &origin, &queue)
                })?;
                of_table.push(Way {
                    node,
                    table: table.name,
                    pieces,
                    call,
                });
            }
            ways.push(of_table);
        }
        Ok(Sink {
            masters,
            ways,
            batch,
            sent: 0,
        })
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
        self.sent += rows.len();
        let rows = Arc::new(rows);
        for way in &self.ways[table] {
            way.send(Piece::Rows(Arc::clone(&rows)))?;
        }
        // All of them, since the oldest of them is what a slot waits for.
        if self.sent >= self.batch {
            self.sent = 0;
            for way in self.ways.iter().flatten() {
                way.send(Piece::Commit)?;
            }
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
    node: NodeId,
    table: &Table,
    origin: &str,
    pieces: &Receiver<Piece>,
) -> Result<Result<u64, String>, postgres::Error> {
    unsent(session.client(), origin, |client| {
        let mut rows = 0;
        // Rows may be frozen only in a table that the same transaction has made.
        let mut makes_it = table.name != REJECTS.name;
        loop {
            match copy_batch(client, table, makes_it, pieces)? {
                Batch::Last(count) => return Ok(Ok(rows + count)),
                Batch::BrokenOff(why) => return Ok(Err(why)),
                Batch::Full(count) => rows += count,
            }
            if let Err(why) = room::wait(client, node, limits::LOAD_ROOM_OF_ROWS)? {
                return Ok(Err(why));
            }
            makes_it = false;
        }
    })
}

/// How a transaction has ended, and with how many rows.
enum Batch {
    Full(u64),
    Last(u64),
    BrokenOff(String),
}

fn copy_batch(
    client: &mut Client,
    table: &Table,
    makes_it: bool,
    pieces: &Receiver<Piece>,
) -> Result<Batch, postgres::Error> {
    let mut transaction = client.transaction()?;
    let name = table.name;
    let freeze = match makes_it {
        false => "",
        true => {
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
    let ended = loop {
        match pieces.recv() {
            Ok(Piece::Rows(rows)) => {
                if let Err(error) = writer.write_all(&rows) {
                    // The end of the COPY has the server's own words, if there are any.
                    let why = cause(error);
                    return writer.finish().map(|_| Batch::BrokenOff(why));
                }
            }
            Ok(Piece::Commit) => break Batch::Full(writer.finish()?),
            Ok(Piece::End) => break Batch::Last(writer.finish()?),
            Err(_) => {
                drop(writer);
                transaction.rollback()?;
                return Ok(Batch::BrokenOff("broken off".to_string()));
            }
        }
    };
    transaction.commit()?;
    Ok(ended)
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
