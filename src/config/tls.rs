//! What a master's URL says of TLS. There are two ways only, because the others of PostgreSQL's clients
//! do not prove who answers, and whoever can read the traffic can also be the one who answers.

use super::secret::percent_decode;
use crate::pg::tls::Files;
use url::Url;

/// The parameters that are for this program, and not for the driver.
const PARAMETERS: [&str; 4] = ["sslmode", "sslrootcert", "sslcert", "sslkey"];

/// The values of `sslmode` that are refused, and why.
const REFUSED: &[(&str, &str)] = &[
    ("allow", "encrypts only if the server insists"),
    (
        "prefer",
        "does without encryption if it is told that there is none",
    ),
    ("require", "encrypts, and takes anybody for the server"),
    (
        "verify-ca",
        "takes whoever has a certificate of the CA for the server",
    ),
];

const USABLE: &str = "sslmode must be verify-full (with sslrootcert) or disable";

/// The files that the URL names for TLS, if it asks for it.
///
/// # Errors
/// What cannot be meant, or proves too little.
pub(super) fn files(url: &Url) -> Result<Option<Files>, String> {
    let [mode, roots, certificate, key] = PARAMETERS.map(|name| value(url, name));
    let (mode, roots, certificate, key) = (mode?, roots?, certificate?, key?);
    match mode.as_deref() {
        Some("verify-full") => {}
        None | Some("disable") => {
            let given = [roots, certificate, key].iter().any(Option::is_some);
            return match given {
                true => Err("names files for TLS without sslmode=verify-full".to_string()),
                false => Ok(None),
            };
        }
        Some(other) => {
            let known = REFUSED.iter().find(|(mode, _)| *mode == other);
            return Err(match known {
                Some((mode, why)) => format!("sslmode={mode} {why}; {USABLE}"),
                None => USABLE.to_string(),
            });
        }
    }
    let own = match (certificate, key) {
        (None, None) => None,
        (Some(certificate), Some(key)) => Some((certificate, key)),
        _ => return Err("sslcert and sslkey need each other".to_string()),
    };
    let needs =
        "sslmode=verify-full needs sslrootcert, the file with the CA of the server's certificate";
    let roots = roots.ok_or(needs)?;
    Ok(Some(Files { roots, own }))
}

/// Refuses what the driver takes and what can never work: it would fail at each connection, and look as if the master were down.
///
/// # Errors
/// Which parameter, and what to do instead.
pub(super) fn check_driver(url: &Url) -> Result<(), String> {
    if value(url, "channel_binding")?.as_deref() == Some("require") {
        return Err(
            "channel_binding=require cannot be had: the driver does not see the TLS of this program, so it has nothing to bind to; \
             leave it out, and have the server prove its name by sslmode=verify-full"
                .to_string(),
        );
    }
    if value(url, "target_session_attrs")?.as_deref() == Some("read-only") {
        let reason = "target_session_attrs=read-only takes only a server that refuses writes, and a master takes writes";
        return Err(reason.to_string());
    }
    Ok(())
}

/// The URL without these parameters, for the driver.
pub(super) fn stripped(url: &Url) -> String {
    let mut url = url.clone();
    let rest: Vec<&str> = pairs(&url)
        .filter(|(name, _, _)| !PARAMETERS.contains(&name.as_str()))
        .map(|(_, _, whole)| whole)
        .collect();
    let rest = rest.join("&");
    url.set_query((!rest.is_empty()).then_some(&rest));
    url.into()
}

/// The parameters of the URL: name, value, and both as they stand there. The driver takes a plus sign as
/// it is, so it is not a space here either.
fn pairs(url: &Url) -> impl Iterator<Item = (String, String, &str)> {
    let query = url.query().unwrap_or("");
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (percent_decode(name), percent_decode(value), pair)
        })
}

fn value(url: &Url, wanted: &str) -> Result<Option<String>, String> {
    let mut found = pairs(url).filter(|(name, _, _)| name == wanted);
    match (found.next(), found.next()) {
        (_, Some(_)) => Err(format!("names {wanted} twice")),
        (Some((_, value, _)), None) if value.is_empty() => Err(format!("has an empty {wanted}")),
        (first, None) => Ok(first.map(|(_, value, _)| value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(query: &str) -> Result<Option<Files>, String> {
        let url = format!("postgresql://root@db/imdb{query}");
        files(&Url::parse(&url).expect("a URL"))
    }

    #[test]
    fn only_a_way_that_proves_who_answers_is_taken() {
        assert_eq!(of(""), Ok(None));
        assert_eq!(of("?sslmode=disable"), Ok(None));
        let files = |own| {
            let roots = "/etc/a+b c.pem".to_string();
            Ok(Some(Files { roots, own }))
        };
        let verified = "?sslmode=verify-full&sslrootcert=/etc/a+b%20c.pem";
        assert_eq!(of(verified), files(None));
        let own = of(&format!("{verified}&sslcert=c&sslkey=k"));
        assert_eq!(own, files(Some(("c".to_string(), "k".to_string()))));
        for (query, reason) in [
            ("?sslmode=require", "takes anybody for the server"),
            ("?sslmode=prefer&sslrootcert=/a", "does without encryption"),
            ("?sslmode=allow", "only if the server insists"),
            ("?sslmode=verify-ca&sslrootcert=/a", "takes whoever has"),
            ("?sslmode=Verify-Full&sslrootcert=/a", "must be verify-full"),
            ("?sslmode=verify-full", "needs sslrootcert"),
            ("?sslmode=verify-full&sslrootcert=", "empty sslrootcert"),
            (
                "?sslmode=verify-full&sslrootcert=/a&sslmode=disable",
                "sslmode twice",
            ),
            ("?ssl%6Dode=require", "takes anybody for the server"),
            ("?sslrootcert=/a", "without sslmode=verify-full"),
            (
                "?sslmode=verify-full&sslrootcert=/a&sslcert=/b",
                "need each other",
            ),
        ] {
            let refused = of(query).expect_err(query);
            assert!(refused.contains(reason), "{query}: {refused}");
        }
    }

    #[test]
    fn the_driver_gets_everything_else_as_it_was_written() {
        let url = "postgresql://root:a%20b@db:5433/imdb?options=-c%20a%3Db+c&sslmode=disable&connect_timeout=3";
        let stripped = stripped(&Url::parse(url).expect("a URL"));
        assert_eq!(
            stripped,
            "postgresql://root:a%20b@db:5433/imdb?options=-c%20a%3Db+c&connect_timeout=3"
        );
        let bare = Url::parse("postgresql://db/imdb?sslmode=disable").expect("a URL");
        assert_eq!(super::stripped(&bare), "postgresql://db/imdb");
    }
}
