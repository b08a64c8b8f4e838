-- Those genres of the new titles that are not there any more, each with its last deletion, as one text that is the same on both masters once they
-- have told each other everything.
SELECT coalesce(pg_catalog.string_agg(
    pg_catalog.format('%s %s %s', used.id_genero, here.id_genero IS NULL, extract(epoch FROM deleted.cuando)), ', '
    ORDER BY used.id_genero
), '')
FROM imdb_carga.generos AS used
LEFT JOIN public.generos AS here ON here.id_genero = used.id_genero
LEFT JOIN public.generos_imdb AS code ON code.id_genero = used.id_genero AND code.codigo_imdb = used.codigo_imdb
CROSS JOIN LATERAL (
    SELECT max(b.cuando) AS cuando FROM imdb_ha.borrados AS b WHERE b.id_genero = used.id_genero
) AS deleted
WHERE here.id_genero IS NULL OR code.id_genero IS NULL
