//! The routes of the films. Statements and what they find are `imdb/queries.rs`; here is what a request may ask.

use super::handlers::problem_of;
use super::input::{self, Fault};
use super::messages as msg;
use super::{App, Problem, Reply, Req};
use crate::cluster::NodeId;
use crate::imdb::ids;
use crate::imdb::queries::{Found, Page};
use crate::imdb::search::{Genero, ORDERS, Order, Place, Search, Words};
use crate::limits;
use serde_json::{Value, json};

type Handled = Result<Reply, Problem>;

/// `GET /titulos`: a page of a search. `next` is the `after` of the next one, and null on the last.
pub fn list(app: &App, req: &Req) -> Handled {
    let [q, genero, rest @ ..] = input::parameters(
        &req.query,
        [
            "q", "genero", "desde", "hasta", "tipo", "votos", "orden", "limit", "after",
        ],
    )?;
    let asked = genero.clone().unwrap_or_default();
    let genero = genero.as_deref().map(genre).transpose()?;
    let search = search(q.as_deref(), genero, rest)?;
    let (found, node) = find(app, req, search)?;
    match found {
        Some(page) => shown(page, node),
        None => Err(wrong(format!("genero ({asked}: GET /generos)")).into()),
    }
}

/// `GET /generos/{id}/titulos`: the same among the titles of one genre.
pub fn of_genre(app: &App, req: &Req) -> Handled {
    let [q, rest @ ..] = input::parameters(
        &req.query,
        [
            "q", "desde", "hasta", "tipo", "votos", "orden", "limit", "after",
        ],
    )?;
    let id = input::path_id(req.id.as_deref().unwrap_or_default())?;
    let search = search(q.as_deref(), Some(Genero::Id(id)), rest)?;
    let (found, node) = find(app, req, search)?;
    match found {
        Some(page) => shown(page, node),
        None => Err(Problem::new(msg::GENERO_NOT_FOUND, id.to_string())),
    }
}

/// `GET /titulos/{id}`.
pub fn read(app: &App, req: &Req) -> Handled {
    input::no_parameters(&req.query)?;
    let id = ids::title(req.id.as_deref().unwrap_or_default());
    let id = id.ok_or(Fault::from(msg::TCONST_INVALID))?;
    let (title, node) = app
        .films
        .title(id, req.deadline)
        .map_err(|failed| problem_of(&app.verdicts, &failed))?;
    let title = title.ok_or_else(|| Problem::new(msg::TITULO_NOT_FOUND, ids::tconst(id)))?;
    let (title, node) = (compact(&title), json!(node));
    Ok(Reply::written(format!(
        r#"{{"ok":true,"data":{title},"node_used":{node}}}"#
    )))
}

/// `GET /personas/{id}`: a person and a page of the films, highest ids first. `next` is the `after` of the next one.
pub fn person(app: &App, req: &Req) -> Handled {
    let [limit, after] = input::parameters(&req.query, ["limit", "after"])?;
    let limit = page_size(limit.as_deref())?;
    let below = match after.as_deref() {
        None => i64::from(i32::MAX) + 1,
        Some(after) => i64::from(ids::title(after).ok_or_else(|| wrong("after (tconst)"))?),
    };
    let id = ids::person(req.id.as_deref().unwrap_or_default());
    let id = id.ok_or(Fault::from(msg::NCONST_INVALID))?;
    let (found, node) = app
        .films
        .person(id, below, limit + 1, req.deadline)
        .map_err(|failed| problem_of(&app.verdicts, &failed))?;
    let mut found = found.ok_or_else(|| Problem::new(msg::PERSONA_NOT_FOUND, ids::nconst(id)))?;
    let more = found.films.len() as i64 > limit;
    found.films.truncate(limit as usize);
    let next = found.films.last().filter(|_| more);
    let next = json!(next.map(|(id, _)| ids::tconst(*id)));
    let films: Vec<String> = found.films.into_iter().map(|(_, film)| film).collect();
    let mut person = parsed(&found.person)?;
    person["peliculas"] = parsed(&format!("[{}]", films.join(",")))?;
    Ok(Reply::ok(
        200,
        json!({ "ok": true, "data": person, "next": next, "node_used": node }),
    ))
}

