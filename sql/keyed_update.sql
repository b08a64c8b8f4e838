-- Renames a genre that is older than the request and writes its key, or neither; see sql/keyed_insert.sql.
WITH turno AS MATERIALIZED (
    SELECT pg_catalog.pg_try_advisory_xact_lock(
        pg_catalog.hashtext('imdb_ha.claves'), pg_catalog.hashtext($1::text)
    ) AS libre
), hecho AS (
    UPDATE public.generos AS g SET genero = $4::text, cambiado_en = $5::timestamptz FROM turno
    WHERE turno.libre AND g.id_genero = $3::int4 AND g.cambiado_en < $5::timestamptz
    RETURNING g.id_genero::int4 AS id, g.genero::text AS nombre, g.cambiado_en AS en
), clave AS (
    INSERT INTO imdb_ha.claves (clave, huella, metodo, id_genero, genero, cuando)
    SELECT $1::text, pg_catalog.sha256(pg_catalog.convert_to($2::text, 'UTF8')), 'PUT', id, nombre, en FROM hecho
    RETURNING nodo
)
SELECT turno.libre, clave.nodo, hecho.id, hecho.nombre
FROM turno LEFT JOIN hecho ON true LEFT JOIN clave ON true
