//! A forgiving try, when no title has the words: titles whose words are a slip of the keyboard away. What is one letter away from a word is
//! looked up in the index of the words that is there anyway, and what that finds is sorted here by how near it is. An index of the parts of
//! words (pg_trgm) would have to be made with each load, and is larger than that of the words.

use crate::limits;
use crate::pg::Session;
use postgres::Error;
use postgres::types::{ToSql, Type};
use std::collections::BTreeSet;

const WORDS: &str = "SELECT palabra FROM unnest(string_to_array(imdb_ha.normaliza($1::text), ' ')) \
    WITH ORDINALITY AS w (palabra, lugar) ORDER BY lugar LIMIT $2::int8";
// Both are planned with the words, as the searches are.
const IS_KNOWN: &str = "SELECT FROM public.titulos AS t \
    WHERE imdb_ha.buscable(t.titulo_principal, t.titulo_original) @@ imdb_ha.consulta($1::text, 'contiene') LIMIT 1";
const TITLES: &str = "SELECT coalesce(t.titulo_principal, t.titulo_original), \
    imdb_ha.normaliza(concat_ws(' ', t.titulo_principal, nullif(t.titulo_original, t.titulo_principal))) \
    FROM public.titulos AS t \
    WHERE imdb_ha.buscable(t.titulo_principal, t.titulo_original) @@ ($1::text)::tsquery \
    ORDER BY t.votos DESC NULLS LAST, t.id_titulo DESC LIMIT $2::int8";

/// A title as it is shown, and its words.
type Title = (String, String);

/// Titles with words like these, the nearest first; none when each of the words is in some title.
///
/// # Errors
/// Those of the session.
pub(super) fn titles(session: &mut Session, text: &str) -> Result<Vec<String>, Error> {
    let most = limits::WORDS_MAX as i64;
    let rows = session.query(WORDS, &[&text, &most])?;
    let words: Vec<String> = rows
        .iter()
        .map(|row| row.try_get(0))
        .collect::<Result<_, _>>()?;
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for word in &words {
        let typed: [(&(dyn ToSql + Sync), Type); 1] = [(word, Type::TEXT)];
        match session.client().query_typed(IS_KNOWN, &typed)?.is_empty() {
            true => unknown.push(word.as_str()),
            false => known.push(word.as_str()),
        }
    }
    if unknown.is_empty() || unknown.len() > limits::NEAR_WORDS_MAX {
        return Ok(Vec::new());
    }
    let mut parts: Vec<String> = known.iter().map(|word| quoted(word)).collect();
    let of_known = parts.join("&");
    parts.extend(unknown.iter().map(|word| near(word)));
    let mut found = nearest(&words, &lookup(session, &parts.join("&"))?);
    // The word that nobody has may be further away; then the others are all that there is to go by.
    if found.is_empty() && !known.is_empty() {
        found = nearest(&words, &lookup(session, &of_known)?);
    }
    Ok(found)
}

fn lookup(session: &mut Session, query: &str) -> Result<Vec<Title>, Error> {
    let typed: [(&(dyn ToSql + Sync), Type); 2] =
        [(&query, Type::TEXT), (&limits::NEAR_LOOKED_AT, Type::INT8)];
    let rows = session.client().query_typed(TITLES, &typed)?;
    let title = |row: &postgres::Row| Ok((row.try_get(0)?, row.try_get(1)?));
    rows.iter().map(title).collect()
}

/// A word as a tsquery writes it.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\\', "\\\\").replace('\'', "''"))
}

/// What is a letter away from a word, as a tsquery: one too many, too few or another, or two the wrong way round; and what begins like it.
fn near(word: &str) -> String {
    let letters: Vec<char> = word.chars().collect();
    let mut near = BTreeSet::from([word.to_string()]);
    let spelled = |before: &[char], middle: &[char], after: &[char]| -> String {
        before.iter().chain(middle).chain(after).collect()
    };
    if (limits::NEAR_MIN_CHARS..=limits::NEAR_MAX_CHARS).contains(&letters.len()) {
        for place in 0..=letters.len() {
            let (before, after) = letters.split_at(place);
            near.extend(('a'..='z').map(|letter| spelled(before, &[letter], after)));
            if let [first, rest @ ..] = after {
                near.insert(spelled(before, &[], rest));
                near.extend(('a'..='z').map(|letter| spelled(before, &[letter], rest)));
                if let [second, rest @ ..] = rest {
                    near.insert(spelled(before, &[*second, *first], rest));
                }
            }
        }
    }
    let mut query: Vec<String> = near.iter().map(|word| quoted(word)).collect();
    let start = limits::NEAR_START_CHARS.max(letters.len() / 2);
    if letters.len() > start {
        let start: String = letters[..start].iter().collect();
        query.push(format!("{}:*", quoted(&start)));
    }
    format!("({})", query.join("|"))
}

