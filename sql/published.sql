-- Whether pub_imdb is there, and whether it publishes what sql/publication.sql says.
SELECT
    EXISTS (SELECT FROM pg_catalog.pg_publication WHERE pubname = 'pub_imdb') AS there,
    EXISTS (
        SELECT FROM pg_catalog.pg_publication AS p
        WHERE p.pubname = 'pub_imdb' AND NOT p.puballtables
            AND p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate
            AND EXISTS (
                SELECT FROM pg_catalog.pg_publication_namespace AS n
                WHERE n.pnpubid = p.oid AND n.pnnspid = 'public'::regnamespace
            )
            AND 2 = (
                SELECT count(*) FROM pg_catalog.pg_publication_rel AS r
                WHERE r.prpubid = p.oid
                    AND r.prrelid IN ('imdb_ha.borrados'::regclass, 'imdb_ha.cambios'::regclass)
            )
    ) AS whole
