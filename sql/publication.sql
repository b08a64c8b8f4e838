-- Publishes what both masters hold: every table of public, the deletions, and the carrier of updates.
-- Whatever else is in schema imdb_ha belongs to one master. Dropped and made anew in one statement
-- block, and so in one transaction: a walsender sees the one or the other and never neither.
DO $$
BEGIN
    DROP PUBLICATION IF EXISTS pub_imdb;
    CREATE PUBLICATION pub_imdb
        FOR TABLES IN SCHEMA public, TABLE imdb_ha.borrados, TABLE imdb_ha.cambios;
END
$$;
