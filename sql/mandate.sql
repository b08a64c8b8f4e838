-- Which of several API processes decides, as this master knows it. Local, never replicated: each master is told by that process
-- itself, so that one which was cut off or stood still is refused wherever another one has been. One row. Idempotent.
CREATE TABLE IF NOT EXISTS imdb_ha.mandato (
    unico boolean PRIMARY KEY DEFAULT true CHECK (unico),
    -- Each who decides has a higher one than all before.
    termino bigint NOT NULL,
    titular text NOT NULL,
    -- The server process of its session that holds the lock 1229800514, 1: alive while that is there.
    proceso integer NOT NULL,
    direccion text NOT NULL,
    -- The master that it serves from; null while it serves from none.
    activo text,
    pausa_hasta timestamptz,
    desde timestamptz NOT NULL DEFAULT clock_timestamp()
);
GRANT SELECT ON imdb_ha.mandato TO pg_monitor;

-- Keeps who decides, unless a newer one is known, and returns the newest term that is known then. A new term waits until no order
-- of an older one is being carried out. A master that can write nothing keeps nothing, which is told and is no error: what it is
-- told to do may be just what frees it.
CREATE OR REPLACE FUNCTION imdb_ha.tomar_mandato(
    nuevo bigint, quien text, donde text, sirve text, pausa_ms bigint, OUT vigente bigint, OUT guardado boolean
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$
DECLARE
    ahora imdb_ha.mandato;
    hasta timestamptz := clock_timestamp() + pausa_ms * interval '1 millisecond';
BEGIN
    SELECT * INTO ahora FROM imdb_ha.mandato;
    vigente := coalesce(ahora.termino, 0);
    guardado := true;
    IF vigente > nuevo OR (vigente = nuevo AND ahora.titular <> quien) THEN
        guardado := false;
        RETURN;
    END IF;
    IF vigente = nuevo AND ahora.proceso = pg_catalog.pg_backend_pid()
        AND ahora.direccion = donde AND ahora.activo IS NOT DISTINCT FROM sirve
        AND (ahora.pausa_hasta IS NULL) = (hasta IS NULL)
        AND coalesce(abs(extract(epoch FROM ahora.pausa_hasta - hasta)) < 2, true)
    THEN
        RETURN;
    END IF;
    IF vigente < nuevo THEN
        PERFORM pg_catalog.pg_advisory_xact_lock(1229800514, 2);
    END IF;
    BEGIN
        INSERT INTO imdb_ha.mandato AS m (termino, titular, proceso, direccion, activo, pausa_hasta)
        VALUES (nuevo, quien, pg_catalog.pg_backend_pid(), donde, sirve, hasta)
        ON CONFLICT (unico) DO UPDATE SET
            (termino, titular, proceso, direccion, activo, pausa_hasta, desde)
                = (nuevo, quien, excluded.proceso, donde, sirve, hasta,
                    CASE m.termino WHEN nuevo THEN m.desde ELSE clock_timestamp() END)
            WHERE m.termino < nuevo OR (m.termino = nuevo AND m.titular = quien);
        guardado := FOUND;
    EXCEPTION WHEN read_only_sql_transaction OR insufficient_resources OR io_error THEN
        RAISE WARNING 'no se pudo guardar el mandato %: %', nuevo, SQLERRM;
        guardado := false;
    END;
    SELECT coalesce(max(termino), 0) INTO vigente FROM imdb_ha.mandato;
END
$$;
REVOKE ALL ON FUNCTION imdb_ha.tomar_mandato(bigint, text, text, text, bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION imdb_ha.tomar_mandato(bigint, text, text, text, bigint) TO pg_monitor;

-- Begins an order of the process that decides, refused when a newer one is known. The session holds the lock until the order is
-- carried out, because ALTER SYSTEM cannot be part of a transaction; it gives it back by itself. An order takes milliseconds, so it
-- waits for another one no longer than a moment.
CREATE OR REPLACE FUNCTION imdb_ha.empezar_orden(suyo bigint, quien text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' SET lock_timeout = '300ms' AS $$
DECLARE
    ahora imdb_ha.mandato;
BEGIN
    PERFORM pg_catalog.pg_advisory_lock(1229800514, 2);
    BEGIN
        SELECT * INTO ahora FROM imdb_ha.mandato;
    EXCEPTION WHEN OTHERS THEN
        -- A session's lock outlives its transaction.
        PERFORM pg_catalog.pg_advisory_unlock(1229800514, 2);
        RAISE;
    END;
    IF ahora.termino > suyo OR (ahora.termino = suyo AND ahora.titular <> quien) THEN
        PERFORM pg_catalog.pg_advisory_unlock(1229800514, 2);
        RAISE EXCEPTION 'orden del mandato % rechazada: aquí rige el % de %', suyo, ahora.termino, ahora.titular
            USING ERRCODE = 'IHA01';
    END IF;
END
$$;
REVOKE ALL ON FUNCTION imdb_ha.empezar_orden(bigint, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION imdb_ha.empezar_orden(bigint, text) TO pg_monitor;
