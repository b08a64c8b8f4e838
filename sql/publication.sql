-- Publishes what both masters hold: the tables {{tablas}}, the deletions, the carrier of updates, and the keys of requests. Each table is named: one that is on
-- this master alone would stop the apply worker of the other. Dropped and made anew in one statement block, and so in one transaction:
-- a walsender sees the one or the other and never neither.
DO $publicar$
BEGIN
    DROP PUBLICATION IF EXISTS pub_imdb;
    CREATE PUBLICATION pub_imdb FOR TABLE {{tablas}}, imdb_ha.borrados, imdb_ha.cambios, imdb_ha.claves;
END
$publicar$;
