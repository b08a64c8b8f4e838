-- What a master does with the changes that arrive from its peer. Idempotent. sql/changes.sql has the
-- other half: what a master adds to its own changes so that this half can settle them.
--
-- PostgreSQL's apply worker stops for ever at a key that exists already, lets two updates of one row
-- swap their values, and skips an update of a row that is not here. So each id is settled by itself,
-- as one register: of all versions and deletions of an id the one with the highest stamp counts, by
-- the time of the change and then by the number of the master, which comes out the same on both
-- masters in whichever order things arrive. A row is here when its stamp is higher than that of
-- every deletion of its id.
--
-- Where a local session may be at the same id at this moment, the key is taken first and the question
-- asked then; sql/changes.sql does the same from its side, so that one of the two sees the other. The
-- functions run with the rights of their owner (the apply worker has only those of the table's), and
-- name every schema, because the apply worker's search_path is empty.

-- Writes down one settled conflict, and keeps the newest 10,000. It must never stop the apply worker:
-- whatever goes wrong, a lock that somebody holds included, is a line in the server's log.
CREATE OR REPLACE FUNCTION imdb_ha.anotar_conflicto(
    tipo text, clave integer, gano text, aqui jsonb, llegada jsonb
) RETURNS void
LANGUAGE plpgsql SET search_path = '' SET lock_timeout = '200ms' AS $$
DECLARE
    nuevo bigint;
BEGIN
    INSERT INTO imdb_ha.conflictos (tabla, clave, tipo, gano, aqui, llegada)
    VALUES ('generos', clave::text, tipo, gano, aqui, llegada)
    RETURNING id INTO nuevo;
    DELETE FROM imdb_ha.conflictos WHERE id <= nuevo - 10000;
EXCEPTION WHEN OTHERS THEN
    RAISE WARNING 'imdb_ha: the % conflict of generos % was settled (% won) but not written down: %',
        tipo, clave, gano, SQLERRM;
END
$$;

-- Inserts a version as it is, and says whether nothing was in its way: another row of that key, or, if alguna, whatever else the table has
-- constraints about. Columns that PostgreSQL computes by itself are left out, since it takes no value for them, and so are those of which
-- the row as it was sent (fila) says nothing: they get their default. Which they are is asked each time, because somebody may add one at
-- any moment.
CREATE OR REPLACE FUNCTION imdb_ha.poner_genero(nueva public.generos, fila jsonb, alguna boolean) RETURNS boolean
LANGUAGE plpgsql SET search_path = '' AS $$
DECLARE
    columnas text;
    valores text;
    puestas bigint;
BEGIN
    IF EXISTS (
        SELECT FROM pg_catalog.pg_attribute
        WHERE attrelid = 'public.generos'::regclass AND attnum > 0 AND NOT attisdropped
            AND (attgenerated <> '' OR NOT fila ? attname::text)
    ) THEN
        SELECT pg_catalog.string_agg(pg_catalog.quote_ident(attname), ', '),
            pg_catalog.string_agg('($1).' || pg_catalog.quote_ident(attname), ', ')
        INTO columnas, valores
        FROM pg_catalog.pg_attribute
        WHERE attrelid = 'public.generos'::regclass AND attnum > 0 AND NOT attisdropped
            AND attgenerated = '' AND coalesce(fila ? attname::text, true);
        EXECUTE pg_catalog.format(
            'INSERT INTO public.generos (%s) OVERRIDING SYSTEM VALUE SELECT %s ON CONFLICT %s DO NOTHING',
            columnas, valores, CASE WHEN NOT alguna THEN '(id_genero)' END) USING nueva;
        GET DIAGNOSTICS puestas = ROW_COUNT;
        RETURN puestas > 0;
    ELSIF alguna THEN
        INSERT INTO public.generos OVERRIDING SYSTEM VALUE SELECT nueva.* ON CONFLICT DO NOTHING;
    ELSE
        INSERT INTO public.generos OVERRIDING SYSTEM VALUE SELECT nueva.* ON CONFLICT (id_genero) DO NOTHING;
    END IF;
    RETURN FOUND;
END
$$;
REVOKE ALL ON FUNCTION imdb_ha.poner_genero(public.generos, jsonb, boolean) FROM PUBLIC;

-- A version that arrives: as an insert, as an update, or carried by imdb_ha.cambios.
CREATE OR REPLACE FUNCTION imdb_ha.conciliar_generos() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$
DECLARE
    nueva public.generos;
    fila jsonb;
    base timestamptz;
    aqui public.generos;
    lapida imdb_ha.borrados;
BEGIN
    -- Somebody has made an ordinary trigger of it (imdb_ha.disparadores_mal). A session's own row is not a conflict,
    -- and to put it in from here would tell the session that it was left out.
    IF pg_catalog.current_setting('session_replication_role') <> 'replica' THEN
        IF TG_OP = 'DELETE' THEN
            RETURN OLD;
        END IF;
        RETURN NEW;
    END IF;
    -- A repair writes what the other master has, even if that is the older version.
    IF pg_catalog.current_setting('imdb_ha.reparar', true) = 'on' THEN
        IF TG_OP = 'DELETE' THEN
            RETURN OLD;
        END IF;
        RETURN NEW;
    END IF;
    IF TG_TABLE_NAME = 'cambios' THEN
        fila := NEW.fila;
        nueva := pg_catalog.jsonb_populate_record(NULL::public.generos, fila);
        base := NEW.base;
    ELSIF TG_OP = 'DELETE' THEN
        -- Its record in imdb_ha.borrados came before it and has settled it; what is still here is newer.
        -- Without a record it comes from a version of this program that wrote none.
        SELECT * INTO lapida FROM imdb_ha.borrados WHERE id_genero = OLD.id_genero
        ORDER BY cuando DESC, nodo DESC LIMIT 1;
        IF FOUND AND (OLD.cambiado_en, OLD.nodo) > (lapida.cuando, lapida.nodo) THEN
            RETURN NULL;
        END IF;
        RETURN OLD;
    ELSE
        nueva := NEW;
    END IF;
    IF TG_OP = 'UPDATE' THEN
        -- What was carried before it has settled it already, unless it comes from a version that carried
        -- nothing.
        IF (OLD.cambiado_en, OLD.nodo, OLD.genero COLLATE "C") >= (NEW.cambiado_en, NEW.nodo, NEW.genero COLLATE "C") THEN
            RETURN NULL;
        ELSIF OLD.id_genero = NEW.id_genero THEN
            RETURN NEW;
        END IF;
        -- The record of its old id has not removed it: it was copied after that, or there is none.
        DELETE FROM public.generos WHERE id_genero = OLD.id_genero;
    END IF;

    LOOP
        IF imdb_ha.poner_genero(nueva, fila, false) THEN
            SELECT * INTO lapida FROM imdb_ha.borrados WHERE id_genero = nueva.id_genero
            ORDER BY cuando DESC, nodo DESC LIMIT 1;
            IF FOUND AND (lapida.cuando, lapida.nodo) >= (nueva.cambiado_en, nueva.nodo) THEN
                DELETE FROM public.generos WHERE id_genero = nueva.id_genero;
                -- What was deleted may be this very version, sent to both masters: no conflict.
                IF (lapida.fila ->> 'cambiado_en')::timestamptz <> nueva.cambiado_en THEN
                    PERFORM imdb_ha.anotar_conflicto(
                        CASE WHEN base IS NULL THEN 'insert_delete' ELSE 'update_delete' END,
                        nueva.id_genero, 'local', pg_catalog.to_jsonb(lapida), pg_catalog.to_jsonb(nueva));
                END IF;
            ELSIF base IS NOT NULL AND lapida.cuando IS NOT NULL THEN
                PERFORM imdb_ha.anotar_conflicto('update_delete', nueva.id_genero, 'remote',
                    pg_catalog.to_jsonb(lapida), pg_catalog.to_jsonb(nueva));
            ELSIF base IS NOT NULL THEN
                PERFORM imdb_ha.anotar_conflicto('update_missing', nueva.id_genero, 'remote',
                    NULL, pg_catalog.to_jsonb(nueva));
            END IF;
            RETURN NULL;
        END IF;
        SELECT * INTO aqui FROM public.generos WHERE id_genero = nueva.id_genero FOR UPDATE;
        EXIT WHEN FOUND;
    END LOOP;

    -- A retry that reached both masters is the same version on both, and no conflict.
    IF (aqui.cambiado_en, aqui.genero) <> (nueva.cambiado_en, nueva.genero)
        AND aqui.cambiado_en IS DISTINCT FROM base THEN
        PERFORM imdb_ha.anotar_conflicto(
            CASE WHEN base IS NULL THEN 'insert_insert' ELSE 'update_update' END, nueva.id_genero,
            CASE WHEN (nueva.cambiado_en, nueva.nodo, nueva.genero COLLATE "C")
                > (aqui.cambiado_en, aqui.nodo, aqui.genero COLLATE "C") THEN 'remote' ELSE 'local' END,
            pg_catalog.to_jsonb(aqui), pg_catalog.to_jsonb(nueva));
    END IF;
    -- The update that was carried follows and does the rest.
    IF base IS NULL AND (nueva.cambiado_en, nueva.nodo, nueva.genero COLLATE "C")
        > (aqui.cambiado_en, aqui.nodo, aqui.genero COLLATE "C") THEN
        DELETE FROM public.generos WHERE id_genero = nueva.id_genero;
        PERFORM imdb_ha.poner_genero(nueva, fila, false);
    END IF;
    RETURN NULL;
END
$$;

-- A deletion that arrives. It is kept even when it loses, so that both masters hold the same ones.
CREATE OR REPLACE FUNCTION imdb_ha.conciliar_borrados() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$
DECLARE
    aqui public.generos;
    gana boolean;
BEGIN
    -- As above.
    IF pg_catalog.current_setting('session_replication_role') <> 'replica' THEN
        IF TG_OP = 'DELETE' THEN
            RETURN OLD;
        END IF;
        RETURN NEW;
    END IF;
    -- What a master copies that is being filled anew is not what somebody does now: the rows that belong to it come from
    -- the same copy, and a row that was copied before its deletion is followed by that. To ask for each is four times the work.
    IF TG_OP = 'INSERT' AND EXISTS (
        SELECT FROM pg_catalog.pg_subscription_rel WHERE srrelid = TG_RELID AND srsubstate = 'd'
    ) THEN
        RETURN NEW;
    END IF;
    -- Each master forgets old deletions by itself.
    IF TG_OP <> 'INSERT' OR EXISTS (
        SELECT FROM imdb_ha.borrados
        WHERE id_genero = NEW.id_genero AND cuando = NEW.cuando AND nodo = NEW.nodo
    ) THEN
        RETURN NULL;
    END IF;
    SELECT * INTO aqui FROM public.generos WHERE id_genero = NEW.id_genero FOR UPDATE;
    IF NOT FOUND THEN
        -- Somebody may be inserting this id right now. Taking the key waits for them; who comes later
        -- waits for us and finds the deletion.
        IF imdb_ha.poner_genero(pg_catalog.jsonb_populate_record(NULL::public.generos, NEW.fila), NEW.fila, true) THEN
            DELETE FROM public.generos WHERE id_genero = NEW.id_genero;
            RETURN NEW;
        END IF;
        SELECT * INTO aqui FROM public.generos WHERE id_genero = NEW.id_genero FOR UPDATE;
        IF NOT FOUND THEN
            RETURN NEW;
        END IF;
    END IF;
    gana := (NEW.cuando, NEW.nodo) >= (aqui.cambiado_en, aqui.nodo);
    IF gana THEN
        DELETE FROM public.generos WHERE id_genero = NEW.id_genero;
    END IF;
    -- No conflict: what is here is what was deleted; or both masters deleted that, and this row came later.
    IF aqui.cambiado_en <> (NEW.fila ->> 'cambiado_en')::timestamptz AND NOT EXISTS (
        SELECT FROM imdb_ha.borrados
        WHERE id_genero = NEW.id_genero
            AND (fila ->> 'cambiado_en')::timestamptz = (NEW.fila ->> 'cambiado_en')::timestamptz
    ) THEN
        PERFORM imdb_ha.anotar_conflicto('delete_update', NEW.id_genero,
            CASE WHEN gana THEN 'remote' ELSE 'local' END,
            pg_catalog.to_jsonb(aqui), pg_catalog.to_jsonb(NEW));
    END IF;
    RETURN NEW;
END
$$;

-- A key that arrives. Both masters have taken the same request when the first one's commit had not reached the other before that was asked
-- again. The later one counts, since it was answered last. A genre that the other one has made is deleted under its own stamp, on both masters alike,
-- unless somebody has changed it since; so one request leaves one row. Two requests that say something else and share a key by mistake are both kept.
CREATE OR REPLACE FUNCTION imdb_ha.conciliar_claves() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$
DECLARE
    aqui imdb_ha.claves;
    pierde imdb_ha.claves;
    gana text := 'local';
BEGIN
    -- As above.
    IF pg_catalog.current_setting('session_replication_role') <> 'replica'
        OR pg_catalog.current_setting('imdb_ha.reparar', true) = 'on' THEN
        IF TG_OP = 'DELETE' THEN
            RETURN OLD;
        END IF;
        RETURN NEW;
    END IF;
    IF TG_OP = 'INSERT' AND EXISTS (
        SELECT FROM pg_catalog.pg_subscription_rel WHERE srrelid = TG_RELID AND srsubstate = 'd'
    ) THEN
        RETURN NEW;
    END IF;
    -- Each master forgets old keys by itself.
    IF TG_OP <> 'INSERT' THEN
        RETURN NULL;
    END IF;
    LOOP
        INSERT INTO imdb_ha.claves SELECT NEW.* ON CONFLICT (clave) DO NOTHING;
        IF FOUND THEN
            RETURN NULL;
        END IF;
        SELECT * INTO aqui FROM imdb_ha.claves WHERE clave = NEW.clave FOR UPDATE;
        EXIT WHEN FOUND;
    END LOOP;
    pierde := NEW;
    IF (NEW.cuando, NEW.nodo) > (aqui.cuando, aqui.nodo) THEN
        pierde := aqui;
        gana := 'remote';
        DELETE FROM imdb_ha.claves WHERE clave = NEW.clave;
        INSERT INTO imdb_ha.claves SELECT NEW.*;
    END IF;
    IF NEW.huella = aqui.huella AND pierde.metodo = 'POST' AND NEW.id_genero <> aqui.id_genero THEN
        -- By neither master, so that it is the record of nobody's own deletion. Written out, because the text of a time depends on the settings of the server, and both masters must hold the same record.
        INSERT INTO imdb_ha.borrados (id_genero, cuando, nodo, fila)
        VALUES (
            pierde.id_genero, pierde.cuando + interval '1 microsecond', 0,
            pg_catalog.jsonb_build_object(
                'id_genero', pierde.id_genero, 'genero', pierde.genero, 'nodo', pierde.nodo,
                'cambiado_en', pg_catalog.to_char(pierde.cuando AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"')
            )
        ) ON CONFLICT DO NOTHING;
        DELETE FROM public.generos
        WHERE id_genero = pierde.id_genero
            AND (cambiado_en, nodo) <= (pierde.cuando + interval '1 microsecond', 0);
        PERFORM imdb_ha.anotar_conflicto('same_key', pierde.id_genero, gana,
            pg_catalog.to_jsonb(aqui) - 'huella', pg_catalog.to_jsonb(NEW) - 'huella');
    END IF;
    RETURN NULL;
END
$$;

-- Else anybody could put them on a table of their own and write deletions through it. Firing asks for
-- no right.
REVOKE ALL ON FUNCTION imdb_ha.conciliar_generos(), imdb_ha.conciliar_borrados(), imdb_ha.conciliar_claves() FROM PUBLIC;

-- REPLICA: they fire in the apply worker and nowhere else. The depth: what they write themselves is
-- settled already.
DO $$
DECLARE
    disparador record;
BEGIN
    FOR disparador IN
        SELECT d.* FROM imdb_ha.disparadores() AS d
        JOIN imdb_ha.disparadores_mal() AS m USING (tabla, nombre)
        WHERE d.modo = 'R'
    LOOP
        EXECUTE pg_catalog.format(
            'CREATE OR REPLACE TRIGGER %I %s ON %s %s
                WHEN (pg_catalog.pg_trigger_depth() = 0) EXECUTE FUNCTION imdb_ha.%I()',
            disparador.nombre, disparador.cuando, disparador.tabla, disparador.forma, disparador.funcion);
        EXECUTE pg_catalog.format(
            'ALTER TABLE %s ENABLE REPLICA TRIGGER %I', disparador.tabla, disparador.nombre);
    END LOOP;
END
$$;
