-- Foreign keys that go from or to one of the tables $1 of schema public. The columns are null for one over several,
-- and the key of the child is empty if it has none.
SELECT n.nspname::text AS schema, child.relname::text AS child,
    parent_schema.nspname::text AS parent_schema, parent.relname::text AS parent,
    parent.relnamespace = 'public'::regnamespace AND parent.relname = ANY ($1) AS parent_exchanged,
    child.relnamespace = 'public'::regnamespace AND child.relname = ANY ($1) AS child_exchanged,
    pg_catalog.format('ALTER TABLE %I.%I DROP CONSTRAINT %I', n.nspname, child.relname, k.conname) AS without,
    pg_catalog.format(
        'ALTER TABLE %I.%I ADD CONSTRAINT %I %s%s', n.nspname, child.relname, k.conname,
        pg_catalog.pg_get_constraintdef(k.oid), CASE WHEN k.convalidated THEN ' NOT VALID' ELSE '' END
    ) AS with,
    CASE WHEN pg_catalog.cardinality(k.conkey) = 1 THEN (
        SELECT attname::text FROM pg_catalog.pg_attribute WHERE attrelid = k.conrelid AND attnum = k.conkey[1]
    ) END AS child_column,
    CASE WHEN pg_catalog.cardinality(k.conkey) = 1 THEN (
        SELECT attname::text FROM pg_catalog.pg_attribute WHERE attrelid = k.confrelid AND attnum = k.confkey[1]
    ) END AS parent_column,
    ARRAY(
        SELECT a.attname::text
        FROM pg_catalog.pg_constraint AS p
        CROSS JOIN pg_catalog.unnest(p.conkey) WITH ORDINALITY AS u (number, place)
        JOIN pg_catalog.pg_attribute AS a ON a.attrelid = p.conrelid AND a.attnum = u.number
        WHERE p.conrelid = k.conrelid AND p.contype = 'p'
        ORDER BY u.place
    ) AS child_key
FROM pg_catalog.pg_constraint AS k
JOIN pg_catalog.pg_class AS child ON child.oid = k.conrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = child.relnamespace
JOIN pg_catalog.pg_class AS parent ON parent.oid = k.confrelid
JOIN pg_catalog.pg_namespace AS parent_schema ON parent_schema.oid = parent.relnamespace
WHERE k.contype = 'f' AND k.conparentid = 0
    AND (
        (child.relnamespace = 'public'::regnamespace AND child.relname = ANY ($1))
        OR (parent.relnamespace = 'public'::regnamespace AND parent.relname = ANY ($1))
    )
ORDER BY 1, 2, k.conname
