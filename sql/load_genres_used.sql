-- Notes which genres the new titles have, of those with the numbers $1 and the codes $2, and since when the load knows them ($3).
INSERT INTO imdb_carga.generos (id_genero, codigo_imdb, desde)
SELECT g.id_genero, g.codigo_imdb, $3::text::timestamptz
FROM ROWS FROM (pg_catalog.unnest($1::integer[]), pg_catalog.unnest($2::text[])) AS g (id_genero, codigo_imdb)
WHERE EXISTS (SELECT FROM imdb_carga.titulo_genero AS t WHERE t.id_genero = g.id_genero)
