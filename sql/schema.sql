-- The schema of one master. Idempotent: a second run changes nothing.
-- {{nodo}} is 1 on master1 and 2 on master2.

CREATE SCHEMA IF NOT EXISTS imdb_ha;
-- The triggers and defaults in it run with the rights of whoever writes a genre.
GRANT USAGE ON SCHEMA imdb_ha TO PUBLIC;

-- Which master this is. A function, so that a default can use it and psql need not know.
CREATE OR REPLACE FUNCTION imdb_ha.este_nodo() RETURNS smallint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN {{nodo}}::smallint;

-- The genres. A client sees id_genero and genero. The other two columns are for the masters alone:
-- they say when and where a row was last changed, and so which of two versions is the newer one.
-- The 28 genres of IMDb come with the table, with the same ids and the same stamp on both masters; a
-- genre that somebody deletes later stays deleted.
DO $$
BEGIN
    IF pg_catalog.to_regclass('public.generos') IS NULL THEN
        CREATE SEQUENCE public.generos_id_genero_seq AS integer START WITH 29;
        CREATE TABLE public.generos (
            id_genero integer PRIMARY KEY DEFAULT nextval('public.generos_id_genero_seq'),
            genero text NOT NULL
        );
        ALTER SEQUENCE public.generos_id_genero_seq OWNED BY public.generos.id_genero;
        ALTER TABLE public.generos
            ADD COLUMN cambiado_en timestamptz NOT NULL DEFAULT '2025-10-01 00:00:00+00',
            ADD COLUMN nodo smallint NOT NULL DEFAULT 0;
        INSERT INTO public.generos (id_genero, genero) VALUES
            (1, 'Acción'), (2, 'Adultos'), (3, 'Aventura'), (4, 'Animación'), (5, 'Biografía'),
            (6, 'Comedia'), (7, 'Crimen'), (8, 'Documental'), (9, 'Drama'), (10, 'Familiar'),
            (11, 'Fantasía'), (12, 'Cine negro'), (13, 'Concurso'), (14, 'Historia'), (15, 'Terror'),
            (16, 'Música'), (17, 'Musical'), (18, 'Misterio'), (19, 'Noticias'), (20, 'Telerrealidad'),
            (21, 'Romance'), (22, 'Ciencia ficción'), (23, 'Cortometraje'), (24, 'Deporte'),
            (25, 'Entrevistas'), (26, 'Suspenso'), (27, 'Bélico'), (28, 'Western');
    END IF;

    -- A table that was there before this program gets the two columns as well. Its rows count as old.
    IF NOT EXISTS (
        SELECT FROM pg_catalog.pg_attribute
        WHERE attrelid = 'public.generos'::regclass AND attname = 'cambiado_en' AND NOT attisdropped
    ) THEN
        ALTER TABLE public.generos
            ADD COLUMN cambiado_en timestamptz NOT NULL DEFAULT '2025-10-01 00:00:00+00',
            ADD COLUMN nodo smallint NOT NULL DEFAULT 0;
    END IF;

    -- New rows are stamped with the time and the master.
    IF NOT EXISTS (
        SELECT FROM pg_catalog.pg_attrdef AS d
        JOIN pg_catalog.pg_attribute AS a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
        WHERE d.adrelid = 'public.generos'::regclass AND a.attname = 'nodo'
            AND pg_catalog.pg_get_expr(d.adbin, d.adrelid) LIKE '%este_nodo%'
    ) THEN
        ALTER TABLE public.generos
            ALTER COLUMN cambiado_en SET DEFAULT clock_timestamp(),
            ALTER COLUMN nodo SET DEFAULT imdb_ha.este_nodo();
    END IF;
END
$$;

-- Moves the sequence of the genres to this master's half of the numbers (odd on master1, even on
-- master2), and past every row of that half whose id follows without a gap on what was drawn last.
-- A single row far away, such as one with the highest id there is, must not use up the rest. Never
-- back: others draw meanwhile, and a gap in the numbers hurts nobody.
CREATE OR REPLACE FUNCTION imdb_ha.alinear_secuencias() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$
DECLARE
    secuencia regclass := pg_catalog.pg_get_serial_sequence('public.generos', 'id_genero')::regclass;
    paso bigint;
    sacado bigint;
    siguiente bigint;
    ultimo bigint;
