-- The genre that a request deleted at an earlier try: its record has the stamp of that request.
SELECT id_genero::int4, (fila ->> 'genero')::text
FROM imdb_ha.borrados
WHERE id_genero = $1::int4 AND cuando = $2::timestamptz
LIMIT 1
