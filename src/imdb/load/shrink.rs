//! Whether a load would leave far fewer rows than are there. Nothing else tells a file that was cut off between two lines, or one that holds other
//! films, from a good one; and what hangs on rows that go is gone with them.

use super::Load;
use super::preflight::Scan;
use super::stage::tables_of;
use crate::imdb::format::{File, TITULOS};
use crate::limits;
use anyhow::{Context, bail};

/// What may happen to the rows that are there, because whoever loads has said so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allow {
    /// A file without rows empties its tables.
    pub empty: bool,
    /// Far fewer rows may be left than are there.
    pub shrink: bool,
}

/// How many rows something has.
pub type Count = (&'static str, u64);

/// What the ratings are called among the tables: they are columns of the titles.
pub const RATED: &str = "titulos.votos";

impl Load<'_> {
    /// Counts the rows that are there of what the files fill, and refuses what has too few rows to fill it again.
    pub(super) fn count_before(&mut self, scans: &[Scan]) -> anyhow::Result<()> {
        if self.wanted.allow.shrink {
            return Ok(());
        }
        // Whoever empties a table on purpose knows that.
        let files = self.layouts().zip(scans).filter(|(_, scan)| scan.rows > 0);
        let files: Vec<_> = files.collect();
        let mut names = tables_of(files.iter().map(|(layout, _)| *layout));
        let has = |file: File| files.iter().any(|(layout, _)| layout.file == file);
        // Titles keep the ratings that they have.
        let emptied = self.has(File::Ratings) && !has(File::Ratings);
        if has(File::Ratings) || (has(File::Titles) && !emptied) {
            names.push(RATED);
        }
        let most = files.iter().filter_map(|(layout, scan)| match layout.file {
            // Its rows are lists.
            File::Crew => None,
            File::Ratings => Some((RATED, scan.rows)),
            _ => Some((layout.tables[0].name, scan.rows)),
        });
        let most: Vec<Count> = most.collect();
        self.before = self.count(names)?;
        self.check_shrink(&most)
    }

    /// The rows that are there.
    pub(super) fn count(&self, names: Vec<&'static str>) -> anyhow::Result<Vec<Count>> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let counts = names.iter().map(|name| match *name {
            RATED => format!("(SELECT count(votos) FROM public.{})", TITULOS[0].name),
            table => format!("(SELECT count(*) FROM public.{table})"),
        });
        let sql = format!("SELECT ARRAY[{}]", counts.collect::<Vec<_>>().join(", "));
        let node = self.masters.nodes[0];
        let doing = || format!("count the rows that are there on {node}");
        let call = self.masters.begin(node, move |session| {
            let row = session.client().query_one(&sql, &[])?;
            row.try_get::<_, Vec<i64>>(0)
        });
        let call = call.with_context(doing)?;
        let counts = self.masters.wait(node, call).with_context(doing)?;
        let counts = counts.into_iter().map(i64::unsigned_abs);
        Ok(names.into_iter().zip(counts).collect())
    }

    /// Refuses what would leave far fewer rows; `after` need not speak of all that was counted before.
    pub(super) fn check_shrink(&self, after: &[Count]) -> anyhow::Result<()> {
        let fewer = fewer(&self.before, after);
        if fewer.is_empty() || self.wanted.allow.shrink {
            return Ok(());
        }
        bail!(
            "nothing was loaded, because far fewer rows would be left: {}; if that is wanted: --allow-shrink, or \
             allow_shrink=true over HTTP",
            fewer.join(", ")
        )
    }
}

/// What would have far fewer rows, with both numbers. Pure.
fn fewer(before: &[Count], after: &[Count]) -> Vec<String> {
    let of = |(name, before): &Count| {
        let (_, after) = after.iter().find(|(other, _)| other == name)?;
        let is_fewer = after * 100 < before * limits::LOAD_SHRINK_PERCENT;
        is_fewer.then(|| format!("{after} instead of {before} in {name}"))
    };
    before.iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_rows_are_told_from_nine_tenths_down() {
        let before = [("titulos", 1_000), ("personas", 0), ("episodios", 3)];
        let with = |titles, episodes| {
            fewer(
                &before,
                &[("titulos", titles), ("episodios", episodes), ("x", 1)],
            )
        };
        assert!(with(900, 3).is_empty() && with(5_000, 4).is_empty());
        assert_eq!(with(899, 3), ["899 instead of 1000 in titulos"]);
        assert_eq!(
            with(0, 2),
            [
                "0 instead of 1000 in titulos",
                "2 instead of 3 in episodios"
            ]
        );
        assert!(fewer(&before, &[("personas", 0)]).is_empty());
    }
}
