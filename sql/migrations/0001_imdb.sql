-- The films. Keys are the numbers in IMDb's ids (tt0111161 is 111161), so that both masters have the same ones without
-- asking each other; so have the catalogues, because their ids stand here. Texts are text: IMDb has no limits that it
-- keeps to. Catalogues are tables and no enumerations, because IMDb adds values without warning.
--
-- Foreign keys are NOT VALID from the start: the loader looks each id up before it sends a row, and exchanges whole
-- tables, so that checking them again would read everything twice. They hold for every change by hand.

-- What IMDb calls a genre. A genre that is deleted takes its code along; the next load makes it anew.
CREATE TABLE public.generos_imdb (
    codigo_imdb text PRIMARY KEY,
    id_genero integer NOT NULL REFERENCES public.generos ON DELETE CASCADE
);
CREATE INDEX generos_imdb_genero ON public.generos_imdb (id_genero);
-- Only those of the 28 that nobody has deleted, on a system that is older than this table.
INSERT INTO public.generos_imdb (codigo_imdb, id_genero)
SELECT codigo, id FROM (VALUES
    ('Action', 1), ('Adult', 2), ('Adventure', 3), ('Animation', 4), ('Biography', 5), ('Comedy', 6), ('Crime', 7),
    ('Documentary', 8), ('Drama', 9), ('Family', 10), ('Fantasy', 11), ('Film-Noir', 12), ('Game-Show', 13),
    ('History', 14), ('Horror', 15), ('Music', 16), ('Musical', 17), ('Mystery', 18), ('News', 19), ('Reality-TV', 20),
    ('Romance', 21), ('Sci-Fi', 22), ('Short', 23), ('Sport', 24), ('Talk-Show', 25), ('Thriller', 26), ('War', 27),
    ('Western', 28)
) AS de_imdb (codigo, id)
WHERE EXISTS (SELECT FROM public.generos AS g WHERE g.id_genero = id);

CREATE TABLE public.tipos_titulo (id_tipo_titulo smallint PRIMARY KEY, tipo_titulo text NOT NULL UNIQUE);
INSERT INTO public.tipos_titulo VALUES
    (1, 'movie'), (2, 'short'), (3, 'tvEpisode'), (4, 'tvMiniSeries'), (5, 'tvMovie'), (6, 'tvPilot'), (7, 'tvSeries'),
    (8, 'tvShort'), (9, 'tvSpecial'), (10, 'video'), (11, 'videoGame');

-- In which part somebody is in a title.
CREATE TABLE public.categorias (id_categoria smallint PRIMARY KEY, categoria text NOT NULL UNIQUE);
INSERT INTO public.categorias VALUES
    (1, 'actor'), (2, 'actress'), (3, 'self'), (4, 'writer'), (5, 'director'), (6, 'producer'), (7, 'editor'),
    (8, 'cinematographer'), (9, 'composer'), (10, 'production_designer'), (11, 'casting_director'),
    (12, 'archive_footage'), (13, 'archive_sound');

-- By what somebody is known.
CREATE TABLE public.profesiones (id_profesion smallint PRIMARY KEY, profesion text NOT NULL UNIQUE);
INSERT INTO public.profesiones VALUES
    (1, 'accountant'), (2, 'actor'), (3, 'actress'), (4, 'animation_department'), (5, 'archive_footage'),
    (6, 'archive_sound'), (7, 'art_department'), (8, 'art_director'), (9, 'assistant'), (10, 'assistant_director'),
    (11, 'camera_department'), (12, 'casting_department'), (13, 'casting_director'), (14, 'choreographer'),
    (15, 'cinematographer'), (16, 'composer'), (17, 'costume_department'), (18, 'costume_designer'), (19, 'director'),
    (20, 'editor'), (21, 'editorial_department'), (22, 'electrical_department'), (23, 'executive'), (24, 'legal'),
    (25, 'location_management'), (26, 'make_up_artist'), (27, 'manager'), (28, 'miscellaneous'), (29, 'music_artist'),
    (30, 'music_department'), (31, 'podcaster'), (32, 'producer'), (33, 'production_department'),
    (34, 'production_designer'), (35, 'production_manager'), (36, 'publicist'), (37, 'script_department'),
    (38, 'set_decorator'), (39, 'sound_department'), (40, 'soundtrack'), (41, 'special_effects'), (42, 'stunts'),
    (43, 'talent_agent'), (44, 'transportation_department'), (45, 'visual_effects'), (46, 'writer');

