-- Titles as a list shows them, in the order of the ids in $1.
SELECT json_build_object(
    'tconst', imdb_ha.tconst(t.id_titulo),
    'id_titulo', t.id_titulo,
    'tipo', (SELECT c.tipo_titulo FROM public.tipos_titulo AS c WHERE c.id_tipo_titulo = t.id_tipo_titulo),
    'titulo_principal', t.titulo_principal,
    'titulo_original', t.titulo_original,
    'es_adulto', t.es_adulto,
    'anio_inicio', t.anio_inicio,
    'anio_fin', t.anio_fin,
    'duracion_min', t.duracion_min,
    'generos', coalesce((
        SELECT json_agg(json_build_object('id_genero', g.id_genero, 'genero', g.genero) ORDER BY tg.orden, g.id_genero)
        FROM public.titulo_genero AS tg JOIN public.generos AS g USING (id_genero)
        WHERE tg.id_titulo = t.id_titulo
    ), '[]'),
    'calificacion', (
        SELECT json_build_object('promedio', c.promedio, 'votos', c.votos)
        FROM public.calificaciones AS c WHERE c.id_titulo = t.id_titulo
    )
)::text
FROM unnest($1::integer[]) WITH ORDINALITY AS pagina (id_titulo, lugar)
JOIN public.titulos AS t USING (id_titulo)
ORDER BY pagina.lugar
