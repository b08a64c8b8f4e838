-- A trial write, undone: what the API's writes need, with their role, table, columns and triggers. The id is none that a client
-- can give, and its names are those of a row that no rule should refuse. Nothing waits for a disk or for the peer, since nothing is committed. The sequence is only asked for, because a number
-- that is drawn cannot be put back. The rows of the series need some room on the disk: without any, the pages that are there may take
-- a row still, and yet nothing is sent to the peer and no setting can be changed, so that commits wait in vain.
DO $$
DECLARE
    secuencia text := pg_catalog.pg_get_serial_sequence('public.generos', 'id_genero');
BEGIN
    IF NOT pg_catalog.has_sequence_privilege(secuencia, 'USAGE, UPDATE') THEN
        RAISE EXCEPTION 'permission denied for sequence %', secuencia USING ERRCODE = 'insufficient_privilege';
    END IF;
END
$$;
INSERT INTO public.generos (id_genero, genero, cambiado_en)
VALUES (0, 'Drama', pg_catalog.now()) ON CONFLICT (id_genero) DO NOTHING;
UPDATE public.generos SET genero = 'Comedia', cambiado_en = pg_catalog.clock_timestamp() WHERE id_genero = 0;
DELETE FROM public.generos WHERE id_genero = 0;
SELECT pg_catalog.count(*) FROM pg_catalog.generate_series(1, 8000)
