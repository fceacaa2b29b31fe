//! Plain scalars as PyYAML understands them (YAML 1.1), and their text as Python's `str` prints it.
//!
//! The site file is shared with Python agents: `yes` is `True` here too, `010` is 8 and `12:30` is 750.

/// What a plain scalar means.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Plain {
    Null,
    Bool(bool),
    /// In decimal, as Python prints it.
    Int(String),
    Float(f64),
    Text(String),
    /// Python makes something of it that we do not: a time with a day, a number beyond bounds.
    Odd(String),
}

impl Plain {
    /// Resolves a plain (unquoted) scalar.
    pub(super) fn resolve(text: &str) -> Self {
        match text {
            "" | "~" | "null" | "Null" | "NULL" => return Self::Null,
            "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => return Self::Bool(true),
            "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => return Self::Bool(false),
            _ => {}
        }
        match text.as_bytes()[0] {
            b'0'..=b'9' | b'+' | b'-' | b'.' => {}
            _ => return Self::Text(text.into()),
        }
        if let Some(number) = int(text) {
            return number.map_or_else(|| Self::Odd(text.into()), Self::Int);
        }
        match float(text) {
            Some(number) => Self::Float(number),
            None if is_day_and_time(text) => Self::Odd(text.into()),
            None => Self::Text(text.into()),
        }
    }

    /// `str(value)` in Python; `None` where that cannot be told.
    pub(super) fn python(&self) -> Option<String> {
        Some(match self {
            Self::Null => "None".into(),
            Self::Bool(true) => "True".into(),
            Self::Bool(false) => "False".into(),
            Self::Int(text) | Self::Text(text) => text.clone(),
            Self::Float(number) => repr(*number),
            Self::Odd(_) => return None,
        })
    }

    /// The kind and the value, for messages.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Null => "nothing".into(),
            Self::Bool(_) => format!("the truth value {}", self.python().unwrap_or_default()),
            Self::Int(text) => format!("the number {text}"),
            Self::Float(number) => format!("the number {}", repr(*number)),
            Self::Text(text) => format!("the text {:?}", cut(text)),
            Self::Odd(text) => format!("the unusual value {}", cut(text)),
        }
    }
}

/// The beginning of a text, short enough for a message.
pub(super) fn cut(text: &str) -> String {
    const MOST: usize = 60;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into(),
    }
}

fn signed(text: &str) -> (bool, &str) {
    match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    }
}

fn all(text: &str, fits: impl Fn(u8) -> bool) -> bool {
    text.bytes().all(|byte| fits(byte) || byte == b'_')
}

/// `Some(None)`: an integer by its form, but without a value here.
fn int(text: &str) -> Option<Option<String>> {
    let (negative, body) = signed(text);
    let magnitude = if let Some(digits) = body.strip_prefix("0b").filter(|rest| !rest.is_empty()) {
        all(digits, |byte| matches!(byte, b'0' | b'1')).then(|| radix(digits, 2))?
    } else if let Some(digits) = body.strip_prefix("0x").filter(|rest| !rest.is_empty()) {
        all(digits, |byte| byte.is_ascii_hexdigit()).then(|| radix(digits, 16))?
    } else if body == "0" {
        Some("0".into())
    } else if let Some(digits) = body.strip_prefix('0') {
        (!digits.is_empty() && all(digits, |byte| matches!(byte, b'0'..=b'7'))).then(|| radix(body, 8))?
    } else if body.starts_with(|first| matches!(first, '1'..='9')) {
        let mut parts = body.split(':');
        let first = parts.next().filter(|first| all(first, |byte| byte.is_ascii_digit()))?.replace('_', "");
        if body.contains(':') { sixties(&first, parts)?.map(|value| value.to_string()) } else { Some(first) }
    } else {
        return None;
    };
    Some(magnitude.map(|digits| if negative && digits != "0" { format!("-{digits}") } else { digits }))
}

fn radix(digits: &str, base: u32) -> Option<String> {
    Some(u128::from_str_radix(&digits.replace('_', ""), base).ok()?.to_string())
}

/// `None`: not of the form `H:MM:SS`. `Some(None)`: too large.
fn sixties<'a>(first: &str, rest: impl Iterator<Item = &'a str>) -> Option<Option<u128>> {
    let mut value = first.parse::<u128>().ok();
    for part in rest {
        let digit = sixtieth(part)?;
        value = value.and_then(|value| value.checked_mul(60)?.checked_add(digit));
    }
    Some(value)
}

/// `[0-5]?[0-9]`
fn sixtieth(part: &str) -> Option<u128> {
    let fits = match part.as_bytes() {
        [digit] => digit.is_ascii_digit(),
        [ten, digit] => matches!(ten, b'0'..=b'5') && digit.is_ascii_digit(),
        _ => false,
    };
    fits.then(|| part.parse().ok())?
}

