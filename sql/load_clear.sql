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
        -- Held still, or dropped at this moment by the session that made it; the second has no code of its own.
        EXCEPTION WHEN object_in_use OR undefined_object OR internal_error THEN
            NULL;
        END;
    END LOOP;
END
$$;
