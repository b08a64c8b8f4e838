-- Roles that may do what this program needs and no more; the set-up makes them on each master, and repeating it changes nothing. They cannot
-- log in: give them to login roles of your own.
--   imdb_ha_api      what `imdb-ha serve` does
--   imdb_ha_backup   what backups need beside that, of this program and of pgBackRest (whose pg1-database must be this one)
--   imdb_ha_monitor  looking: `imdb-ha replication status` and `conflicts`, and whatever reads PostgreSQL's statistics
-- Loading files, rebuilding a master, the set-up and a restore take a superuser.
DO $$
DECLARE
    nombre text;
BEGIN
    FOREACH nombre IN ARRAY ARRAY['imdb_ha_api', 'imdb_ha_backup', 'imdb_ha_monitor'] LOOP
        IF pg_catalog.to_regrole(nombre) IS NULL THEN
            EXECUTE pg_catalog.format('CREATE ROLE %I NOLOGIN', nombre);
        END IF;
    END LOOP;
END
$$;

GRANT pg_monitor TO imdb_ha_api, imdb_ha_backup, imdb_ha_monitor;
GRANT USAGE ON SCHEMA public, imdb_ha TO imdb_ha_api, imdb_ha_backup, imdb_ha_monitor;

-- Reading everything: the comparison and the seals read all tables.
GRANT pg_read_all_data TO imdb_ha_api, imdb_ha_backup;
GRANT INSERT, UPDATE, DELETE ON public.generos TO imdb_ha_api;
GRANT INSERT ON imdb_ha.claves TO imdb_ha_api;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO imdb_ha_api;
-- The durability: whether a commit waits for the peer, and freeing those that wait in vain.
GRANT ALTER SYSTEM ON PARAMETER synchronous_standby_names TO imdb_ha_api;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_reload_conf() TO imdb_ha_api;
GRANT pg_signal_backend TO imdb_ha_api;

-- A backup, and the point up to which it is restored; the tables are locked against writers while that is set.
GRANT EXECUTE ON FUNCTION
    pg_catalog.pg_backup_start(text, boolean), pg_catalog.pg_backup_stop(boolean),
    pg_catalog.pg_create_restore_point(text), pg_catalog.pg_switch_wal()
TO imdb_ha_backup;
GRANT pg_checkpoint TO imdb_ha_backup;
GRANT SET ON PARAMETER deadlock_timeout TO imdb_ha_backup;
DO $$
BEGIN
    IF pg_catalog.current_setting('server_version_num')::integer >= 170000 THEN
        GRANT pg_maintain TO imdb_ha_backup;
    ELSE
        -- PostgreSQL 16 lets nobody lock a table against writers who may not write it.
        GRANT UPDATE ON ALL TABLES IN SCHEMA public TO imdb_ha_backup;
    END IF;
END
$$;
