-- The next ids of the sequence of generos, and whether each is free; as many nulls when the table has none. One that is taken
-- belongs to a row that a client gave it to, or that was made elsewhere.
WITH s AS MATERIALIZED (
    SELECT pg_catalog.pg_get_serial_sequence('public.generos', 'id_genero')::regclass AS secuencia
), d AS MATERIALIZED (
    SELECT pg_catalog.nextval(s.secuencia) AS id FROM s, pg_catalog.generate_series(1, $1::int4)
)
SELECT d.id, NOT EXISTS (SELECT FROM public.generos AS g WHERE g.id_genero = d.id) FROM d
