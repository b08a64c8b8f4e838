-- The tables of schema public on one master, with what is compared of them and their size in bytes. Partitions are part of
-- their root. When and where a genre was written is no part of it: two masters that were never joined have their own stamps.
SELECT c.relname::text AS name, pg_catalog.format('%I.%I', n.nspname, c.relname) AS target,
    pg_catalog.array_agg(pg_catalog.quote_ident(a.attname)) AS columns,
    coalesce(
        (SELECT sum(pg_catalog.pg_table_size(relid))::bigint FROM pg_catalog.pg_partition_tree(c.oid)),
        pg_catalog.pg_table_size(c.oid)
    ) AS bytes
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE n.nspname = 'public'
    AND c.relkind IN ('r', 'p')
    AND NOT c.relispartition
    AND c.relpersistence = 'p'
    AND NOT (c.relname = 'generos' AND a.attname IN ('cambiado_en', 'nodo'))
GROUP BY n.nspname, c.relname, c.oid
