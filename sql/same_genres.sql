-- Which of these genres are there already, put there by an earlier try of the same requests: same key, same
-- name, and the time of the request, which no other request shares.
SELECT g.id_genero::int4, g.genero::text
FROM unnest($1::int4[], $2::text[], $3::timestamptz[]) AS n (id, genero, en)
JOIN public.generos AS g ON g.id_genero = n.id AND g.genero = n.genero AND g.cambiado_en = n.en
