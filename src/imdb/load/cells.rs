//! The cells of a row: reading them, and writing them as PostgreSQL's COPY wants them in its text format. Pure.

use super::ratings::Rating;
use crate::limits;
use std::fmt;

/// Why a row, or one column of it, is not in its table. Each has a text in the database's language and one for the commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    Width,
    Nul,
    NotAnId,
    NotANumber,
    Value,
    Missing,
    Json,
    Duplicate,
    Dangling,
}

/// Each reason, as `rechazos.motivo` has it and as the commands tell it.
const REASONS: &[(Reason, &str, &str)] = &[
    (
        Reason::Width,
        "número de columnas",
        "wrong number of columns",
    ),
    (Reason::Nul, "carácter NUL", "contains a NUL character"),
    (Reason::NotAnId, "identificador no válido", "not an id"),
    (
        Reason::NotANumber,
        "número no válido",
        "not a number that fits",
    ),
    (Reason::Value, "valor no válido", "not a value that fits"),
    (Reason::Missing, "falta el valor", "a value is missing"),
    (Reason::Json, "JSON no válido", "not a JSON list of texts"),
    (Reason::Duplicate, "clave repetida", "duplicate key"),
    (
        Reason::Dangling,
        "identificador inexistente",
        "an id that is not there",
    ),
];

impl Reason {
    fn texts(self) -> (&'static str, &'static str) {
        let found = REASONS.iter().find(|(reason, ..)| *reason == self);
        found.map_or(("", ""), |(_, es, en)| (es, en))
    }

    /// As `rechazos.motivo` has it.
    pub fn in_database(self) -> &'static str {
        self.texts().0
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.texts().1)
    }
}

/// What is wrong with a row, or with one column of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    pub reason: Reason,
    /// The column that is meant; of a row with a wrong number of them, none.
    pub column: &'static str,
    /// The value that does not fit, or what is known beside it.
    pub detail: String,
}

impl Bad {
    pub fn new(reason: Reason, column: &'static str, value: &[u8]) -> Bad {
        Bad {
            reason,
            column,
            detail: String::from_utf8_lossy(value).into_owned(),
        }
    }
}

/// How the files write that there is no value.
pub const NULL: &[u8] = b"\\N";

/// The number in an id such as `tt0111161`.
pub fn id(cell: &[u8], prefix: &[u8; 2], column: &'static str) -> Result<i32, Bad> {
    let digits = cell
        .strip_prefix(prefix)
        .filter(|digits| digits.len() <= 10);
    let number = digits.and_then(number_of).filter(|number| *number > 0);
    let bad = || match cell {
        NULL => Bad::new(Reason::Missing, column, cell),
        _ => Bad::new(Reason::NotAnId, column, cell),
    };
    number
        .and_then(|number| i32::try_from(number).ok())
        .ok_or_else(bad)
}

/// A number from `least` to `most`, or none.
pub fn number(
    cell: &[u8],
    least: i64,
    most: i64,
    column: &'static str,
) -> Result<Option<i32>, Bad> {
    if cell == NULL {
        return Ok(None);
    }
    let (sign, digits) = match cell.strip_prefix(b"-") {
        Some(digits) => (-1, digits),
        None => (1, cell),
    };
    let number = number_of(digits).map(|number| number * sign);
    let number = number.filter(|number| (least..=most).contains(number));
    match number.and_then(|number| i32::try_from(number).ok()) {
        Some(number) => Ok(Some(number)),
        None => Err(Bad::new(Reason::NotANumber, column, cell)),
    }
}

/// A number that must be there.
pub fn required(cell: &[u8], least: i64, most: i64, column: &'static str) -> Result<i32, Bad> {
    number(cell, least, most, column)?.ok_or_else(|| Bad::new(Reason::Missing, column, cell))
}

fn number_of(digits: &[u8]) -> Option<i64> {
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    digits.iter().try_fold(0i64, |number, digit| {
        digit
            .is_ascii_digit()
            .then(|| number * 10 + i64::from(digit - b'0'))
    })
}

