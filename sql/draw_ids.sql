-- The next ids of the sequence of generos, or as many nulls when the table has none.
WITH s AS MATERIALIZED (
    SELECT pg_catalog.pg_get_serial_sequence('public.generos', 'id_genero')::regclass AS secuencia
)
SELECT pg_catalog.nextval(s.secuencia) FROM s, pg_catalog.generate_series(1, $1::int4)
