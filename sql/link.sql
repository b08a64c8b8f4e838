-- One direction of the replication, seen from the subscriber. $1: the name of its subscription.
SELECT subenabled AS enabled, subslotname::text AS slot, suborigin AS origin,
    subsynccommit AS synchronous_commit, subconninfo AS connection
FROM pg_catalog.pg_subscription
WHERE subname = $1
    AND subdbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
