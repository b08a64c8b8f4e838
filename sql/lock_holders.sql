-- Who holds one of the locks of whoever decides, beside this session, and for how long it has said nothing. $1: 1 for the lock of the
-- process that decides, 2 for that of an order.
SELECT
    l.pid,
    coalesce((extract(epoch FROM clock_timestamp() - a.state_change) * 1000)::bigint, 0) AS silent_ms,
    coalesce(a.state = 'idle', false) AS idle
FROM pg_catalog.pg_locks AS l
JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.classid = 1229800514 AND l.objid::bigint = $1 AND l.objsubid = 2
    AND a.datname = current_database() AND l.pid <> pg_catalog.pg_backend_pid()
