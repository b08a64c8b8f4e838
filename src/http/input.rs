//! From a request's bytes to checked values. Whatever is wrong is named, with the field.

use super::messages::{self as msg, Message};
use crate::limits;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;
use url::form_urlencoded;

/// What is wrong with a request: the kind, and the name or number in question.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    pub message: &'static Message,
    pub detail: String,
}

impl Fault {
    pub fn new(message: &'static Message, detail: impl Into<String>) -> Fault {
        Fault {
            message,
            detail: detail.into(),
        }
    }
}

impl From<&'static Message> for Fault {
    fn from(message: &'static Message) -> Fault {
        Fault::new(message, "")
    }
}

/// A genre to be written.
#[derive(Debug, PartialEq, Eq)]
pub struct GenreInput {
    pub id: Option<i32>,
    pub genero: String,
    /// Fields that mean nothing here; the answer names them.
    pub ignored: Vec<String>,
}

/// The fields of a JSON object, and the first that is there twice: serde_json would take the last one, and somebody else the first.
#[derive(Default)]
struct Fields {
    fields: Map<String, Value>,
    twice: Option<String>,
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Fields, D::Error> {
        from.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields;

    fn expecting(&self, to: &mut fmt::Formatter) -> fmt::Result {
        to.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut read = Fields::default();
        while let Some((name, value)) = map.next_entry::<String, Value>()? {
            if read.fields.insert(name.clone(), value).is_some() {
                read.twice.get_or_insert(name);
            }
        }
        Ok(read)
    }
}

/// The fields of a JSON body, with a byte order mark before it or without. `otherwise` is what to answer when it is no object.
///
/// # Errors
/// What is wrong with it.
pub fn object(body: &[u8], otherwise: Fault) -> Result<Map<String, Value>, Fault> {
    let text = std::str::from_utf8(body)
        .map_err(|error| Fault::new(msg::BODY_NOT_UTF8, error.valid_up_to().to_string()))?;
    // Windows programs put one there. RFC 8259 8.1 lets it be ignored.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let read: Fields = serde_json::from_str(text).map_err(|error| match error.is_data() {
        true => otherwise,
        false => Fault::new(msg::BODY_INVALID, error.to_string()),
    })?;
    match read.twice {
        Some(name) => {
            let shown: String = name.chars().take(40).collect();
            Err(Fault::new(msg::FIELD_TWICE, shown))
        }
        None => Ok(read.fields),
    }
}

/// Reads a genre off a JSON body.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn genre(body: &[u8]) -> Result<GenreInput, Fault> {
    let mut fields = object(body, msg::BODY_NOT_OBJECT.into())?;
    let id = match fields.remove("id_genero") {
        None | Some(Value::Null) => None,
        Some(value) => Some(id_of_json(&value).ok_or(Fault::from(msg::ID_INVALID))?),
    };
    let genero = genero(&mut fields)?;
    Ok(GenreInput {
        id,
        genero,
        ignored: fields.into_iter().map(|(name, _)| name).collect(),
    })
}

/// An integer as JavaScript understands it: `7` and `7.0` are, `7.5` and `"7"` are not.
fn id_of_json(value: &Value) -> Option<i32> {
    let whole = value.as_i64().or_else(|| {
        let float = value.as_f64()?;
        (float.fract() == 0.0 && float.abs() < 1e10).then_some(float as i64)
    })?;
    valid_id(whole)
}

fn valid_id(id: i64) -> Option<i32> {
    i32::try_from(id).ok().filter(|id| *id >= 1)
}

fn genero(fields: &mut Map<String, Value>) -> Result<String, Fault> {
    let Some(Value::String(text)) = fields.remove("genero") else {
        return Err(msg::GENERO_REQUIRED.into());
    };
    let text = text.trim();
    if text.is_empty() {
        return Err(msg::GENERO_REQUIRED.into());
    }
    if text.contains('\0') {
        return Err(msg::GENERO_NUL.into());
    }
    if text.chars().count() > limits::GENRE_MAX_CHARS {
        return Err(Fault::new(
            msg::GENERO_TOO_LONG,
            limits::GENRE_MAX_CHARS.to_string(),
        ));
    }
    Ok(text.to_string())
}

