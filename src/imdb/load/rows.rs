//! From a row of a file to the rows of its tables, or to the reason why not. Pure.

use super::cells::{self, Bad, NULL, Reason, Rows};
use super::known::{Catalogues, Ids, Known, Places};
use super::ratings::Rating;
use crate::imdb::format::{File, Layout, TABLES_MAX};
use crate::limits;

const YEARS: (i64, i64) = (i16::MIN as i64, i16::MAX as i64);
const ANY: (i64, i64) = (0, i32::MAX as i64);

/// Reads the rows of one file, in order.
pub struct Reader<'a> {
    layout: &'static Layout,
    known: &'a mut Known,
    catalogues: &'a mut Catalogues,
    seen: Ids,
    places: Places,
    /// What the rows have become, per table of the layout.
    pub out: [Rows; TABLES_MAX],
    /// Columns of rows whose rest was taken.
    pub parts: Vec<Bad>,
    /// Titles of one list, and genres and the like: what a list has twice is left out the second time.
    once: Vec<i32>,
}

impl<'a> Reader<'a> {
    pub fn new(
        layout: &'static Layout,
        places: Places,
        known: &'a mut Known,
        catalogues: &'a mut Catalogues,
    ) -> Reader<'a> {
        Reader {
            layout,
            known,
            catalogues,
            seen: Ids::default(),
            places,
            out: Default::default(),
            parts: Vec::new(),
            once: Vec::new(),
        }
    }

    /// Takes one row, without its end of line.
    ///
    /// # Errors
    /// Why it is in no table; nothing of it is in [`Reader::out`] then.
    pub fn take(&mut self, line: &[u8]) -> Result<(), Bad> {
        let before = [0, 1, 2].map(|table| self.out[table].0.len());
        let parts = self.parts.len();
        let taken = self.row(line);
        if taken.is_err() {
            self.parts.truncate(parts);
            for (rows, length) in self.out.iter_mut().zip(before) {
                rows.0.truncate(length);
            }
        }
        taken
    }

    fn row(&mut self, line: &[u8]) -> Result<(), Bad> {
        if memchr::memchr(0, line).is_some() {
            return Err(Bad::new(Reason::Nul, "", b""));
        }
        let mut cells = [&b""[..]; 9];
        let mut count = 0;
        for cell in line.split(|byte| *byte == b'\t') {
            if let Some(place) = cells.get_mut(count) {
                *place = cell;
            }
            count += 1;
        }
        let expected = self.layout.header.len();
        if count != expected {
            let detail = format!("{count} en vez de {expected}");
            return Err(Bad::new(Reason::Width, "", detail.as_bytes()));
        }
        match self.layout.file {
            File::Titles => self.title(&cells),
            File::Names => self.name(&cells),
            File::Crew => self.crew(&cells),
            File::Principals => self.principal(&cells),
            File::Episodes => self.episode(&cells),
            File::Akas => self.aka(&cells),
            File::Ratings => self.rating(&cells),
        }
    }

    fn title(&mut self, cells: &[&[u8]; 9]) -> Result<(), Bad> {
        let id = cells::id(cells[0], b"tt", "tconst")?;
        let kind = match cells[1] {
            NULL => return Err(Bad::new(Reason::Missing, "titleType", NULL)),
            kind => self.catalogues.types.find(kind, "titleType")?,
        };
        let adult = cells::flag(cells[4], "isAdult")?;
        let adult = adult.ok_or_else(|| Bad::new(Reason::Missing, "isAdult", NULL))?;
        let start = cells::number(cells[5], YEARS.0, YEARS.1, "startYear")?;
        let end = cells::number(cells[6], YEARS.0, YEARS.1, "endYear")?;
        let minutes = cells::number(cells[7], ANY.0, ANY.1, "runtimeMinutes")?;
        for (title, column) in [(cells[2], "primaryTitle"), (cells[3], "originalTitle")] {
            if title.len() > limits::LOAD_TITLE_BYTES {
                return Err(Bad::new(Reason::Value, column, title));
            }
        }
        if !self.known.titles.add(id) {
            return Err(Bad::new(Reason::Duplicate, "tconst", cells[0]));
        }
        // A new type is one only if a row has it, and now nothing is in the way of this one.
        let kind = kind.unwrap_or_else(|| self.catalogues.types.add(cells[1]));
        let [titles, genres, _] = &mut self.out;
        titles
            .number(id)
            .number(kind)
            .text(cells[2])
            .text(cells[3])
            .flag(Some(adult));
        titles.maybe(start).maybe(end).maybe(minutes);
        titles.rating(self.known.ratings.give(id)).end();
        self.once.clear();
        let listed = bounded(cells[8], b',', "genres", &mut self.parts);
        for (genre, order) in cells::list(listed).zip(1..) {
            let number = self.catalogues.genres.get(genre).copied();
            match number {
                Some(number) if !self.once.contains(&number) => {
                    self.once.push(number);
                    self.catalogues.genres_used.add(number);
                    genres.number(id).number(number).number(order).end();
                }
                Some(_) => self
                    .parts
                    .push(Bad::new(Reason::Duplicate, "genres", genre)),
                None => self.parts.push(Bad::new(Reason::Value, "genres", genre)),
            }
        }
        Ok(())
    }

    fn name(&mut self, cells: &[&[u8]; 9]) -> Result<(), Bad> {
        let id = cells::id(cells[0], b"nm", "nconst")?;
        let birth = cells::number(cells[2], YEARS.0, YEARS.1, "birthYear")?;
        let death = cells::number(cells[3], YEARS.0, YEARS.1, "deathYear")?;
        if !self.known.persons.add(id) {
            return Err(Bad::new(Reason::Duplicate, "nconst", cells[0]));
        }
        let [persons, professions, titles] = &mut self.out;
        persons
            .number(id)
            .text(cells[1])
            .maybe(birth)
            .maybe(death)
            .end();
        self.once.clear();
        let listed = bounded(cells[4], b',', "primaryProfession", &mut self.parts);
        for (profession, order) in cells::list(listed).zip(1..) {
            let known = &mut self.catalogues.professions;
            let found = known.find(profession, "primaryProfession");
            match found.map(|found| found.unwrap_or_else(|| known.add(profession))) {
                Ok(number) if !self.once.contains(&number) => {
                    self.once.push(number);
                    professions.number(id).number(number).number(order).end();
                }
                Ok(_) => {
                    self.parts
                        .push(Bad::new(Reason::Duplicate, "primaryProfession", profession))
                }
                Err(bad) => self.parts.push(bad),
            }
        }
        let column = "knownForTitles";
        links(
            cells[5],
            b"tt",
            column,
            &self.known.titles,
            &mut self.once,
            &mut self.parts,
            |title, order| {
                titles.number(id).number(title).number(order).end();
            },
        );
        Ok(())
    }

    fn crew(&mut self, cells: &[&[u8]; 9]) -> Result<(), Bad> {
        let id = self.one_per_title(cells[0])?;
        let [directors, writers, _] = &mut self.out;
        for (cell, column, rows) in [
            (cells[1], "directors", directors),
            (cells[2], "writers", writers),
        ] {
            links(
                cell,
                b"nm",
                column,
                &self.known.persons,
                &mut self.once,
                &mut self.parts,
                |person, order| {
                    rows.number(id).number(person).number(order).end();
                },
            );
        }
        Ok(())
    }

    fn principal(&mut self, cells: &[&[u8]; 9]) -> Result<(), Bad> {
        let id = cells::id(cells[0], b"tt", "tconst")?;
        let place = cells::required(cells[1], ANY.0, ANY.1, "ordering")?;
        let person = cells::id(cells[2], b"nm", "nconst")?;
        self.known.titles.must_have(id, "tconst", cells[0])?;
        self.known.persons.must_have(person, "nconst", cells[2])?;
        let category = match cells[3] {
            NULL => return Err(Bad::new(Reason::Missing, "category", NULL)),
            category => self.catalogues.categories.find(category, "category")?,
        };
        if !self.places.add(id, place) {
            return Err(Bad::new(Reason::Duplicate, "ordering", cells[1]));
        }
        let category = category.unwrap_or_else(|| self.catalogues.categories.add(cells[3]));
        let rows = &mut self.out[0];
        rows.number(id)
            .number(place)
            .number(person)
            .number(category)
            .text(cells[4]);
        match characters(cells[5]) {
            Ok(Some(texts)) => rows.texts(Some(texts.iter().map(|text| text.as_bytes()))),
            Ok(None) => rows.cell(NULL),
            Err(bad) => {
                self.parts.push(bad);
                rows.cell(NULL)
            }
        };
        rows.end();
        Ok(())
    }

    fn episode(&mut self, cells: &[&[u8]; 9]) -> Result<(), Bad> {
        let parent = cells::id(cells[1], b"tt", "parentTconst")?;
        let season = cells::number(cells[2], ANY.0, ANY.1, "seasonNumber")?;
        let episode = cells::number(cells[3], ANY.0, ANY.1, "episodeNumber")?;
        self.known
            .titles
            .must_have(parent, "parentTconst", cells[1])?;
        let id = self.one_per_title(cells[0])?;
        self.out[0]
            .number(id)
            .number(parent)
            .maybe(season)
            .maybe(episode)
            .end();
        Ok(())
    }

    fn aka(&mut self, cells: &[&[u8]; 9]) -> Result<(), Bad> {
        let id = cells::id(cells[0], b"tt", "titleId")?;
        let place = cells::required(cells[1], ANY.0, ANY.1, "ordering")?;
        if cells[2] == NULL {
            return Err(Bad::new(Reason::Missing, "title", NULL));
        }
        let original = cells::flag(cells[7], "isOriginalTitle")?;
        self.known.titles.must_have(id, "titleId", cells[0])?;
        if !self.places.add(id, place) {
            return Err(Bad::new(Reason::Duplicate, "ordering", cells[1]));
        }
        // Several values stand in one cell, with a control character between them.
        let rows = &mut self.out[0];
        rows.number(id)
            .number(place)
            .text(cells[2])
            .text(cells[3])
            .text(cells[4]);
        for (cell, column) in [(cells[5], "types"), (cells[6], "attributes")] {
            let cell = bounded(cell, 2, column, &mut self.parts);
            rows.texts((cell != NULL).then(|| cell.split(|byte| *byte == 2)));
        }
        rows.flag(original).end();
        Ok(())
    }

    /// It is in the row of its title already.
    fn rating(&mut self, cells: &[&[u8]; 9]) -> Result<(), Bad> {
        Rating::read(cells[1], cells[2])?;
        self.one_per_title(cells[0]).map(drop)
    }

    /// Why no more rows can be taken, if their places are too many to be remembered.
    pub fn overflow(&self) -> Option<String> {
        self.places.overflow()
    }

    /// The ratings that no title of the file has got.
    pub fn ratings_left(&mut self) -> Vec<(i32, Rating)> {
        self.known.ratings.left()
    }

    /// The title of a row whose title must be there, and have no other row.
    fn one_per_title(&mut self, cell: &[u8]) -> Result<i32, Bad> {
        let id = cells::id(cell, b"tt", "tconst")?;
        self.known.titles.must_have(id, "tconst", cell)?;
        match self.seen.add(id) {
            true => Ok(id),
            false => Err(Bad::new(Reason::Duplicate, "tconst", cell)),
        }
    }
}

