-- Makes a restored master fit to serve alone, before anybody reaches it. Its subscriptions go, because the origins that belong to them
-- remember positions of a peer that is about to be rebuilt and starts anew; so does the mark of a rejoin that
-- had not ended at that moment: this one is the source now. Sequences do not travel, so they may be behind the rows.
DO $$
DECLARE
    name text;
BEGIN
    FOR name IN
        SELECT s.subname FROM pg_catalog.pg_subscription AS s
        JOIN pg_catalog.pg_database AS d ON d.oid = s.subdbid
        WHERE d.datname = pg_catalog.current_database()
    LOOP
        EXECUTE pg_catalog.format('ALTER SUBSCRIPTION %I DISABLE', name);
        EXECUTE pg_catalog.format('ALTER SUBSCRIPTION %I SET (slot_name = NONE)', name);
        EXECUTE pg_catalog.format('DROP SUBSCRIPTION %I', name);
    END LOOP;
    IF pg_catalog.to_regnamespace('imdb_ha') IS NOT NULL THEN
        COMMENT ON SCHEMA imdb_ha IS NULL;
    END IF;
    IF pg_catalog.to_regprocedure('imdb_ha.alinear_secuencias()') IS NOT NULL THEN
        PERFORM imdb_ha.alinear_secuencias();
    END IF;
END
$$
