-- Whether pub_imdb is there, whether it is made as sql/publication.sql makes it, and which tables of schema public it publishes.
SELECT
    EXISTS (SELECT FROM pg_catalog.pg_publication WHERE pubname = 'pub_imdb') AS there,
    EXISTS (
        SELECT FROM pg_catalog.pg_publication AS p
        WHERE p.pubname = 'pub_imdb' AND NOT p.puballtables
            AND p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate AND NOT p.pubviaroot
            AND NOT EXISTS (
                SELECT FROM pg_catalog.pg_publication_namespace AS n
                WHERE n.pnpubid = p.oid AND n.pnnspid = 'public'::regnamespace
            )
            -- All rows and columns of them.
            AND NOT EXISTS (
                SELECT FROM pg_catalog.pg_publication_rel AS r
                WHERE r.prpubid = p.oid AND (r.prqual IS NOT NULL OR r.prattrs IS NOT NULL)
            )
            AND 3 = (
                SELECT count(*) FROM pg_catalog.pg_publication_rel AS r
                WHERE r.prpubid = p.oid
                    AND r.prrelid IN (
                        pg_catalog.to_regclass('imdb_ha.borrados'), pg_catalog.to_regclass('imdb_ha.cambios'),
                        pg_catalog.to_regclass('imdb_ha.claves')
                    )
            )
    ) AS whole,
    ARRAY(
        SELECT pg_catalog.format('%I.%I', t.schemaname, t.tablename)
        FROM pg_catalog.pg_publication_tables AS t
        JOIN pg_catalog.pg_class AS c ON c.relname = t.tablename AND c.relnamespace = t.schemaname::regnamespace
        WHERE t.pubname = 'pub_imdb' AND t.schemaname = 'public' AND c.relkind = 'r'
        ORDER BY 1
    ) AS tables