/// The id of a path.
///
/// # Errors
/// When it is not an integer in range.
pub fn path_id(segment: &str) -> Result<i32, Fault> {
    let digits = !segment.is_empty() && segment.bytes().all(|byte| byte.is_ascii_digit());
    let id = segment
        .parse::<i64>()
        .ok()
        .filter(|_| digits)
        .and_then(valid_id);
    id.ok_or(msg::ID_INVALID.into())
}

/// The values of the named parameters of a query string.
///
/// # Errors
/// A parameter that is unknown or doubled.
pub fn parameters<const N: usize>(
    query: &str,
    names: [&str; N],
) -> Result<[Option<String>; N], Fault> {
    let mut values = [const { None }; N];
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let Some(index) = names.iter().position(|known| *known == name) else {
            return Err(Fault::new(msg::PARAMETER_INVALID, name));
        };
        if values[index].replace(value.into_owned()).is_some() {
            let twice = format!("{name} (twice)");
            return Err(Fault::new(msg::PARAMETER_INVALID, twice));
        }
    }
    Ok(values)
}

/// A parameter that is said or not.
///
/// # Errors
/// When it is neither `true` nor `false`.
pub fn flag(name: &str, value: Option<&str>) -> Result<bool, Fault> {
    match value {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(Fault::new(
            msg::PARAMETER_INVALID,
            format!("{name} (true, false)"),
        )),
    }
}

/// A page of `GET /generos`.
#[derive(Debug, PartialEq, Eq)]
pub struct Page {
    /// Only ids after this one.
    pub after: i32,
    pub limit: i64,
    /// Only genres whose name contains this, in upper or lower case.
    pub genero: Option<String>,
}

/// Reads the page off the query string.
///
/// # Errors
/// A parameter that is unknown, doubled or out of range.
pub fn page(query: &str) -> Result<Page, Fault> {
    let mut page = Page {
        after: 0,
        limit: limits::PAGE_DEFAULT,
        genero: None,
    };
    let mut seen = Vec::new();
    let wrong = |what: String| Fault::new(msg::PARAMETER_INVALID, what);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if seen.contains(&name) {
            return Err(wrong(format!("{name} (twice)")));
        }
        match name.as_ref() {
            "after" => {
                let after = value.parse::<i32>().ok().filter(|after| *after >= 0);
                page.after = after.ok_or_else(|| wrong("after (0..2147483647)".to_string()))?;
            }
            "limit" => {
                let limit = value
                    .parse()
                    .ok()
                    .filter(|limit| (1..=limits::PAGE_MAX).contains(limit));
                page.limit =
                    limit.ok_or_else(|| wrong(format!("limit (1..{})", limits::PAGE_MAX)))?;
            }
            "genero" if value.contains('\0') || value.contains('\u{fffd}') => {
                return Err(wrong("genero (NUL, UTF-8)".to_string()));
            }
            "genero" => {
                page.genero = Some(value.trim().to_string()).filter(|part| !part.is_empty())
            }
            // The name comes from the client: shown shortened, it goes into a JSON string only.
            other => return Err(wrong(other.chars().take(40).collect())),
        }
        seen.push(name);
    }
    Ok(page)
}

