-- The tables of schema public of which a master can send the changes, and their columns: partitions by themselves and not their root, which
-- would publish each one that is added to it on this master alone. Columns that PostgreSQL computes are not sent.
SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) AS name,
    ARRAY(
        SELECT pg_catalog.format('%I %s', a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod))
        FROM pg_catalog.pg_attribute AS a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
        ORDER BY a.attname COLLATE "C"
    ) AS columns
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = 'public' AND c.relkind = 'r' AND c.relpersistence = 'p'
ORDER BY c.relname COLLATE "C"
