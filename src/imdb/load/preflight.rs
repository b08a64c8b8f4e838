//! Reads every file to its end before anything is touched: whether it is one of the seven, whole and UTF-8. What is learnt on the way
//! is how many rows there are, and what the loading must know beforehand.

use super::cells;
use super::known::{SCATTERED, is_code};
use super::ratings::Ratings;
use super::read::{self, CUT_OFF, Lines, lines};
use crate::imdb::format::{File, Layout};
use crate::limits;
use roaring::RoaringBitmap;
use std::collections::BTreeSet;
use std::path::PathBuf;

const NO_ROWS: &str = "it has no rows, only its first line; to empty its tables: --allow-empty, or allow_empty=true over HTTP";

/// A file that can be loaded.
#[derive(Debug)]
pub struct Found {
    pub layout: &'static Layout,
    pub path: PathBuf,
    /// Its name without folders.
    pub name: String,
}

/// What a file holds.
#[derive(Debug, Default)]
pub struct Scan {
    pub rows: u64,
    /// Titles whose rows do not stand together.
    pub scattered: RoaringBitmap,
    /// IMDb's codes of the genres.
    pub genres: BTreeSet<Vec<u8>>,
    pub ratings: Ratings,
}

/// Reads a whole file; `tell` hears how many rows there were so far.
///
/// # Errors
/// In words, what is wrong with it and in which line.
pub fn scan(
    found: &Found,
    allow_empty: bool,
    is_interrupted: &dyn Fn() -> bool,
    mut tell: impl FnMut(u64),
) -> Result<Scan, String> {
    let layout = found.layout;
    let at = |line: u64, what: &str| format!("{}, line {line}: {what}", found.name);
    let open = |error: std::io::Error| format!("{}: {error}", found.name);
    let mut file = Lines::open(&found.path).map_err(open)?;
    let mut scan = Scan::default();
    let mut keys = Keys::default();
    let (mut block, mut number) = (Vec::new(), 0);
    while file
        .next_block(&mut block)
        .map_err(|error| at(number + 1, &error.to_string()))?
    {
        // What is wrong with a line that was cut off, is that.
        let last = number + memchr::memchr_iter(b'\n', &block).count() as u64;
        let at = |line: u64, what: &str| match file.is_unended() && line == last && line > 1 {
            true => at(line, CUT_OFF),
            false => at(line, what),
        };
        if let Some((line, what)) = not_text(&block, number) {
            return Err(at(line, &what));
        }
        for line in lines(&block) {
            number += 1;
            match number {
                1 => check_header(layout, line).map_err(|what| at(1, &what))?,
                2 => check_width(layout, line).map_err(|what| at(2, &what))?,
                _ => {}
            }
            if number == 1 {
                continue;
            }
            see(layout, line, &mut scan, &mut keys);
        }
        if scan.genres.len() > limits::LOAD_GENRES_MAX {
            let what = format!(
                "more than {} genres; the last column is no list of them",
                limits::LOAD_GENRES_MAX
            );
            return Err(at(number, &what));
        }
        if keys.rows_of_scattered > limits::LOAD_PLACES_MAX {
            return Err(at(number, SCATTERED));
        }
        tell(number.saturating_sub(1));
        if is_interrupted() {
            return Err(format!("{}: not read to its end", found.name));
        }
    }
    if number == 0 {
        return Err(at(1, "the file is empty"));
    }
    if file.is_unended() {
        return Err(at(number, CUT_OFF));
    }
    if number == 1 && !allow_empty {
        return Err(format!("{}: {NO_ROWS}", found.name));
    }
    scan.rows = number - 1;
    scan.scattered = keys.scattered;
    Ok(scan)
}

/// The first line of a block that is no text, and what it is; the block begins after so many lines.
fn not_text(block: &[u8], lines_before: u64) -> Option<(u64, String)> {
    let error = std::str::from_utf8(block).err()?;
    let before = &block[..error.valid_up_to()];
    let line = lines_before + 1 + memchr::memchr_iter(b'\n', before).count() as u64;
    let other = read::known_as(block).filter(|_| lines_before == 0);
    let what = other.map(|what| format!("the file is {what}"));
    Some((
        line,
        what.unwrap_or_else(|| "this is not UTF-8".to_string()),
    ))
}

/// Notes what the loading must know beforehand.
fn see(layout: &Layout, line: &[u8], scan: &mut Scan, keys: &mut Keys) {
    if layout.has_places {
        keys.see(line);
    }
    match layout.file {
        File::Titles => see_genres(layout, line, &mut scan.genres),
        // What is none is rejected when the file is loaded.
        File::Ratings => drop(scan.ratings.see(line)),
        _ => {}
    }
}

