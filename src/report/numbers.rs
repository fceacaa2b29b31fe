//! Numbers as rsync writes them: plain, grouped by thousands, or with units.

/// A number with two decimals and a unit; below one unit, plain.
pub(crate) fn units(number: f64, unit: f64) -> String {
    let mut left = number;
    let mut letter = None;
    for next in ['K', 'M', 'G', 'T', 'P'] {
        if left.abs() < unit {
            break;
        }
        left /= unit;
        letter = Some(next);
    }
    match letter {
        Some(letter) => format!("{left:.2}{letter}"),
        None => format!("{number:.0}"),
    }
}

/// Digits in groups of three.
pub(crate) fn grouped(digits: &str) -> String {
    let (whole, fraction) = digits.split_at(digits.find('.').unwrap_or(digits.len()));
    let (sign, whole) = whole.split_at(usize::from(whole.starts_with('-')));
    let mut text = sign.to_owned();
    for (at, digit) in whole.char_indices() {
        if at > 0 && (whole.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text + fraction
}

/// A count or size at a level of `-h`: 0 plain, 1 grouped, 2 units of 1000, 3 units of 1024.
pub(crate) fn human(number: u64, level: u8) -> String {
    match level {
        0 => number.to_string(),
        1 => grouped(&number.to_string()),
        2 if number >= 1000 => units(number as f64, 1000.0),
        3.. if number >= 1024 => units(number as f64, 1024.0),
        _ => number.to_string(),
    }
}

/// The same with two decimals, for rates and ratios.
pub(crate) fn human_fraction(number: f64, level: u8) -> String {
    match level {
        0 => format!("{number:.2}"),
        2 if number >= 1000.0 => units(number, 1000.0),
        3.. if number >= 1024.0 => units(number, 1024.0),
        _ => grouped(&format!("{number:.2}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_writes_as_rsync_does() {
        for (number, texts) in [
            (0, ["0", "0", "0", "0"]),
            (999, ["999", "999", "999", "999"]),
            (1000, ["1000", "1,000", "1.00K", "1000"]),
            (300_000, ["300000", "300,000", "300.00K", "292.97K"]),
            (1_234_567_890, ["1234567890", "1,234,567,890", "1.23G", "1.15G"]),
        ] {
            for (level, text) in texts.iter().enumerate() {
                assert_eq!(human(number, level as u8), *text, "{number} at {level}");
            }
        }
        assert_eq!(human_fraction(1369.906, 1), "1,369.91");
        assert_eq!(human_fraction(0.07, 2), "0.07");
        assert_eq!(human_fraction(601_096.0, 2), "601.10K");
        assert_eq!(grouped("-1234"), "-1,234");
    }
}
