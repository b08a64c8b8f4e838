-- Who holds up the apply worker of a subscription: sessions, and prepared transactions, which have none. $1: its name,
-- $2: how many are named, $3: characters shown of a statement. One row each, and none while the worker waits for no lock.
WITH worker AS MATERIALIZED (
    SELECT a.pid
    FROM pg_catalog.pg_stat_subscription AS s
    JOIN pg_catalog.pg_stat_activity AS a ON a.pid = s.pid
    WHERE s.subname = $1 AND a.wait_event_type = 'Lock'
), blocker AS MATERIALIZED (
    SELECT DISTINCT b.pid FROM worker, unnest(pg_catalog.pg_blocking_pids(worker.pid)) AS b (pid)
)
SELECT
    'session ' || a.pid || ' of ' || coalesce(a.usename::text, a.backend_type) ||
    coalesce(' (' || nullif(a.application_name, '') || ')', '') ||
    coalesce(' from ' || pg_catalog.host(a.client_addr), '') ||
    coalesce(', ' || a.state, '') ||
    coalesce(', in a transaction since ' || pg_catalog.to_char(a.xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), '') ||
    coalesce(': ' || nullif(left(pg_catalog.regexp_replace(a.query, '\s+', ' ', 'g'), $3::int4), ''), '')
        AS who,
    'SELECT pg_terminate_backend(' || a.pid || ')' AS cure
FROM blocker JOIN pg_catalog.pg_stat_activity AS a ON a.pid = blocker.pid
UNION ALL
SELECT DISTINCT
    'prepared transaction ' || pg_catalog.quote_literal(p.gid) || ' of ' || p.owner ||
    ' since ' || pg_catalog.to_char(p.prepared AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
    'ROLLBACK PREPARED ' || pg_catalog.quote_literal(p.gid)
FROM worker
JOIN pg_catalog.pg_locks AS wanted ON wanted.pid = worker.pid AND NOT wanted.granted
JOIN pg_catalog.pg_locks AS held ON held.granted AND held.pid IS NULL
    AND held.locktype = wanted.locktype
    AND held.database IS NOT DISTINCT FROM wanted.database
    AND held.relation IS NOT DISTINCT FROM wanted.relation
    AND held.page IS NOT DISTINCT FROM wanted.page
    AND held.tuple IS NOT DISTINCT FROM wanted.tuple
    AND held.transactionid IS NOT DISTINCT FROM wanted.transactionid
    AND held.classid IS NOT DISTINCT FROM wanted.classid
    AND held.objid IS NOT DISTINCT FROM wanted.objid
-- A prepared transaction is known by the lock on its own number.
JOIN pg_catalog.pg_locks AS own ON own.pid IS NULL AND own.locktype = 'transactionid'
    AND own.virtualtransaction = held.virtualtransaction
JOIN pg_catalog.pg_prepared_xacts AS p ON p.transaction = own.transactionid
ORDER BY 1
LIMIT $2::int8
