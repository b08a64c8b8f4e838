//! Takes the lines of a file apart, counts what becomes of them, and writes down what is rejected.

use super::cells::{self, Bad, Reason, Rows};
use super::read::lines;
use super::report::Progress;
use super::rows::Reader;
use crate::limits;

/// Takes what has been written of the rejects, which are too many to be kept.
pub type Deliver<'a> = &'a mut dyn FnMut(Vec<u8>) -> anyhow::Result<()>;

/// The lines of one file.
pub struct Taker<'a> {
    load: i64,
    pub reader: Reader<'a>,
    /// The number of the last line; the header is the first.
    pub line: i64,
    rejects: Rows,
}

impl<'a> Taker<'a> {
    pub fn new(load: i64, reader: Reader<'a>) -> Taker<'a> {
        Taker {
            load,
            reader,
            line: 0,
            rejects: Rows::default(),
        }
    }

    /// Takes a block of lines, and sends all that was rejected of it.
    ///
    /// # Errors
    /// Those of `send`.
    pub fn take(
        &mut self,
        block: &[u8],
        progress: &mut Progress,
        index: usize,
        send: Deliver<'_>,
    ) -> anyhow::Result<()> {
        let of_file = &mut progress.files[index];
        for line in lines(block) {
            self.line += 1;
            if self.line == 1 {
                continue;
            }
            of_file.read += 1;
            match self.reader.take(line) {
                Ok(()) => of_file.loaded += 1,
                Err(bad) => {
                    of_file.rejected += 1;
                    *progress.reasons.entry(bad.reason).or_default() += 1;
                    self.reject(of_file.layout.name, 1, &bad, Some(line));
                }
            }
            let parts = std::mem::take(&mut self.reader.parts);
            of_file.parts_rejected += parts.len() as u64;
            for (bad, number) in parts.iter().zip(1..) {
                *progress.reasons.entry(bad.reason).or_default() += 1;
                // A long line with as many rejects would be kept once for each.
                let line = Some(line).filter(|_| number == 1);
                self.reject(of_file.layout.name, number, bad, line);
            }
            self.send_many(send)?;
        }
        send(std::mem::take(&mut self.rejects.0))
    }

    /// Ratings of an earlier load whose title is not there any more.
    ///
    /// # Errors
    /// Those of `send`.
    pub fn reject_lost_ratings(&mut self, send: Deliver<'_>) -> anyhow::Result<()> {
        self.line = 0;
        for ((title, rating), number) in self.reader.ratings_left().into_iter().zip(1..) {
            let bad = Bad::new(Reason::Dangling, "id_titulo", title.to_string().as_bytes());
            let row = format!(
                r#"{{"votos": {}, "promedio": {}, "id_titulo": {title}}}"#,
                rating.votes,
                rating.mean()
            );
            self.reject("title.ratings", number, &bad, Some(row.as_bytes()));
            self.send_many(send)?;
        }
        send(std::mem::take(&mut self.rejects.0))
    }

    fn send_many(&mut self, send: Deliver<'_>) -> anyhow::Result<()> {
        match self.rejects.0.len() < limits::LOAD_REJECTS_BYTES {
            true => Ok(()),
            false => send(std::mem::take(&mut self.rejects.0)),
        }
    }

    /// A row of the table of what was rejected. A column of a row that was loaded names the column; so does a whole row, if it is one
    /// column's fault, and then that row is in no table.
    fn reject(&mut self, file: &str, number: i32, bad: &Bad, line: Option<&[u8]>) {
        let mut digits = itoa::Buffer::new();
        let rows = &mut self.rejects;
        rows.cell(digits.format(self.load).as_bytes());
        rows.any_text(file.as_bytes());
        rows.cell(digits.format(self.line).as_bytes());
        rows.number(number);
        match bad.column {
            "" => rows.cell(cells::NULL),
            column => rows.any_text(column.as_bytes()),
        };
        let detail: String = bad.detail.chars().take(limits::LOAD_DETAIL_CHARS).collect();
        rows.any_text(bad.reason.in_database().as_bytes());
        rows.any_text(without_nul(detail.as_bytes()).as_bytes());
        match line {
            Some(line) => rows.any_text(without_nul(line).as_bytes()),
            None => rows.cell(cells::NULL),
        };
        rows.end();
    }
}

/// PostgreSQL cannot hold this one character; its picture stands for it.
fn without_nul(text: &[u8]) -> String {
    String::from_utf8_lossy(text).replace('\0', "\u{2400}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imdb::format::LAYOUTS;
    use crate::imdb::load::known::{Catalogue, Catalogues, Ids, Known, Places};
    use std::collections::HashMap;

    /// What becomes of the lines of a file of titles: the counts, and the rejects in the pieces in which they were sent.
    fn taken(lines: &str) -> (Progress, Vec<String>) {
        let (mut known, none) = (Known::default(), |table| Catalogue::new(table, []));
        let mut catalogues = Catalogues {
            types: none("tipos_titulo"),
            categories: none("categorias"),
            professions: none("profesiones"),
            genres: HashMap::from([(b"Drama".to_vec(), 9)]),
            genres_used: Ids::default(),
        };
        let layout = &LAYOUTS[0];
        let reader = Reader::new(layout, Places::default(), &mut known, &mut catalogues);
        let mut progress = Progress::of([("title.basics.tsv", layout)]);
        let mut sent = Vec::new();
        let block = format!("{}\n{lines}", layout.first_line());
        Taker::new(7, reader)
            .take(block.as_bytes(), &mut progress, 0, &mut |rejects| {
                sent.push(String::from_utf8(rejects).expect("UTF-8"));
                Ok(())
            })
            .expect("taken");
        (progress, sent)
    }

    fn counts(progress: &Progress) -> [u64; 4] {
        let file = &progress.files[0];
        [file.read, file.loaded, file.rejected, file.parts_rejected]
    }

    #[test]
    fn the_row_is_kept_once_however_many_of_its_columns_are_rejected() {
        let genres = vec!["Drama"; limits::LOAD_LIST_MAX].join(",");
        let line = format!("tt1\tmovie\tA\tA\t0\t\\N\t\\N\t\\N\t{genres}\n");
        let (progress, sent) = taken(&line);
        assert_eq!(counts(&progress), [1, 1, 0, 9_999]);
        let rejects: Vec<&str> = sent.iter().flat_map(|piece| piece.lines()).collect();
        assert_eq!(rejects.len(), 9_999);
        assert!(
            rejects[0].starts_with("7\ttitle.basics\t2\t1\tgenres\tclave repetida\tDrama\ttt1\\t")
        );
        assert_eq!(
            rejects[9_998],
            "7\ttitle.basics\t2\t9999\tgenres\tclave repetida\tDrama\t\\N"
        );
        let bytes: usize = sent.iter().map(String::len).sum();
        assert!(bytes < 20 * line.len(), "{bytes}");
    }

    #[test]
    fn a_list_that_is_too_long_is_one_reject_and_the_rest_of_the_row_is_loaded() {
        let genres = vec!["Drama"; 83_000].join(",");
        let line = |id| format!("tt{id}\tmovie\tA\tA\t0\t\\N\t\\N\t\\N\t{genres}\n");
        let (progress, sent) = taken(&format!("{}{}{}", line(1), line(1), line(2)));
        assert_eq!(counts(&progress), [3, 2, 1, 2]);
        assert_eq!(
            progress.reasons.into_iter().collect::<Vec<_>>(),
            [(Reason::Value, 2), (Reason::Duplicate, 1)]
        );
        assert!(
            sent[0].contains("\tgenres\tvalor no válido\t83000 valores, 10000 como máximo\ttt1")
        );
    }

    #[test]
    fn rejects_are_sent_before_they_are_many() {
        let (progress, sent) = taken(&"\n".repeat(50_000));
        assert_eq!(counts(&progress), [50_000, 0, 50_000, 0]);
        let longest = sent.iter().map(String::len).max().expect("a piece");
        assert!(longest < limits::LOAD_REJECTS_BYTES + 100, "{longest}");
        assert_eq!(sent.concat().lines().count(), 50_000);
    }
}
