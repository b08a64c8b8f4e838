-- What was done under a key, and whether it was what this request says.
SELECT k.id_genero::int4, k.genero, k.nodo, k.cuando, k.huella = pg_catalog.sha256(pg_catalog.convert_to($2::text, 'UTF8'))
FROM imdb_ha.claves AS k
WHERE k.clave = $1::text
