//! IMDb's ids as texts. The tables hold the number alone; `imdb_ha.tconst` and `imdb_ha.nconst` write it.

/// The number of a title's id: `tt0111161`, or the number alone. `None` for what is neither.
pub fn title(text: &str) -> Option<i32> {
    number(text.strip_prefix("tt").unwrap_or(text))
}

/// The number of a person's id: `nm0000151`, or the number alone. `None` for what is neither.
pub fn person(text: &str) -> Option<i32> {
    number(text.strip_prefix("nm").unwrap_or(text))
}

fn number(digits: &str) -> Option<i32> {
    let well_formed =
        (1..=10).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.parse().ok().filter(|number| *number >= 1);
    number.filter(|_| well_formed)
}

/// A title's id as IMDb writes it.
pub fn tconst(id: i32) -> String {
    format!("tt{id:07}")
}

/// A person's id as IMDb writes it.
pub fn nconst(id: i32) -> String {
    format!("nm{id:07}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_an_id() {
        for (text, id) in [
            ("tt0111161", 111_161),
            ("111161", 111_161),
            ("0111161", 111_161),
            ("tt35557166", 35_557_166),
            ("tt2147483647", i32::MAX),
            ("tt1", 1),
        ] {
            assert_eq!(title(text), Some(id), "{text}");
        }
        assert_eq!(person("nm0000151"), Some(151));
        assert_eq!(person("151"), Some(151));
        assert_eq!(tconst(111_161), "tt0111161");
        assert_eq!(tconst(i32::MAX), "tt2147483647");
    }

    #[test]
    fn what_is_no_id() {
        for text in [
            "",
            "tt",
            "0",
            "tt0000000",
            "-1",
            "+1",
            "tt-1",
            "nm0000151",
            "TT0111161",
            "tttt1",
            "2147483648",
            "00000000001",
            "1.0",
            " 1",
            "١",
        ] {
            assert_eq!(title(text), None, "{text}");
        }
        assert_eq!(person("tt0111161"), None);
    }
}
