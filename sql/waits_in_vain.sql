-- Whether commits here wait, or would wait, for a peer that takes no part: nobody streams from its slot ($1), or one has waited
-- for longer than $2 ms.
SELECT
    NOT EXISTS (
        SELECT FROM pg_catalog.pg_replication_slots AS slot
        JOIN pg_catalog.pg_stat_replication AS sender ON sender.pid = slot.active_pid
        WHERE slot.slot_name = $1 AND sender.state = 'streaming'
    )
    OR EXISTS (
        SELECT FROM pg_catalog.pg_stat_activity
        WHERE wait_event = 'SyncRep' AND clock_timestamp() - query_start >= $2::bigint * interval '1 millisecond'
    ) AS in_vain
