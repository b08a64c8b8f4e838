-- One direction of the replication, seen from the subscriber. $1: the name of its subscription.
SELECT subenabled AS enabled, subslotname::text AS slot, suborigin AS origin,
    subsynccommit AS synchronous_commit, subconninfo AS connection,
    ARRAY(
        SELECT n.nspname || '.' || c.relname
        FROM pg_catalog.pg_subscription_rel AS r
        JOIN pg_catalog.pg_class AS c ON c.oid = r.srrelid
        JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE r.srsubid = s.oid
        ORDER BY 1
    ) AS tables
FROM pg_catalog.pg_subscription AS s
WHERE subname = $1
    AND subdbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
