-- The page of person $1, and in two more columns the ids of up to $3 titles below $2, the highest first, and what is shown of each. Of
-- professions, of titles that somebody is known for and of parts in one title up to $4 are shown. Who directed or wrote a title
-- need not be among its principals.
SELECT json_build_object(
    'nconst', imdb_ha.nconst(p.id_persona),
    'id_persona', p.id_persona,
    'nombre', p.nombre,
    'anio_nacimiento', p.anio_nacimiento,
    'anio_muerte', p.anio_muerte,
    'profesiones', coalesce((
        SELECT json_agg(f.profesion ORDER BY pp.orden)
        FROM (
            SELECT * FROM public.persona_profesion WHERE id_persona = p.id_persona ORDER BY orden LIMIT $4::bigint
        ) AS pp JOIN public.profesiones AS f USING (id_profesion)
    ), '[]'),
    'conocida_por', coalesce((
        SELECT json_agg(json_build_object(
            'tconst', imdb_ha.tconst(k.id_titulo), 'titulo_principal', t.titulo_principal, 'anio_inicio', t.anio_inicio
        ) ORDER BY k.orden)
        FROM (
            SELECT * FROM public.persona_conocida WHERE id_persona = p.id_persona ORDER BY orden LIMIT $4::bigint
        ) AS k LEFT JOIN public.titulos AS t USING (id_titulo)
    ), '[]')
)::text,
peliculas.ids,
peliculas.filas
FROM public.personas AS p
CROSS JOIN LATERAL (
    SELECT coalesce(array_agg(f.id_titulo ORDER BY f.id_titulo DESC), '{}') AS ids,
        coalesce(array_agg(json_build_object(
            'tconst', imdb_ha.tconst(f.id_titulo),
            'id_titulo', f.id_titulo,
            'tipo', (SELECT c.tipo_titulo FROM public.tipos_titulo AS c WHERE c.id_tipo_titulo = t.id_tipo_titulo),
            'titulo_principal', t.titulo_principal,
            'anio_inicio', t.anio_inicio,
            'calificacion', CASE WHEN t.votos IS NOT NULL THEN json_build_object('promedio', t.promedio, 'votos', t.votos) END,
            'papeles', (
                SELECT json_agg(json_build_object(
                    'categoria', r.categoria, 'trabajo', r.trabajo, 'personajes', coalesce(to_json(r.personajes), '[]')
                ) ORDER BY r.orden)
                FROM (
                    SELECT q.orden, c.categoria, q.trabajo, q.personajes
                    FROM public.participaciones AS q LEFT JOIN public.categorias AS c USING (id_categoria)
                    WHERE q.id_persona = p.id_persona AND q.id_titulo = f.id_titulo
                    UNION ALL
                    SELECT NULL, 'director', NULL, NULL
                    FROM public.titulo_director AS d
                    WHERE d.id_persona = p.id_persona AND d.id_titulo = f.id_titulo AND NOT EXISTS (
                        SELECT FROM public.participaciones AS q JOIN public.categorias AS c USING (id_categoria)
                        WHERE q.id_persona = p.id_persona AND q.id_titulo = f.id_titulo AND c.categoria = 'director'
                    )
                    UNION ALL
                    SELECT NULL, 'writer', NULL, NULL
                    FROM public.titulo_escritor AS e
                    WHERE e.id_persona = p.id_persona AND e.id_titulo = f.id_titulo AND NOT EXISTS (
                        SELECT FROM public.participaciones AS q JOIN public.categorias AS c USING (id_categoria)
                        WHERE q.id_persona = p.id_persona AND q.id_titulo = f.id_titulo AND c.categoria = 'writer'
                    )
                    ORDER BY orden LIMIT $4::bigint
                ) AS r
            )
        )::text ORDER BY f.id_titulo DESC), '{}') AS filas
    FROM (
        (SELECT DISTINCT id_titulo FROM public.participaciones
            WHERE id_persona = $1::integer AND id_titulo < $2::bigint ORDER BY id_titulo DESC LIMIT $3::bigint)
        UNION
        (SELECT id_titulo FROM public.titulo_director
            WHERE id_persona = $1::integer AND id_titulo < $2::bigint ORDER BY id_titulo DESC LIMIT $3::bigint)
        UNION
        (SELECT id_titulo FROM public.titulo_escritor
            WHERE id_persona = $1::integer AND id_titulo < $2::bigint ORDER BY id_titulo DESC LIMIT $3::bigint)
        ORDER BY id_titulo DESC LIMIT $3::bigint
    ) AS f LEFT JOIN public.titulos AS t USING (id_titulo)
) AS peliculas
WHERE p.id_persona = $1::integer