/// Runs a search; no page when there is no such genre.
fn find(app: &App, req: &Req, search: Search) -> Result<(Option<Page>, NodeId), Problem> {
    let asked = search.tipo.clone().unwrap_or_default();
    let (found, node) = app
        .films
        .search(search, req.deadline)
        .map_err(|failed| problem_of(&app.verdicts, &failed))?;
    match found {
        Found::Page(page) => Ok((Some(page), node)),
        Found::NoGenero => Ok((None, node)),
        Found::NoTipo(known) => Err(wrong(format!("tipo ({asked}: {})", known.join(", "))).into()),
    }
}

fn shown(page: Page, node: NodeId) -> Handled {
    let next = json!(page.next.map(|place| place.text()));
    let (rows, node) = (compact(&page.titles.join(",")), json!(node));
    let near = match page.near.is_empty() {
        true => String::new(),
        false => format!(r#","did_you_mean":{}"#, json!(page.near)),
    };
    Ok(Reply::written(format!(
        r#"{{"ok":true,"data":[{rows}],"next":{next}{near},"node_used":{node}}}"#
    )))
}

/// JSON without the spaces and line breaks that PostgreSQL puts between its parts: reading and writing it anew would take twenty
/// times as long.
fn compact(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    let (mut inside, mut escaped) = (false, false);
    for letter in json.chars() {
        if inside || !letter.is_ascii_whitespace() {
            text.push(letter);
        }
        match letter {
            '"' if !escaped => inside = !inside,
            '\\' if inside && !escaped => {
                escaped = true;
                continue;
            }
            _ => {}
        }
        escaped = false;
    }
    text
}

/// What PostgreSQL wrote as JSON.
fn parsed(text: &str) -> Result<Value, Problem> {
    serde_json::from_str(text)
        .map_err(|error| Problem::from(msg::INTERNAL).because(error.to_string()))
}

fn wrong(what: impl Into<String>) -> Fault {
    Fault::new(msg::PARAMETER_INVALID, what)
}

/// The parameters that both lists have, in the order of their names there.
fn search(
    q: Option<&str>,
    genero: Option<Genero>,
    [desde, hasta, tipo, votos, orden, limit, after]: [Option<String>; 7],
) -> Result<Search, Fault> {
    let (desde, hasta) = (
        year("desde", desde.as_deref())?,
        year("hasta", hasta.as_deref())?,
    );
    if desde.zip(hasta).is_some_and(|(from, to)| from > to) {
        return Err(wrong("hasta (>= desde)"));
    }
    let tipo = tipo.map(|tipo| code("tipo", &tipo)).transpose()?;
    let votos = match votos {
        None => None,
        Some(text) => {
            Some(whole::<i32>(&text).ok_or_else(|| wrong(format!("votos (0..{})", i32::MAX)))?)
        }
    };
    let words = q.map_or(Ok(Words::default()), words)?;
    let has_words = words.given().is_some();
    let order = match orden {
        None if has_words => Order::BEST,
        None => Order::DEFAULT,
        Some(name) => Order::named(&name).ok_or_else(|| {
            let names: Vec<&str> = ORDERS.iter().map(|(name, _)| *name).collect();
            wrong(format!("orden ({})", names.join(", ")))
        })?,
    };
    if order == Order::BEST && !has_words {
        return Err(wrong("orden (relevancia: q)"));
    }
    let after = match after {
        None => None,
        Some(text) => Some(Place::parse(&text).ok_or_else(|| wrong("after (next)"))?),
    };
    // A place in one order is none in another.
    if let Some(place) = after.as_ref().filter(|place| place.order != order) {
        return Err(wrong(format!("after (orden={})", place.order.name())));
    }
    Ok(Search {
        words,
        genero,
        desde,
        hasta,
        tipo,
        votos,
        order,
        after,
        limit: page_size(limit.as_deref())?,
    })
}

/// The words of `q`. One that ends with `*` is the beginning of a word. Signs alone are what a title such as `$` is found by.
fn words(q: &str) -> Result<Words, Fault> {
    if q.contains(['\0', '\u{fffd}']) {
        return Err(wrong("q (NUL, UTF-8)"));
    }
    let (most, chars) = (limits::WORDS_MAX, limits::WORDS_MAX_CHARS);
    let bounds = || {
        wrong(format!(
            "q (1..{most} palabras/words, 1..{chars} letras/letters)"
        ))
    };
    // First of all, since a request line has no bound of its own and each word is compared with those before it.
    if q.chars().count() > chars {
        return Err(bounds());
    }
    let mut seen: Vec<String> = Vec::new();
    for word in q.split_whitespace() {
        let letters = word.chars().filter(|letter| letter.is_alphanumeric());
        let letters = letters.count();
        let prefix = word.strip_suffix('*');
        if prefix.is_some() && letters < limits::PREFIX_MIN_CHARS {
            let least = limits::PREFIX_MIN_CHARS;
            return Err(wrong(format!("q ({word}: {least}+ a-z 0-9)")));
        }
        let key = word.to_lowercase();
        if letters > 0 && !seen.contains(&key) {
            seen.push(key);
        }
    }
    match q.trim() {
        "" => Err(bounds()),
        _ if seen.len() > most => Err(bounds()),
        text => Ok(Words(text.to_string())),
    }
}

fn genre(text: &str) -> Result<Genero, Fault> {
    match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => whole::<i32>(text)
            .map(Genero::Id)
            .ok_or_else(|| wrong("genero (1..2147483647)")),
        false => code("genero", text).map(Genero::Code),
    }
}

