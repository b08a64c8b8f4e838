//! What is known while files are read: which titles and persons there are, which keys have come already, and the numbers of the
//! catalogues. It takes some megabytes for a full set of files, and no question goes to a master.

use super::cells::{Bad, Reason};
use super::ratings::Ratings;
use crate::imdb::ids;
use crate::limits;
use roaring::RoaringBitmap;
use std::collections::{HashMap, HashSet};

/// The ids that are there, and the ratings that wait for their titles: of the files being loaded, or of the tables as they are.
#[derive(Debug, Default)]
pub struct Known {
    pub titles: Ids,
    pub persons: Ids,
    pub ratings: Ratings,
}

/// A set of ids; one bit each, where they lie close together.
#[derive(Debug, Default)]
pub struct Ids(RoaringBitmap);

impl Ids {
    /// Adds an id, and says whether it is new.
    pub fn add(&mut self, id: i32) -> bool {
        self.0.insert(id.unsigned_abs())
    }

    pub fn has(&self, id: i32) -> bool {
        self.0.contains(id.unsigned_abs())
    }

    /// The id, if it is there.
    ///
    /// # Errors
    /// [`Reason::Dangling`].
    pub fn must_have(&self, id: i32, column: &'static str, cell: &[u8]) -> Result<i32, Bad> {
        match self.has(id) {
            true => Ok(id),
            false => Err(Bad::new(Reason::Dangling, column, cell)),
        }
    }
}

/// What is to be done about a file whose rows are in no order.
pub const SCATTERED: &str =
    "the rows of a title do not stand together; sort the file, such as by LC_ALL=C sort";

/// Which places of which titles have come already. The rows of a title come together, so that only those of one title are kept; but
/// for titles whose rows are known to be scattered over the file, all of them.
#[derive(Debug, Default)]
pub struct Places {
    scattered: RoaringBitmap,
    of_scattered: HashSet<(i32, i32)>,
    title: i32,
    /// Places of this title that came in rising order, as nearly all do.
    rising: Vec<i32>,
    others: HashSet<i32>,
}

impl Places {
    pub fn new(scattered: RoaringBitmap) -> Places {
        Places {
            scattered,
            ..Places::default()
        }
    }

    /// Adds a place, and says whether it is new.
    pub fn add(&mut self, title: i32, place: i32) -> bool {
        if title != self.title {
            self.title = title;
            self.rising.clear();
            self.others = HashSet::new();
        }
        if self.scattered.contains(title.unsigned_abs()) {
            return self.of_scattered.insert((title, place));
        }
        if self.rising.last().is_none_or(|last| place > *last) {
            self.rising.push(place);
            return !self.others.contains(&place);
        }
        self.rising.binary_search(&place).is_err() && self.others.insert(place)
    }

    /// Why no more can be kept, once there are more than [`limits::LOAD_PLACES_MAX`].
    pub fn overflow(&self) -> Option<String> {
        let of_one = self.rising.len() + self.others.len();
        if self.of_scattered.len() > limits::LOAD_PLACES_MAX {
            return Some(SCATTERED.to_string());
        }
        let most = limits::LOAD_PLACES_MAX;
        (of_one > most).then(|| {
            let title = ids::tconst(self.title);
            format!("{title} has more than {most} rows")
        })
    }
}

/// A catalogue: the values that have a number, and those that get one now. Both masters get the same, since one loader gives them out.
#[derive(Debug)]
pub struct Catalogue {
    pub table: &'static str,
    numbers: HashMap<Vec<u8>, i32>,
    highest: i32,
    pub new: Vec<(i32, String)>,
}

impl Catalogue {
    pub fn new(table: &'static str, values: impl IntoIterator<Item = (i32, String)>) -> Catalogue {
        let mut catalogue = Catalogue {
            table,
            numbers: HashMap::new(),
            highest: 0,
            new: Vec::new(),
        };
        for (number, value) in values {
            catalogue.highest = catalogue.highest.max(number);
            catalogue.numbers.insert(value.into_bytes(), number);
        }
        catalogue
    }