fn check_header(layout: &Layout, line: &[u8]) -> Result<(), String> {
    let line = String::from_utf8_lossy(line);
    let line = line.strip_prefix('\u{feff}').unwrap_or(&line);
    let expected = layout.first_line();
    match line == expected {
        true => Ok(()),
        false => Err(format!(
            "its columns are ({}) and not ({})",
            shown(line).replace('\t', ", "),
            expected.replace('\t', ", ")
        )),
    }
}

/// The first row stands for all: one that is broken further down is rejected alone.
fn check_width(layout: &Layout, line: &[u8]) -> Result<(), String> {
    let tabs = memchr::memchr_iter(b'\t', line).count();
    let (found, expected) = (tabs + 1, layout.header.len());
    match found == expected {
        true => Ok(()),
        false => Err(format!("it has {found} columns and not {expected}")),
    }
}

fn shown(text: &str) -> String {
    text.chars().take(limits::LOG_LINE_SHOWN).collect()
}

/// Notes the genres of a row that can be one; of some others the last column is something else.
fn see_genres(layout: &Layout, line: &[u8], genres: &mut BTreeSet<Vec<u8>>) {
    if check_width(layout, line).is_err() {
        return;
    }
    let start = memchr::memrchr(b'\t', line).map_or(0, |tab| tab + 1);
    let Ok(cell) = cells::bounded(&line[start..], b',', "") else {
        return;
    };
    for genre in cells::list(cell).filter(|genre| is_code(genre)) {
        if !genres.contains(genre) {
            genres.insert(genre.to_vec());
        }
    }
}

/// Finds the titles whose rows do not stand together, of a file whose rows begin with a title.
#[derive(Default)]
struct Keys {
    last: Option<u32>,
    ended: RoaringBitmap,
    scattered: RoaringBitmap,
    /// How many rows such titles have since they came back. Those before are not known, and are counted when the file is loaded.
    rows_of_scattered: usize,
}

impl Keys {
    fn see(&mut self, line: &[u8]) {
        let end = memchr::memchr(b'\t', line).unwrap_or(line.len());
        let Ok(title) = cells::id(&line[..end], b"tt", "") else {
            return;
        };
        let title = title.unsigned_abs();
        if self.last != Some(title) {
            if let Some(last) = self.last.replace(title) {
                self.ended.insert(last);
            }
            if self.ended.contains(title) {
                self.scattered.insert(title);
            }
        }
        if self.scattered.contains(title) {
            self.rows_of_scattered += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imdb::format::LAYOUTS;

    #[test]
    fn a_title_that_comes_back_is_scattered() {
        let mut keys = Keys::default();
        for line in [
            "tt1\ta", "tt1\tb", "tt2\tc", "tt3\td", "tt2\te", "x\tf", "tt2\tg",
        ] {
            keys.see(line.as_bytes());
        }
        assert_eq!(keys.scattered.iter().collect::<Vec<_>>(), [2]);
        assert_eq!(keys.rows_of_scattered, 2);
    }

    #[test]
    fn genres_are_those_of_rows_that_can_be_loaded() {
        let mut genres = BTreeSet::new();
        let long = vec!["Western"; limits::LOAD_LIST_MAX + 1].join(",");
        for cell in ["Drama,Sci-Fi", "\\N", "Dra\0ma,War,,Drama", long.as_str()] {
            let line = format!("tt1\tmovie\tA\tA\t0\t\\N\t\\N\t\\N\t{cell}");
            see_genres(&LAYOUTS[0], line.as_bytes(), &mut genres);
        }
        see_genres(&LAYOUTS[0], b"tt0000005\tmovie\tToo\tfew\t0", &mut genres);
        let found: Vec<_> = genres
            .iter()
            .map(|code| code.escape_ascii().to_string())
            .collect();
        assert_eq!(found, ["Drama", "Sci-Fi", "War"]);
    }

    #[test]
    fn the_first_line_and_the_first_row_must_fit() {
        let layout = LAYOUTS
            .iter()
            .find(|layout| layout.file == File::Ratings)
            .expect("there");
        assert_eq!(
            check_header(layout, "\u{feff}tconst\taverageRating\tnumVotes".as_bytes()),
            Ok(())
        );
        let wrong = check_header(layout, b"tconst\tnumVotes").expect_err("wrong");
        assert!(
            wrong.contains("(tconst, numVotes) and not (tconst, averageRating, numVotes)"),
            "{wrong}"
        );
        assert!(check_width(layout, b"tt1\t5.0").is_err());
    }
}
