-- How far the copying of a subscription is, as one row. $1: the name of the subscription.
SELECT
    count(r.srrelid) AS tables,
    count(r.srrelid) FILTER (WHERE r.srsubstate = 'r') AS ready,
    coalesce(pg_catalog.array_agg(pg_catalog.format('%I.%I', n.nspname, c.relname)) FILTER (
        WHERE r.srsubstate IN ('f', 's', 'r')
    ), '{}') AS copied,
    -- What the workers have taken: it moves on while a table that is copied catches up.
    coalesce((
        SELECT sum(w.received_lsn - '0/0') FROM pg_catalog.pg_stat_subscription AS w WHERE w.subname = $1
    ), 0)::bigint AS received,
    coalesce((
        SELECT sum(e.sync_error_count) FROM pg_catalog.pg_stat_subscription_stats AS e WHERE e.subname = $1
    ), 0)::bigint AS errors
FROM pg_catalog.pg_subscription AS s
JOIN pg_catalog.pg_subscription_rel AS r ON r.srsubid = s.oid
JOIN pg_catalog.pg_class AS c ON c.oid = r.srrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE s.subname = $1
    AND s.subdbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