fn float(text: &str) -> Option<f64> {
    match text {
        ".nan" | ".NaN" | ".NAN" => return Some(f64::NAN),
        _ => {}
    }
    let (negative, body) = signed(text);
    let sign = if negative { -1.0 } else { 1.0 };
    if matches!(body, ".inf" | ".Inf" | ".INF") {
        return Some(sign * f64::INFINITY);
    }
    let (whole, rest) = body.split_once('.')?;
    if whole.contains(':') {
        let mut parts = whole.split(':');
        let first = parts.next().filter(|first| digits(first) && all(rest, |byte| byte.is_ascii_digit()))?;
        // As PyYAML does: from the last part on.
        let mut value: f64 = format!("0.{}", rest.replace('_', "")).parse().ok()?;
        let mut parts: Vec<&str> = parts.collect();
        let mut unit = 1.0;
        while let Some(part) = parts.pop() {
            value += sixtieth(part)? as f64 * unit;
            unit *= 60.0;
        }
        return Some(sign * (value + first.replace('_', "").parse::<f64>().ok()? * unit));
    }
    let (fraction, exponent) = match rest.find(['e', 'E']) {
        Some(at) => (&rest[..at], Some(&rest[at + 1..])),
        None => (rest, None),
    };
    let whole_fits = match whole {
        // Only numbers without a sign may begin with the point.
        "" => body.len() == text.len() && digits(fraction),
        _ => digits(whole) && all(fraction, |byte| byte.is_ascii_digit()),
    };
    let exponent_fits = exponent.is_none_or(|exponent| {
        let number = exponent.strip_prefix(['-', '+']);
        number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    });
    if !whole_fits || !exponent_fits {
        return None;
    }
    body.replace('_', "").parse::<f64>().ok().map(|value| sign * value)
}

/// `[0-9][0-9_]*`
fn digits(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_digit()) && all(text, |byte| byte.is_ascii_digit())
}

/// A day with a time: Python prints it in another form than it was written. A day alone stays as it is.
fn is_day_and_time(text: &str) -> bool {
    let Some((day, time)) = text.split_once(['T', 't', ' ', '\t']) else { return false };
    let numbers = |text: &str, by: char| text.split(by).all(|part| !part.is_empty() && digits(part));
    let clock = time.trim_start().split(['.', 'Z', '+', '-', ' ', '\t']).next().unwrap_or_default();
    day.len() >= 8 && day.matches('-').count() == 2 && numbers(day, '-') && clock.contains(':') && numbers(clock, ':')
}

/// `repr(float)` of Python: the shortest digits that read back the same, exponents below -4 and from 16 on.
pub(super) fn repr(number: f64) -> String {
    if number.is_nan() {
        return "nan".into();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf".into() } else { "-inf".into() };
    }
    let scientific = format!("{number:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific };
    match exponent.parse::<i32>() {
        Ok(exponent) if !(-4..16).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{mantissa}e{sign}{:02}", exponent.abs())
        }
        _ => format!("{number:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // What PyYAML 6.0.3 loads and Python 3.11 prints.
    const PYTHON: &[(&str, &str)] = &[
        ("5", "5"),
        ("True", "True"),
        ("yes", "True"),
        ("On", "True"),
        ("~", "None"),
        ("null", "None"),
        ("NULL", "None"),
        ("30.0", "30.0"),
        ("1e5", "1e5"),
        ("1.0e+5", "100000.0"),
        ("1.e-7", "1e-07"),
        ("0x1F", "31"),
        ("010", "8"),
        ("0o10", "0o10"),
        ("1_000", "1000"),
        ("12:30", "750"),
        ("-5", "-5"),
        ("+7", "7"),
        ("-0", "0"),
        (".5", "0.5"),
        ("-.5", "-.5"),
        (".inf", "inf"),
        ("-.Inf", "-inf"),
        (".nan", "nan"),
        ("2020-01-01", "2020-01-01"),
        ("1e16", "1e16"),
        ("1.0e+16", "1e+16"),
        ("123456789012345680.0", "1.2345678901234568e+17"),
        ("0.0001", "0.0001"),
        ("0.00001", "1e-05"),
        ("1.5e-10", "1.5e-10"),
        ("1:30.5", "90.5"),
        ("0b101", "5"),
        ("08", "08"),
        ("1__0", "10"),
        ("-12:30:45", "-45045"),
        ("190:20:30.15", "685230.15"),
        ("12:61", "12:61"),
        ("1.2.3", "1.2.3"),
        ("smurf", "smurf"),
        ("y", "y"),
        ("n", "n"),
        ("+1.5", "1.5"),
        ("100000000000000000000000", "100000000000000000000000"),
        ("0x_f", "15"),
        ("00", "0"),
        ("12e03", "12e03"),
        ("6.", "6.0"),
        ("0.1", "0.1"),
        ("1234567890123456.0", "1234567890123456.0"),
        ("12345678901234567.0", "1.2345678901234568e+16"),
        ("-0.0", "-0.0"),
        ("1_0.5_0", "10.5"),
    ];

    #[test]
    fn plain_scalars_print_as_in_python() {
        for (yaml, text) in PYTHON {
            assert_eq!(Plain::resolve(yaml).python().as_deref(), Some(*text), "{yaml}");
        }
    }

    #[test]
    fn what_python_would_print_otherwise_is_odd() {
        for yaml in ["2020-01-01T10:00:00Z", "2020-1-1 1:00:00", "0b_", "0xffffffffffffffffffffffffffffffffff"] {
            assert!(matches!(Plain::resolve(yaml), Plain::Odd(_)), "{yaml}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, rng_seed: proptest::test_runner::RngSeed::Fixed(9), ..ProptestConfig::default() })]
        #[test]
        fn any_text_resolves(text in "[-+.0-9:_eExbTZ ]{0,12}|.{0,12}") {
            let _ = Plain::resolve(&text).python();
        }

        #[test]
        fn floats_read_back(number in any::<f64>().prop_filter("finite", |number| number.is_finite())) {
            prop_assert_eq!(repr(number).parse::<f64>().ok(), Some(number));
        }
    }
}
