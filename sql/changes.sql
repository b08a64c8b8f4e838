-- What a master adds to the changes of its own sessions, so that the peer can settle them; see
-- sql/conflicts.sql for that half. Idempotent. The set-up runs this last: the peer must know
-- the tables before anything arrives in them.
--
-- The functions run with the rights of their owner: who may write a genre need not be allowed to
-- write deletions.

-- An update gets a stamp that is later than that of the version it replaces. A statement may bring its
-- own time (the API does: that of the request). It is also sent as a row of imdb_ha.cambios, before
-- the update itself; and a row that gets another id is deleted under its old one.
CREATE OR REPLACE FUNCTION imdb_ha.sellar() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$
DECLARE
    base timestamptz := OLD.cambiado_en;
BEGIN
    -- Somebody has it fire for what arrives as well (imdb_ha.disparadores_mal): that has its stamp already. So for the others.
    IF pg_catalog.current_setting('session_replication_role') = 'replica' THEN
        RETURN NEW;
    END IF;
    IF NEW.cambiado_en IS NOT DISTINCT FROM OLD.cambiado_en THEN
        NEW.cambiado_en := pg_catalog.clock_timestamp();
    END IF;
    NEW.cambiado_en := GREATEST(NEW.cambiado_en, OLD.cambiado_en + interval '1 microsecond');
    NEW.nodo := imdb_ha.este_nodo();
    IF NEW.id_genero <> OLD.id_genero THEN
        base := NULL;
        INSERT INTO imdb_ha.borrados (id_genero, cuando, nodo, fila)
        VALUES (OLD.id_genero, NEW.cambiado_en, NEW.nodo, pg_catalog.to_jsonb(OLD));
    END IF;
    INSERT INTO imdb_ha.cambios (id_genero, fila, base)
    VALUES (NEW.id_genero, pg_catalog.to_jsonb(NEW), base);
    DELETE FROM imdb_ha.cambios WHERE id_genero = NEW.id_genero;
    RETURN NEW;
END
$$;

-- A deletion leaves its record, stamped with the time of the request if the statement's transaction has
-- set one (imdb_ha.hora), so that a request which was stuck on a frozen master and runs when that
-- thaws deletes nothing that has been made since.
CREATE OR REPLACE FUNCTION imdb_ha.enterrar() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$
DECLARE
    hora timestamptz := nullif(pg_catalog.current_setting('imdb_ha.hora', true), '')::timestamptz;
BEGIN
    IF pg_catalog.current_setting('session_replication_role') = 'replica' THEN
        RETURN OLD;
    END IF;
    INSERT INTO imdb_ha.borrados (id_genero, cuando, nodo, fila)
    VALUES (
        OLD.id_genero,
        GREATEST(coalesce(hora, pg_catalog.clock_timestamp()), OLD.cambiado_en + interval '1 microsecond'),
        imdb_ha.este_nodo(),
        pg_catalog.to_jsonb(OLD)
    );
    RETURN OLD;
END
$$;

-- A new row, or one under a new id, comes after every deletion of that id that this master knows of,
-- even when the clocks say otherwise: else the peer would refuse it. Asked after the key was taken. An insert
-- of the API (imdb_ha.exacta) may have come late, and what was deleted may have been its own row, so it
-- keeps its time or fails.
CREATE OR REPLACE FUNCTION imdb_ha.adelantar() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$
BEGIN
    IF pg_catalog.current_setting('session_replication_role') = 'replica' THEN
        RETURN NULL;
    END IF;
    IF EXISTS (
        SELECT FROM nuevas AS n
        JOIN imdb_ha.borrados AS b ON b.id_genero = n.id_genero
        WHERE (b.cuando, b.nodo) >= (n.cambiado_en, n.nodo)
    ) THEN
        IF pg_catalog.current_setting('imdb_ha.exacta', true) = 'on' THEN
            RAISE EXCEPTION 'un género de esta inserción se ha borrado mientras tanto'
                USING ERRCODE = 'serialization_failure';
        END IF;
        UPDATE public.generos AS g SET cambiado_en = b.cuando + interval '1 microsecond'
        FROM (
            SELECT id_genero, max(cuando) AS cuando FROM imdb_ha.borrados
            WHERE id_genero IN (SELECT id_genero FROM nuevas)
            GROUP BY id_genero
        ) AS b
        WHERE g.id_genero = b.id_genero AND g.cambiado_en <= b.cuando;
    END IF;
    RETURN NULL;
END
$$;

-- TRUNCATE fires nothing per row, so the peer could not tell what it deleted from what came after.
CREATE OR REPLACE FUNCTION imdb_ha.no_truncar() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF pg_catalog.current_setting('session_replication_role') = 'replica' THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION 'TRUNCATE de % no se admite, porque el otro maestro no podría conciliarlo', TG_RELID::regclass
        USING ERRCODE = 'feature_not_supported', HINT = 'Use DELETE FROM.';
END
$$;

-- As in sql/conflicts.sql.
REVOKE ALL ON FUNCTION imdb_ha.sellar(), imdb_ha.enterrar(), imdb_ha.adelantar() FROM PUBLIC;

DO $$
DECLARE
    disparador record;
BEGIN
    FOR disparador IN
        SELECT d.*, m.esta FROM imdb_ha.disparadores() AS d
        JOIN imdb_ha.disparadores_mal() AS m USING (tabla, nombre)
        WHERE d.modo = 'O'
    LOOP
        IF disparador.esta IS NULL THEN
            EXECUTE pg_catalog.format(
                'CREATE OR REPLACE TRIGGER %I %s ON %s %s EXECUTE FUNCTION imdb_ha.%I()',
                disparador.nombre, disparador.cuando, disparador.tabla, disparador.forma, disparador.funcion);
        ELSE
            EXECUTE pg_catalog.format(
                'ALTER TABLE %s ENABLE TRIGGER %I', disparador.tabla, disparador.nombre);
        END IF;
    END LOOP;
END
$$;