    /// The number of a value; none if it is new, and can be added.
    ///
    /// # Errors
    /// For a value that can be none of a catalogue, or when the numbers have run out: then it is no catalogue.
    pub fn find(&self, value: &[u8], column: &'static str) -> Result<Option<i32>, Bad> {
        if let Some(number) = self.numbers.get(value) {
            return Ok(Some(*number));
        }
        match is_code(value) && self.highest < i32::from(i16::MAX) {
            true => Ok(None),
            false => Err(Bad::new(Reason::Value, column, value)),
        }
    }

    /// Gives a new value, which was not found, the next number.
    pub fn add(&mut self, value: &[u8]) -> i32 {
        self.highest += 1;
        self.numbers.insert(value.to_vec(), self.highest);
        self.new
            .push((self.highest, String::from_utf8_lossy(value).into_owned()));
        self.highest
    }
}

/// Whether a text can be a new value of a catalogue.
pub fn is_code(text: &[u8]) -> bool {
    (1..=limits::LOAD_CODE_BYTES).contains(&text.len()) && memchr::memchr(0, text).is_none()
}

/// The catalogues of the rows, and the genres, whose numbers are drawn before.
#[derive(Debug)]
pub struct Catalogues {
    pub types: Catalogue,
    pub categories: Catalogue,
    pub professions: Catalogue,
    pub genres: HashMap<Vec<u8>, i32>,
    /// The numbers of those that a row has.
    pub genres_used: Ids,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_comes_once_in_whatever_order() {
        let mut places = Places::default();
        for (place, new) in [
            (1, true),
            (3, true),
            (2, true),
            (3, false),
            (2, false),
            (1, false),
            (4, true),
        ] {
            assert_eq!(places.add(7, place), new, "{place}");
        }
        // The next title begins anew.
        assert!(places.add(8, 1));
        let mut places = Places::new(RoaringBitmap::from_iter([7]));
        assert!(places.add(7, 1) && places.add(8, 1) && !places.add(7, 1) && places.add(7, 2));
        // A place that came out of order and then is the highest so far.
        let mut places = Places::default();
        assert!(places.add(1, 5) && places.add(1, 3) && places.add(1, 6) && !places.add(1, 3));
    }

    #[test]
    fn all_places_that_are_kept_are_counted() {
        let most = i32::try_from(limits::LOAD_PLACES_MAX).expect("it fits");
        let mut scattered = Places::new(RoaringBitmap::from_iter([7, 9]));
        let mut sorted = Places::default();
        for place in 1..=most {
            scattered.add(7, place);
            // In whatever order, and anew for each title.
            sorted.add(8, most - place);
        }
        assert_eq!((scattered.overflow(), sorted.overflow()), (None, None));
        scattered.add(9, 1);
        sorted.add(8, most);
        assert_eq!(scattered.overflow().as_deref(), Some(SCATTERED));
        assert_eq!(
            sorted.overflow().as_deref(),
            Some("tt0000008 has more than 1000000 rows")
        );
        sorted.add(9, 1);
        assert_eq!(sorted.overflow(), None);
    }

    #[test]
    fn a_new_value_gets_the_next_number_once() {
        let mut types = Catalogue::new(
            "tipos_titulo",
            [(3, "movie".to_string()), (9, "short".to_string())],
        );
        let mut number = |value: &str| {
            let found = types.find(value.as_bytes(), "titleType");
            let found = found.map_err(|bad| bad.reason)?;
            Ok(found.unwrap_or_else(|| types.add(value.as_bytes())))
        };
        assert_eq!(number("movie"), Ok(3));
        assert_eq!(
            (number("podcast"), number("podcast"), number("x")),
            (Ok(10), Ok(10), Ok(11))
        );
        let long = "x".repeat(limits::LOAD_CODE_BYTES + 1);
        for wrong in ["", "a\0b", long.as_str()] {
            assert_eq!(number(wrong), Err(Reason::Value));
        }
        assert_eq!(
            types.new,
            [(10, "podcast".to_string()), (11, "x".to_string())]
        );
        let full = Catalogue::new("t", [(i32::from(i16::MAX), "last".to_string())]);
        assert!(full.find(b"one more", "c").is_err());
        assert_eq!(full.find(b"last", "c"), Ok(Some(i32::from(i16::MAX))));
    }
}
