-- Every table of one master that can be replicated, as a row per column, with the column's place in the
-- primary key. A table without columns is one row without a column. Partitions are part of their root.
SELECT n.nspname::text AS schema, c.relname::text AS name, a.attname::text AS column_name,
    pg_catalog.format_type(a.atttypid, a.atttypmod) AS type,
    a.attgenerated <> '' AS generated,
    -- Columns behind those of the key are only carried along by its index. Counted from 0.
    CASE WHEN pg_catalog.array_position(key.indkey::int2[], a.attnum) < key.indnkeyatts
        THEN pg_catalog.array_position(key.indkey::int2[], a.attnum) END AS key_position,
    -- Two servers order texts alike only by the same collation of the same version.
    CASE
        WHEN a.attcollation = 0 THEN ''
        WHEN l.collprovider = 'd' THEN pg_catalog.concat_ws(' ', d.datlocprovider, d.datcollate,
            coalesce(pg_catalog.to_jsonb(d) ->> 'datlocale', pg_catalog.to_jsonb(d) ->> 'daticulocale'),
            pg_catalog.pg_database_collation_actual_version(d.oid))
        ELSE pg_catalog.concat_ws(' ', l.collname, pg_catalog.pg_collation_actual_version(l.oid))
    END AS collation
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_database AS d ON d.datname = pg_catalog.current_database()
LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_catalog.pg_collation AS l ON l.oid = a.attcollation
LEFT JOIN pg_catalog.pg_index AS key ON key.indrelid = c.oid AND key.indisprimary
WHERE c.relkind IN ('r', 'p')
    AND NOT c.relispartition
    AND c.relpersistence = 'p'
    AND n.nspname !~ '^(pg_|information_schema$)'
ORDER BY n.nspname, c.relname, a.attnum
