//! A search over the titles, and the statements that it takes. Each names only what was asked for and is planned with the values, so
//! that PostgreSQL knows how common a word, a genre or a year is: for a common one it walks an index in the order of the answer
//! and stops when the page is full, for a rare one it looks up all of it and sorts that.
//!
//! An order has two parts. First come the titles that have what it goes by, then those that have none, by id. Each part is one
//! walk of one index, so the second is a statement of its own, and only sent when the first has ended. The order of a search for words
//! has these two for each way in which a title can have them.

use std::fmt::Write;

/// What is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    pub words: Words,
    pub genero: Option<Genero>,
    /// First and last year of `anio_inicio`.
    pub desde: Option<i16>,
    pub hasta: Option<i16>,
    /// A type, such as `movie`.
    pub tipo: Option<String>,
    /// The least number of votes; titles without a rating have none.
    pub votos: Option<i32>,
    pub order: Order,
    /// The place after which the page begins.
    pub after: Option<Place>,
    pub limit: i64,
}

/// Words that must all be in a title, as somebody has typed them, one of which may end with `*`; empty without any. What they are looked up
/// by, `imdb_ha.consulta` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words(pub String);

/// A genre, by its id or by IMDb's name for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Genero {
    Id(i32),
    Code(String),
}

/// What the answer is sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// How well the title fits the words, and then the votes.
    Relevancia,
    Votos,
    Promedio,
    Anio,
}

/// A key, and whether the lowest comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    pub key: Key,
    pub ascending: bool,
}

/// Every order, by its name.
pub const ORDERS: &[(&str, Order)] = &[
    ("relevancia", Order::BEST),
    (
        "votos",
        Order {
            key: Key::Votos,
            ascending: false,
        },
    ),
    (
        "-votos",
        Order {
            key: Key::Votos,
            ascending: true,
        },
    ),
    (
        "promedio",
        Order {
            key: Key::Promedio,
            ascending: false,
        },
    ),
    (
        "-promedio",
        Order {
            key: Key::Promedio,
            ascending: true,
        },
    ),
    (
        "anio",
        Order {
            key: Key::Anio,
            ascending: false,
        },
    ),
    (
        "-anio",
        Order {
            key: Key::Anio,
            ascending: true,
        },
    ),
];

/// A place in an order: the values of its key, in tenths for `promedio`, and the id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub order: Order,
    /// How the title has the words, if the order goes by that.
    pub fit: Option<Fit>,
    /// None for a title that does not have what the order goes by.
    pub values: Option<Vec<i32>>,
    pub id: i32,
}

/// How a title has the words, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// One of its two titles is the words.
    Exact,
    /// One begins with them.
    Begins,
    /// They are in them.
    Contains,
    /// They are in what it is called elsewhere.
    Elsewhere,
}

const FITS: [Fit; 4] = [Fit::Exact, Fit::Begins, Fit::Contains, Fit::Elsewhere];

/// A part of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Of titles that have the words so, if the order goes by that.
    pub fit: Option<Fit>,
    /// Of those that have what the order goes by, or of those that have not.
    pub with: bool,
}

/// The words of a title, which those with a rating have beside them, and of any title.
const KEPT_WORDS: &str = "t.buscable";
const FOUND_WORDS: &str = "imdb_ha.buscable(t.titulo_principal, t.titulo_original)";

/// What the names in a search stand for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Resolved {
    pub genero: Option<i32>,
    pub tipo: Option<i16>,
}

impl Order {
    pub const DEFAULT: Order = Order {
        key: Key::Votos,
        ascending: false,
    };

    /// The default of a search for words.
    pub const BEST: Order = Order {
        key: Key::Relevancia,
        ascending: false,
    };

    /// The order with this name.
    pub fn named(name: &str) -> Option<Order> {
        let found = ORDERS.iter().find(|(known, _)| *known == name);
        found.map(|(_, order)| *order)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        let found = ORDERS.iter().find(|(_, order)| *order == self);
        found.map_or("", |(name, _)| name)
    }

    /// Whether a value of the key can be below zero, as a year before Christ is.
    fn may_be_negative(self) -> bool {
        self.key == Key::Anio
    }

