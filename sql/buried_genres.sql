-- Of these genres, which nobody has, those whose id was deleted at or after their own time, and when last.
SELECT n.id::int4, max(b.cuando)
FROM unnest($1::int4[], $2::timestamptz[]) AS n (id, en)
JOIN imdb_ha.borrados AS b ON b.id_genero = n.id AND b.cuando >= n.en
WHERE NOT EXISTS (SELECT FROM public.generos AS g WHERE g.id_genero = n.id)
GROUP BY n.id
