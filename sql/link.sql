-- One direction of the replication, seen from the subscriber, as one row; its columns are null without a
-- subscription. $1: the name of the subscription. $2: the mark of a rejoin that has not ended.
SELECT s.subenabled AS enabled, s.subslotname::text AS slot, s.suborigin AS origin,
    s.subsynccommit AS synchronous_commit,
    s.subdisableonerr OR s.substream::text <> 'f' OR s.subbinary OR s.subrunasowner AS other_options,
    s.subpublications = ARRAY['pub_imdb'] AS ours, s.subconninfo AS connection,
    ARRAY(
        SELECT pg_catalog.format('%I.%I', n.nspname, c.relname)
        FROM pg_catalog.pg_subscription_rel AS r
        JOIN pg_catalog.pg_class AS c ON c.oid = r.srrelid
        JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE r.srsubid = s.oid
        ORDER BY 1
    ) AS tables,
    (
        SELECT count(*) FROM pg_catalog.pg_subscription_rel AS r
        WHERE r.srsubid = s.oid AND r.srsubstate <> 'r'
    ) AS copying,
    coalesce(
        pg_catalog.obj_description(pg_catalog.to_regnamespace('imdb_ha')::oid, 'pg_namespace') = $2,
        false
    ) AS unfinished
FROM (VALUES (1)) AS one (row)
LEFT JOIN pg_catalog.pg_subscription AS s
    ON s.subname = $1
    AND s.subdbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
