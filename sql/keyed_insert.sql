-- Inserts a genre and its request's key ($1; $2 is what the request says), or neither. libre: whether nobody is at a request under this key; its
-- lock lasts until the commit, also until the peer has confirmed it. A key that is there already fails the statement. As in
-- sql/insert_genres.sql, an id that exists, or was deleted after the row's own time, is left out, and a deletion that arrives now fails it.
WITH turno AS MATERIALIZED (
    SELECT pg_catalog.pg_try_advisory_xact_lock(
        pg_catalog.hashtext('imdb_ha.claves'), pg_catalog.hashtext($1::text)
    ) AS libre, pg_catalog.set_config('imdb_ha.exacta', 'on', true)
), hecho AS (
    INSERT INTO public.generos (id_genero, genero, cambiado_en) OVERRIDING SYSTEM VALUE
    SELECT $3::int4, $4::text, $5::timestamptz FROM turno
    WHERE turno.libre AND NOT EXISTS (
        SELECT FROM imdb_ha.borrados AS b WHERE b.id_genero = $3::int4 AND b.cuando >= $5::timestamptz
    )
    ON CONFLICT (id_genero) DO NOTHING
    RETURNING id_genero::int4 AS id, genero::text AS nombre, cambiado_en AS en
), clave AS (
    INSERT INTO imdb_ha.claves (clave, huella, metodo, id_genero, genero, cuando)
    SELECT $1::text, pg_catalog.sha256(pg_catalog.convert_to($2::text, 'UTF8')), 'POST', id, nombre, en FROM hecho
    RETURNING nodo
)
SELECT turno.libre, clave.nodo, hecho.id, hecho.nombre
FROM turno LEFT JOIN hecho ON true LEFT JOIN clave ON true