    /// The columns of the key, and by what a value of theirs is multiplied to be whole.
    fn columns(self) -> &'static [(&'static str, i32)] {
        match self.key {
            Key::Votos | Key::Relevancia => &[("t.votos", 1)],
            // Of equal means, the one of more votes says more.
            Key::Promedio => &[("t.promedio", 10), ("t.votos", 1)],
            Key::Anio => &[("t.anio_inicio", 1)],
        }
    }
}

impl Place {
    /// The place as a client gets and returns it: the order, the fit, the values and the id, with `_` between.
    pub fn text(&self) -> String {
        let mut text = self.order.name().to_string();
        if let Some(fit) = FITS.iter().position(|fit| Some(*fit) == self.fit) {
            let _ = write!(text, "_{fit}");
        }
        for value in self.values.iter().flatten() {
            let _ = write!(text, "_{value}");
        }
        let _ = write!(text, "_{}", self.id);
        text
    }

    /// The place with this text, if it is one.
    pub fn parse(text: &str) -> Option<Place> {
        let mut words = text.split('_');
        let order = Order::named(words.next()?)?;
        let fit = match order.key {
            Key::Relevancia => Some(*FITS.get(number(words.next()?, false)? as usize)?),
            _ => None,
        };
        let mut words: Vec<&str> = words.collect();
        let id = number(words.pop()?, false)?;
        let signed = order.may_be_negative();
        let values: Option<Vec<i32>> = words.iter().map(|word| number(word, signed)).collect();
        let values = match words.len() {
            0 => None,
            count if count == order.columns().len() => Some(values?),
            _ => return None,
        };
        Some(Place {
            order,
            fit,
            values,
            id,
        })
    }

    fn part(&self) -> Part {
        Part {
            fit: self.fit,
            with: self.values.is_some(),
        }
    }
}

/// A number of a place, with a minus where one may be.
fn number(word: &str, signed: bool) -> Option<i32> {
    let digits = match word.strip_prefix('-') {
        Some(digits) if signed => digits,
        _ => word,
    };
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    word.parse().ok().filter(|_| plain)
}

impl Search {
    /// The parts that the page may have titles of, in their order. What must have votes or a year is only in those of titles that have it.
    pub fn parts(&self) -> Vec<Part> {
        let demanded = match self.order.key {
            Key::Relevancia | Key::Votos | Key::Promedio => self.votos.is_some(),
            Key::Anio => self.desde.is_some() || self.hasta.is_some(),
        };
        let fits = match self.order.key {
            Key::Relevancia => FITS.map(Some).to_vec(),
            _ => vec![None],
        };
        let both = |fit| [true, false].map(|with| Part { fit, with });
        fits.into_iter()
            .flat_map(both)
            .skip_while(|part| {
                self.after
                    .as_ref()
                    .is_some_and(|place| place.part() != *part)
            })
            .filter(|part| part.with || !demanded)
            .collect()
    }

