//! Ratings stand in the rows of their titles. So they are known before the first title is written: those of the file, or those of the titles
//! that are there; and a file of ratings alone makes the titles that are there anew.

use super::cells::{self, Bad, Reason, Rows};
use super::known::Known;
use super::sink::Sink;
use super::{Load, read, stage};
use crate::imdb::format::TITULOS;
use crate::interrupt::Interrupt;
use anyhow::{Context, bail};
use std::collections::HashMap;

/// The rating of one title.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rating {
    /// The mean in tenths, from 10 to 100.
    pub tenths: u8,
    pub votes: i32,
}

impl Rating {
    /// The mean as it is written, such as `9.3`.
    pub fn mean(self) -> String {
        format!("{}.{}", self.tenths / 10, self.tenths % 10)
    }

    /// The rating in a row of IMDb's file, or of a master.
    ///
    /// # Errors
    /// Which column is wrong, and why.
    pub fn read(mean: &[u8], votes: &[u8]) -> Result<Rating, Bad> {
        let tenths = cells::tenths(mean)
            .ok_or_else(|| Bad::new(Reason::NotANumber, "averageRating", mean))?;
        let votes = cells::required(votes, 0, i32::MAX.into(), "numVotes")?;
        Ok(Rating { tenths, votes })
    }
}

/// The ratings that still wait for their titles. 12 bytes each, in a table that is half empty at the worst.
#[derive(Debug, Default)]
pub struct Ratings {
    waiting: HashMap<i32, Rating>,
    /// How many titles have got theirs.
    pub given: u64,
}

impl Ratings {
    /// Takes note of a row of three cells, of which the first is IMDb's id, and says whether it is a rating. The first of a title counts.
    pub fn see(&mut self, line: &[u8]) -> bool {
        let mut cells = line.split(|byte| *byte == b'\t');
        let (Some(id), Some(mean), Some(votes), None) =
            (cells.next(), cells.next(), cells.next(), cells.next())
        else {
            return false;
        };
        let (Ok(id), Ok(rating)) = (cells::id(id, b"tt", ""), Rating::read(mean, votes)) else {
            return false;
        };
        self.waiting.entry(id).or_insert(rating);
        true
    }

    /// Gives a title its rating.
    pub fn give(&mut self, title: i32) -> Option<Rating> {
        let rating = self.waiting.remove(&title);
        self.given += u64::from(rating.is_some());
        rating
    }

    /// Those whose title did not come, by its id.
    pub fn left(&mut self) -> Vec<(i32, Rating)> {
        let mut left: Vec<(i32, Rating)> = std::mem::take(&mut self.waiting).into_iter().collect();
        left.sort_unstable_by_key(|(title, _)| *title);
        left
    }
}

impl Load<'_> {
    /// The ratings of the titles that are there, of those masters that are loaded the first.
    pub(super) fn ratings_there(&self) -> anyhow::Result<Ratings> {
        let sql = "COPY (SELECT 'tt' || id_titulo, promedio, votos FROM public.titulos WHERE votos IS NOT NULL) TO STDOUT";
        let mut ratings = Ratings::default();
        stage::copied_out(&self.masters, "the ratings that are there", sql, |block| {
            match read::lines(block).all(|line| ratings.see(line)) {
                true => self.check_interrupt(),
                false => bail!("a rating is none"),
            }
        })?;
        Ok(ratings)
    }

    /// Makes the titles that are there anew, with other ratings.
    pub(super) fn rate_titles_there(&mut self, known: &mut Known) -> anyhow::Result<()> {
        let Load { progress, tell, .. } = self;
        let mut sink = Sink::open(&self.masters, TITULOS, &self.origin)?;
        let sql = format!("COPY public.titulos ({}) TO STDOUT", TITULOS[0].columns);
        let mut sent = 0;
        stage::copied_out(&self.masters, "the titles that are there", &sql, |block| {
            let mut rows = Rows::default();
            for line in read::lines(block) {
                let id = rated(line, known, &mut rows);
                id.context("a title is none")?;
                sent += 1;
            }
            sink.send(0, rows.0)?;
            progress.seconds = self.clock.elapsed().as_secs_f64();
            tell(progress);
            self.wanted.interrupt.map_or(Ok(()), Interrupt::check)
        })?;
        match sink.end()?.first() {
            Some(arrived) if *arrived == sent => Ok(()),
            arrived => bail!("{sent} titles were sent and {arrived:?} have arrived"),
        }
    }
}

/// Writes a row of a title, as it comes from a master, with the rating that is known. Its last two cells are the rating that it has had.
fn rated(line: &[u8], known: &mut Known, rows: &mut Rows) -> Option<i32> {
    let rest = line.rsplitn(3, |byte| *byte == b'\t').nth(2)?;
    let id = rest.split(|byte| *byte == b'\t').next()?;
    let id = std::str::from_utf8(id).ok()?.parse().ok()?;
    known.titles.add(id);
    rows.cell(rest).rating(known.ratings.give(id)).end();
    Some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rating_of_a_title_is_given_to_it_once() {
        let mut ratings = Ratings::default();
        for line in ["tt1\t9.3\t7", "tt1\t1.0\t1", "tt2\t10\t0"] {
            assert!(ratings.see(line.as_bytes()), "{line}");
        }
        for line in [
            "tt3\t9.35\t1",
            "tt3\t5.0\t\\N",
            "tt3\t5.0",
            "tt3\t5.0\t1\tx",
            "3\t5.0\t1",
        ] {
            assert!(!ratings.see(line.as_bytes()), "{line}");
        }
        let rating = ratings.give(1).expect("a rating");
        assert_eq!((rating.mean().as_str(), rating.votes), ("9.3", 7));
        assert!(ratings.give(1).is_none() && ratings.give(3).is_none());
        assert_eq!(ratings.given, 1);
        let left = ratings.left();
        assert_eq!(left.len(), 1);
        assert_eq!((left[0].0, left[0].1.mean().as_str()), (2, "10.0"));
    }

    #[test]
    fn a_title_that_is_there_keeps_all_but_its_rating() {
        let mut known = Known::default();
        known.ratings.see(b"tt5\t6.5\t12");
        let mut rows = Rows::default();
        for line in [
            "5\t1\tA\\tB\t\\N\tf\t\\N\t9.9\t1",
            "6\t1\tC\t\\N\tf\t\\N\t8.0\t3",
        ] {
            assert!(rated(line.as_bytes(), &mut known, &mut rows).is_some());
        }
        let expected = "5\t1\tA\\tB\t\\N\tf\t\\N\t6.5\t12\n6\t1\tC\t\\N\tf\t\\N\t\\N\t\\N\n";
        assert_eq!(String::from_utf8_lossy(&rows.0), expected);
        assert!(known.titles.has(5) && known.titles.has(6));
        assert!(rated(b"5", &mut known, &mut rows).is_none());
    }
}
