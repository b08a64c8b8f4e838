-- Which of these genres were put there by an earlier try of the same requests: same key, same name, and
-- its time, which no other request shares. One that somebody has deleted since counts as well.
SELECT n.id::int4, n.genero::text
FROM unnest($1::int4[], $2::text[], $3::timestamptz[]) AS n (id, genero, en)
WHERE EXISTS (
        SELECT FROM public.generos AS g
        WHERE g.id_genero = n.id AND g.genero = n.genero AND g.cambiado_en = n.en
    )
    OR EXISTS (
        SELECT FROM imdb_ha.borrados AS b
        WHERE b.id_genero = n.id AND b.fila ->> 'genero' = n.genero
            AND (b.fila ->> 'cambiado_en')::timestamptz = n.en
    )
