//! IMDb's seven files, as a table: what each is called, what its first line says, and into which tables its rows go.

/// One of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    Titles,
    Names,
    Crew,
    Principals,
    Episodes,
    Akas,
    Ratings,
}

/// A table that a file fills; it is exchanged as a whole with each load of that file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    pub name: &'static str,
    /// In the order in which the loader writes them.
    pub columns: &'static str,
}

/// What is known of a file.
#[derive(Debug)]
pub struct Layout {
    pub file: File,
    /// Its name without `.tsv` or `.tsv.gz`.
    pub name: &'static str,
    /// The names of its columns, which its first line must have exactly so.
    pub header: &'static [&'static str],
    /// Empty for the ratings, which stand in the rows of their titles.
    pub tables: &'static [Table],
    /// Whether its rows are told apart by a title and a place in its list.
    pub has_places: bool,
    /// Whether its rows belong to titles, and to persons, which must be there.
    pub needs_titles: bool,
    pub needs_persons: bool,
}

const fn table(name: &'static str, columns: &'static str) -> Table {
    Table { name, columns }
}

/// The titles, whose last two columns come from the file of ratings.
pub const TITULOS: &[Table] = &[table(
    "titulos",
    "id_titulo, id_tipo_titulo, titulo_principal, titulo_original, es_adulto, anio_inicio, anio_fin, duracion_min, \
     promedio, votos",
)];

/// The most tables that one file fills.
pub const TABLES_MAX: usize = 3;

/// All of them, in the order in which they are loaded: what others refer to comes first.
pub const LAYOUTS: &[Layout] = &[
    Layout {
        file: File::Titles,
        name: "title.basics",
        header: &[
            "tconst",
            "titleType",
            "primaryTitle",
            "originalTitle",
            "isAdult",
            "startYear",
            "endYear",
            "runtimeMinutes",
            "genres",
        ],
        tables: &[
            TITULOS[0],
            table("titulo_genero", "id_titulo, id_genero, orden"),
        ],
        has_places: false,
        needs_titles: false,
        needs_persons: false,
    },
    Layout {
        file: File::Names,
        name: "name.basics",
        header: &[
            "nconst",
            "primaryName",
            "birthYear",
            "deathYear",
            "primaryProfession",
            "knownForTitles",
        ],
        tables: &[
            table(
                "personas",
                "id_persona, nombre, anio_nacimiento, anio_muerte",
            ),
            table("persona_profesion", "id_persona, id_profesion, orden"),
            table("persona_conocida", "id_persona, id_titulo, orden"),
        ],
        has_places: false,
        needs_titles: false,
        needs_persons: false,
    },
    Layout {
        file: File::Crew,
        name: "title.crew",
        header: &["tconst", "directors", "writers"],
        tables: &[
            table("titulo_director", "id_titulo, id_persona, orden"),
            table("titulo_escritor", "id_titulo, id_persona, orden"),
        ],
        has_places: false,
        needs_titles: true,
        needs_persons: true,
    },
    Layout {
        file: File::Principals,
        name: "title.principals",
        header: &[
            "tconst",
            "ordering",
            "nconst",
            "category",
            "job",
            "characters",
        ],
        tables: &[table(
            "participaciones",
            "id_titulo, orden, id_persona, id_categoria, trabajo, personajes",
        )],
        has_places: true,
        needs_titles: true,
        needs_persons: true,
    },
    Layout {
        file: File::Episodes,
        name: "title.episode",
        header: &["tconst", "parentTconst", "seasonNumber", "episodeNumber"],
        tables: &[table(
            "episodios",
            "id_titulo, id_serie, temporada, episodio",
        )],
        has_places: false,
        needs_titles: true,
        needs_persons: false,
    },
    Layout {
        file: File::Akas,
        name: "title.akas",
        header: &[
            "titleId",
            "ordering",
            "title",
            "region",
            "language",
            "types",
            "attributes",
            "isOriginalTitle",
        ],
        tables: &[table(
            "titulos_alternos",
            "id_titulo, orden, titulo, region, idioma, tipos, atributos, es_original",
        )],
        has_places: true,
        needs_titles: true,
        needs_persons: false,
    },
    Layout {
        file: File::Ratings,
        name: "title.ratings",
        header: &["tconst", "averageRating", "numVotes"],
        tables: &[],
        has_places: false,
        needs_titles: true,
        needs_persons: false,
    },
];

impl Layout {
    /// The layout whose first line is this one; each file has another.
    pub fn of_header(line: &str) -> Option<&'static Layout> {
        LAYOUTS
            .iter()
            .find(|layout| line.split('\t').eq(layout.header.iter().copied()))
    }

    /// The names of the columns, as they stand in the first line.
    pub fn first_line(&self) -> String {
        self.header.join("\t")
    }
}

/// The file that fills a table.
pub fn filler_of(table: &str) -> Option<&'static Layout> {
    LAYOUTS
        .iter()
        .find(|layout| layout.tables.iter().any(|of_file| of_file.name == table))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_is_known_by_its_first_line_and_each_table_by_its_file() {
        for layout in LAYOUTS {
            let found = Layout::of_header(&layout.first_line()).expect(layout.name);
            assert_eq!(found.file, layout.file);
            assert!(layout.tables.len() <= TABLES_MAX);
            for table in layout.tables {
                assert_eq!(
                    filler_of(table.name).map(|found| found.file),
                    Some(layout.file)
                );
            }
        }
        assert!(Layout::of_header("tconst\taverageRating").is_none());
        assert!(filler_of("generos").is_none());
    }
}
