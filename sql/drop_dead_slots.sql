-- Drops the slots from which a master that is being rebuilt has read: $1, and what an interrupted copy
-- left behind. Those have no name of ours, so they are taken only while nobody else but the peer
-- subscribes here. Returns what is still in use.
WITH own AS (
    SELECT s.slot_name, s.active, s.active_pid
    FROM pg_catalog.pg_replication_slots AS s
    WHERE s.slot_name = $1
        OR (
            s.slot_name ~ '^pg_\d+_sync_\d+_\d+$'
            AND s.database = pg_catalog.current_database()
            AND NOT EXISTS (
                SELECT FROM pg_catalog.pg_replication_slots AS other
                WHERE other.plugin = 'pgoutput' AND other.database = pg_catalog.current_database()
                    AND other.slot_name <> $1 AND other.slot_name !~ '^pg_\d+_sync_\d+_\d+$'
            )
        )
), ended AS (
    SELECT slot_name, pg_catalog.pg_terminate_backend(active_pid) AS done FROM own WHERE active
), dropped AS (
    SELECT slot_name, pg_catalog.pg_drop_replication_slot(slot_name)::text AS done FROM own WHERE NOT active
)
SELECT slot_name::text FROM ended
UNION ALL
-- Read, so that the dropping takes place; it returns nothing.
SELECT slot_name::text FROM dropped WHERE done IS NULL
