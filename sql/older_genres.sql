-- Which of these genres are there in a version that is older than the one asked for.
SELECT n.id::int4
FROM unnest($1::int4[], $2::timestamptz[]) AS n (id, en)
JOIN public.generos AS g ON g.id_genero = n.id AND g.cambiado_en < n.en
