//! Durations written `"1s"`, `"250ms"`, sizes written `"512MiB"` and bitrates written `"8Mbit/s"`, as
//! configuration has them.

use serde::{Deserialize, Deserializer, de::Error as _};
use std::time::Duration;

/// Reads `"250ms"`, `"1s"`, `"1.5m"`, `"2h"`, `"7d"` or `"0"`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let help = || {
        format!("expected a duration such as \"250ms\", \"10s\", \"5m\", \"2h\" or \"7d\", found {text:?}")
    };
    let (number, unit) = split(text).ok_or_else(help)?;
    let seconds = match unit {
        "" if number == 0.0 => 0.0,
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86400.0,
        _ => return Err(help()),
    };
    Duration::try_from_secs_f64(number * seconds).map_err(|_| help())
}

/// Reads `"2500kbit/s"`, `"8Mbit/s"`, `"0"`: bits a second.
pub fn parse_bitrate(text: &str) -> Result<u64, String> {
    let help = || format!("expected a bitrate such as \"2500kbit/s\" or \"8Mbit/s\", found {text:?}");
    let (number, unit) = split(text).ok_or_else(help)?;
    let factor = match unit.to_ascii_lowercase().trim_end_matches("/s") {
        "" if number == 0.0 => 0.0,
        "bit" => 1.0,
        "kbit" => 1e3,
        "mbit" => 1e6,
        "gbit" => 1e9,
        _ => return Err(help()),
    };
    let bits = number * factor;
    if bits < u64::MAX as f64 { Ok(bits as u64) } else { Err(help()) }
}

/// Reads `"512MiB"`, `"4GB"`, `"64KiB"`, `"100"` (bytes).
pub fn parse_size(text: &str) -> Result<u64, String> {
    let help = || format!("expected a size such as \"64KiB\", \"512MiB\" or \"4GB\", found {text:?}");
    let (number, unit) = split(text).ok_or_else(help)?;
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1000,
        "kib" | "k" => 1 << 10,
        "mb" => 1_000_000,
        "mib" | "m" => 1 << 20,
        "gb" => 1_000_000_000,
        "gib" | "g" => 1 << 30,
        "tb" => 1_000_000_000_000,
        "tib" | "t" => 1 << 40,
        _ => return Err(help()),
    };
    let bytes = number * factor as f64;
    if bytes < u64::MAX as f64 { Ok(bytes as u64) } else { Err(help()) }
}

fn split(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    Some((number, text[end..].trim()))
}

/// For `#[serde(deserialize_with)]` on a [`Duration`].
pub fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    parse_duration(&text(from)?).map_err(D::Error::custom)
}

/// For `#[serde(deserialize_with)]` on a size in bytes.
pub fn size<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    parse_size(&text(from)?).map_err(D::Error::custom)
}

/// For `#[serde(deserialize_with)]` on bits a second.
pub fn bitrate<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    parse_bitrate(&text(from)?).map_err(D::Error::custom)
}

/// A string, or the bare number that environment variables and `--set` may give.
fn text<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Text {
        Number(i64),
        Text(String),
    }
    Ok(match Text::deserialize(from)? {
        Text::Number(number) => number.to_string(),
        Text::Text(text) => text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_are_read_as_people_write_them() {
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        assert_eq!(parse_size("512MiB"), Ok(512 << 20));
        assert_eq!(parse_size("4GB"), Ok(4_000_000_000));
        for bad in ["", "5", "s", "-1s", "1 fortnight", "1e400s"] {
            assert!(parse_duration(bad).is_err(), "{bad:?} was taken for a duration");
        }
        assert_eq!(parse_bitrate("2500kbit/s"), Ok(2_500_000));
        assert_eq!(parse_bitrate("8 Mbit"), Ok(8_000_000));
        assert_eq!(parse_bitrate("0"), Ok(0));
        for bad in ["", "8", "8MB", "8Mbit/h", "-1kbit/s"] {
            assert!(parse_bitrate(bad).is_err(), "{bad:?} was taken for a bitrate");
        }
        for bad in ["", "MiB", "-1", "1XB", "99999999999TiB"] {
            assert!(parse_size(bad).is_err(), "{bad:?} was taken for a size");
        }
    }
}
