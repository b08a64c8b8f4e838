-- The tables of one master: how each is made, what identifies a row of it, and about how many rows it has.
SELECT
    pg_catalog.format('%I.%I', n.nspname, c.relname) AS name,
    n.nspname::text AS schema,
    pg_catalog.array_agg(pg_catalog.quote_ident(a.attname) ORDER BY a.attname) AS columns,
    pg_catalog.string_agg(
        pg_catalog.format('%I %s', a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod)),
        ', ' ORDER BY a.attname
    ) AS definition,
    coalesce(
        pg_catalog.array_agg(pg_catalog.quote_ident(a.attname) ORDER BY a.attname)
            FILTER (WHERE a.attnum = ANY (k.indkey)),
        '{}'
    ) AS key,
    greatest(c.reltuples::bigint, pg_catalog.pg_stat_get_live_tuples(c.oid), 0) AS rows,
    EXISTS (
        SELECT FROM pg_catalog.pg_publication_tables AS p
        WHERE p.pubname = 'pub_imdb' AND p.schemaname = n.nspname AND p.tablename = c.relname
    ) AS published
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_catalog.pg_index AS k ON k.indrelid = c.oid AND k.indisprimary
WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p'
    AND n.nspname NOT LIKE 'pg\_%' AND n.nspname <> 'information_schema'
GROUP BY n.nspname, c.relname, c.oid, c.reltuples
ORDER BY 1
