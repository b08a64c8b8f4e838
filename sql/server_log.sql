-- The end of the server's log, as bytes, because the piece may begin within a character; null when
-- the server does not collect its log into files.
SELECT pg_catalog.pg_read_binary_file(log.path, GREATEST(file.size - 65536, 0), 65536) AS tail
FROM pg_catalog.pg_current_logfile() AS log (path), pg_catalog.pg_stat_file(log.path) AS file
