-- What one master knows of the replication, as one row; see src/replication/status.rs.
-- $1: the name of its subscription, $2: the name of the slot from which its peer reads.
SELECT
    -- Who it is, as in sql/identity.sql.
    (SELECT system_identifier FROM pg_catalog.pg_control_system()) AS system,
    (extract(epoch FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::bigint AS started,
    pg_catalog.current_database()::text AS database,
    pg_catalog.obj_description(pg_catalog.to_regprocedure('imdb_ha.este_nodo()')::oid, 'pg_proc') AS record,
    (pg_catalog.pg_current_wal_flush_lsn() - '0/0')::bigint AS wal_lsn,
    EXISTS (SELECT FROM pg_catalog.pg_publication WHERE pubname = 'pub_imdb') AS publication,
    -- The way out: the slot, and the walsender that reads from it for the peer.
    slot.slot_name IS NOT NULL AS slot,
    coalesce(slot.active, false) AS slot_active,
    slot.wal_status AS slot_wal_status,
    (slot.restart_lsn - '0/0')::bigint AS slot_restart_lsn,
    (slot.confirmed_flush_lsn - '0/0')::bigint AS slot_confirmed_lsn,
    slot.safe_wal_size AS slot_safe_bytes,
    (SELECT setting::bigint * 1024 * 1024 FROM pg_catalog.pg_settings WHERE name = 'max_slot_wal_keep_size')
        AS slot_keep_bytes,
    sender.state AS sender_state,
    sender.sync_state AS sender_sync_state,
    (extract(epoch FROM sender.replay_lag) * 1000)::bigint AS sender_replay_lag_ms,
    -- The way in: the subscription, and its apply worker.
    subscription.oid IS NOT NULL AS subscription,
    coalesce(subscription.subenabled, false) AS subscription_enabled,
    -- The two views are read one after the other, and a worker that is in one of them alone is coming or going.
    activity.pid IS NOT NULL AS applying,
    coalesce(subscription.subsynccommit = 'local', false) AS apply_strict,
    (worker.received_lsn - '0/0')::bigint AS received_lsn,
    (extract(epoch FROM clock_timestamp() - worker.last_msg_receipt_time) * 1000)::bigint AS heard_ms_ago,
    coalesce(counts.apply_error_count, 0) AS apply_errors,
    -- The mark of src/replication/rejoin: what is on this master is incomplete.
    coalesce(
        pg_catalog.obj_description(pg_catalog.to_regnamespace('imdb_ha')::oid, 'pg_namespace')
            = 'imdb-ha rejoin has not ended',
        false
    ) AS rejoining,
    EXISTS (
        SELECT FROM pg_catalog.pg_subscription_rel AS rel
        WHERE rel.srsubid = subscription.oid AND rel.srsubstate <> 'r'
    ) AS copying,
    -- Commits here that wait for the peer.
    pg_catalog.current_setting('synchronous_standby_names') AS standby_names,
    EXISTS (
        SELECT FROM pg_catalog.pg_stat_activity
        WHERE backend_type = 'checkpointer' AND wait_event IN ('CheckpointerMain', 'CheckpointWriteDelay')
    ) AS checkpointer_hears,
    (
        SELECT (max(extract(epoch FROM clock_timestamp() - backend.query_start)) * 1000)::bigint
        FROM pg_catalog.pg_stat_activity AS backend
        WHERE backend.wait_event = 'SyncRep'
    ) AS longest_wait_ms,
    (extract(epoch FROM clock_timestamp() - activity.backend_start) * 1000)::bigint AS worker_age_ms,
    subscription.oid::bigint AS subid,
    -- Not on a server that has not been set up, nor on one set up by an earlier version.
    coalesce(has_table_privilege(to_regclass('imdb_ha.conflictos'), 'SELECT'), false) AS conflict_log,
    coalesce(has_table_privilege(to_regclass('imdb_ha.mandato'), 'SELECT'), false) AS mandate_log,
    coalesce(has_function_privilege(to_regprocedure('imdb_ha.memoria(text)'), 'EXECUTE'), false) AS remembers
FROM (VALUES (1)) AS one (row)
LEFT JOIN pg_catalog.pg_replication_slots AS slot ON slot.slot_name = $2
LEFT JOIN pg_catalog.pg_stat_replication AS sender ON sender.pid = slot.active_pid
LEFT JOIN pg_catalog.pg_subscription AS subscription
    ON subscription.subname = $1
    AND subscription.subdbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
LEFT JOIN pg_catalog.pg_stat_subscription AS worker
    ON worker.subid = subscription.oid AND worker.relid IS NULL AND worker.leader_pid IS NULL
LEFT JOIN pg_catalog.pg_stat_activity AS activity ON activity.pid = worker.pid
LEFT JOIN pg_catalog.pg_stat_subscription_stats AS counts ON counts.subid = subscription.oid