    /// The statement for ids of one part with the whole values of the key, and its parameters, which are texts. After those it takes how
    /// many ids, as a bigint. Whatever else is in it is a number.
    pub fn statement(&self, part: Part, resolved: Resolved) -> (String, Vec<String>) {
        let (of_part, titles) = self.source(part);
        let mut from = "public.titulos AS t".to_string();
        let mut wheres = vec![of_part.to_string()];
        let mut joins = String::new();
        if let Some(genero) = resolved.genero {
            let on = "g.id_titulo = t.id_titulo AND g.id_genero";
            let _ = write!(joins, " JOIN public.titulo_genero AS g ON {on} = {genero}");
        }
        let bounds = [
            self.desde.map(|year| format!("t.anio_inicio >= {year}")),
            self.hasta.map(|year| format!("t.anio_inicio <= {year}")),
            resolved
                .tipo
                .map(|tipo| format!("t.id_tipo_titulo = {tipo}")),
            self.votos.map(|votos| format!("t.votos >= {votos}")),
        ];
        wheres.extend(bounds.into_iter().flatten());
        let parameters: Vec<String> = self.words.given().cloned().into_iter().collect();
        let words = self.words.given();
        let words = words.map(|_| condition(part.fit, titles, self.is_fixed(part)));
        match words {
            // What no known title has may yet be common, in titles of an age: all of them are looked up, since a walk that waits for the
            // next one could go through the whole table.
            Some(words) if is_looked_up(part) => {
                from = format!(
                    "(SELECT t.* FROM public.titulos AS t WHERE {of_part} AND {words} OFFSET 0) AS t"
                );
            }
            words => wheres.extend(words),
        }
        let keys = match part.with {
            true => self.order.columns(),
            false => &[],
        };
        let columns: Vec<&str> = keys.iter().map(|(name, _)| *name).collect();
        let sorted: Vec<&str> = columns.iter().copied().chain(["t.id_titulo"]).collect();
        let after = self.after.as_ref().filter(|place| place.part() == part);
        wheres.extend(after.map(|place| {
            let sign = if self.order.ascending { '>' } else { '<' };
            format!("({}) {sign} ({})", sorted.join(", "), place.literals())
        }));
        let direction = if self.order.ascending { "ASC" } else { "DESC" };
        let mut order: Vec<String> = sorted
            .iter()
            .map(|name| format!("{name} {direction}"))
            .collect();
        if !part.with && self.order.key == Key::Anio {
            // All of them are null, and the index begins with them.
            order.insert(0, format!("t.anio_inicio {direction}"));
        }
        let whole = |(name, times): &(&str, i32)| format!("({name} * {times})::int4");
        let values: Vec<String> = keys.iter().map(whole).collect();
        let select = [vec!["t.id_titulo".to_string()], values]
            .concat()
            .join(", ");
        let filter = wheres.join(" AND ");
        let order = order.join(", ");
        let limit = parameters.len() + 1;
        let sql = format!(
            "SELECT {select} FROM {from}{joins} WHERE {filter} ORDER BY {order} LIMIT ${limit}::int8"
        );
        (sql, parameters)
    }

    /// Whether the statement of a part has no number in it and one plan that is right for all words: it looks them up.
    pub fn is_fixed(&self, part: Part) -> bool {
        let words = self.words.given().is_some();
        let bounds = self.desde.is_some() || self.hasta.is_some() || self.votos.is_some();
        let named = self.genero.is_some() || self.tipo.is_some();
        let begins = self
            .after
            .as_ref()
            .is_some_and(|place| place.part() == part);
        is_looked_up(part)
            && part.fit != Some(Fit::Elsewhere)
            && words
            && !bounds
            && !named
            && !begins
    }

    /// What makes titles those of a part, and where their words are.
    fn source(&self, part: Part) -> (&'static str, &'static str) {
        match (self.order.key, part.with) {
            (Key::Anio, true) => ("t.anio_inicio IS NOT NULL", FOUND_WORDS),
            (Key::Anio, false) => ("t.anio_inicio IS NULL", FOUND_WORDS),
            (_, true) => ("t.votos IS NOT NULL", KEPT_WORDS),
            (_, false) => ("t.votos IS NULL", FOUND_WORDS),
        }
    }
}

impl Place {
    /// The values and the id as a statement writes them.
    fn literals(&self) -> String {
        let columns = self.order.columns().iter();
        let values =
            columns
                .zip(self.values.iter().flatten())
                .map(|((_, times), value)| match times {
                    10 => format!("{}.{}", value / 10, value % 10),
                    _ => value.to_string(),
                });
        let all: Vec<String> = values.chain([self.id.to_string()]).collect();
        all.join(", ")
    }
}

/// Whether all titles of a part that have the words are looked up, whatever the words are. Those that are just the words are few.
fn is_looked_up(part: Part) -> bool {
    !part.with || part.fit == Some(Fit::Exact)
}

impl Words {
    /// The words, if there are any.
    pub fn given(&self) -> Option<&String> {
        Some(&self.0).filter(|text| !text.is_empty())
    }
}

