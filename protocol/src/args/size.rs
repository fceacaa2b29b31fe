//! Sizes as rsync's options spell them.

/// Reads a size such as `700`, `1.5m`, `2GB` or `10K-1` into bytes. A suffix is `b`, or one of `k m g t p` with `b` for
/// powers of 1000, with `ib` or nothing for powers of 1024; without one the number counts in `unit` (`b'b'`, `b'K'`).
/// `+1` and `-1` at the end move it by a byte. `None` for anything else and beyond 2^63-1.
pub fn parse_size(text: &[u8], unit: u8) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let (text, step) = match (text.strip_suffix("+1"), text.strip_suffix("-1")) {
        (Some(rest), _) => (rest, 1),
        (_, Some(rest)) => (rest, -1),
        _ => (text, 0),
    };
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let number: f64 = number.parse().ok()?;
    let mut suffix = suffix.to_ascii_lowercase();
    if suffix.is_empty() {
        suffix.push(char::from(unit.to_ascii_lowercase()));
    }
    let mut letters = suffix.chars();
    let power = match letters.next()? {
        'b' if suffix.len() == 1 => 0,
        'k' => 1,
        'm' => 2,
        'g' => 3,
        't' => 4,
        'p' => 5,
        _ => return None,
    };
    let base: f64 = match letters.as_str() {
        "" | "ib" => 1024.0,
        "b" => 1000.0,
        _ => return None,
    };
    let bytes = (number * base.powi(power)).trunc();
    if !(0.0..9.2e18).contains(&bytes) {
        return None;
    }
    i64::try_from(bytes as u64).ok()?.checked_add(step).and_then(|bytes| u64::try_from(bytes).ok())
}

#[cfg(test)]
mod tests {
    use super::parse_size;

    #[test]
    fn sizes_are_spelt_in_many_ways() {
        for (text, unit, bytes) in [
            ("700", b'b', 700),
            ("700", b'K', 716_800),
            ("1.5m", b'b', 1_572_864),
            ("2GB", b'b', 2_000_000_000),
            ("1KiB", b'b', 1024),
            ("10K-1", b'b', 10_239),
            ("1+1", b'b', 2),
            ("5b", b'K', 5),
            ("0", b'K', 0),
        ] {
            assert_eq!(parse_size(text.as_bytes(), unit), Some(bytes), "{text}");
        }
        for text in ["", "x", "1q", "1kx", "-5", "0-1", "9999999p", "1.2.3", "1bb", "\u{ff}"] {
            assert_eq!(parse_size(text.as_bytes(), b'b'), None, "{text}");
        }
    }
}
