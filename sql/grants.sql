-- What the role replicator may do on one master. Idempotent.
GRANT USAGE ON SCHEMA public TO replicator;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO replicator;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO replicator;
GRANT USAGE ON SCHEMA imdb_ha TO replicator;
GRANT SELECT ON imdb_ha.borrados, imdb_ha.cambios, imdb_ha.claves TO replicator;