/// Refuses a query string on a path that takes none.
///
/// # Errors
/// The first parameter.
pub fn no_parameters(query: &str) -> Result<(), Fault> {
    match form_urlencoded::parse(query.as_bytes()).next() {
        None => Ok(()),
        Some((name, _)) => Err(Fault::new(
            msg::PARAMETER_INVALID,
            name.chars().take(40).collect::<String>(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(body: &str) -> &'static str {
        genre(body.as_bytes()).expect_err(body).message.code
    }

    #[test]
    fn a_genre_with_and_without_an_id() {
        let input = genre(br#"{"genero": "  Drama  "}"#).expect("valid");
        assert_eq!(
            input,
            GenreInput {
                id: None,
                genero: "Drama".into(),
                ignored: vec![]
            }
        );
        for seven in ["7", "7.0", "7e0"] {
            let body = format!(r#"{{"id_genero": {seven}, "genero": "x", "z": 1}}"#);
            let input = genre(body.as_bytes()).expect("valid");
            assert_eq!((input.id, input.ignored), (Some(7), vec!["z".to_string()]));
        }
        assert_eq!(
            genre(br#"{"id_genero": null, "genero": "x"}"#)
                .expect("valid")
                .id,
            None
        );
    }

    #[test]
    fn every_bad_body_is_named() {
        for (body, code) in [
            ("", "body_invalid"),
            ("{", "body_invalid"),
            ("[]", "body_not_object"),
            ("7", "body_not_object"),
            ("{} {}", "body_invalid"),
            ("\u{feff}{", "body_invalid"),
            (r#"{"genero": "a", "genero": "b"}"#, "field_twice"),
            (r#"{"z": 1, "genero": "a", "\u007a": 2}"#, "field_twice"),
            ("{}", "genero_required"),
            (r#"{"genero": 5}"#, "genero_required"),
            (r#"{"genero": " \n "}"#, "genero_required"),
            (r#"{"genero": "a\u0000b"}"#, "genero_nul"),
            (r#"{"genero": "\ud800"}"#, "body_invalid"),
            (r#"{"id_genero": "7", "genero": "x"}"#, "id_invalid"),
            (r#"{"id_genero": 7.5, "genero": "x"}"#, "id_invalid"),
            (r#"{"id_genero": 0, "genero": "x"}"#, "id_invalid"),
            (r#"{"id_genero": -1, "genero": "x"}"#, "id_invalid"),
            (r#"{"id_genero": 2147483648, "genero": "x"}"#, "id_invalid"),
            (r#"{"id_genero": 1e300, "genero": "x"}"#, "id_invalid"),
            (r#"{"id_genero": true, "genero": "x"}"#, "id_invalid"),
        ] {
            assert_eq!(fault(body), code, "{body}");
        }
        assert_eq!(
            genre(b"{\"genero\": \"\xff\"}")
                .expect_err("bad UTF-8")
                .message,
            msg::BODY_NOT_UTF8
        );
        assert!(genre("\u{feff}{\"genero\": \"x\"}".as_bytes()).is_ok());
        let long = "ñ".repeat(limits::GENRE_MAX_CHARS);
        assert!(genre(format!(r#"{{"genero": "{long}"}}"#).as_bytes()).is_ok());
        assert_eq!(
            fault(&format!(r#"{{"genero": "{long}x"}}"#)),
            "genero_too_long"
        );
    }

    #[test]
    fn ids_of_paths() {
        assert_eq!(path_id("7"), Ok(7));
        assert_eq!(path_id("2147483647"), Ok(i32::MAX));
        for bad in [
            "",
            "0",
            "-1",
            "+1",
            "7.0",
            "x",
            "2147483648",
            "99999999999999999999",
        ] {
            assert!(path_id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn pages() {
        let all = Page {
            after: 0,
            limit: limits::PAGE_DEFAULT,
            genero: None,
        };
        assert_eq!(page(""), Ok(all));
        let third = Page {
            after: 9,
            limit: 5,
            genero: Some("ción".into()),
        };
        assert_eq!(page("after=9&limit=5&genero=ci%C3%B3n"), Ok(third));
        for bad in [
            "limit=0",
            "limit=1001",
            "limit=x",
            "after=-1",
            "x=1",
            "limit=1&limit=2",
            "genero=%00",
            "genero=%ff",
        ] {
            assert_eq!(
                page(bad).expect_err(bad).message,
                msg::PARAMETER_INVALID,
                "{bad}"
            );
        }
    }
}
