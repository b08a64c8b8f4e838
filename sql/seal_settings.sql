-- Everything on which the text of a value depends, so that the same row has the same checksum on the master and on what was restored.
SET LOCAL datestyle = 'ISO, YMD';
SET LOCAL timezone = 'UTC';
SET LOCAL intervalstyle = 'postgres';
SET LOCAL extra_float_digits = 1;
SET LOCAL bytea_output = 'hex';
SET LOCAL lc_monetary = 'C';
SET LOCAL xmlbinary = 'base64';
SET LOCAL quote_all_identifiers = off;
SET LOCAL search_path = pg_catalog;
-- Rows that a policy hides would look like missing ones; this makes them an error.
SET LOCAL row_security = off;
SET LOCAL jit = off;