/// A name of IMDb's.
fn code(name: &str, text: &str) -> Result<String, Fault> {
    let known = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == ' ';
    let length = 1..=limits::CODE_MAX_CHARS;
    match length.contains(&text.len()) && text.chars().all(known) {
        true => Ok(text.to_string()),
        false => Err(wrong(format!("{name} (a-z 0-9 -)"))),
    }
}

fn year(name: &str, text: Option<&str>) -> Result<Option<i16>, Fault> {
    let Some(text) = text else {
        return Ok(None);
    };
    let year = whole::<i16>(text).filter(|year| *year <= limits::YEAR_MAX);
    let year = year.ok_or_else(|| wrong(format!("{name} (0..{})", limits::YEAR_MAX)))?;
    Ok(Some(year))
}

fn page_size(text: Option<&str>) -> Result<i64, Fault> {
    let Some(text) = text else {
        return Ok(limits::TITLES_DEFAULT);
    };
    let size = whole::<i64>(text).filter(|size| (1..=limits::TITLES_MAX).contains(size));
    size.ok_or_else(|| wrong(format!("limit (1..{})", limits::TITLES_MAX)))
}

/// A number without a sign.
fn whole<T: std::str::FromStr>(text: &str) -> Option<T> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<Search, Fault> {
        let [q, genero, rest @ ..] = input::parameters(
            query,
            [
                "q", "genero", "desde", "hasta", "tipo", "votos", "orden", "limit", "after",
            ],
        )?;
        search(
            q.as_deref(),
            genero.as_deref().map(genre).transpose()?,
            rest,
        )
    }

    #[test]
    fn a_search_with_everything() {
        let query = "q=the+dark+kni*&genero=Sci-Fi&desde=1990&hasta=2010&tipo=movie&votos=1000&orden=-anio&limit=5&after=-anio_1994_7";
        let search = parse(query).expect("valid");
        assert_eq!(search.words, Words("the dark kni*".into()));
        assert_eq!(search.genero, Some(Genero::Code("Sci-Fi".into())));
        assert_eq!(
            (search.desde, search.hasta, search.votos),
            (Some(1990), Some(2010), Some(1000))
        );
        assert_eq!((search.tipo.as_deref(), search.limit), (Some("movie"), 5));
        assert_eq!(search.after.map(|place| place.id), Some(7));
        let twice = parse("q=+You+-+you+YOU").expect("valid");
        assert_eq!(twice.words, Words("You - you YOU".into()));
        assert_eq!(twice.order, Order::BEST);
        assert!(parse("q=%24").is_ok() && parse("q=a+b+c+d+e+f+g+h+i+j+-+J").is_ok());
        let nothing = parse("").expect("valid");
        assert_eq!(
            (nothing.order, nothing.limit),
            (Order::DEFAULT, limits::TITLES_DEFAULT)
        );
        assert_eq!(
            parse("genero=9").expect("valid").genero,
            Some(Genero::Id(9))
        );
    }

    #[test]
    fn json_loses_no_more_than_the_space_between_its_parts() {
        let written = "{\"a b\" : [1, \n 2], \"c\" : \"x \\\" : \\\\\", \"d\" : \" é \\n\"}";
        let short = compact(written);
        assert_eq!(
            short,
            "{\"a b\":[1,2],\"c\":\"x \\\" : \\\\\",\"d\":\" é \\n\"}"
        );
        let parsed = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
        assert_eq!(parsed(&short), parsed(written));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let long = format!("q={}", "x".repeat(201));
        for (query, name) in [
            ("x=1", "x"),
            ("q=a&q=b", "q (twice)"),
            ("q=", "q (1..10"),
            ("q=+", "q (1..10"),
            ("q=a+b+c+d+e+f+g+h+i+j+k", "q (1..10"),
            (long.as_str(), "q (1..10"),
            ("q=%00", "q (NUL"),
            ("q=%ff", "q (NUL"),
            ("q=ab*", "q (ab*: 3+"),
            ("q=the+*", "q (*: 3+"),
            ("genero=", "genero"),
            ("genero=99999999999", "genero"),
            ("genero=%C3%B1", "genero"),
            ("desde=x", "desde (0..9999)"),
            ("desde=-1", "desde (0..9999)"),
            ("hasta=10000", "hasta (0..9999)"),
            ("desde=2000&hasta=1999", "hasta (>= desde)"),
            ("tipo=", "tipo"),
            ("tipo=%27", "tipo"),
            ("votos=-1", "votos (0..2147483647)"),
            ("votos=1.5", "votos (0..2147483647)"),
            ("votos=2147483648", "votos (0..2147483647)"),
            (
                "orden=titulo",
                "orden (relevancia, votos, -votos, promedio, -promedio, anio, -anio)",
            ),
            ("orden=relevancia", "orden (relevancia: q)"),
            ("q=a&after=votos_5_1", "after (orden=votos)"),
            ("limit=0", "limit (1..100)"),
            ("limit=101", "limit (1..100)"),
            ("limit=+5", "limit (1..100)"),
            ("after=7", "after (next)"),
            ("after=anio_1994_7", "after (orden=anio)"),
        ] {
            let fault = parse(query).expect_err(query);
            assert_eq!(fault.message, msg::PARAMETER_INVALID, "{query}");
            assert!(fault.detail.starts_with(name), "{query}: {}", fault.detail);
        }
    }

    #[test]
    fn a_text_of_any_length_is_refused_at_once() {
        let many: Vec<String> = (0..100_000).map(|number| format!("{number:x}")).collect();
        let began = std::time::Instant::now();
        let fault = words(&many.join(" ")).expect_err("too long");
        assert!(fault.detail.starts_with("q (1..10"), "{}", fault.detail);
        let took = began.elapsed();
        assert!(took < std::time::Duration::from_secs(2), "{took:?}");
    }
}
