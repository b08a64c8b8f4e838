//! Every error that the API answers with, as one table: the machine's word, the status, and the text
//! in the manual's Spanish and in English. `{}` is the name or number in question.

/// One kind of error.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    /// A stable word for programs.
    pub code: &'static str,
    pub status: u16,
    pub es: &'static str,
    pub en: &'static str,
}

macro_rules! messages {
    ($($name:ident: $code:literal, $status:literal, $es:literal, $en:literal;)*) => {
        $(pub const $name: &Message = &Message { code: $code, status: $status, es: $es, en: $en };)*
        /// All of them, for the documentation and its test.
        pub const ALL: &[&Message] = &[$($name),*];
    };
}

messages! {
    GENERO_REQUIRED: "genero_required", 400,
        "El campo 'genero' es obligatorio: un texto que no esté vacío.",
        "Field 'genero' is required: a text that is not empty.";
    GENERO_TOO_LONG: "genero_too_long", 400,
        "El campo 'genero' admite hasta {} caracteres.",
        "Field 'genero' takes up to {} characters.";
    GENERO_NUL: "genero_nul", 400,
        "El campo 'genero' contiene un carácter NUL, que la base de datos no admite.",
        "Field 'genero' contains a NUL character, which the database cannot hold.";
    ID_INVALID: "id_invalid", 400,
        "'id_genero' debe ser un entero de 1 a 2147483647.",
        "'id_genero' must be an integer from 1 to 2147483647.";
    ID_MISMATCH: "id_mismatch", 400,
        "El 'id_genero' del cuerpo no es el de la ruta.",
        "The 'id_genero' of the body is not that of the path.";
    TCONST_INVALID: "tconst_invalid", 400,
        "El id de un título es como tt0111161, o solo su número, de 1 a 2147483647.",
        "A title's id is like tt0111161, or its number alone, from 1 to 2147483647.";
    NCONST_INVALID: "nconst_invalid", 400,
        "El id de una persona es como nm0000151, o solo su número, de 1 a 2147483647.",
        "A person's id is like nm0000151, or its number alone, from 1 to 2147483647.";
    BODY_INVALID: "body_invalid", 400,
        "El cuerpo no es JSON válido: {}.",
        "The body is not valid JSON: {}.";
    BODY_NOT_UTF8: "body_not_utf8", 400,
        "El cuerpo no es UTF-8 válido (a partir del byte {}).",
        "The body is not valid UTF-8 (from byte {} on).";
    BODY_NOT_OBJECT: "body_not_object", 400,
        "El cuerpo debe ser un objeto JSON, como {\"genero\": \"Drama\"}.",
        "The body must be a JSON object, such as {\"genero\": \"Drama\"}.";
    BODY_INCOMPLETE: "body_incomplete", 400,
        "El cuerpo no llegó completo.",
        "The body did not arrive in full.";
    PARAMETER_INVALID: "parameter_invalid", 400,
        "Parámetro no válido: {}.",
        "Invalid parameter: {}.";
    REQUEST_INVALID: "request_invalid", 400,
        "La petición no es HTTP/1.1 válido: {}.",
        "The request is not valid HTTP/1.1: {}.";
    FRAMING_INVALID: "framing_invalid", 400,
        "La longitud del cuerpo no está clara: hace falta un solo Content-Length, en dígitos, o bien 'Transfer-Encoding: chunked' sin él.",
        "The length of the body is not clear: it takes one Content-Length, in digits, or else 'Transfer-Encoding: chunked' without it.";
    FIELD_TWICE: "field_twice", 400,
        "El campo '{}' está dos veces.",
        "Field '{}' is there twice.";
    IDEMPOTENCY_KEY_INVALID: "idempotency_key_invalid", 400,
        "La cabecera Idempotency-Key debe ser una sola, de 1 a 255 caracteres ASCII visibles.",
        "Header Idempotency-Key must be a single one, of 1 to 255 visible ASCII characters.";
    TABLES_INVALID: "tables_invalid", 400,
        "'tables' debe ser una lista de nombres de tablas, como {\"tables\": [\"generos\"]}.",
        "'tables' must be a list of names of tables, such as {\"tables\": [\"generos\"]}.";
    TABLE_UNKNOWN: "table_unknown", 400,
        "Ningún maestro tiene una tabla {}.",
        "Neither master has a table {}.";
    BACKUP_INVALID: "backup_invalid", 400,
        "Campo no válido: {}.",
        "Invalid field: {}.";
    LOAD_INVALID: "load_invalid", 400,
        "Lo recibido no es ninguno de los ficheros de IMDb (.tsv o .tsv.gz).",
        "What has arrived is none of IMDb's files (.tsv or .tsv.gz).";
    UNAUTHORIZED: "unauthorized", 401,
        "Esta operación requiere 'Authorization: Bearer' con el token de administración.",
        "This operation needs 'Authorization: Bearer' with the admin token.";
    FORBIDDEN: "forbidden", 403,
        "Sin ADMIN_TOKEN, esta operación solo se acepta desde este mismo equipo y fuera de un navegador ajeno.",
        "Without an ADMIN_TOKEN this operation is taken only from this machine itself, and not from a foreign web page.";
    NOT_FOUND: "not_found", 404,
        "No existe la ruta.",
        "There is no such path.";
    GENERO_NOT_FOUND: "genero_not_found", 404,
        "No existe un género con id_genero {}.",
        "There is no genre with id_genero {}.";
    TITULO_NOT_FOUND: "titulo_not_found", 404,
        "No existe un título {}.",
        "There is no title {}.";
    PERSONA_NOT_FOUND: "persona_not_found", 404,
        "No existe una persona {}.",
        "There is no person {}.";
    BACKUP_NOT_FOUND: "backup_not_found", 404,
        "No existe esa copia de seguridad de {}.",
        "There is no such backup of {}.";
    JOB_NOT_FOUND: "job_not_found", 404,
        "No existe ese trabajo, o ya no se recuerda.",
        "There is no such job, or it is not remembered any more.";
    METHOD_NOT_ALLOWED: "method_not_allowed", 405,
        "La ruta no admite ese método; admite: {}.",
        "The path does not take that method; it takes: {}.";
    REQUEST_TIMEOUT: "request_timeout", 408,
        "La petición no llegó completa a tiempo.",
        "The request did not arrive in full in time.";
    ID_TAKEN: "id_taken", 409,
        "Conflicto de clave primaria: el id_genero {} ya existe.",
        "Primary key conflict: id_genero {} exists already.";
    GENERO_IN_USE: "genero_in_use", 409,
        "Hay títulos con el género {}; no se borró.",
        "There are titles of genre {}; it was not deleted.";
    IDEMPOTENCY_KEY_BUSY: "idempotency_key_busy", 409,
        "Otra petición con esta Idempotency-Key está en curso; intente de nuevo en un momento.",
        "Another request with this Idempotency-Key is under way; try again in a moment.";
    TARGET_DOWN: "target_down", 409,
        "No se cambió de nodo: {} no está disponible.",
        "The node was not switched: {} is not available.";
    TARGET_BEHIND: "target_behind", 409,
        "No se cambió de nodo: {} no está al día.",
        "The node was not switched: {} is behind.";
    TARGET_UNFIT: "target_unfit", 409,
        "No se cambió de nodo: {} rechaza las escrituras.",
        "The node was not switched: {} refuses writes.";
    HANDOVER_BUSY: "handover_busy", 409,
        "No se cambió a {}: ya hay otro cambio en curso.",
        "Not switched to {}: another switch is under way.";
    NOT_LEADER: "not_leader", 409,
        "Otro proceso de la API decide sobre el clúster; pídaselo a él.",
        "Another process of the API decides about the cluster; ask that one.";
    COMPARE_BUSY: "compare_busy", 409,
        "Ya hay una comparación en curso.",
        "A comparison is running already.";
    BACKUP_BUSY: "backup_busy", 409,
        "Ya hay un trabajo en curso con las copias de seguridad.",
        "Something is being done to the backups already.";
    BACKUP_NODE_DOWN: "backup_node_down", 409,
        "No se hizo la copia de seguridad: {} no está disponible.",
        "The backup was not made: {} is not available.";
    BACKUPS_OFF: "backups_off", 409,
        "Aquí no hay copias de seguridad configuradas.",
        "There are no backups configured here.";
    LOAD_BUSY: "load_busy", 409,
        "Ya se está cargando un fichero.",
        "A file is being loaded already.";
    LENGTH_REQUIRED: "length_required", 411,
        "Falta Content-Length, sin el que no se sabe si el fichero llegó entero; envíelo con 'curl -X POST -T FICHERO'.",
        "Content-Length is missing, without which nobody knows whether all of the file has arrived; send it with 'curl -X POST -T FILE'.";
    BODY_TOO_LARGE: "body_too_large", 413,
        "El cuerpo supera los {} bytes.",
        "The body is larger than {} bytes.";
    TARGET_TOO_LONG: "target_too_long", 414,
        "La línea de la petición supera los {} bytes.",
        "The request line is longer than {} bytes.";
    CODING_UNSUPPORTED: "coding_unsupported", 415,
        "El cuerpo no puede venir codificado con 'Content-Encoding: {}'; envíelo tal cual.",
        "The body cannot come with 'Content-Encoding: {}'; send it as it is.";
    TYPE_UNSUPPORTED: "type_unsupported", 415,
        "El cuerpo debe enviarse con 'Content-Type: application/json' y en UTF-8.",
        "The body must be sent with 'Content-Type: application/json' and in UTF-8.";
    EXPECTATION_FAILED: "expectation_failed", 417,
        "Solo se admite 'Expect: 100-continue'.",
        "Only 'Expect: 100-continue' is supported.";
    IDEMPOTENCY_KEY_REUSED: "idempotency_key_reused", 422,
        "Esta Idempotency-Key ya se usó con otra petición.",
        "This Idempotency-Key was used with another request already.";
    HEADERS_TOO_LARGE: "headers_too_large", 431,
        "Las cabeceras son demasiadas o demasiado largas; el máximo es {}.",
        "The headers are too many or too long; the most is {}.";
    INTERNAL: "internal", 500,
        "Error interno; está en el registro.",
        "Internal error; it is in the log.";
    DATABASE_ERROR: "database_error", 500,
        "La base de datos rechazó la operación.",
        "The database refused the operation.";
    NO_SEQUENCE: "no_sequence", 500,
        "USE_SEQUENCE=true, pero la tabla generos no tiene secuencia.",
        "USE_SEQUENCE=true, but the table generos has no sequence.";
    NO_FREE_ID: "no_free_id", 500,
        "No se encontró un id_genero libre; envíe uno.",
        "No free id_genero was found; send one.";
    LOAD_NO_ROOM: "load_no_room", 500,
        "No se pudo guardar el fichero mientras llegaba; vea LOAD_DIR.",
        "The file could not be kept while it arrived; see LOAD_DIR.";
    UNHEALTHY: "unhealthy", 500,
        "Ningún maestro puede atender.",
        "No master can serve.";
    METHOD_UNKNOWN: "method_unknown", 501,
        "El servidor no conoce ese método.",
        "The server does not know that method.";
    NO_MASTER: "no_master", 503,
        "Ningún maestro puede atender; intente de nuevo en unos segundos.",
        "No master can serve; try again in a few seconds.";
    LATE: "late", 503,
        "La operación no terminó a tiempo y no se realizó.",
        "The operation did not end in time and was not done.";
    OUTCOME_UNKNOWN: "outcome_unknown", 503,
        "No se sabe si la operación se realizó; compruébelo antes de repetirla.",
        "Whether the operation was done is not known; check before you repeat it.";
    STOPPING: "stopping", 503,
        "La API se está deteniendo y ya no empieza ese trabajo; intente de nuevo en unos segundos.",
        "The API is stopping and does not begin that job any more; try again in a few seconds.";
    OVERLOADED: "overloaded", 503,
        "Demasiadas peticiones a la vez; intente de nuevo en un momento.",
        "Too many requests at once; try again in a moment.";
    VERSION_UNSUPPORTED: "version_unsupported", 505,
        "Solo se admite HTTP/1.1 o HTTP/1.0.",
        "Only HTTP/1.1 or HTTP/1.0 is supported.";
}

