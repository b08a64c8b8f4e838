-- The page of title $1: up to $2 directors and as many writers, $3 of the cast, $4 other titles, and how many there are of each.
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
    'calificacion', CASE WHEN t.votos IS NOT NULL THEN json_build_object('promedio', t.promedio, 'votos', t.votos) END,
    'serie', (
        SELECT json_build_object(
            'tconst', imdb_ha.tconst(e.id_serie), 'titulo', s.titulo_principal, 'temporada', e.temporada, 'episodio', e.episodio
        )
        FROM public.episodios AS e LEFT JOIN public.titulos AS s ON s.id_titulo = e.id_serie
        WHERE e.id_titulo = t.id_titulo
    ),
    'directores', coalesce((
        SELECT json_agg(json_build_object('nconst', imdb_ha.nconst(d.id_persona), 'nombre', p.nombre) ORDER BY d.orden, d.id_persona)
        FROM (
            SELECT id_persona, orden FROM public.titulo_director
            WHERE id_titulo = t.id_titulo ORDER BY orden, id_persona LIMIT $2::bigint
        ) AS d LEFT JOIN public.personas AS p USING (id_persona)
    ), '[]'),
    'escritores', coalesce((
        SELECT json_agg(json_build_object('nconst', imdb_ha.nconst(e.id_persona), 'nombre', p.nombre) ORDER BY e.orden, e.id_persona)
        FROM (
            SELECT id_persona, orden FROM public.titulo_escritor
            WHERE id_titulo = t.id_titulo ORDER BY orden, id_persona LIMIT $2::bigint
        ) AS e LEFT JOIN public.personas AS p USING (id_persona)
    ), '[]'),
    'reparto', coalesce((
        SELECT json_agg(json_build_object(
            'orden', r.orden, 'nconst', imdb_ha.nconst(r.id_persona), 'nombre', p.nombre,
            'categoria', (SELECT c.categoria FROM public.categorias AS c WHERE c.id_categoria = r.id_categoria),
            'trabajo', r.trabajo, 'personajes', coalesce(to_json(r.personajes), '[]')
        ) ORDER BY r.orden)
        FROM (
            SELECT * FROM public.participaciones WHERE id_titulo = t.id_titulo ORDER BY orden LIMIT $3::bigint
        ) AS r LEFT JOIN public.personas AS p USING (id_persona)
    ), '[]'),
    'titulos_alternos', coalesce((
        SELECT json_agg(json_build_object(
            'titulo', a.titulo, 'region', a.region, 'idioma', a.idioma, 'tipos', coalesce(to_json(a.tipos), '[]'),
            'atributos', coalesce(to_json(a.atributos), '[]'), 'es_original', a.es_original
        ) ORDER BY a.orden)
        FROM (
            SELECT * FROM public.titulos_alternos WHERE id_titulo = t.id_titulo ORDER BY orden LIMIT $4::bigint
        ) AS a
    ), '[]'),
    'totales', json_build_object(
        'directores', (SELECT count(*) FROM public.titulo_director AS d WHERE d.id_titulo = t.id_titulo),
        'escritores', (SELECT count(*) FROM public.titulo_escritor AS e WHERE e.id_titulo = t.id_titulo),
        'reparto', (SELECT count(*) FROM public.participaciones AS r WHERE r.id_titulo = t.id_titulo),
        'titulos_alternos', (SELECT count(*) FROM public.titulos_alternos AS a WHERE a.id_titulo = t.id_titulo),
        'episodios', (SELECT count(*) FROM public.episodios AS e WHERE e.id_serie = t.id_titulo)
    )
)::text
FROM public.titulos AS t
WHERE t.id_titulo = $1::integer
