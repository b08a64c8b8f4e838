-- A genre that somebody has deleted since the load has read its number, and that new titles have, is there again, under IMDb's name. Its stamp
-- is the same on both masters, and later than any deletion, or the next deletion to arrive would take it away.
INSERT INTO public.generos (id_genero, genero, cambiado_en, nodo) OVERRIDING SYSTEM VALUE
SELECT used.id_genero, used.codigo_imdb, greatest(used.desde, max(b.cuando) + interval '1 microsecond'), 0
FROM imdb_carga.generos AS used
LEFT JOIN imdb_ha.borrados AS b ON b.id_genero = used.id_genero
WHERE NOT EXISTS (SELECT FROM public.generos AS here WHERE here.id_genero = used.id_genero)
GROUP BY used.id_genero, used.codigo_imdb, used.desde;
INSERT INTO public.generos_imdb (codigo_imdb, id_genero)
SELECT used.codigo_imdb, used.id_genero FROM imdb_carga.generos AS used
ON CONFLICT DO NOTHING