BEGIN
    IF secuencia IS NULL THEN
        RETURN;
    END IF;
    PERFORM pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('imdb_ha.alinear_secuencias'));
    SELECT seqincrement INTO paso FROM pg_catalog.pg_sequence WHERE seqrelid = secuencia;
    IF paso <> 2 THEN
        EXECUTE pg_catalog.format('ALTER SEQUENCE %s INCREMENT BY 2', secuencia);
    END IF;
    sacado := pg_catalog.nextval(secuencia);
    siguiente := sacado;
    IF siguiente % 2 <> imdb_ha.este_nodo() % 2 THEN
        siguiente := siguiente + 1;
    END IF;
    IF EXISTS (SELECT FROM public.generos WHERE id_genero = siguiente) THEN
        -- In the order of the key, so that it ends at the first gap; a master that has just been filled has
        -- no statistics, and a join of the table with itself would take it minutes.
        SELECT g.id + 2 INTO siguiente
        FROM (
            SELECT id_genero::bigint AS id, lead(id_genero::bigint) OVER (ORDER BY id_genero) AS id_siguiente
            FROM public.generos
            WHERE id_genero >= siguiente AND id_genero % 2 = siguiente % 2
        ) AS g
        WHERE g.id_siguiente IS DISTINCT FROM g.id + 2
        ORDER BY g.id
        LIMIT 1;
    END IF;
    -- The number that was drawn was good: whoever draws next gets the one after it.
    IF siguiente = sacado THEN
        RETURN;
    END IF;
    EXECUTE pg_catalog.format('SELECT last_value FROM %s', secuencia) INTO ultimo;
    IF siguiente > ultimo THEN
        PERFORM pg_catalog.setval(secuencia, siguiente, false);
    END IF;
END
$$;

-- Deletions, so that a version which arrives later than its deletion knows. Replicated; a master adds
-- to it and never changes it. cuando and nodo are the stamp of the deletion, fila is what was deleted.
CREATE TABLE IF NOT EXISTS imdb_ha.borrados (
    id_genero integer NOT NULL,
    cuando timestamptz NOT NULL,
    nodo smallint NOT NULL,
    fila jsonb NOT NULL,
    PRIMARY KEY (id_genero, cuando, nodo)
);
CREATE INDEX IF NOT EXISTS borrados_cuando ON imdb_ha.borrados (cuando);

-- Carries each update to the peer as an insert, because PostgreSQL skips an update of a row that the
-- peer has deleted without asking anybody. Always empty: a row leaves in the transaction it came in.
-- base is when the version that was replaced had been written; null for a row that got another id.
CREATE TABLE IF NOT EXISTS imdb_ha.cambios (
    id_genero integer PRIMARY KEY,
    fila jsonb NOT NULL,
    base timestamptz
);

-- What this master settled when two versions of one row met on it. Local, never replicated.
-- gano: local (what was here stayed) or remote (what arrived was taken).
CREATE TABLE IF NOT EXISTS imdb_ha.conflictos (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    cuando timestamptz NOT NULL DEFAULT clock_timestamp(),
    tabla text NOT NULL,
    clave text NOT NULL,
    tipo text NOT NULL,
    gano text NOT NULL,
    aqui jsonb,
    llegada jsonb
);
-- The API need not be a superuser, and README asks that its role be a member of pg_monitor.
GRANT SELECT ON imdb_ha.conflictos, imdb_ha.borrados TO pg_monitor;

-- Forgets deletions of more than 30 days ago, the oldest first and so many at most, and says whether more are left. Whoever calls
-- it knows that everything the peer wrote in that time has arrived here; else an older version could come back to life.
-- What is locked is left for the next call: the peer's own pruning arrives as changes that lock their rows and do nothing more,
-- and to wait for them would keep the probe silent.
DROP FUNCTION IF EXISTS imdb_ha.podar_borrados(), imdb_ha.podar_borrados(integer);
CREATE OR REPLACE FUNCTION imdb_ha.olvidar_borrados(cuantos integer, OUT olvidados bigint, OUT quedan boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$
DECLARE
    limite timestamptz := pg_catalog.now() - interval '30 days';
BEGIN
    DELETE FROM imdb_ha.borrados WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM imdb_ha.borrados WHERE cuando < limite
        ORDER BY cuando LIMIT cuantos FOR UPDATE SKIP LOCKED
    ));
    GET DIAGNOSTICS olvidados = ROW_COUNT;
    quedan := EXISTS (SELECT FROM imdb_ha.borrados WHERE cuando < limite);
