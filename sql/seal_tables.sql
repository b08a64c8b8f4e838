-- The tables that a seal speaks of: those of schema public, which are the replicated ones. Partitions are part of their root.
SELECT c.relname::text AS name, pg_catalog.format('%I.%I', n.nspname, c.relname) AS target
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = 'public'
    AND c.relkind IN ('r', 'p')
    AND NOT c.relispartition
    AND c.relpersistence = 'p'
ORDER BY c.relname
