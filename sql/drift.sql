-- How one master takes part in the replication, as one row; see src/replication/drift. $1: the name of its subscription, $2: the name of the
-- slot from which its peer reads, $3: the mark of a rejoin that has not ended.
SELECT
    pg_catalog.to_regclass('imdb_ha.borrados') IS NOT NULL AS prepared,
    coalesce(
        pg_catalog.obj_description(pg_catalog.to_regnamespace('imdb_ha')::oid, 'pg_namespace') = $3, false
    ) AS rejoining,
    -- A set-up, a rejoin, a load or a restore is at work.
    EXISTS (
        SELECT FROM pg_catalog.pg_locks AS l
        WHERE l.locktype = 'advisory' AND l.objsubid = 1
            AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
            AND ((l.classid::bigint << 32) | l.objid::bigint) = pg_catalog.hashtext('imdb_ha.setup')::bigint
    ) AS changing,
    s.oid IS NOT NULL AS subscription,
    coalesce(s.subenabled, false) AS enabled,
    pg_catalog.array_remove(ARRAY[
        CASE WHEN s.suborigin <> 'none' THEN 'origin = ' || s.suborigin END,
        -- Off is how the API lets a master that is behind catch up.
        CASE WHEN s.subsynccommit NOT IN ('local', 'off') THEN 'synchronous_commit = ' || s.subsynccommit END,
        CASE WHEN s.subdisableonerr THEN 'disable_on_error = true' END,
        CASE s.substream::text WHEN 'p' THEN 'streaming = parallel' WHEN 't' THEN 'streaming = on' END,
        CASE WHEN s.subbinary THEN 'binary = true' END,
        CASE WHEN s.subrunasowner THEN 'run_as_owner = true' END,
        CASE WHEN s.subpublications <> ARRAY['pub_imdb'] THEN 'publications ' || s.subpublications::text END,
        CASE WHEN s.subslotname IS NULL THEN 'slot_name = NONE' END
    ], NULL) AS options,
    EXISTS (SELECT FROM pg_catalog.pg_replication_slots AS slot WHERE slot.slot_name = $2) AS slot,
    -- The manual's role, and the one of this cluster, its member.
    coalesce((
        SELECT bool_and(r.rolcanlogin AND r.rolreplication AND coalesce(r.rolvaliduntil > pg_catalog.now(), true))
            AND bool_or(r.rolname = 'replicator') AND bool_or(r.rolname <> 'replicator')
        FROM pg_catalog.pg_roles AS r
        WHERE r.rolname = 'replicator' OR pg_catalog.starts_with(r.rolname::text, 'replicator_')
    ), false) AS role,
    coalesce(
        pg_catalog.to_regprocedure('imdb_ha.disparadores_mal()') IS NOT NULL, false
    ) AS knows_triggers
FROM (VALUES (1)) AS one (row)
LEFT JOIN pg_catalog.pg_subscription AS s
    ON s.subname = $1
    AND s.subdbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
