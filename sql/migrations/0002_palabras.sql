-- The words of titles, of searches and of genres: one way from a text to its words, for all of them. PostgreSQL's own parser makes file names of
-- Face/Off and A.I., a host of Startup.com, and signed numbers of Catch-22 and U-571, which nobody finds then by their words; so it gets
-- letters, digits and spaces, and nothing else.

DROP INDEX public.titulos_buscable;
ALTER TABLE public.titulos DROP COLUMN buscable;
DROP FUNCTION imdb_ha.buscable(text, text), imdb_ha.sin_acentos(text);

-- The letters of a text, small and without what is written above or below them; all else stays. A fraction is the numbers that it is made of.
CREATE FUNCTION imdb_ha.letras(texto text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN octet_length(texto) = length(texto) THEN lower(texto)
    ELSE replace(replace(replace(replace(translate(
        lower(regexp_replace(
            normalize(regexp_replace(translate(texto, '´', ''''), '([\u00BC-\u00BE\u2150-\u215E])', ' \1 ', 'g'), NFKD),
            '[\u00AD\u0300-\u036F\u0483-\u0487\u0591-\u05BD\u05BF\u05C1\u05C2\u0610-\u061A\u064B-\u065F\u0670'
                || '\u1AB0-\u1AFF\u1DC0-\u1DFF\u200B-\u200D\u2060\u20D0-\u20FF\uFE00-\uFE0F\uFE20-\uFE2F\uFEFF]',
            '', 'g'
        )),
        'øłđðħıŧςəŋ', 'olddhitσen'
    ), 'æ', 'ae'), 'œ', 'oe'), 'ß', 'ss'), 'þ', 'th')
END;

-- Everything that is neither a letter nor a digit nor a space, as a part of a regular expression; of what letras returns.
CREATE FUNCTION imdb_ha.signos() RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN '!-/:-`{-\u00BF\u00D7\u00F7\u02B9-\u02DF\u037E\u0387\u055A-\u055F\u0589\u058A\u05BE\u05C0\u05C3\u05F3\u05F4\u060C\u061B\u061F'
    || '\u066A-\u066D\u06D4\u0964\u0965\u2000-\u20CF\u2100-\u2BFF\u2E00-\u2E7F\u3000-\u3004\u3008-\u3020\u3030\u303D-\u303F\u30FB'
    || '\uE000-\uF8FF\uFE10-\uFE6F\uFFF0-\uFFFF\U0001F000-\U0001FAFF';

-- What letras returns, with one space between two words; spider-man is two.
CREATE FUNCTION imdb_ha.separa(letras text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN btrim(regexp_replace(letras, '[\u0001-\u0020\u007F' || imdb_ha.signos() || ']+', ' ', 'g'));

-- The words of a text, in their order: what a search, a title and a genre are compared by.
CREATE FUNCTION imdb_ha.normaliza(texto text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN imdb_ha.separa(imdb_ha.letras(texto));

-- The same with what no space is between as one word: spiderman, ai, startupcom.
CREATE FUNCTION imdb_ha.junta(texto text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN btrim(regexp_replace(regexp_replace(
    imdb_ha.letras(texto), '[\u007F' || imdb_ha.signos() || ']+', '', 'g'
), '[\u0001-\u0020]+', ' ', 'g'));

-- What a text without any word is looked up by: itself.
CREATE FUNCTION imdb_ha.solo_signos(texto text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN left(lower(btrim(texto)), 100);

-- A lexeme as a tsquery writes it.
CREATE FUNCTION imdb_ha.citado(lexema text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN '''' || replace(replace(lexema, '\', '\\'), '''', '''''') || '''';

-- The words of one title for a search: each in its place, behind them those that are written as one, ^ with the first word and = with how many
-- there are. By the last two a title is found that begins with the words, or is them, without looking at all that have them.
CREATE FUNCTION imdb_ha.palabras(titulo text) RETURNS tsvector
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    letras text;
    apartes text;
    juntas text;
    sin_apostrofos text;
    todas text;
    primera text;
BEGIN
    IF titulo IS NULL THEN
        RETURN '';
    END IF;
    -- Most titles are words already, and 12 million of them are to be indexed.
    IF titulo !~ '[^A-Za-z0-9 ]|  |^ | $' THEN
        letras := pg_catalog.lower(titulo);
        apartes := letras;
    ELSE
        letras := imdb_ha.letras(titulo);
        apartes := imdb_ha.separa(letras);
    END IF;
    IF apartes = '' THEN
        primera := imdb_ha.solo_signos(titulo);
        RETURN CASE WHEN primera = '' THEN '' ELSE pg_catalog.array_to_tsvector(ARRAY[primera, '^' || primera, '=1']) END;
    END IF;
    todas := apartes;
    IF apartes <> letras THEN
        juntas := imdb_ha.junta(titulo);
        IF juntas <> apartes THEN
            todas := todas || ' ' || juntas;
            -- Rock'n'Roll-Fever without its apostrophes alone.
            sin_apostrofos := imdb_ha.separa(pg_catalog.translate(letras, '''’‘ʼʻ`′', ''));
            IF sin_apostrofos NOT IN (apartes, juntas) THEN
                todas := todas || ' ' || sin_apostrofos;
            END IF;
        END IF;
    END IF;
    primera := pg_catalog.left(pg_catalog.split_part(apartes, ' ', 1), 100);
    RETURN pg_catalog.to_tsvector('pg_catalog.simple', todas) || pg_catalog.array_to_tsvector(ARRAY[
        '^' || primera, '=' || pg_catalog.length(apartes) - pg_catalog.length(pg_catalog.replace(apartes, ' ', '')) + 1
    ]);
END
$$;

-- The words of what a title is called elsewhere, of which there are five times as many: each in its place and no more.
CREATE FUNCTION imdb_ha.sueltas(titulo text) RETURNS tsvector
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN to_tsvector('pg_catalog.simple', imdb_ha.normaliza(titulo));

-- Those of both titles.
CREATE FUNCTION imdb_ha.buscable(principal text, original text) RETURNS tsvector
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    IF original IS NULL OR original = principal THEN
        RETURN imdb_ha.palabras(principal);
    END IF;
    RETURN imdb_ha.palabras(principal) || imdb_ha.palabras(original);
END
$$;

-- A word of a search as a part of a tsquery: as the parser sees it, so that both sides are the same whatever the parser does.
CREATE FUNCTION imdb_ha.lexema(palabra text, es_principio boolean) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    texto text := pg_catalog.phraseto_tsquery('pg_catalog.simple', palabra)::text;
BEGIN
    IF texto = '' THEN
        texto := imdb_ha.citado(palabra);
    END IF;
    RETURN '(' || texto || CASE WHEN es_principio THEN ':*' ELSE '' END || ')';
END
$$;

-- What titles must have that begin with these words, or are just these, in this order.
CREATE FUNCTION imdb_ha.lectura(palabras text[], ultima_es_principio boolean, entera boolean) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    cuantas integer := pg_catalog.cardinality(palabras);
    texto text := imdb_ha.citado('^' || pg_catalog.left(palabras[1], 100))
        || CASE WHEN ultima_es_principio AND cuantas = 1 THEN ':*' ELSE '' END;
    frase text := '';
BEGIN
    IF cuantas > 1 THEN
        FOR i IN 1..cuantas LOOP
            frase := frase || CASE WHEN i > 1 THEN '<->' ELSE '' END
                || imdb_ha.lexema(palabras[i], ultima_es_principio AND i = cuantas);
        END LOOP;
        texto := texto || '&(' || frase || ')';
    END IF;
    RETURN '(' || texto || CASE WHEN entera THEN '&''=' || cuantas || '''' ELSE '' END || ')';
END
$$;

-- The search for the words of a text, as a tsquery. A word may end with *, and is the beginning of one then. forma: contiene (all words, in
-- whatever order), empieza (the title begins with them) or exacta (it is them). Two words may be one in the title, and one two.
CREATE FUNCTION imdb_ha.consulta(texto text, forma text) RETURNS tsquery
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    -- More than these are looked for as they stand: each way to read them costs a look into the index.
    lecturas_max CONSTANT integer := 10;
    letras_max CONSTANT integer := 40;
    -- The shortest beginning of a word, since many words have a shorter one.
    principio_min CONSTANT integer := 3;
    palabras text[] := '{}';
    principios boolean[] := '{}';
    parte text;
    partes text[];
    cuantas integer;
    todas text := '';
    otras text := '';
    una text;
BEGIN
    IF imdb_ha.normaliza(texto) = '' THEN
        una := imdb_ha.solo_signos(texto);
        RETURN CASE forma
            WHEN 'contiene' THEN imdb_ha.citado(una)
            WHEN 'empieza' THEN imdb_ha.citado('^' || una)
            ELSE imdb_ha.citado('^' || una) || '&''=1'''
        END::tsquery;
    END IF;
    FOREACH parte IN ARRAY pg_catalog.regexp_split_to_array(imdb_ha.letras(texto), '[\u0001-\u0020]+') LOOP
        partes := pg_catalog.string_to_array(imdb_ha.normaliza(parte), ' ');
        IF pg_catalog.cardinality(partes) > 0 THEN
            palabras := palabras || partes;
            principios := principios || pg_catalog.array_fill(false, ARRAY[pg_catalog.cardinality(partes) - 1])
                || (pg_catalog.right(parte, 1) = '*');
        END IF;
    END LOOP;
    cuantas := pg_catalog.cardinality(palabras);
    IF forma <> 'contiene' THEN
        todas := imdb_ha.lectura(palabras, principios[cuantas], forma = 'exacta');
        IF cuantas BETWEEN 2 AND lecturas_max THEN
            FOR i IN 1..cuantas - 1 LOOP
                todas := todas || '|' || imdb_ha.lectura(
                    palabras[:i - 1] || (palabras[i] || palabras[i + 1]) || palabras[i + 2:], principios[cuantas], forma = 'exacta'
                );
            END LOOP;
            IF cuantas > 2 THEN
                una := pg_catalog.array_to_string(palabras, '');
                todas := todas || '|' || imdb_ha.lectura(ARRAY[una], principios[cuantas], forma = 'exacta');
            END IF;
        ELSIF cuantas = 1 THEN
            una := palabras[1];
            FOR i IN 1..pg_catalog.length(una) - CASE WHEN principios[1] THEN principio_min ELSE 1 END LOOP
                EXIT WHEN pg_catalog.length(una) > letras_max;
                todas := todas || '|' || imdb_ha.lectura(
                    ARRAY[pg_catalog.left(una, i), pg_catalog.substr(una, i + 1)], principios[1], forma = 'exacta'
                );
            END LOOP;
        END IF;
        RETURN todas::tsquery;
    END IF;
    FOR i IN 1..cuantas LOOP
        -- Twice the same word would make PostgreSQL think that few titles have both.
        CONTINUE WHEN palabras[i] = ANY (palabras[:i - 1]) AND NOT principios[i];
        una := imdb_ha.lexema(palabras[i], principios[i]);
        IF cuantas <= lecturas_max AND pg_catalog.length(palabras[i]) <= letras_max THEN
            FOR k IN 1..pg_catalog.length(palabras[i]) - CASE WHEN principios[i] THEN principio_min ELSE 1 END LOOP
                una := una || '|(' || imdb_ha.lexema(pg_catalog.left(palabras[i], k), false) || '<->'
                    || imdb_ha.lexema(pg_catalog.substr(palabras[i], k + 1), principios[i]) || ')';
            END LOOP;
        END IF;
        todas := todas || CASE WHEN todas = '' THEN '' ELSE '&' END || '(' || una || ')';
    END LOOP;
    IF cuantas BETWEEN 2 AND lecturas_max THEN
        FOR i IN 1..cuantas - 1 LOOP
            CONTINUE WHEN principios[i];
            una := imdb_ha.lexema(palabras[i] || palabras[i + 1], principios[i + 1]);
            FOR k IN 1..cuantas LOOP
                CONTINUE WHEN k IN (i, i + 1);
                una := una || '&' || imdb_ha.lexema(palabras[k], principios[k]);
            END LOOP;
            otras := otras || '|(' || una || ')';
        END LOOP;
        IF cuantas > 2 THEN
            otras := otras || '|' || imdb_ha.lexema(pg_catalog.array_to_string(palabras, ''), principios[cuantas]);
        END IF;
    END IF;
    RETURN ('(' || todas || ')' || otras)::tsquery;
END
$$;

ALTER TABLE public.titulos ADD COLUMN buscable tsvector GENERATED ALWAYS AS (
    CASE WHEN votos IS NOT NULL THEN imdb_ha.buscable(titulo_principal, titulo_original) END
) STORED;
CREATE INDEX titulos_buscable ON public.titulos USING gin (imdb_ha.buscable(titulo_principal, titulo_original));
CREATE INDEX titulos_calificados ON public.titulos USING gin (buscable) WHERE votos IS NOT NULL;
-- What a title is called elsewhere. The original title is a row here too, and a column of its title.
CREATE INDEX titulos_alternos_palabras ON public.titulos_alternos USING gin (imdb_ha.sueltas(titulo))
    WHERE es_original IS NOT TRUE;
