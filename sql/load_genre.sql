-- A number for a new genre: the next one of the sequence that no genre has, or the one after the highest if there is no sequence.
SELECT coalesce(
    (
        SELECT drawn.id FROM (
            SELECT pg_catalog.nextval(secuencia::regclass)::integer AS id
            FROM pg_catalog.pg_get_serial_sequence('public.generos', 'id_genero') AS secuencia,
                pg_catalog.generate_series(1, 100)
            WHERE secuencia IS NOT NULL
        ) AS drawn
        WHERE NOT EXISTS (SELECT FROM public.generos AS g WHERE g.id_genero = drawn.id)
        LIMIT 1
    ),
    (SELECT max(id_genero) + 1 FROM public.generos)
)::integer
