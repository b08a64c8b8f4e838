-- Rows of the tables that are being copied to the peer right now. Seen from here, because on the other side
-- a row that a trigger puts in place itself is not counted.
SELECT coalesce(sum(c.tuples_processed), 0)::bigint AS rows
FROM pg_catalog.pg_stat_progress_copy AS c
JOIN pg_catalog.pg_stat_activity AS a ON a.pid = c.pid
WHERE c.command = 'COPY TO' AND c.datname = pg_catalog.current_database() AND a.usename LIKE 'replicator%'
