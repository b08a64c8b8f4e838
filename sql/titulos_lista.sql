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
            SELECT json_agg(de_titulo)
            FROM (
                SELECT g.id_genero, g.genero
                FROM public.titulo_genero AS tg JOIN public.generos AS g USING (id_genero)
                WHERE tg.id_titulo = t.id_titulo
                ORDER BY tg.orden, g.id_genero
            ) AS de_titulo
        ), '[]') AS generos,
        (
            SELECT row_to_json(calificacion)
            FROM (
                SELECT c.promedio, c.votos FROM public.calificaciones AS c WHERE c.id_titulo = t.id_titulo
            ) AS calificacion
        ) AS calificacion
    FROM unnest($1::integer[]) WITH ORDINALITY AS pagina (id_titulo, lugar)
    JOIN public.titulos AS t USING (id_titulo)
    ORDER BY pagina.lugar
) AS fila