-- What a search for words looks in: both titles, without accents, in whatever language. Both functions are such that PostgreSQL puts
-- their text in their place, which makes them six times faster: they are not strict, and call nothing that is not immutable.
CREATE FUNCTION imdb_ha.sin_acentos(texto text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN octet_length(texto) = length(texto) THEN texto
    ELSE regexp_replace(normalize(texto, NFKD), '[\u0300-\u036F]', '', 'g')
END;

CREATE FUNCTION imdb_ha.buscable(principal text, original text) RETURNS tsvector
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN to_tsvector('pg_catalog.simple', imdb_ha.sin_acentos(
    CASE WHEN principal = original THEN principal ELSE coalesce(principal, '') || ' ' || coalesce(original, '') END
));

-- A rating stands in the row of its title: nearly all that is searched for has one, and a search then looks into one table, from whose indexes
-- it reads the best known titles first. Only for those, one of eight, the words are kept beside the title: to find them anew takes
-- 7 us, and a walk past titles without a common word does that for each.
CREATE TABLE public.titulos (
    id_titulo integer PRIMARY KEY CHECK (id_titulo > 0),
    id_tipo_titulo smallint NOT NULL,
    titulo_principal text,
    titulo_original text,
    es_adulto boolean NOT NULL,
    anio_inicio smallint,
    anio_fin smallint,
    duracion_min integer CHECK (duracion_min >= 0),
    promedio numeric(3, 1) CHECK (promedio BETWEEN 1 AND 10),
    votos integer CHECK (votos >= 0),
    CHECK ((promedio IS NULL) = (votos IS NULL)),
    buscable tsvector GENERATED ALWAYS AS (
        CASE WHEN votos IS NOT NULL THEN imdb_ha.buscable(titulo_principal, titulo_original) END
    ) STORED
);

CREATE TABLE public.personas (
    id_persona integer PRIMARY KEY CHECK (id_persona > 0),
    nombre text,
    anio_nacimiento smallint,
    anio_muerte smallint
);

CREATE TABLE public.episodios (
    id_titulo integer PRIMARY KEY,
    id_serie integer NOT NULL,
    temporada integer,
    episodio integer
);

CREATE TABLE public.titulo_genero (
    id_titulo integer,
    id_genero integer,
    orden smallint NOT NULL,
    PRIMARY KEY (id_titulo, id_genero)
);

-- The same person can be in a title several times, so the place in its list is the key. The characters are one list that is only read
-- and written as a whole.
CREATE TABLE public.participaciones (
    id_titulo integer,
    orden integer,
    id_persona integer NOT NULL,
    id_categoria smallint NOT NULL,
    trabajo text,
    personajes text[],
    PRIMARY KEY (id_titulo, orden)
);

CREATE TABLE public.titulo_director (
    id_titulo integer,
    id_persona integer,
    orden integer NOT NULL,
    PRIMARY KEY (id_titulo, id_persona)
);

CREATE TABLE public.titulo_escritor (
    id_titulo integer,
    id_persona integer,
    orden integer NOT NULL,
    PRIMARY KEY (id_titulo, id_persona)
);

CREATE TABLE public.persona_profesion (
    id_persona integer,
    id_profesion smallint,
    orden smallint NOT NULL,
    PRIMARY KEY (id_persona, id_profesion)
);

CREATE TABLE public.persona_conocida (
    id_persona integer,
    id_titulo integer,
    orden smallint NOT NULL,
    PRIMARY KEY (id_persona, id_titulo)
);

-- A region or language is its own code, and has no name of its own in IMDb's files.
CREATE TABLE public.titulos_alternos (
    id_titulo integer,
    orden integer,
    titulo text NOT NULL,
    region text,
    idioma text,
    tipos text[],
    atributos text[],
    es_original boolean,
    PRIMARY KEY (id_titulo, orden)
);

-- Each file that was loaded, and what came of its rows: leidas = cargadas + rechazadas.
CREATE TABLE public.cargas (
    id_carga bigint,
    archivo text,
    filas_leidas bigint NOT NULL,
    filas_cargadas bigint NOT NULL,
    filas_rechazadas bigint NOT NULL,
    partes_rechazadas bigint NOT NULL,
    inicio timestamptz NOT NULL,
    fin timestamptz NOT NULL,
    PRIMARY KEY (id_carga, archivo),
    CHECK (filas_leidas = filas_cargadas + filas_rechazadas)
);

-- What of the files is in no other table, and why. A row is rejected as a whole (columna is null), or one column of a row whose
-- rest was loaded. linea counts from 1, the header; it is 0 for a row of an earlier load that lost what it belongs to.
-- Of one line several columns may be rejected; fila, the whole line, stands beside the first of them, which has num 1.
CREATE TABLE public.rechazos (
    id_carga bigint,
    archivo text,
    linea bigint,
    num integer,
    columna text,
    motivo text NOT NULL,
    detalle text NOT NULL,
    fila text,
    PRIMARY KEY (id_carga, archivo, linea, num),
    CHECK (fila IS NOT NULL OR num > 1)
);

-- IMDb's own way to write a number: at least seven digits.
CREATE FUNCTION imdb_ha.tconst(id integer) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 'tt' || lpad(id::text, greatest(7, length(id::text)), '0');

CREATE FUNCTION imdb_ha.nconst(id integer) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 'nm' || lpad(id::text, greatest(7, length(id::text)), '0');

CREATE INDEX titulos_buscable ON public.titulos USING gin (imdb_ha.buscable(titulo_principal, titulo_original));
CREATE INDEX titulos_calificados ON public.titulos USING gin (buscable) WHERE votos IS NOT NULL;
-- A page of a search begins after one place in one of the next five, so all columns of an index run the same way.
CREATE INDEX titulos_anio ON public.titulos (anio_inicio, id_titulo);
CREATE INDEX titulos_tipo ON public.titulos (id_tipo_titulo, id_titulo);
CREATE INDEX titulos_tipo_anio ON public.titulos (id_tipo_titulo, anio_inicio, id_titulo);
-- Years and types beside the votes are for a walk past titles of others, which need not be looked up then.
CREATE INDEX titulos_votos ON public.titulos (votos, id_titulo) INCLUDE (anio_inicio, id_tipo_titulo) WHERE votos IS NOT NULL;
CREATE INDEX titulos_promedio ON public.titulos (promedio, votos, id_titulo) INCLUDE (anio_inicio, id_tipo_titulo)
    WHERE votos IS NOT NULL;
-- For a decade of a rare genre: all its titles with a rating, from the index alone.
CREATE INDEX titulos_anio_votos ON public.titulos (anio_inicio, votos, id_titulo) INCLUDE (id_tipo_titulo) WHERE votos IS NOT NULL;
CREATE INDEX episodios_serie ON public.episodios (id_serie, temporada, episodio);
CREATE INDEX titulo_genero_genero ON public.titulo_genero (id_genero, id_titulo);
CREATE INDEX participaciones_persona ON public.participaciones (id_persona, id_titulo);
CREATE INDEX titulo_director_persona ON public.titulo_director (id_persona, id_titulo);
CREATE INDEX titulo_escritor_persona ON public.titulo_escritor (id_persona, id_titulo);

ALTER TABLE public.titulos
    ADD CONSTRAINT titulos_tipo FOREIGN KEY (id_tipo_titulo) REFERENCES public.tipos_titulo NOT VALID;
ALTER TABLE public.episodios
    ADD CONSTRAINT episodios_titulo FOREIGN KEY (id_titulo) REFERENCES public.titulos NOT VALID,
    ADD CONSTRAINT episodios_serie FOREIGN KEY (id_serie) REFERENCES public.titulos NOT VALID;
ALTER TABLE public.titulo_genero
    ADD CONSTRAINT titulo_genero_titulo FOREIGN KEY (id_titulo) REFERENCES public.titulos NOT VALID,
    ADD CONSTRAINT titulo_genero_genero FOREIGN KEY (id_genero) REFERENCES public.generos NOT VALID;
ALTER TABLE public.participaciones
    ADD CONSTRAINT participaciones_titulo FOREIGN KEY (id_titulo) REFERENCES public.titulos NOT VALID,
    ADD CONSTRAINT participaciones_persona FOREIGN KEY (id_persona) REFERENCES public.personas NOT VALID,
    ADD CONSTRAINT participaciones_categoria FOREIGN KEY (id_categoria) REFERENCES public.categorias NOT VALID;
ALTER TABLE public.titulo_director
    ADD CONSTRAINT titulo_director_titulo FOREIGN KEY (id_titulo) REFERENCES public.titulos NOT VALID,
    ADD CONSTRAINT titulo_director_persona FOREIGN KEY (id_persona) REFERENCES public.personas NOT VALID;
ALTER TABLE public.titulo_escritor
    ADD CONSTRAINT titulo_escritor_titulo FOREIGN KEY (id_titulo) REFERENCES public.titulos NOT VALID,
    ADD CONSTRAINT titulo_escritor_persona FOREIGN KEY (id_persona) REFERENCES public.personas NOT VALID;
ALTER TABLE public.persona_profesion
    ADD CONSTRAINT persona_profesion_persona FOREIGN KEY (id_persona) REFERENCES public.personas NOT VALID,
    ADD CONSTRAINT persona_profesion_profesion FOREIGN KEY (id_profesion) REFERENCES public.profesiones NOT VALID;
ALTER TABLE public.persona_conocida
    ADD CONSTRAINT persona_conocida_persona FOREIGN KEY (id_persona) REFERENCES public.personas NOT VALID,
    ADD CONSTRAINT persona_conocida_titulo FOREIGN KEY (id_titulo) REFERENCES public.titulos NOT VALID;
ALTER TABLE public.titulos_alternos
    ADD CONSTRAINT titulos_alternos_titulo FOREIGN KEY (id_titulo) REFERENCES public.titulos NOT VALID;
