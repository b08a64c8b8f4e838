-- Ends the waiting of commits for a standby: they are done, with a warning that nobody else has them yet. The look and the cancel are two
-- things: a commit that comes free in between leaves its session to its next statement, and that is cancelled. So each session is
-- looked at once more right before; a statement of this program that is hit all the same is repeated
-- (src/pg/sessions.rs); and the sessions of others, who would see an error, get $1 ms for PostgreSQL itself to free them.
WITH waiting AS MATERIALIZED (
    SELECT pid
    FROM pg_catalog.pg_stat_activity
    WHERE wait_event = 'SyncRep'
        AND (application_name = 'imdb-ha' OR query_start < pg_catalog.clock_timestamp() - $1::float8 * interval '1 millisecond')
)
SELECT pg_catalog.pg_cancel_backend(waiting.pid)
FROM waiting
CROSS JOIN LATERAL pg_catalog.pg_stat_get_activity(waiting.pid) AS still
WHERE still.wait_event = 'SyncRep'
