-- Whether a master could take the API's writes, as far as that can be told without writing any WAL. EXPLAIN asks for the tables,
-- the columns, the key and the privileges; the rows of the series do not fit into the memory that they get, and so need a
-- little room on the disk of the data. Fails with what is missing; sql/try_write.sql then tells for certain.
DO $$
BEGIN
    IF pg_catalog.current_setting('transaction_read_only')::boolean THEN
        RAISE EXCEPTION 'transactions are read-only' USING ERRCODE = 'read_only_sql_transaction';
    END IF;
END
$$;
EXPLAIN INSERT INTO public.generos (id_genero, genero, cambiado_en)
VALUES (0, '', pg_catalog.now()) ON CONFLICT (id_genero) DO NOTHING;
EXPLAIN UPDATE public.generos SET genero = '', cambiado_en = pg_catalog.now() WHERE id_genero = 0;
EXPLAIN DELETE FROM public.generos WHERE id_genero = 0;
SELECT pg_catalog.count(*) FROM pg_catalog.generate_series(1, 8000)
