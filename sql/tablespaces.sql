-- The tablespaces of this master but the two that are in the data folder, each with the time at which it was made, in microseconds since 1970,
-- where that is known.
SELECT t.oid, t.spcname::text AS name, pg_catalog.pg_tablespace_location(t.oid) AS location,
    CASE WHEN pg_catalog.current_setting('track_commit_timestamp') = 'on' THEN (
        extract(epoch FROM pg_catalog.pg_xact_commit_timestamp(t.xmin)) * 1000000
    )::bigint END AS made
FROM pg_catalog.pg_tablespace AS t
WHERE t.spcname NOT IN ('pg_default', 'pg_global')
ORDER BY t.oid
