SELECT imdb_ha.alinear_secuencias()
