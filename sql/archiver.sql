-- How the archiving of this master goes: whether it does any, whether its newest try failed and on which segment, how many
-- segments wait for their turn, and how large one is.
SELECT
    pg_catalog.current_setting('archive_mode') AS mode,
    archiver.last_failed_time > coalesce(archiver.last_archived_time, '-infinity') AS failing,
    archiver.last_failed_wal AS segment,
    (
        SELECT pg_catalog.count(*)
        FROM pg_catalog.pg_ls_archive_statusdir() AS file
        WHERE file.name LIKE '%.ready'
    ) AS waiting,
    pg_catalog.pg_size_bytes(pg_catalog.current_setting('wal_segment_size')) AS segment_bytes
FROM pg_catalog.pg_stat_archiver AS archiver
