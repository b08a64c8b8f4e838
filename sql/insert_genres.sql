-- Inserts a batch of genres. A key that exists already is left out, and so is not returned.
-- $4 bounds the wait for another transaction's row, from the first row of this statement on: one key that
-- somebody holds must not keep a whole batch waiting. The time limit ends with the statement.
INSERT INTO public.generos (id_genero, genero, cambiado_en)
SELECT n.id, n.genero, n.en
FROM unnest($1::int4[], $2::text[], $3::timestamptz[]) AS n (id, genero, en),
    (SELECT pg_catalog.set_config('lock_timeout', $4::text, true)) AS bound
ON CONFLICT (id_genero) DO NOTHING
RETURNING id_genero::int4, genero::text
