-- Five rows for a backup to find, with ids from the sequence of this master, which its peer never draws.
INSERT INTO public.generos (genero)
SELECT 'Género Backup Test ' || to_char(clock_timestamp(), 'YYYY-MM-DD HH24:MI:SS.US') || ' ' || number
FROM pg_catalog.generate_series(1, 5) AS number;
