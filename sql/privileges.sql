-- What the role of this session lacks on this master, a row each: the privilege, what needs it, and the role of sql/roles.sql that has it.
-- $1: whether backups are made. What is not there yet, such as a table before the set-up, is not missed.
SELECT needed.privilege, needed.purpose, needed.role
FROM (
    VALUES
    (false, 'imdb_ha_api', 'membership in pg_monitor', 'the state of the replication',
        pg_catalog.pg_has_role('pg_monitor', 'USAGE')),
    (false, 'imdb_ha_api', 'SELECT on the tables of schema public', 'reading and comparing',
        NOT EXISTS (
            SELECT FROM pg_catalog.pg_class AS c
            WHERE c.relnamespace = pg_catalog.to_regnamespace('public') AND c.relkind IN ('r', 'p')
                AND NOT pg_catalog.has_table_privilege(c.oid, 'SELECT')
        )),
    (false, 'imdb_ha_api', 'INSERT, UPDATE and DELETE on generos', 'writing genres',
        pg_catalog.has_table_privilege(pg_catalog.to_regclass('public.generos'), 'INSERT')
        AND pg_catalog.has_table_privilege(pg_catalog.to_regclass('public.generos'), 'UPDATE')
        AND pg_catalog.has_table_privilege(pg_catalog.to_regclass('public.generos'), 'DELETE')),
    (false, 'imdb_ha_api', 'INSERT and SELECT on imdb_ha.claves', 'writes with an Idempotency-Key',
        pg_catalog.has_table_privilege(pg_catalog.to_regclass('imdb_ha.claves'), 'INSERT')
        AND pg_catalog.has_table_privilege(pg_catalog.to_regclass('imdb_ha.claves'), 'SELECT')),
    (false, 'imdb_ha_api', 'USAGE on the sequence of generos', 'new ids',
        pg_catalog.has_sequence_privilege(
            pg_catalog.pg_get_serial_sequence(pg_catalog.to_regclass('public.generos')::text, 'id_genero'), 'USAGE'
        )),
    (false, 'imdb_ha_api', 'ALTER SYSTEM on synchronous_standby_names', 'zero-loss',
        pg_catalog.has_parameter_privilege('synchronous_standby_names', 'ALTER SYSTEM')),
    (false, 'imdb_ha_api', 'EXECUTE on pg_reload_conf()', 'zero-loss',
        pg_catalog.has_function_privilege('pg_catalog.pg_reload_conf()', 'EXECUTE')),
    (false, 'imdb_ha_api', 'membership in pg_signal_backend', 'freeing commits that wait in vain',
        pg_catalog.pg_has_role('pg_signal_backend', 'USAGE')),
    (true, 'imdb_ha_backup', 'SET on deadlock_timeout', 'the seal of a backup, without which none is called good',
        pg_catalog.has_parameter_privilege('deadlock_timeout', 'SET')),
    (true, 'imdb_ha_backup', 'EXECUTE on pg_create_restore_point(text)', 'the seal of a backup',
        pg_catalog.has_function_privilege('pg_catalog.pg_create_restore_point(text)', 'EXECUTE')),
    (true, 'imdb_ha_backup', 'EXECUTE on pg_switch_wal()', 'the seal of a backup',
        pg_catalog.has_function_privilege('pg_catalog.pg_switch_wal()', 'EXECUTE')),
    (true, 'imdb_ha_backup', 'MAINTAIN (PostgreSQL 16: UPDATE) on the tables of schema public', 'the seal of a backup',
        NOT EXISTS (
            SELECT FROM pg_catalog.pg_class AS c
            WHERE c.relnamespace = pg_catalog.to_regnamespace('public') AND c.relkind IN ('r', 'p')
                AND NOT CASE WHEN pg_catalog.current_setting('server_version_num')::integer >= 170000
                    THEN pg_catalog.has_table_privilege(c.oid, 'MAINTAIN')
                    ELSE pg_catalog.has_table_privilege(c.oid, 'UPDATE')
                END
        ))
) AS needed (of_backups, role, privilege, purpose, given)
WHERE NOT coalesce(needed.given, true) AND (NOT needed.of_backups OR $1::boolean)
