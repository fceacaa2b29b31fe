//! What PyYAML makes of a plain scalar (YAML 1.1), in the words of Python's `str`.
//!
//! The site file is shared with Python agents: as an argument `yes` is `True` here too, `010` is 8 and `12:30` is 750.

use regex::RegexSet;
use std::sync::LazyLock;

/// The expressions by which PyYAML knows a whole number, a number with a point, and a day with a time.
static FORMS: LazyLock<RegexSet> = LazyLock::new(|| {
    let forms = [
        r"^[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]+|0|[1-9][0-9_]*(:[0-5]?[0-9])*)$",
        r"^([-+]?[0-9][0-9_]*(\.[0-9_]*([eE][-+][0-9]+)?|(:[0-5]?[0-9])+\.[0-9_]*)|\.[0-9][0-9_]*([eE][-+][0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$",
        r"^[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt]|[ \t]+)[0-9]{1,2}:[0-9]{2}:[0-9]{2}(\.[0-9]*)?([ \t]*(Z|[-+][0-9]{1,2}(:[0-9]{2})?))?$",
    ];
    // They are well formed, as the tests show.
    RegexSet::new(forms).unwrap_or_default()
});

/// Whether a plain scalar stands for nothing.
pub(super) fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

/// `str(value)` in Python of a plain scalar; `None` where it has a form of its own there: a time with a day, a number
/// beyond bounds.
pub(super) fn python(text: &str) -> Option<String> {
    match text {
        _ if is_null(text) => return Some("None".into()),
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => return Some("True".into()),
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => return Some("False".into()),
        _ => {}
    }
    let form = FORMS.matches(text).into_iter().next();
    let number = text.replace('_', "").to_lowercase();
    let (sign, number) = match number.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", number.strip_prefix('+').unwrap_or(&number)),
    };
    match form {
        Some(0) => whole(number).map(|value| format!("{}{value}", if value == 0 { "" } else { sign })),
        Some(1) => Some(format!("{sign}{}", repr(fraction(number)?))),
        Some(_) => None,
        None => Some(text.into()),
    }
}

fn whole(number: &str) -> Option<u128> {
    for (prefix, radix) in [("0b", 2), ("0x", 16), ("0", 8)] {
        match number.strip_prefix(prefix) {
            Some(digits) if number != "0" => return u128::from_str_radix(digits, radix).ok(),
            _ => {}
        }
    }
    number.split(':').try_fold(0u128, |value, part| value.checked_mul(60)?.checked_add(part.parse().ok()?))
}

fn fraction(number: &str) -> Option<f64> {
    if let ".inf" | ".nan" = number {
        return number[1..].parse().ok();
    }
    // As PyYAML does: from the last part on.
    let sum = number.rsplit(':').try_fold((0.0, 1.0), |(sum, unit), part| {
        let part: f64 = part.parse().ok()?;
        Some((sum + part * unit, unit * 60.0))
    });
    sum.map(|(sum, _)| sum)
}

/// `repr(float)` of Python: the shortest digits that read back the same, exponents below -4 and from 16 on.
fn repr(number: f64) -> String {
    let scientific = format!("{number:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, ""));
    match exponent.parse::<i32>() {
        Ok(exponent) if !(-4..16).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{mantissa}e{sign}{:02}", exponent.abs())
        }
        Ok(_) => format!("{number:?}"),
        Err(_) => scientific.to_lowercase(),
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
            assert_eq!(python(yaml).as_deref(), Some(*text), "{yaml}");
        }
    }

    #[test]
    fn what_has_a_form_of_its_own_in_python_has_no_text() {
        for yaml in ["2020-01-01T10:00:00Z", "2020-1-1 1:00:00", "0b_", "0xffffffffffffffffffffffffffffffffff"] {
            assert_eq!(python(yaml), None, "{yaml}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, rng_seed: proptest::test_runner::RngSeed::Fixed(9), ..ProptestConfig::default() })]
        #[test]
        fn any_text_resolves(text in "[-+.0-9:_eExbTZ ]{0,12}|.{0,12}") {
            let _ = python(&text);
        }

        #[test]
        fn floats_read_back(number in any::<f64>().prop_filter("finite", |number| number.is_finite())) {
            prop_assert_eq!(repr(number).parse::<f64>().ok(), Some(number));
        }
    }
}