/// `0` or `1`, or none.
pub fn flag(cell: &[u8], column: &'static str) -> Result<Option<bool>, Bad> {
    match cell {
        NULL => Ok(None),
        b"0" => Ok(Some(false)),
        b"1" => Ok(Some(true)),
        _ => Err(Bad::new(Reason::Value, column, cell)),
    }
}

/// The tenths of an average from 1 to 10 with one place at most behind the point. A second one would be rounded away.
pub fn tenths(cell: &[u8]) -> Option<u8> {
    let (whole, tenth) = match memchr::memchr(b'.', cell) {
        Some(at) => (&cell[..at], &cell[at + 1..]),
        None => (cell, &b"0"[..]),
    };
    let [tenth] = tenth else {
        return None;
    };
    let tenths = number_of(whole)?
        .checked_mul(10)?
        .checked_add(number_of(&[*tenth])?)?;
    u8::try_from(tenths)
        .ok()
        .filter(|tenths| (10..=100).contains(tenths))
}

/// The values of a list with commas; none when there is no value.
pub fn list(cell: &[u8]) -> impl Iterator<Item = &[u8]> {
    let items = (cell != NULL && !cell.is_empty()).then(|| cell.split(|byte| *byte == b','));
    items.into_iter().flatten()
}

/// The cell of a list, unless that has more than [`limits::LOAD_LIST_MAX`] values.
pub fn bounded<'a>(cell: &'a [u8], separator: u8, column: &'static str) -> Result<&'a [u8], Bad> {
    // So short a cell, as nearly all are, need not be counted.
    if cell.len() < limits::LOAD_LIST_MAX {
        return Ok(cell);
    }
    match memchr::memchr_iter(separator, cell).count() + 1 {
        count if count > limits::LOAD_LIST_MAX => Err(too_many(count, column)),
        _ => Ok(cell),
    }
}

/// What is wrong with a list of so many values.
pub fn too_many(count: usize, column: &'static str) -> Bad {
    let detail = format!("{count} valores, {} como máximo", limits::LOAD_LIST_MAX);
    Bad::new(Reason::Value, column, detail.as_bytes())
}

/// A row in the making, in the text format of COPY.
#[derive(Debug, Default)]
pub struct Rows(pub Vec<u8>);

impl Rows {
    pub fn number(&mut self, number: i32) -> &mut Rows {
        let mut digits = itoa::Buffer::new();
        self.cell(digits.format(number).as_bytes())
    }

    pub fn maybe(&mut self, number: Option<i32>) -> &mut Rows {
        match number {
            Some(number) => self.number(number),
            None => self.cell(NULL),
        }
    }

    pub fn flag(&mut self, flag: Option<bool>) -> &mut Rows {
        self.cell(match flag {
            Some(true) => b"t",
            Some(false) => b"f",
            None => NULL,
        })
    }

    /// A text as the files have it, so that [`NULL`] is no text.
    pub fn text(&mut self, text: &[u8]) -> &mut Rows {
        match text {
            NULL => self.cell(NULL),
            _ => self.any_text(text),
        }
    }

    /// A text, whatever stands in it.
    pub fn any_text(&mut self, text: &[u8]) -> &mut Rows {
        escape(text, &mut self.0);
        self.0.push(b'\t');
        self
    }

    /// A list of texts as an array, or no value.
    pub fn texts<'a>(&mut self, texts: Option<impl Iterator<Item = &'a [u8]>>) -> &mut Rows {
        let Some(texts) = texts else {
            return self.cell(NULL);
        };
        // Escaped twice: once for the array, once for COPY.
        let mut array = vec![b'{'];
        for text in texts {
            array.push(b'"');
            for byte in text {
                if matches!(byte, b'"' | b'\\') {
                    array.push(b'\\');
                }
                array.push(*byte);
            }
            array.extend(b"\",");
        }
        if array.len() > 1 {
            array.pop();
        }
        array.push(b'}');
        self.any_text(&array)
    }

    /// Characters that need no escaping.
    pub fn cell(&mut self, cell: &[u8]) -> &mut Rows {
        self.0.extend_from_slice(cell);
        self.0.push(b'\t');
        self
    }

    /// The mean and the votes, or no values.
    pub fn rating(&mut self, rating: Option<Rating>) -> &mut Rows {
        match rating {
            Some(rating) => self.cell(rating.mean().as_bytes()).number(rating.votes),
            None => self.cell(NULL).cell(NULL),
        }
    }

    /// Ends the row.
    pub fn end(&mut self) {
        if let Some(last) = self.0.last_mut() {
            *last = b'\n';
        }
    }
}

