-- All genres of one master in two figures: their number, and a checksum over what a client sees of them.
SELECT count(*), coalesce(md5(string_agg(id_genero || '=' || genero, ',' ORDER BY id_genero)), '')
FROM public.generos
