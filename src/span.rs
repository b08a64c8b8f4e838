//! Spans of time as people write them: `90s`, `10m`, `2h`.

use std::time::Duration;

/// Each unit and its milliseconds.
const UNITS: &[(&str, u64)] = &[
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// A whole number with its unit; without one it is seconds.
pub fn parse(text: &str) -> Option<Duration> {
    let text = text.trim();
    let end = text
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: u64 = number.parse().ok()?;
    let per_unit = match unit.trim() {
        "" => 1_000,
        unit => UNITS.iter().find(|(name, _)| *name == unit)?.1,
    };
    number.checked_mul(per_unit).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_numbers_with_units() {
        let ms = |text| parse(text).map(|span| span.as_millis());
        assert_eq!(ms("90s"), Some(90_000));
        assert_eq!(ms("10m"), Some(600_000));
        assert_eq!(ms(" 2 h "), Some(7_200_000));
        assert_eq!(ms("250ms"), Some(250));
        assert_eq!(ms("30"), Some(30_000));
        for wrong in [
            "",
            "m",
            "-1s",
            "1.5h",
            "1w",
            "1h30m",
            "99999999999999999999s",
            "9999999999999999d",
        ] {
            assert_eq!(ms(wrong), None, "{wrong}");
        }
    }
}
