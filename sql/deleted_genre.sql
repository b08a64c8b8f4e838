-- The genre that a request deleted at an earlier try: its record has the time of that request, or the
-- microsecond after it.
SELECT id_genero::int4, (fila ->> 'genero')::text
FROM imdb_ha.borrados
WHERE id_genero = $1::int4
    AND cuando >= $2::timestamptz AND cuando <= $2::timestamptz + interval '1 microsecond'
LIMIT 1
