//! Whether the functions of a master are those of this program.

use crate::cluster::NodeId;
use postgres::Client;

/// What makes them, at each set-up.
const SOURCES: &[&str] = &[
    include_str!("../../../sql/schema.sql"),
    include_str!("../../../sql/conflicts.sql"),
    include_str!("../../../sql/changes.sql"),
];

/// The functions of schema `imdb_ha` that are missing on a master or have another text than here: it was set up by another version, or
/// somebody has replaced them.
pub(super) fn wrong(client: &mut Client, node: NodeId) -> Result<Vec<String>, postgres::Error> {
    let (names, texts): (Vec<&str>, Vec<&str>) = SOURCES.iter().copied().flat_map(ours).unzip();
    let rows = client.query(
        "SELECT ours.name FROM unnest($1::text[], $2::text[]) AS ours (name, body) \
         WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_proc AS p WHERE p.proname = ours.name AND p.prosrc = ours.body \
             AND p.pronamespace = pg_catalog.to_regnamespace('imdb_ha')) \
         ORDER BY 1",
        &[&names, &texts],
    )?;
    let wrong: Result<Vec<String>, _> = rows.iter().map(|row| row.try_get(0)).collect();
    let mut wrong = wrong?;
    if wrong.is_empty() {
        let row = client.query_one("SELECT imdb_ha.este_nodo()", &[])?;
        if row.try_get::<_, i16>(0)? != node.number() {
            wrong.push("este_nodo".to_string());
        }
    }
    Ok(wrong)
}

/// The functions that a script makes, each with its name and its body. Those that are written without quotes have none of their own.
fn ours(script: &str) -> impl Iterator<Item = (&str, &str)> {
    let functions = script.split("CREATE OR REPLACE FUNCTION imdb_ha.").skip(1);
    functions.filter_map(|text| {
        let (name, rest) = text.split_once('(')?;
        let (_, rest) = rest.split_once("AS $$")?;
        let (body, _) = rest.split_once("$$;")?;
        Some((name, body))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_functions_of_a_script_are_found_with_their_text() {
        let found: Vec<&str> = SOURCES
            .iter()
            .copied()
            .flat_map(ours)
            .map(|(name, body)| {
                assert!(body.contains("\n"), "{name}: {body}");
                name
            })
            .collect();
        for name in ["conciliar_generos", "sellar", "alinear_secuencias"] {
            assert!(found.contains(&name), "{found:?}");
        }
    }
}
