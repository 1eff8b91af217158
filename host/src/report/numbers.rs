//! How quantities are written for people.

/// Bytes with a binary unit and three digits: `92.9 MiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (count as f64, 0);
    // 999.5 would be written as 1000.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{count} B"),
        _ => format!("{} {}", three_digits(value), UNITS[unit]),
    }
}

/// Three significant digits, more for large whole parts.
fn three_digits(value: f64) -> String {
    match value.abs() {
        x if x < 9.995 => format!("{value:.2}"),
        x if x < 99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// A duration: `0.4 s`, `12.3 s`, `4 min 05 s`, `2 h 03 min`, `12 d 4 h`.
pub fn seconds(value: f64) -> String {
    if !value.is_finite() || value < 0.0 {
        return "?".into();
    }
    if value < 59.95 {
        return format!("{value:.1} s");
    }
    let whole = value.round() as u64;
    if whole < 3600 {
        return format!("{} min {:02} s", whole / 60, whole % 60);
    }
    if whole < 72 * 3600 {
        return format!("{} h {:02} min", whole / 3600, whole % 3600 / 60);
    }
    format!("{} d {} h", whole / 86_400, whole % 86_400 / 3600)
}

/// A count with a suffix: `135M`, `1.10B`.
pub fn count(value: u64) -> String {
    match value as f64 {
        x if x < 999.5 => format!("{value}"),
        x if x < 999.5e3 => format!("{}K", three_digits(x / 1e3)),
        x if x < 999.5e6 => format!("{}M", three_digits(x / 1e6)),
        x => format!("{}B", three_digits(x / 1e9)),
    }
}

/// Operations with a decimal suffix: `850 G`, `1.70 T`.
pub fn operations(value: f64) -> String {
    match value {
        x if x < 999.5e6 => format!("{} M", three_digits(x / 1e6)),
        x if x < 999.5e9 => format!("{} G", three_digits(x / 1e9)),
        x => format!("{} T", three_digits(x / 1e12)),
    }
}

/// A score with as many decimals as its size calls for.
pub fn score(value: f64) -> String {
    match value {
        x if x.is_nan() => "nan".into(),
        x if x.is_infinite() => if x > 0.0 { "inf" } else { "-inf" }.into(),
        x if x.abs() < 2.0 => format!("{x:.3}"),
        x if x.abs() < 1e3 => format!("{x:.2}"),
        x if x.abs() < 1e6 => format!("{x:.0}"),
        x => format!("{x:.2e}"),
    }
}

/// A score with its standard error, to the same decimals.
pub fn score_and_error(value: f64, stderr: Option<f64>) -> String {
    match stderr.filter(|e| e.is_finite()) {
        None => score(value),
        Some(error) => {
            let shown = score(value);
            let decimals = shown.split_once('.').map_or(0, |(_, d)| d.len());
            if shown.contains('e') || !value.is_finite() {
                shown
            } else {
                format!("{shown} ±{error:.decimals$}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_read_well() {
        for (given, expected) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "0.98 KiB"),
            (97_345_792, "92.8 MiB"),
            (1 << 40, "1.00 TiB"),
            (u64::MAX, "16777216 TiB"),
        ] {
            assert_eq!(bytes(given), expected);
        }
        for (given, expected) in [
            (0.0, "0.0 s"),
            (59.96, "1 min 00 s"),
            (245.2, "4 min 05 s"),
            (7380.0, "2 h 03 min"),
            (1_051_200.0, "12 d 4 h"),
            (f64::NAN, "?"),
        ] {
            assert_eq!(seconds(given), expected);
        }
        for (given, expected) in
            [(1.5e5, "0.15 M"), (850e9, "850 G"), (999.6e9, "1.00 T"), (2.2e13, "22.0 T")]
        {
            assert_eq!(operations(given), expected);
        }
        for (given, expected) in [(12, "12"), (134_515_008, "135M"), (1_100_048_384, "1.10B")] {
            assert_eq!(count(given), expected);
        }
    }

    #[test]
    fn errors_have_the_decimals_of_their_value() {
        for (value, error, expected) in [
            (0.4126, Some(0.0144), "0.413 ±0.014"),
            (17.046, Some(0.42), "17.05 ±0.42"),
            (123_456.7, Some(1234.5), "123457 ±1234"),
            (5.5e9, Some(1e9), "5.50e9"),
            (f64::INFINITY, None, "inf"),
            (f64::NAN, Some(1.0), "nan"),
            (0.5, None, "0.500"),
            (0.5, Some(f64::NAN), "0.500"),
        ] {
            assert_eq!(score_and_error(value, error), expected);
        }
    }
}
