-- How each of the tables $1 of schema public is made, as statements for one like it in schema imdb_carga; and what would be lost if it were
-- exchanged. With search_path = '', so that every name has its schema.
SELECT c.relname::text AS name,
    ARRAY(
        SELECT pg_catalog.format(
            'ALTER TABLE imdb_carga.%I ADD CONSTRAINT %I %s', c.relname, k.conname, pg_catalog.pg_get_constraintdef(k.oid)
        )
        FROM pg_catalog.pg_constraint AS k
        WHERE k.conrelid = c.oid AND k.contype IN ('p', 'u', 'x')
        ORDER BY k.contype, k.conname
    ) || ARRAY(
        SELECT pg_catalog.replace(
            pg_catalog.pg_get_indexdef(i.indexrelid),
            pg_catalog.format(' ON public.%I ', c.relname), pg_catalog.format(' ON imdb_carga.%I ', c.relname)
        )
        FROM pg_catalog.pg_index AS i
        WHERE i.indrelid = c.oid AND NOT EXISTS (
            SELECT FROM pg_catalog.pg_constraint AS k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x')
        )
        ORDER BY 1
    ) AS keys,
    ARRAY(
        SELECT pg_catalog.format(
            'GRANT %s ON public.%I TO %s%s', a.privilege_type, c.relname,
            CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(r.rolname) END,
            CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
        )
        FROM pg_catalog.aclexplode(c.relacl) AS a
        LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = a.grantee
        WHERE a.grantee <> c.relowner
        ORDER BY 1
    ) AS grants,
    ARRAY(
        SELECT DISTINCT pg_catalog.format('%s %s', CASE v.relkind WHEN 'm' THEN 'materialized view' ELSE 'view' END, v.oid::regclass)
        FROM pg_catalog.pg_depend AS d
        JOIN pg_catalog.pg_rewrite AS w ON w.oid = d.objid
        JOIN pg_catalog.pg_class AS v ON v.oid = w.ev_class
        WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid
            AND v.oid <> c.oid
        UNION ALL
        SELECT DISTINCT pg_catalog.format('function %s', d.objid::regprocedure)
        FROM pg_catalog.pg_depend AS d
        WHERE d.classid = 'pg_proc'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid
        UNION ALL
        SELECT pg_catalog.format('trigger %I', t.tgname)
        FROM pg_catalog.pg_trigger AS t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal
        UNION ALL
        SELECT pg_catalog.format('policy %I', p.polname) FROM pg_catalog.pg_policy AS p WHERE p.polrelid = c.oid
        UNION ALL
        SELECT pg_catalog.format('table %s inherits from it', h.inhrelid::regclass)
        FROM pg_catalog.pg_inherits AS h WHERE h.inhparent = c.oid
        ORDER BY 1
    ) AS obstacles
FROM pg_catalog.pg_class AS c
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND c.relname = ANY ($1)
ORDER BY c.relname
