//! What PostgreSQL could not hold: it is rejected alone, and leaves nothing behind.

mod common;

use common::Cluster;
use common::films::*;

/// Different words, as many as fit, of characters that become six times as long when a search takes them apart.
fn longest_title(first: u32) -> String {
    let character = |place: u32| char::from_u32(0x3300 + place % 88).expect("a character");
    let words = (first..).map(|word| format!("{}{} ", character(word), character(word / 88)));
    let title: String = words.take(10_000 / 7).collect();
    let room = 10_000 - title.len();
    title + &"x".repeat(room)
}

/// A text in which nothing comes twice, so that no index can pack it.
fn unpackable(length: usize) -> String {
    let mut state = 7u64;
    let mut digit = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        char::from_digit((state >> 59) as u32 % 32, 32).expect("a digit")
    };
    (0..length).map(|_| digit()).collect()
}

#[test]
fn what_postgresql_would_refuse_is_a_reject_and_what_is_rejected_leaves_no_value_behind() {
    let cluster = Cluster::start();
    let files = Files::new();
    let long = unpackable(6_000);
    let list = |value: &str, separator: &str| vec![value; 40_000].join(separator);
    files.write(
        "title.basics.tsv",
        format!(
            "{BASICS}tt0000001\tmovie\t{}\t{}\t0\t\\N\t\\N\t\\N\tDrama,{long},Nuevo\n\
         tt0000002\tlargo\tT\t{}\t0\t\\N\t\\N\t\\N\tLargo\n\
         tt0000003\t{long}\tT\tT\t0\t\\N\t\\N\t\\N\tLargo\n\
         tt0000004\tshort\tT\tT\t0\t\\N\t\\N\t\\N\t{}\n\
         tt0000005\tnulo\tT\tT\t0\t\\N\t\\N\t\\N\tDra\0ma,Nulo\n\
         tt0000006\tancho\tT\tT\t0\t\\N\t\\N\t\\N\tDrama\tAncho\n\
         tt0000001\trepetido\tT\tT\t0\t\\N\t\\N\t\\N\tRepetido\n\
         tt0000007\tincompleto\tT\tT\t\\N\t\\N\t\\N\t\\N\tIncompleto\n",
            longest_title(0),
            longest_title(5_000),
            "\u{fdfa}".repeat(3_334),
            list("Drama", ",")
        ),
    );
    files.write("title.ratings.tsv", format!("{RATINGS}tt0000001\t9.3\t7\n"));
    files.write(
        "name.basics.tsv",
        format!(
            "{NAMES}nm0000001\tA\t\\N\t\\N\t{long},actor,nueva\t{}\n\
         nm0000002\tB\t\\N\t\\N\tactor,nu\0la\t\\N\n\
         nm0000003\tC\t19x0\t\\N\tnadie\t\\N\n",
            list("tt0000001", ",")
        ),
    );
    files.write(
        "title.crew.tsv",
        format!(
            "{CREW}tt0000001\t{}\tnm0000001,nm0000009\n",
            list("nm0000001", ",")
        ),
    );
    files.write(
        "title.principals.tsv",
        format!(
            "{PRINCIPALS}tt0000001\t1\tnm0000001\tnueva\t\\N\t\\N\n\
         tt0000001\t1\tnm0000001\trepetida\t\\N\t\\N\n\
         tt0000001\t2\tnm0000001\t{long}\t\\N\t\\N\n\
         tt0000001\t3\tnm0000001\tself\t\\N\t[{}]\n\
         tt0000404\t3\tnm0000001\tnadie\t\\N\t\\N\n",
            list("\"A\"", ",")
        ),
    );
    files.write(
        "title.akas.tsv",
        format!(
            "{AKAS}tt0000001\t1\tUno\tES\t\\N\t{}\tfestival\t0\n",
            list("tv", "\u{2}")
        ),
    );
    let outcome = loaded(&cluster, &files);
    assert_equal(&cluster);

    assert_eq!(counts(&outcome, "title.basics"), (8, 2, 6, 2));
    assert_eq!(counts(&outcome, "name.basics"), (3, 1, 2, 2));
    assert_eq!(counts(&outcome, "title.crew"), (1, 1, 0, 2));
    assert_eq!(counts(&outcome, "title.principals"), (5, 2, 3, 1));
    assert_eq!(counts(&outcome, "title.akas"), (1, 1, 0, 1));
    assert_eq!(
        rows(
            &cluster,
            "SELECT archivo, linea, num, columna, motivo, left(detalle, 12) AS detalle, fila IS NULL AS f \
             FROM rechazos ORDER BY 1, 2, 3"
        ),
        [
            "(name.basics,2,1,primaryProfession,\"valor no válido\",LONG,f)",
            "(name.basics,2,2,knownForTitles,\"valor no válido\",\"40000 valore\",t)",
            "(name.basics,3,1,,\"carácter NUL\",\"\",f)",
            "(name.basics,4,1,birthYear,\"número no válido\",19x0,f)",
            "(title.akas,2,1,types,\"valor no válido\",\"40000 valore\",f)",
            "(title.basics,2,1,genres,\"valor no válido\",LONG,f)",
            "(title.basics,3,1,originalTitle,\"valor no válido\",\u{fdfa}\u{fdfa}\u{fdfa}\u{fdfa}\u{fdfa}\u{fdfa}\u{fdfa}\u{fdfa}\u{fdfa}\u{fdfa}\u{fdfa}\u{fdfa},f)",
            "(title.basics,4,1,titleType,\"valor no válido\",LONG,f)",
            "(title.basics,5,1,genres,\"valor no válido\",\"40000 valore\",f)",
            "(title.basics,6,1,,\"carácter NUL\",\"\",f)",
            "(title.basics,7,1,,\"número de columnas\",\"10 en vez de\",f)",
            "(title.basics,8,1,tconst,\"clave repetida\",tt0000001,f)",
            "(title.basics,9,1,isAdult,\"falta el valor\",\"\\\\N\",f)",
            "(title.crew,2,1,directors,\"valor no válido\",\"40000 valore\",f)",
            "(title.crew,2,2,writers,\"identificador inexistente\",nm0000009,t)",
            "(title.principals,3,1,ordering,\"clave repetida\",1,f)",
            "(title.principals,4,1,category,\"valor no válido\",LONG,f)",
            "(title.principals,5,1,characters,\"valor no válido\",\"40000 valore\",f)",
            "(title.principals,6,1,tconst,\"identificador inexistente\",tt0000404,f)",
        ]
        .map(|row| row.replace("LONG", &long[..12]))
    );
    assert_eq!(new_values(&cluster), ["Nuevo", "nueva", "nueva"]);
    // What was loaded of those rows is all the rest of them, and the longest title can be found by its words.
    assert_eq!(
        rows(
            &cluster,
            "SELECT id_titulo, octet_length(titulo_principal) AS a, octet_length(titulo_original) AS b, length(buscable) > 2000 AS c \
             FROM titulos ORDER BY 1"
        ),
        ["(1,10000,10000,t)", "(4,1,1,)"]
    );
    assert_eq!(
        rows(
            &cluster,
            "SELECT cardinality(tipos), atributos FROM titulos_alternos"
        ),
        ["(,{festival})"]
    );
    assert_eq!(rows(&cluster, "SELECT * FROM titulo_escritor"), ["(1,1,1)"]);
    assert_eq!(
        rows(
            &cluster,
            "SELECT profesion FROM persona_profesion JOIN profesiones USING (id_profesion) ORDER BY orden"
        ),
        ["(actor)", "(nueva)"]
    );
}
