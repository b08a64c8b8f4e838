-- Deletes a genre that is older than the request and writes its key, or neither; see sql/keyed_insert.sql. The record of the deletion gets the time of
-- the request too (imdb_ha.hora).
WITH turno AS MATERIALIZED (
    SELECT pg_catalog.pg_try_advisory_xact_lock(
        pg_catalog.hashtext('imdb_ha.claves'), pg_catalog.hashtext($1::text)
    ) AS libre, pg_catalog.set_config('imdb_ha.hora', ($4::timestamptz)::text, true)
), hecho AS (
    DELETE FROM public.generos AS g USING turno
    WHERE turno.libre AND g.id_genero = $3::int4 AND g.cambiado_en < $4::timestamptz
    RETURNING g.id_genero::int4 AS id, g.genero::text AS nombre, $4::timestamptz AS en
), clave AS (
    INSERT INTO imdb_ha.claves (clave, huella, metodo, id_genero, genero, cuando)
    SELECT $1::text, pg_catalog.sha256(pg_catalog.convert_to($2::text, 'UTF8')), 'DELETE', id, nombre, en FROM hecho
    RETURNING nodo
)
SELECT turno.libre, clave.nodo, hecho.id, hecho.nombre
FROM turno LEFT JOIN hecho ON true LEFT JOIN clave ON true
