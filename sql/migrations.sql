-- Which migrations this master has; see src/replication/migrations.rs. Local, never replicated.
CREATE TABLE IF NOT EXISTS imdb_ha.migraciones (
    numero integer PRIMARY KEY,
    nombre text NOT NULL,
    sha256 text NOT NULL,
    aplicada timestamptz NOT NULL DEFAULT clock_timestamp()
);
