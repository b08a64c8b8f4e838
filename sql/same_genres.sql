-- Which of these genres were put there by an earlier try of the same requests: same key, same name, and
-- the time of the request, which no other request shares. One that somebody has deleted since counts as
-- well, or the next try would bring it back; and so does one whose stamp had to be moved past a deletion
-- of its key (imdb_ha.adelantar).
SELECT n.id::int4, n.genero::text
FROM unnest($1::int4[], $2::text[], $3::timestamptz[]) AS n (id, genero, en)
WHERE EXISTS (
        SELECT FROM public.generos AS g
        WHERE g.id_genero = n.id AND g.genero = n.genero
            AND (
                g.cambiado_en = n.en
                OR g.cambiado_en = (
                    SELECT max(b.cuando) + interval '1 microsecond'
                    FROM imdb_ha.borrados AS b
                    WHERE b.id_genero = n.id AND b.cuando >= n.en
                )
            )
    )
    OR EXISTS (
        SELECT FROM imdb_ha.borrados AS b
        WHERE b.id_genero = n.id AND b.fila ->> 'genero' = n.genero
            AND (b.fila ->> 'cambiado_en')::timestamptz = n.en
    )