END
$$;
REVOKE ALL ON FUNCTION imdb_ha.olvidar_borrados(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION imdb_ha.olvidar_borrados(integer) TO pg_monitor;

-- What was done under the key that a client has sent along with a write (Idempotency-Key), so that the same request is not done twice. A row is
-- written by the statement that writes the genre, and travels with it. huella: of what the request says; another under the same key is refused.
-- id_genero and genero are the genre as it was answered; cuando is the stamp of the change, and, of a new genre, that of its row.
CREATE TABLE IF NOT EXISTS imdb_ha.claves (
    clave text COLLATE "C" PRIMARY KEY,
    huella bytea NOT NULL,
    metodo text NOT NULL,
    id_genero integer NOT NULL,
    genero text NOT NULL,
    cuando timestamptz NOT NULL,
    nodo smallint NOT NULL DEFAULT imdb_ha.este_nodo()
);
CREATE INDEX IF NOT EXISTS claves_cuando ON imdb_ha.claves (cuando);

-- Forgets keys, likewise. They are promised for a day. While the peer's changes do not arrive (al_dia is false) they are kept for a week: one of its own
-- under the same key may be among those changes, and it is settled by means of the one here.
CREATE OR REPLACE FUNCTION imdb_ha.olvidar_claves(cuantas integer, al_dia boolean, OUT olvidadas bigint, OUT quedan boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$
DECLARE
    limite timestamptz := pg_catalog.now() - CASE WHEN al_dia THEN interval '25 hours' ELSE interval '7 days' END;
BEGIN
    DELETE FROM imdb_ha.claves WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM imdb_ha.claves WHERE cuando < limite
        ORDER BY cuando LIMIT cuantas FOR UPDATE SKIP LOCKED
    ));
    GET DIAGNOSTICS olvidadas = ROW_COUNT;
    quedan := EXISTS (SELECT FROM imdb_ha.claves WHERE cuando < limite);
END
$$;
REVOKE ALL ON FUNCTION imdb_ha.olvidar_claves(integer, boolean) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION imdb_ha.olvidar_claves(integer, boolean) TO pg_monitor;

-- The triggers of this program, and how each must be enabled: O for what a master adds to the changes of its own sessions, R for what it
-- does with those that arrive (sql/changes.sql and sql/conflicts.sql make them).
CREATE OR REPLACE FUNCTION imdb_ha.disparadores()
RETURNS TABLE (tabla text, nombre text, cuando text, forma text, funcion text, modo text)
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    VALUES
        ('public.generos', 'generos_conciliar', 'BEFORE INSERT OR DELETE OR UPDATE', 'FOR EACH ROW', 'conciliar_generos', 'R'),
        ('imdb_ha.cambios', 'cambios_conciliar', 'BEFORE INSERT', 'FOR EACH ROW', 'conciliar_generos', 'R'),
        ('imdb_ha.borrados', 'borrados_conciliar', 'BEFORE INSERT OR DELETE OR UPDATE', 'FOR EACH ROW', 'conciliar_borrados', 'R'),
        ('imdb_ha.claves', 'claves_conciliar', 'BEFORE INSERT OR DELETE OR UPDATE', 'FOR EACH ROW', 'conciliar_claves', 'R'),
        ('public.generos', 'generos_sellar', 'BEFORE UPDATE', 'FOR EACH ROW', 'sellar', 'O'),
        ('public.generos', 'generos_enterrar', 'BEFORE DELETE', 'FOR EACH ROW', 'enterrar', 'O'),
        ('public.generos', 'generos_nuevas', 'AFTER INSERT', 'REFERENCING NEW TABLE AS nuevas FOR EACH STATEMENT', 'adelantar', 'O'),
        ('public.generos', 'generos_movidas', 'AFTER UPDATE', 'REFERENCING NEW TABLE AS nuevas FOR EACH STATEMENT', 'adelantar', 'O'),
        ('public.generos', 'generos_no_truncar', 'BEFORE TRUNCATE', 'FOR EACH STATEMENT', 'no_truncar', 'O');
