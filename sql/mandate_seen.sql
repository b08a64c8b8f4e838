-- Who decides, as this master knows it, and whether that process lives: its session holds the lock and has said something lately.
-- $1: the silence, in ms, after which it is taken for gone.
SELECT
    m.termino,
    m.titular,
    m.direccion,
    m.activo,
    (extract(epoch FROM m.pausa_hasta - clock_timestamp()) * 1000)::bigint AS pausa_ms,
    EXISTS (
        SELECT FROM pg_catalog.pg_locks AS l
        JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid
        WHERE l.locktype = 'advisory' AND l.granted AND l.pid = m.proceso
            AND l.classid = 1229800514 AND l.objid = 1 AND l.objsubid = 2 AND a.datname = current_database()
            AND clock_timestamp() - a.state_change < $1::bigint * interval '1 millisecond'
    ) AS vive
FROM imdb_ha.mandato AS m
