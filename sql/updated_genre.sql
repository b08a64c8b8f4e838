-- The genre that a request named so at an earlier try: the row has the stamp of that request, or had it when somebody deleted it.
SELECT $1::int4, $2::text
WHERE EXISTS (
        SELECT FROM public.generos AS g
        WHERE g.id_genero = $1::int4 AND g.genero = $2::text AND g.cambiado_en = $3::timestamptz
    )
    OR EXISTS (
        SELECT FROM imdb_ha.borrados AS b
        WHERE b.id_genero = $1::int4 AND b.fila ->> 'genero' = $2::text
            AND (b.fila ->> 'cambiado_en')::timestamptz = $3::timestamptz
    )
