-- A page of the conflict log of one master, newest first. $1: only entries before this id, or null.
SELECT id, (extract(epoch FROM cuando) * 1000000)::bigint AS at_us,
    json_build_object(
        'id', id,
        'at', to_char(cuando AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
        'table', tabla, 'key', clave, 'kind', tipo, 'won', gano, 'local', aqui, 'remote', llegada
    )::text AS entry
FROM imdb_ha.conflictos
WHERE $1::int8 IS NULL OR id < $1::int8
ORDER BY id DESC
LIMIT $2::int8