/// The languages of the texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    Spanish,
    English,
}

impl Language {
    /// Chooses by an `Accept-Language` header: the one of the two with the higher quality, and
    /// Spanish when neither or both are asked for alike.
    pub fn preferred(header: &str) -> Language {
        let quality = |wanted: &str| {
            header
                .split(',')
                .filter_map(|item| {
                    let mut parts = item.split(';').map(str::trim);
                    let tag = parts.next()?.to_ascii_lowercase();
                    let matches = tag == wanted || tag.starts_with(&format!("{wanted}-"));
                    let quality = parts
                        .find_map(|part| part.strip_prefix("q="))
                        .map_or(Some(1.0), |quality| quality.parse::<f32>().ok())?;
                    matches.then_some(quality)
                })
                .fold(0.0, f32::max)
        };
        match quality("en") > quality("es") {
            true => Language::English,
            false => Language::Spanish,
        }
    }
}

impl Message {
    /// The text, with `detail` in its place.
    pub fn text(&self, language: Language, detail: &str) -> String {
        let text = match language {
            Language::Spanish => self.es,
            Language::English => self.en,
        };
        text.replace("{}", detail)
    }
}

/// The table as Markdown, as README shows it.
pub fn as_markdown() -> String {
    let mut text = String::from("| status | code | meaning |\n|---|---|---|\n");
    for message in ALL {
        text.push_str(&format!(
            "| {} | `{}` | {} |\n",
            message.status, message.code, message.en
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_both_texts_have_the_same_gap() {
        for message in ALL {
            let same = ALL
                .iter()
                .filter(|other| other.code == message.code)
                .count();
            assert_eq!(same, 1, "{}", message.code);
            assert_eq!(
                message.es.matches("{}").count(),
                message.en.matches("{}").count()
            );
        }
    }

    #[test]
    fn english_only_for_those_who_prefer_it() {
        for english in ["en", "en-US,en;q=0.9", "de, en;q=0.5", "es;q=0.1, en"] {
            assert_eq!(Language::preferred(english), Language::English, "{english}");
        }
        for spanish in [
            "",
            "es",
            "de",
            "*",
            "en;q=0.5, es",
            "english",
            "en;q=0",
            "en;q=x",
        ] {
            assert_eq!(Language::preferred(spanish), Language::Spanish, "{spanish}");
        }
    }
}
