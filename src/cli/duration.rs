// SPDX-License-Identifier: Apache-2.0
//! A length of time on the command line: a number with its unit, `500ms`, `10s`, `1.5s` or `2m`.
//!
//! A number alone is refused: nobody should have to guess whether it means seconds or milliseconds.

use std::time::Duration;

/// The longest that may be asked for.
const MAX: Duration = Duration::from_secs(24 * 3_600);
/// Units by their signs; of two that fit, the longer sign comes first.
const UNITS: [(&str, f64); 4] = [("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3_600.0)];

/// A length of more than 0 and at most a day.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let unclear = || "not a number with a unit, as in 500ms, 10s or 2m".to_owned();
    let (number, unit) = UNITS
        .iter()
        .find_map(|(sign, seconds)| Some((text.strip_suffix(sign)?, seconds)))
        .ok_or_else(unclear)?;
    let plain = |c: char| c.is_ascii_digit() || c == '.';
    let number: f64 = match number.chars().all(plain) {
        true => number.parse().map_err(|_| unclear())?,
        false => return Err(unclear()),
    };
    let length = Duration::try_from_secs_f64(number * unit).unwrap_or(Duration::MAX);
    if length.is_zero() {
        return Err("must be more than 0".to_owned());
    }
    if length > MAX {
        return Err("must be at most 24h".to_owned());
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::parse;
    use std::time::Duration;

    #[test]
    fn numbers_with_units_are_lengths() {
        for (text, ms) in [
            ("500ms", 500),
            ("10s", 10_000),
            ("1.5s", 1_500),
            ("2m", 120_000),
            ("24h", 86_400_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused_with_why() {
        for text in [
            "", "10", "s", "ms", "-1s", "+1s", "1 s", "1e3s", "infs", "NaNs", "1.2.3s", "10S",
        ] {
            let said = parse(text).unwrap_err();
            assert!(said.contains("unit"), "{text:?}: {said}");
        }
        for text in ["0s", "0.0ms", "0.0000000001s"] {
            assert_eq!(parse(text), Err("must be more than 0".to_owned()), "{text}");
        }
        for text in ["25h", "99999999999999999999999999h"] {
            assert_eq!(parse(text), Err("must be at most 24h".to_owned()), "{text}");
        }
    }
}
