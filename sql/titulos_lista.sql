-- Titles as a list shows them, in the order of the ids in $1.
SELECT row_to_json(fila)::text
FROM (
    SELECT
        imdb_ha.tconst(t.id_titulo) AS tconst,
        t.id_titulo,
        (SELECT c.tipo_titulo FROM public.tipos_titulo AS c WHERE c.id_tipo_titulo = t.id_tipo_titulo) AS tipo,
        t.titulo_principal,
        t.titulo_original,
        t.es_adulto,
        t.anio_inicio,
        t.anio_fin,
        t.duracion_min,
        coalesce((
            SELECT json_agg(json_build_object(
                'id_genero', tg.id_genero,
                'genero', (SELECT g.genero FROM public.generos AS g WHERE g.id_genero = tg.id_genero)
            ) ORDER BY tg.orden, tg.id_genero)
            FROM public.titulo_genero AS tg
            WHERE tg.id_titulo = t.id_titulo
        ), '[]') AS generos,
        CASE WHEN t.votos IS NOT NULL THEN json_build_object('promedio', t.promedio, 'votos', t.votos) END AS calificacion
    FROM unnest($1::integer[]) WITH ORDINALITY AS pagina (id_titulo, lugar)
    JOIN public.titulos AS t USING (id_titulo)
    ORDER BY pagina.lugar
) AS fila
