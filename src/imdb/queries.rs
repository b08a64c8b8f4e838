//! Reads of the films through the active master. What a client sees of a title or a person is made by PostgreSQL, in
//! `sql/titulo.sql` and its like, and comes as JSON.

use super::search::{Genero, Part, Place, Resolved, Search};
use super::suggest;
use crate::cluster::NodeId;
use crate::dispatch::{Dispatch, Failed, Kind};
use crate::limits;
use crate::pg::Session;
use postgres::Error;
use postgres::types::{ToSql, Type};
use std::sync::Arc;
use std::time::Instant;

/// The films.
pub struct Films {
    dispatch: Arc<Dispatch>,
}

/// A result and the master that gave it.
pub type Outcome<T> = Result<(T, NodeId), Failed>;

/// What a search found.
#[derive(Debug)]
pub enum Found {
    Page(Page),
    /// There is no such genre.
    NoGenero,
    /// There is no such type; these there are.
    NoTipo(Vec<String>),
}

/// A page of a search.
#[derive(Debug)]
pub struct Page {
    /// Each title as JSON.
    pub titles: Vec<String>,
    /// The last one's place, if there are more.
    pub next: Option<Place>,
    /// If no title has the words: titles with words that look like them.
    pub near: Vec<String>,
}

/// A person as JSON.
#[derive(Debug)]
pub struct Person {
    pub person: String,
    /// Titles with their ids, as JSON.
    pub films: Vec<(i32, String)>,
}

const GENERO: &str = "SELECT id_genero FROM public.generos WHERE id_genero = $1::int4";
// 28 rows, and some more when IMDb has new ones.
const GENERO_BY_CODE: &str =
    "SELECT id_genero FROM public.generos_imdb WHERE lower(codigo_imdb) = lower($1::text)";
const TIPO: &str =
    "SELECT id_tipo_titulo FROM public.tipos_titulo WHERE lower(tipo_titulo) = lower($1::text)";
const TIPOS: &str = "SELECT tipo_titulo FROM public.tipos_titulo ORDER BY id_tipo_titulo";
const LIST: &str = include_str!("../../sql/titulos_lista.sql");
const TITLE: &str = include_str!("../../sql/titulo.sql");
const PERSON: &str = include_str!("../../sql/persona.sql");

impl Films {
    pub fn new(dispatch: Arc<Dispatch>) -> Films {
        Films { dispatch }
    }

    /// One page of a search.
    ///
    /// # Errors
    /// Those of the dispatch.
    pub fn search(&self, search: Search, deadline: Instant) -> Outcome<Found> {
        let work = move |session: &mut Session, _| run(session, &search);
        self.dispatch.call(Kind::Read, deadline, work)
    }

    /// The page of a title as JSON, if there is one with this id.
    ///
    /// # Errors
    /// Those of the dispatch.
    pub fn title(&self, id: i32, deadline: Instant) -> Outcome<Option<String>> {
        self.dispatch.call(Kind::Read, deadline, move |session, _| {
            let bounds = (limits::CREW_MAX, limits::CAST_MAX, limits::OTHER_TITLES_MAX);
            let rows = session.query(TITLE, &[&id, &bounds.0, &bounds.1, &bounds.2])?;
            rows.first().map(|row| row.try_get(0)).transpose()
        })
    }

    /// A person, if there is one with this id, with up to `limit` titles with ids below `below`.
    ///
    /// # Errors
    /// Those of the dispatch.
    pub fn person(
        &self,
        id: i32,
        below: i64,
        limit: i64,
        deadline: Instant,
    ) -> Outcome<Option<Person>> {
        self.dispatch.call(Kind::Read, deadline, move |session, _| {
            let rows = session.query(PERSON, &[&id, &below, &limit, &limits::PARTS_MAX])?;
            let person = rows.first().map(|row| {
                let (ids, films): (Vec<i32>, Vec<String>) = (row.try_get(1)?, row.try_get(2)?);
                Ok(Person {
                    person: row.try_get(0)?,
                    films: ids.into_iter().zip(films).collect(),
                })
            });
            person.transpose()
        })
    }
}

/// Both parts of a search, as far as the page needs them, and one title more to know whether there are more.
fn run(session: &mut Session, search: &Search) -> Result<Found, Error> {
    let mut resolved = Resolved::default();
    if let Some(genero) = &search.genero {
        let rows = match genero {
            Genero::Id(id) => session.query(GENERO, &[id])?,
            Genero::Code(code) => session.query(GENERO_BY_CODE, &[code])?,
        };
        let Some(row) = rows.first() else {
            return Ok(Found::NoGenero);
        };
        resolved.genero = Some(row.try_get(0)?);
    }
    if let Some(tipo) = &search.tipo {
        let rows = session.query(TIPO, &[tipo])?;
        let Some(row) = rows.first() else {
            let known = session.query(TIPOS, &[])?;
            let known = known.iter().map(|row| row.try_get(0));
            return Ok(Found::NoTipo(known.collect::<Result<_, Error>>()?));
        };
        resolved.tipo = Some(row.try_get(0)?);
    }
    let mut places: Vec<Place> = Vec::new();
    for part in search.parts() {
        let wanted = search.limit + 1 - places.len() as i64;
        if wanted > 0 {
            places.extend(ids(session, search, part, resolved, wanted)?);
        }
    }
    let near = match (
        places.is_empty() && search.after.is_none(),
        search.words.given(),
    ) {
        (true, Some(words)) => suggest::titles(session, words)?,
        _ => Vec::new(),
    };
    let more = places.len() as i64 > search.limit;
    places.truncate(search.limit as usize);
    let wanted: Vec<i32> = places.iter().map(|place| place.id).collect();
    let rows = match wanted.is_empty() {
        true => Vec::new(),
        false => session.query(LIST, &[&wanted])?,
    };
    let titles = rows.iter().map(|row| row.try_get(0));
    Ok(Found::Page(Page {
        titles: titles.collect::<Result<_, Error>>()?,
        next: places.pop().filter(|_| more),
        near,
    }))
}

/// The places of up to `limit` titles of one part. Most are sent unprepared, with the values: a plan that is right for every word is good for
/// none.
fn ids(
    session: &mut Session,
    search: &Search,
    part: Part,
    resolved: Resolved,
    limit: i64,
) -> Result<Vec<Place>, Error> {
    let (sql, words) = search.statement(part, resolved);
    let words = words
        .iter()
        .map(|word| (word as &(dyn ToSql + Sync), Type::TEXT));
    let limit: (&(dyn ToSql + Sync), Type) = (&limit, Type::INT8);
    let typed: Vec<(&(dyn ToSql + Sync), Type)> = words.chain([limit]).collect();
    let rows = match search.is_fixed(part) {
        true => {
            let values: Vec<&(dyn ToSql + Sync)> = typed.iter().map(|(value, _)| *value).collect();
            session.query(&sql, &values)?
        }
        false => session.client().query_typed(&sql, &typed)?,
    };
    let place = |row: &postgres::Row| {
        let values = (1..row.len()).map(|index| row.try_get(index));
        let values = values.collect::<Result<Vec<i32>, Error>>()?;
        Ok(Place {
            order: search.order,
            fit: part.fit,
            values: part.with.then_some(values),
            id: row.try_get(0)?,
        })
    };
    rows.iter().map(place).collect()
}
