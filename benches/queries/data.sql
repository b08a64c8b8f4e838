-- Films in the shape of IMDb's, for a bench: {{titulos}} titles, and of everything else what IMDb has of it for so many. Words follow
-- Zipf's law, votes Pareto's. Three of four titles are episodes, and those are younger than films. For one master alone: the
-- origin keeps the rows from being sent to the other one.
SELECT pg_replication_origin_create('imdb_ha_bench')
WHERE NOT EXISTS (SELECT FROM pg_replication_origin WHERE roname = 'imdb_ha_bench');
SELECT pg_replication_origin_session_setup('imdb_ha_bench');
SET session_replication_role = replica;
SET statement_timeout = '20min';
SET work_mem = '256MB';
SET maintenance_work_mem = '512MB';
SET synchronous_commit = off;
SELECT setseed(0.5);
TRUNCATE titulos, personas, calificaciones, episodios, titulo_genero, participaciones, titulo_director, titulo_escritor,
    persona_profesion, persona_conocida, titulos_alternos;

CREATE TEMPORARY TABLE palabras AS
SELECT k, coalesce(
    ('{the,of,a,and,in,la,de,love,to,man,el,night,my,on,le,life,for,les,world,day,is,story,an,last,new,with,you,big,ñandú,él}'::text[])[k],
    substr(translate(md5(k::text), '0123456789abcdef', 'aeiobcdlmnrstpvé'), 1, 4 + k % 6)
) AS palabra
FROM generate_series(1, 50000) AS k;

CREATE TEMPORARY TABLE obras AS
SELECT i, i * 57 + (random() * 50)::integer AS id, random() < CASE WHEN i < {{titulos}} / 8 THEN 0.1 ELSE 0.87 END AS es_episodio,
    random() AS azar
FROM generate_series(1, {{titulos}}) AS i;

CREATE TEMPORARY TABLE nombres AS
SELECT i, string_agg(initcap(palabra), ' ' ORDER BY n) AS titulo
FROM (
    SELECT i, n, floor(50000 ^ random())::integer AS k
    FROM obras CROSS JOIN LATERAL generate_series(1, 1 + (azar * 5)::integer) AS n
) AS elegidas JOIN palabras USING (k) GROUP BY i;

INSERT INTO titulos
SELECT id, CASE WHEN es_episodio THEN 3 ELSE ('{1,1,1,2,2,2,2,5,7,7,7,10,10,4,9,8,11}'::smallint[])[1 + (azar * 16)::integer] END,
    CASE WHEN es_episodio AND azar < 0.35 THEN 'Episode #' || i % 20 + 1 || '.' || i % 40 + 1 ELSE titulo END,
    CASE WHEN es_episodio AND azar < 0.35 THEN 'Episode #' || i % 20 + 1 || '.' || i % 40 + 1 ELSE titulo END,
    azar BETWEEN 0.5 AND 0.52, CASE WHEN azar < 0.9 THEN 1895 + (130 * (i::float / {{titulos}}) ^ 0.4)::integer END, NULL,
    CASE WHEN azar < 0.6 THEN 5 + (azar * 200)::integer END
FROM obras JOIN nombres USING (i) ORDER BY id;

INSERT INTO calificaciones
SELECT id, round((1 + 9 * sqrt(random()))::numeric, 1), least(3000000, 5 / (random() + 1e-7) ^ 1.3)::integer
FROM obras WHERE random() < CASE WHEN es_episodio THEN 0.08 ELSE 0.31 END ORDER BY id;

INSERT INTO episodios
SELECT o.id, s.id, o.i % 20 + 1, o.i % 40 + 1 FROM obras AS o JOIN obras AS s ON s.i = o.i / 90 + 1 WHERE o.es_episodio;

INSERT INTO titulo_genero
SELECT id, id_genero, min(orden) FROM (
    SELECT id, orden, ('{9,9,9,9,9,6,6,6,25,25,23,8,19,21,10,20,4,1,7,3,13,15,26,24,28,12}'::integer[])[1 + (random() * 25)::integer] AS id_genero
    FROM obras CROSS JOIN LATERAL generate_series(1, 1 + (azar * 2)::integer) AS orden
) AS generos GROUP BY id, id_genero;

INSERT INTO personas
SELECT i * 20, initcap(p.palabra || ' ' || q.palabra), CASE WHEN i % 4 = 0 THEN 1900 + i % 100 END, NULL
FROM generate_series(1, {{titulos}} * 77 / 63) AS i
JOIN palabras AS p ON p.k = 31 + i % 49900 JOIN palabras AS q ON q.k = 31 + i * 7 % 49900;

-- A few persons are in thousands of titles, and most in one.
INSERT INTO participaciones
SELECT id, orden, 20 * (1 + (random() ^ 2.5 * ({{titulos}} * 77 / 63 - 1))::integer),
    ('{1,1,1,1,2,2,2,3,3,4,4,5,5,6,7,8,9}'::smallint[])[1 + (random() * 16)::integer], NULL,
    CASE WHEN orden < 4 THEN ARRAY['Personaje ' || orden] END
FROM obras CROSS JOIN LATERAL generate_series(1, 1 + (azar * 14)::integer) AS orden;

INSERT INTO titulo_director
SELECT id_titulo, id_persona, min(orden) FROM participaciones WHERE id_categoria = 5 GROUP BY 1, 2;
INSERT INTO titulo_escritor
SELECT id_titulo, id_persona, min(orden) FROM participaciones WHERE id_categoria = 4 GROUP BY 1, 2;

INSERT INTO titulos_alternos
SELECT id, orden, titulo, ('{US,FR,DE,MX,JP,IN}'::text[])[orden], NULL, NULL, NULL, orden = 1
FROM obras JOIN nombres USING (i) CROSS JOIN LATERAL generate_series(1, 1 + (azar * 7)::integer) AS orden;

VACUUM (ANALYZE) titulos, calificaciones, episodios, titulo_genero, personas, participaciones, titulo_director, titulo_escritor,
    titulos_alternos;
