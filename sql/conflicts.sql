-- What settles two versions of one row, on one master. Idempotent.
--
-- PostgreSQL's apply worker stops for ever at a key that exists already, and lets two updates of the
-- same row swap their values. So the newer version wins here, by the time of the change and then by
-- the number of the master, which comes out the same on both. The functions name every schema,
-- because the apply worker's search_path is empty.

-- A change made on this master gets a stamp that is later than the one of the version it replaces.
-- A statement may bring its own time (the API does: that of the request).
CREATE OR REPLACE FUNCTION imdb_ha.sellar() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.cambiado_en IS NOT DISTINCT FROM OLD.cambiado_en THEN
        NEW.cambiado_en := pg_catalog.clock_timestamp();
    END IF;
    NEW.cambiado_en := GREATEST(NEW.cambiado_en, OLD.cambiado_en + interval '1 microsecond');
    NEW.nodo := imdb_ha.este_nodo();
    RETURN NEW;
END
$$;

-- A change that arrives from the peer. Returning NULL leaves the row here as it is.
CREATE OR REPLACE FUNCTION imdb_ha.conciliar_generos() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
    aqui public.generos;
BEGIN
    -- A repair writes what the other master has, even if that is the older version.
    IF pg_catalog.current_setting('imdb_ha.reparar', true) = 'on' THEN
        RETURN NEW;
    END IF;
    IF TG_OP = 'UPDATE' AND (OLD.cambiado_en, OLD.nodo) > (NEW.cambiado_en, NEW.nodo) THEN
        RETURN NULL;
    END IF;
    IF TG_OP = 'UPDATE' AND OLD.id_genero = NEW.id_genero THEN
        RETURN NEW;
    END IF;
    SELECT * INTO aqui FROM public.generos WHERE id_genero = NEW.id_genero FOR UPDATE;
    IF NOT FOUND THEN
        RETURN NEW;
    END IF;
    -- The same row, sent again: nothing to do. An older one: what is here stays.
    IF (NEW.cambiado_en, NEW.nodo) > (aqui.cambiado_en, aqui.nodo) THEN
        UPDATE public.generos
        SET genero = NEW.genero, cambiado_en = NEW.cambiado_en, nodo = NEW.nodo
        WHERE id_genero = NEW.id_genero;
    END IF;
    -- An update that moved its row to a key which is taken here: one row is left, under the new key.
    IF TG_OP = 'UPDATE' THEN
        DELETE FROM public.generos WHERE id_genero = OLD.id_genero;
    END IF;
    RETURN NULL;
END
$$;

DO $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_catalog.pg_trigger
        WHERE tgrelid = 'public.generos'::regclass AND tgname = 'generos_sellar'
    ) THEN
        CREATE TRIGGER generos_sellar BEFORE UPDATE ON public.generos
            FOR EACH ROW EXECUTE FUNCTION imdb_ha.sellar();
    END IF;
    IF NOT EXISTS (
        SELECT FROM pg_catalog.pg_trigger
        WHERE tgrelid = 'public.generos'::regclass AND tgname = 'generos_conciliar' AND tgenabled = 'R'
    ) THEN
        CREATE OR REPLACE TRIGGER generos_conciliar BEFORE INSERT OR UPDATE ON public.generos
            FOR EACH ROW EXECUTE FUNCTION imdb_ha.conciliar_generos();
        -- REPLICA: it fires in the apply worker and nowhere else.
        ALTER TABLE public.generos ENABLE REPLICA TRIGGER generos_conciliar;
    END IF;
END
$$;
