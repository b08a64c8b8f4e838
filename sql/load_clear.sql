-- Removes what a load has left behind: its tables, and the origins that no session holds any more. Nobody hears of it.
DROP SCHEMA IF EXISTS imdb_carga CASCADE;
DO $$
DECLARE
    origen text;
BEGIN
    FOR origen IN
        SELECT roname FROM pg_catalog.pg_replication_origin WHERE roname LIKE 'imdb\_ha\_carga\_%'
    LOOP
        BEGIN
            PERFORM pg_catalog.pg_replication_origin_drop(origen);
        EXCEPTION WHEN object_in_use THEN
            NULL;
        END;
    END LOOP;
END
$$;
