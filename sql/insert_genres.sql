-- Inserts a batch of genres. A key that exists already is left out, and so is not returned. So is one that
-- was deleted after the row's own time: the statement may have been on its way to a master that could
-- not be reached, while its row was made on the other one and deleted there. A deletion that arrives at
-- this very moment fails the statement instead (imdb_ha.adelantar), and it is repeated.
-- $4 bounds the wait for another transaction's row, from the first row of this statement on: one key that
-- somebody holds must not keep a whole batch waiting. Both settings end with the statement.
INSERT INTO public.generos (id_genero, genero, cambiado_en) OVERRIDING SYSTEM VALUE
SELECT n.id, n.genero, n.en
FROM unnest($1::int4[], $2::text[], $3::timestamptz[]) AS n (id, genero, en),
    (
        SELECT pg_catalog.set_config('lock_timeout', $4::text, true),
            pg_catalog.set_config('imdb_ha.exacta', 'on', true)
    ) AS bound
WHERE NOT EXISTS (
    SELECT FROM imdb_ha.borrados AS b WHERE b.id_genero = n.id AND b.cuando >= n.en
)
ON CONFLICT (id_genero) DO NOTHING
RETURNING id_genero::int4, genero::text
