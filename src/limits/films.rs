//! The bounds of the queries over the films.

/// Titles of a page of `GET /titulos` and of a person's films: the default and the most. A page of a hundred is some 30 KiB.
pub const TITLES_DEFAULT: i64 = 20;
/// See [`TITLES_DEFAULT`].
pub const TITLES_MAX: i64 = 100;

/// Directors of a title's page, and as many writers; long series have hundreds.
pub const CREW_MAX: i64 = 50;

/// The cast of a title's page. IMDb lists eight per title in the mean, and hundreds of some.
pub const CAST_MAX: i64 = 100;

/// Other titles on a title's page; those of known films are in some fifty countries.
pub const OTHER_TITLES_MAX: i64 = 20;

/// Professions of a person, titles that somebody is known for, and parts in one title: IMDb has up to three, four, and a handful.
pub const PARTS_MAX: i64 = 20;

/// Length of `q`, in characters, and how many words it may have: PostgreSQL intersects one list per word.
pub const WORDS_MAX_CHARS: usize = 200;
/// See [`WORDS_MAX_CHARS`].
pub const WORDS_MAX: usize = 10;

/// The shortest beginning of a word that is looked for, in characters. Shorter ones are in nearly every title.
pub const PREFIX_MIN_CHARS: usize = 3;

/// The last year that can be asked for; IMDb's own have four digits.
pub const YEAR_MAX: i16 = 9_999;

/// Length of a genre's code or a type in a query, in characters. IMDb's longest has 14.
pub const CODE_MAX_CHARS: usize = 40;

/// Words that are in no title, beyond which nothing is guessed: each is some 500 looks into an index.
pub const NEAR_WORDS_MAX: usize = 2;

/// Letters of a word of which one may be wrong: of shorter ones too many are a letter away, and longer ones are rare.
pub const NEAR_MIN_CHARS: usize = 4;
/// See [`NEAR_MIN_CHARS`].
pub const NEAR_MAX_CHARS: usize = 24;

/// Letters that a word has at least in common with one that begins like it.
pub const NEAR_START_CHARS: usize = 4;

/// Titles that are looked at, the best known ones, and words of each.
pub const NEAR_LOOKED_AT: i64 = 200;
/// See [`NEAR_LOOKED_AT`].
pub const NEAR_TITLE_WORDS: usize = 30;

/// Titles that are suggested.
pub const NEAR_SHOWN: usize = 5;