END;

-- Those of them that are missing or replaced (esta is null) or not enabled as they must be (debe). ALTER TABLE ... DISABLE TRIGGER ALL and ENABLE TRIGGER ALL,
-- as a restore of data alone runs them, make ordinary triggers of the replica ones. Then nothing settles what arrives.
CREATE OR REPLACE FUNCTION imdb_ha.disparadores_mal()
RETURNS TABLE (tabla text, nombre text, esta text, debe text)
LANGUAGE sql STABLE SET search_path = '' AS $$
    SELECT d.tabla, d.nombre, t.tgenabled::text, d.modo
    FROM imdb_ha.disparadores() AS d
    LEFT JOIN pg_catalog.pg_trigger AS t
        ON t.tgrelid = pg_catalog.to_regclass(d.tabla) AND t.tgname = d.nombre
        -- Another trigger of that name is none of ours. Those for what arrives have a condition, the others have none.
        AND pg_catalog.strpos(pg_catalog.pg_get_triggerdef(t.oid), ' ' || d.cuando || ' ON ') > 0
        AND pg_catalog.strpos(pg_catalog.pg_get_triggerdef(t.oid), ' ' || d.forma || ' ') > 0
        AND pg_catalog.strpos(pg_catalog.pg_get_triggerdef(t.oid), ' imdb_ha.' || d.funcion || '()') > 0
        AND CASE d.modo
            WHEN 'R' THEN pg_catalog.strpos(pg_catalog.pg_get_triggerdef(t.oid), ' WHEN ((pg_trigger_depth() = 0)) ') > 0
            ELSE pg_catalog.strpos(pg_catalog.pg_get_triggerdef(t.oid), ' WHEN (') = 0
        END
    WHERE t.tgenabled::text IS DISTINCT FROM d.modo
$$;

-- How often each master has begun to serve: this one by its own count, its peer by what it was told of it. A master whose own count is
-- below what its peer knows of it is an older copy of itself. Local, never replicated.
CREATE TABLE IF NOT EXISTS imdb_ha.arranques (
    nodo smallint PRIMARY KEY,
    numero bigint NOT NULL
);
INSERT INTO imdb_ha.arranques (nodo, numero) VALUES (1, 0), (2, 0) ON CONFLICT DO NOTHING;

-- Counts that this master begins to serve.
CREATE OR REPLACE FUNCTION imdb_ha.contar_arranque() RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = ''
AS 'UPDATE imdb_ha.arranques SET numero = numero + 1 WHERE nodo = imdb_ha.este_nodo()';

-- Keeps how often the peer has begun to serve.
CREATE OR REPLACE FUNCTION imdb_ha.anotar_arranques(del_otro bigint) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = ''
AS 'UPDATE imdb_ha.arranques SET numero = del_otro WHERE nodo <> imdb_ha.este_nodo() AND numero < del_otro';

-- What this master remembers of both: how far it has applied its peer's WAL (nothing without a subscription), and both counts.
CREATE OR REPLACE FUNCTION imdb_ha.memoria(suscripcion text, OUT aplicado bigint, OUT propios bigint, OUT del_otro bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ''
AS $$
    SELECT
        (
            SELECT (o.remote_lsn - '0/0')::bigint
            FROM pg_catalog.pg_subscription AS s
            JOIN pg_catalog.pg_database AS d ON d.oid = s.subdbid AND d.datname = pg_catalog.current_database()
            JOIN pg_catalog.pg_replication_origin_status AS o ON o.external_id = 'pg_' || s.oid
            WHERE s.subname = suscripcion
        ),
        (SELECT numero FROM imdb_ha.arranques WHERE nodo = imdb_ha.este_nodo()),
        (SELECT numero FROM imdb_ha.arranques WHERE nodo <> imdb_ha.este_nodo())
$$;
REVOKE ALL ON FUNCTION imdb_ha.contar_arranque(), imdb_ha.anotar_arranques(bigint), imdb_ha.memoria(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION imdb_ha.contar_arranque(), imdb_ha.anotar_arranques(bigint), imdb_ha.memoria(text) TO pg_monitor;
