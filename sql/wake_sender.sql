-- Wakes a walsender that has slept on since $2, its position, by a little WAL: to flush that wakes all of them. The commit of
-- a message flushes on each version; the parameter by which the function flushes by itself is new in PostgreSQL 17.
-- No subscription asks for messages, so nobody is sent it. $1: the process.
SELECT pg_catalog.pg_logical_emit_message(true, 'imdb-ha', ''::text)
FROM pg_catalog.pg_stat_replication AS sender
JOIN pg_catalog.pg_stat_activity AS activity ON activity.pid = sender.pid
WHERE sender.pid = $1
    AND (sender.sent_lsn - '0/0')::bigint = $2
    AND lower(activity.wait_event) = 'walsenderwaitforwal'
    AND sender.sent_lsn < pg_catalog.pg_current_wal_flush_lsn()
