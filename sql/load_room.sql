-- How much more WAL this master can write before its peer's slot $1 is lost, and how much it may keep in all, in bytes. Neither is
-- known where nothing bounds it (max_slot_wal_keep_size is -1) or there is no such slot.
SELECT s.safe_wal_size, p.setting::bigint * 1024 * 1024
FROM pg_catalog.pg_replication_slots AS s
CROSS JOIN pg_catalog.pg_settings AS p
WHERE s.slot_name = $1 AND p.name = 'max_slot_wal_keep_size' AND p.setting::bigint >= 0