/// The titles that have a word near each of these, the nearest first. Pure.
fn nearest(words: &[String], titles: &[Title]) -> Vec<String> {
    let words: Vec<Vec<char>> = words.iter().map(|word| word.chars().collect()).collect();
    let mut found: Vec<(usize, usize, &str)> = Vec::new();
    for (title, of_title) in titles {
        let of_title: Vec<Vec<char>> = of_title
            .split(' ')
            .take(limits::NEAR_TITLE_WORDS)
            .map(|word| word.chars().collect())
            .collect();
        let of_word = |word: &Vec<char>| {
            let distances = of_title.iter().map(|other| distance(word, other));
            let allowed = match word.len() < limits::NEAR_MIN_CHARS {
                true => 0,
                false => (word.len() / 3).max(1),
            };
            distances.min().filter(|least| *least <= allowed)
        };
        let sum: Option<usize> = words.iter().map(of_word).sum();
        if let Some(sum) = sum.filter(|_| !found.iter().any(|(_, _, other)| other == title)) {
            found.push((sum, of_title.len().abs_diff(words.len()), title));
        }
    }
    // Of equal ones the best known stays first.
    found.sort_by_key(|(sum, longer, _)| (*sum, *longer));
    let shown = found.into_iter().take(limits::NEAR_SHOWN);
    shown.map(|(_, _, title)| title.to_string()).collect()
}

/// How many letters have to be put in, left out, exchanged or turned round to make one word of the other.
fn distance(one: &[char], other: &[char]) -> usize {
    let width = other.len() + 1;
    let mut rows: Vec<Vec<usize>> = vec![(0..width).collect()];
    for i in 1..=one.len() {
        let mut row = vec![i; width];
        for j in 1..width {
            let changed = usize::from(one[i - 1] != other[j - 1]);
            let mut least = (rows[i - 1][j] + 1)
                .min(row[j - 1] + 1)
                .min(rows[i - 1][j - 1] + changed);
            let turned = i > 1 && j > 1 && one[i - 1] == other[j - 2] && one[i - 2] == other[j - 1];
            if turned {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row[j] = least;
        }
        rows.push(row);
    }
    rows[one.len()][other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn away(one: &str, other: &str) -> usize {
        let letters = |word: &str| word.chars().collect::<Vec<char>>();
        distance(&letters(one), &letters(other))
    }

    #[test]
    fn letters_are_counted_once() {
        for (one, other, count) in [
            ("godfather", "godfather", 0),
            ("godfahter", "godfather", 1),
            ("godfathr", "godfather", 1),
            ("godfatherr", "godfather", 1),
            ("gotfather", "godfather", 1),
            ("shwashenk", "shawshank", 2),
            ("", "abc", 3),
            ("ñandu", "nandu", 1),
        ] {
            assert_eq!(
                (away(one, other), away(other, one)),
                (count, count),
                "{one} {other}"
            );
        }
    }

    #[test]
    fn what_is_looked_up_is_a_letter_away() {
        let query = near("jaws");
        for word in ["'jaws'", "'jws'", "'ajws'", "'jaxs'", "'jawsy'", "'xjaws'"] {
            assert!(query.contains(word), "{word} is not in {query}");
        }
        assert!(!query.contains(":*"), "{query}");
        assert!(
            near("godfahter").ends_with("|'godf':*)"),
            "{}",
            near("godfahter")
        );
        // Nothing is guessed of a short one, and not all that can be of a long one.
        assert_eq!(near("ai"), "('ai')");
        let long = "x".repeat(limits::WORDS_MAX_CHARS);
        assert!(near(&long).len() < 1_000);
        assert_eq!(quoted("a'b\\"), "'a''b\\\\'");
    }

    #[test]
    fn the_nearest_comes_first_and_only_what_is_near() {
        let title = |text: &str| (text.to_string(), text.to_lowercase());
        let titles = [
            title("The Godfather Part II"),
            title("The Godmother"),
            title("The Godfather"),
            title("The Godfather"),
            title("Godfather"),
        ];
        let words = |text: &str| -> Vec<String> { text.split(' ').map(str::to_string).collect() };
        assert_eq!(
            nearest(&words("the godfahter"), &titles),
            ["The Godfather", "The Godfather Part II", "The Godmother"]
        );
        assert_eq!(nearest(&words("godfahter"), &titles)[0], "Godfather");
        assert!(nearest(&words("a godfather"), &titles).is_empty());
        assert!(nearest(&words("unrelated"), &titles).is_empty());
    }
}
