-- Who a server is. The record is what the set-up has left there: a comment, so that it is read together with the rest in one
-- question, on any server, and is never sent to the peer.
SELECT
    (SELECT system_identifier FROM pg_catalog.pg_control_system()) AS system,
    (extract(epoch FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::bigint AS started,
    pg_catalog.current_database()::text AS database,
    pg_catalog.obj_description(pg_catalog.to_regprocedure('imdb_ha.este_nodo()')::oid, 'pg_proc') AS record
