-- Makes rejects of the rows in imdb_carga.{{tabla}}, which were found in the table of that name in public.
ANALYZE imdb_carga.{{tabla}};
INSERT INTO imdb_carga.rechazos (id_carga, archivo, linea, num, columna, motivo, detalle, fila)
SELECT {{carga}}, {{archivo}}, 0,
    pg_catalog.row_number() OVER (ORDER BY {{clave}}) + (
        SELECT coalesce(max(r.num), 0) FROM imdb_carga.rechazos AS r WHERE r.archivo = {{archivo}} AND r.linea = 0
    ),
    {{columna}}, {{motivo}}, {{valor}}, pg_catalog.to_jsonb(c)::text
FROM imdb_carga.{{tabla}} AS c {{uniones}}