/// The cell of a list; of one that is too long, none, and that is told.
fn bounded<'a>(
    cell: &'a [u8],
    separator: u8,
    column: &'static str,
    parts: &mut Vec<Bad>,
) -> &'a [u8] {
    cells::bounded(cell, separator, column).unwrap_or_else(|bad| {
        parts.push(bad);
        NULL
    })
}

/// The ids of a list that are there, each once, with their place in it; the others are told.
fn links(
    cell: &[u8],
    prefix: &[u8; 2],
    column: &'static str,
    there: &Ids,
    once: &mut Vec<i32>,
    parts: &mut Vec<Bad>,
    mut link: impl FnMut(i32, i32),
) {
    once.clear();
    let listed = bounded(cell, b',', column, parts);
    for (item, order) in cells::list(listed).zip(1..) {
        let id = cells::id(item, prefix, column).and_then(|id| there.must_have(id, column, item));
        match id {
            Ok(id) if !once.contains(&id) => {
                once.push(id);
                link(id, order);
            }
            Ok(_) => parts.push(Bad::new(Reason::Duplicate, column, item)),
            Err(bad) => parts.push(bad),
        }
    }
}

/// The names in a JSON list.
fn characters(cell: &[u8]) -> Result<Option<Vec<std::borrow::Cow<'_, str>>>, Bad> {
    if cell == NULL {
        return Ok(None);
    }
    let bad = || Bad::new(Reason::Json, "characters", cell);
    let names: Vec<Name> = serde_json::from_slice(cell).map_err(|_| bad())?;
    if names.len() > limits::LOAD_LIST_MAX {
        return Err(cells::too_many(names.len(), "characters"));
    }
    // PostgreSQL cannot hold this one character, which JSON can write.
    if names.iter().any(|name| name.0.contains('\0')) {
        return Err(bad());
    }
    Ok(Some(names.into_iter().map(|name| name.0).collect()))
}

/// A text that is copied only when it has to be.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] std::borrow::Cow<'a, str>);
