//! Durations and sizes as people write and read them.

use std::time::Duration;

/// The longest duration accepted: a year. Anything longer is a slip of the finger.
const DURATION_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// Reads `2s`, `500ms`, `1.5s`, `2m`, `1h` or `0`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let wrong = || format!("'{text}' is not a duration: write for example 2s, 500ms, 1.5s or 2m");
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "ms" => number / 1000.0,
        "s" => number,
        "m" | "min" => number * 60.0,
        "h" => number * 3600.0,
        "" if number == 0.0 => 0.0,
        "" => {
            return Err(format!("'{text}' has no unit: write {text}s or {text}ms"));
        }
        _ => return Err(wrong()),
    };
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if duration <= DURATION_MAX => Ok(duration),
        _ => Err(format!("'{text}' is too long: a year is the limit")),
    }
}

/// `90 s`, `12 min`, `3 h`: two significant places are enough for a table.
pub fn format_seconds(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// `512 B`, `1.5 KiB`, `64.0 MiB`.
pub fn format_bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in
            [("2s", 2000), ("500ms", 500), ("0", 0), ("0s", 0), ("1.5s", 1500), ("2m", 120_000)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "-1s", "1 s", "2x", "1.2.3s", "ms", "1e5s", "inf", "٣s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_number_without_a_unit_says_how_to_write_it() {
        assert_eq!(parse_duration("2").unwrap_err(), "'2' has no unit: write 2s or 2ms");
    }

    #[test]
    fn huge_durations_are_refused() {
        assert!(parse_duration("9000h").is_err());
        assert!(parse_duration(&format!("{}s", "9".repeat(400))).is_err());
    }

    #[test]
    fn sizes() {
        for (bytes, text) in
            [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (64 << 20, "64.0 MiB")]
        {
            assert_eq!(format_bytes(bytes), text);
        }
        assert_eq!(format_bytes(u64::MAX), "16777216.0 TiB");
    }

    #[test]
    fn uptimes() {
        let texts = [0, 119, 120, 7200, 172_800].map(format_seconds);
        assert_eq!(texts, ["0 s", "119 s", "2 min", "2 h", "2 d"]);
    }
}
