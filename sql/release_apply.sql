-- Ends the apply worker of a subscription that waits in the middle of a transaction for the rest of it,
-- and says whether one is in a transaction still. $1: the name of the subscription.
SELECT
    CASE WHEN activity.wait_event = 'LogicalApplyMain' THEN pg_catalog.pg_terminate_backend(activity.pid) END AS ended
FROM pg_catalog.pg_stat_subscription AS worker
JOIN pg_catalog.pg_stat_activity AS activity ON activity.pid = worker.pid
WHERE worker.subname = $1 AND worker.relid IS NULL AND activity.backend_xid IS NOT NULL
