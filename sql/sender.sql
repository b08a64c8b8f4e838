-- Whether the walsender to the peer sleeps although WAL is on disk that it has not sent; see src/wakeup.rs.
-- One row, of nulls without a walsender. $1: the name of the slot from which the peer reads.
SELECT
    sender.pid,
    (sender.sent_lsn - '0/0')::bigint AS sent_lsn,
    coalesce(
        sender.state = 'streaming'
        -- PostgreSQL 16 writes it WalSenderWaitForWAL.
        AND lower(activity.wait_event) = 'walsenderwaitforwal'
        AND sender.sent_lsn < pg_catalog.pg_current_wal_flush_lsn(),
        false
    ) AS asleep,
    EXISTS (SELECT FROM pg_catalog.pg_stat_activity WHERE wait_event = 'SyncRep') AS commits_wait
FROM (VALUES (1)) AS one (row)
LEFT JOIN pg_catalog.pg_replication_slots AS slot ON slot.slot_name = $1
LEFT JOIN pg_catalog.pg_stat_replication AS sender ON sender.pid = slot.active_pid
LEFT JOIN pg_catalog.pg_stat_activity AS activity ON activity.pid = slot.active_pid
