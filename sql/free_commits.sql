-- Ends the waiting of commits for a standby: they are done, with a warning that nobody else has them yet.
SELECT pg_catalog.pg_cancel_backend(pid)
FROM pg_catalog.pg_stat_activity
WHERE wait_event = 'SyncRep'
