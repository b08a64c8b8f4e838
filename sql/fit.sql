-- What decides whether a database can be that of a master; see src/replication/fit.rs.
SELECT
    pg_catalog.current_setting('server_version_num')::integer AS version,
    pg_catalog.current_setting('wal_level') AS wal_level,
    d.datname::text AS database,
    pg_catalog.pg_encoding_to_char(d.encoding)::text AS encoding,
    -- Of the provider libc it is datctype; of another one the column has a name of its own in each version.
    coalesce(
        pg_catalog.to_jsonb(d) ->> 'datlocale', pg_catalog.to_jsonb(d) ->> 'daticulocale', d.datctype
    ) AS locale,
    pg_catalog.to_regclass('public.generos') IS NULL AS new
FROM pg_catalog.pg_database AS d
WHERE d.datname = pg_catalog.current_database()