fn escape(text: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    while let Some(at) = rest
        .iter()
        .position(|byte| matches!(byte, b'\\' | b'\t' | b'\n' | b'\r'))
    {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(match rest[at] {
            b'\\' => b"\\\\",
            b'\t' => b"\\t",
            b'\n' => b"\\n",
            _ => b"\\r",
        });
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_a_prefix_and_a_number_that_fits() {
        let read = |text: &str| id(text.as_bytes(), b"tt", "tconst").map_err(|bad| bad.reason);
        assert_eq!(read("tt0111161"), Ok(111_161));
        assert_eq!(read("tt35557166"), Ok(35_557_166));
        assert_eq!(read("tt2147483647"), Ok(i32::MAX));
        for wrong in [
            "tt2147483648",
            "tt0000000",
            "tt",
            "nm0111161",
            "0111161",
            "tt01x",
            "tt-5",
            "",
        ] {
            assert_eq!(read(wrong), Err(Reason::NotAnId), "{wrong}");
        }
        assert_eq!(read("\\N"), Err(Reason::Missing));
    }

    #[test]
    fn numbers_are_taken_exactly_or_not_at_all() {
        let read =
            |text: &str| number(text.as_bytes(), -32_768, 32_767, "x").map_err(|bad| bad.reason);
        assert_eq!(read("\\N"), Ok(None));
        assert_eq!(read("1994"), Ok(Some(1994)));
        assert_eq!(read("-44"), Ok(Some(-44)));
        for wrong in [
            "",
            "-",
            "32768",
            "1e3",
            "Drama,Short",
            "19 94",
            "99999999999999999999999",
        ] {
            assert_eq!(read(wrong), Err(Reason::NotANumber), "{wrong}");
        }
        for (right, expected) in [("1", 10), ("9.3", 93), ("10", 100), ("10.0", 100)] {
            assert_eq!(tenths(right.as_bytes()), Some(expected), "{right}");
        }
        for wrong in [
            "0.9",
            "10.1",
            "9.35",
            "",
            ".",
            "9.",
            ".5",
            "x",
            "\\N",
            "11",
            "0.5",
            "999999999999999999",
        ] {
            assert_eq!(tenths(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn texts_survive_copy_and_arrays() {
        let mut rows = Rows::default();
        let texts = [&b"say \"hi\""[..], b"a\\b", b""];
        rows.text(b"a\\N\rb")
            .text(b"\\N")
            .texts(Some(texts.into_iter()))
            .flag(None)
            .number(-3)
            .end();
        let expected = "a\\\\N\\rb\t\\N\t{\"say \\\\\"hi\\\\\"\",\"a\\\\\\\\b\",\"\"}\t\\N\t-3\n";
        assert_eq!(String::from_utf8_lossy(&rows.0), expected);
        let mut rows = Rows::default();
        rows.texts(Some(std::iter::empty())).end();
        assert_eq!(rows.0, b"{}\n");
    }

    #[test]
    fn a_list_without_a_value_is_empty() {
        let read = |text: &'static str| list(text.as_bytes()).count();
        assert_eq!(
            (read("\\N"), read(""), read("a"), read("a,b")),
            (0, 0, 1, 2)
        );
    }

    #[test]
    fn a_list_is_bounded_by_its_values_and_not_by_their_length() {
        let most = limits::LOAD_LIST_MAX;
        for cell in [
            "x".repeat(3 * most),
            ",".repeat(most - 1),
            vec!["abc"; most].join(","),
        ] {
            assert_eq!(
                bounded(cell.as_bytes(), b',', "genres"),
                Ok(cell.as_bytes())
            );
        }
        let bad = bounded(&vec![b','; most], b',', "genres").expect_err("one too many");
        assert_eq!((bad.reason, bad.column), (Reason::Value, "genres"));
        assert_eq!(bad.detail, "10001 valores, 10000 como máximo");
    }
}