/// The condition that `titles` have the words in the first parameter, and none of the better ways. In a `fixed` statement PostgreSQL does not
/// see the words when it plans: a plan with them always looks cheaper to it than the one that it has kept, and so it would
/// plan each time anew, which takes longer than looking the words up (0.17 and 0.04 ms).
fn condition(fit: Option<Fit>, titles: &str, fixed: bool) -> String {
    let words = |form: &str| match fixed {
        true => format!("(SELECT imdb_ha.consulta($1::text, '{form}'))"),
        false => format!("imdb_ha.consulta($1::text, '{form}')"),
    };
    let (all, first, same) = (words("contiene"), words("empieza"), words("exacta"));
    match fit {
        None => format!("{titles} @@ {all}"),
        Some(Fit::Exact) => format!("{titles} @@ {same}"),
        Some(Fit::Begins) => format!("{titles} @@ ({first} && !!{same})"),
        Some(Fit::Contains) => format!("{titles} @@ ({all} && !!{first})"),
        Some(Fit::Elsewhere) => format!(
            "t.id_titulo IN (SELECT a.id_titulo FROM public.titulos_alternos AS a \
             WHERE a.es_original IS NOT TRUE AND imdb_ha.sueltas(a.titulo) @@ {all}) AND NOT {titles} @@ {all}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITH: Part = Part {
        fit: None,
        with: true,
    };
    const WITHOUT: Part = Part {
        fit: None,
        with: false,
    };

    fn search(order: &str) -> Search {
        Search {
            words: Words::default(),
            genero: None,
            desde: None,
            hasta: None,
            tipo: None,
            votos: None,
            order: Order::named(order).expect(order),
            after: None,
            limit: 20,
        }
    }

    #[test]
    fn places_are_read_as_they_are_written() {
        for text in [
            "votos_2900000_111161",
            "votos_111161",
            "relevancia_0_2900000_111161",
            "relevancia_3_111161",
            "-votos_5_1",
            "promedio_93_2900000_111161",
            "promedio_7",
            "anio_1994_111161",
            "-anio_111161",
            "anio_-44_35557166",
            "-anio_-44_35557166",
        ] {
            let place = Place::parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(place.text(), text);
        }
    }

    #[test]
    fn what_is_no_place() {
        for text in [
            "",
            "votos",
            "votos_",
            "votos_x",
            "votos_1_2_3",
            "promedio_93_5",
            "titulo_1",
            "relevancia",
            "relevancia_1",
            "relevancia_4_5_1",
            "relevancia_-1_5_1",
            "relevancia_0_1_2_3",
            "votos_-5_1",
            "votos_+5_1",
            "promedio_-93_5_1",
            "promedio_93_-5_1",
            "votos_-1",
            "anio_1994_-1",
            "anio_-1",
            "anio_+44_1",
            "anio_--44_1",
            "anio_-_1",
            "anio_44-_1",
            "votos_99999999999_1",
            "1",
            "votos_1_",
            "anio_1994_1; DROP TABLE titulos",
        ] {
            assert_eq!(Place::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_page_asks_only_for_the_parts_that_it_can_be_of() {
        let both = [WITH, WITHOUT];
        assert_eq!(search("votos").parts(), both);
        assert_eq!(search("anio").parts(), both);
        let rated = Search {
            votos: Some(0),
            ..search("promedio")
        };
        assert_eq!(rated.parts(), [WITH]);
        let of_the_year = Search {
            hasta: Some(1994),
            ..search("anio")
        };
        assert_eq!(of_the_year.parts(), [WITH]);
        let rated_by_year = Search {
            votos: Some(5),
            ..search("anio")
        };
        assert_eq!(rated_by_year.parts(), both);
        let later = Search {
            after: Place::parse("votos_7"),
            ..search("votos")
        };
        assert_eq!(later.parts(), [WITHOUT]);
        // The place of a search without the bound.
        let mixed = Search {
            after: Place::parse("votos_7"),
            votos: Some(5),
            ..search("votos")
        };
        assert_eq!(mixed.parts(), []);
    }

    #[test]
    fn a_statement_has_what_was_asked_for_and_no_more() {
        let (sql, parameters) = search("votos").statement(WITH, Resolved::default());
        assert_eq!(
            sql,
            "SELECT t.id_titulo, (t.votos * 1)::int4 FROM public.titulos AS t WHERE t.votos IS NOT NULL \
             ORDER BY t.votos DESC, t.id_titulo DESC LIMIT $1::int8"
        );
        assert!(parameters.is_empty());

        let words = Words("the dark kni*".into());
        let after = Place::parse("promedio_93_100_5");
        let full = Search {
            words,
            after,
            desde: Some(1990),
            votos: Some(10),
            ..search("promedio")
        };
        let resolved = Resolved {
            genero: Some(9),
            tipo: Some(1),
        };
        let (sql, parameters) = full.statement(WITH, resolved);
        for part in [
            "g.id_genero = 9",
            "t.anio_inicio >= 1990",
            "t.id_tipo_titulo = 1",
            "t.votos >= 10",
            "(t.promedio, t.votos, t.id_titulo) < (9.3, 100, 5)",
            "t.buscable @@ imdb_ha.consulta($1::text, 'contiene')",
            "LIMIT $2::int8",
        ] {
            assert!(sql.contains(part), "{part} is not in {sql}");
        }
        assert_eq!(parameters, ["the dark kni*"]);
        let before_christ = Search {
            after: Place::parse("anio_-44_5"),
            ..search("anio")
        };
        let (sql, _) = before_christ.statement(WITH, Resolved::default());
        let bound = "(t.anio_inicio, t.id_titulo) < (-44, 5)";
        assert!(sql.contains(bound), "{bound} is not in {sql}");
        let (sql, _) = Search {
            after: None,
            ..full
        }
        .statement(WITHOUT, resolved);
        assert!(sql.contains("OFFSET 0) AS t JOIN"), "{sql}");
        let words = Words("the".into());
        let fixed = Search {
            words,
            ..search("votos")
        };
        assert!(fixed.is_fixed(WITHOUT) && !fixed.is_fixed(WITH));
        for (part, hidden) in [(WITH, false), (WITHOUT, true)] {
            let (sql, _) = fixed.statement(part, Resolved::default());
            assert_eq!(sql.contains("@@ (SELECT imdb_ha.consulta"), hidden, "{sql}");
        }
        assert!(!search("votos").is_fixed(WITHOUT));
        let paged = Search {
            after: Place::parse("votos_7"),
            ..fixed
        };
        assert!(!paged.is_fixed(WITHOUT));
        let (sql, _) = search("-anio").statement(WITHOUT, Resolved::default());
        assert!(
            sql.ends_with("ORDER BY t.anio_inicio ASC, t.id_titulo ASC LIMIT $1::int8"),
            "{sql}"
        );
    }

    #[test]
    fn the_order_of_words_has_each_title_in_one_part() {
        let best = Search {
            words: Words("the dark".into()),
            ..search("relevancia")
        };
        let parts = best.parts();
        assert_eq!(parts.len(), 8);
        for (part, condition) in parts.iter().zip([
            "t.buscable @@ (SELECT imdb_ha.consulta($1::text, 'exacta'))",
            "t.votos IS NULL AND imdb_ha.buscable(t.titulo_principal, t.titulo_original) @@ (SELECT imdb_ha.consulta($1::text, 'exacta')) OFFSET 0",
            "t.buscable @@ (imdb_ha.consulta($1::text, 'empieza') && !!imdb_ha.consulta($1::text, 'exacta'))",
            "'empieza')) && !!(SELECT",
            "t.buscable @@ (imdb_ha.consulta($1::text, 'contiene') && !!imdb_ha.consulta($1::text, 'empieza'))",
            "'contiene')) && !!(SELECT",
            "AND NOT t.buscable @@ imdb_ha.consulta($1::text, 'contiene')",
            "public.titulos_alternos",
        ]) {
            let (sql, _) = best.statement(*part, Resolved::default());
            assert!(sql.contains(condition), "{condition} is not in {sql}");
        }
        let later = Search {
            after: Place::parse("relevancia_1_7"),
            votos: None,
            ..best
        };
        assert_eq!(later.parts(), parts[3..]);
        assert!(!later.is_fixed(parts[3]) && later.is_fixed(parts[5]));
        let rated = Search {
            votos: Some(1),
            ..later
        };
        let expected = [parts[4], parts[6]];
        assert_eq!(rated.parts(), expected);
    }
}
