//! Quantities with units on the command line.

use std::time::Duration;

fn number_and_unit(text: &str) -> Option<(f64, String)> {
    let text = text.trim();
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let number: f64 = text[..split].trim().parse().ok()?;
    (number.is_finite() && number >= 0.0).then(|| (number, text[split..].to_ascii_lowercase()))
}

/// `4G`, `512MiB`, `1000000`.
pub fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || "expected a size such as 4G, 512M or 1073741824".to_owned();
    let (number, unit) = number_and_unit(text).ok_or_else(wrong)?;
    let factor = match unit.as_str() {
        "" | "b" => 1u64,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return Err(wrong()),
    };
    let value = number * factor as f64;
    if !(1.0..=1e18).contains(&value) {
        return Err("must be at least 1 byte and at most 1e18".into());
    }
    Ok(value as u64)
}

/// `600`, `90s`, `10m`, `2h`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a time such as 90s, 10m or 2h".to_owned();
    let (number, unit) = number_and_unit(text).ok_or_else(wrong)?;
    let factor = match unit.as_str() {
        "" | "s" | "sec" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(wrong()),
    };
    Duration::try_from_secs_f64(number * factor).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("4G", Some(4 << 30)),
            ("512 MiB", Some(512 << 20)),
            ("1.5k", Some(1536)),
            ("7", Some(7)),
            ("0", None),
            ("-1", None),
            ("4X", None),
            ("", None),
            ("inf", None),
            ("1e300", None),
            ("\u{e9}", None),
        ] {
            assert_eq!(bytes(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn times() {
        for (text, expected) in [
            ("600", Some(600)),
            ("90s", Some(90)),
            ("10m", Some(600)),
            ("2h", Some(7200)),
            ("0", Some(0)),
            ("soon", None),
            ("1e300h", None),
        ] {
            assert_eq!(duration(text).ok().map(|d| d.as_secs()), expected, "{text}");
        }
    }
}
