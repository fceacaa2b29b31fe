//! Values of options, read as stock rsync reads them and refused in its words.

use super::command_line::Parallel;
use super::usage::Usage;
use crate::clock;
use crate::exit;
use crate::report::numbers;
use protocol::args::parse_size;
use protocol::checksum::Checksum;

/// A whole number; `word` is the option as it was typed.
pub(super) fn integer(word: &str, value: &[u8]) -> Result<i64, Usage> {
    let text = String::from_utf8_lossy(value);
    let refused = |why: &str| {
        let typed = if word.contains('=') { word.to_owned() } else { format!("{word}={text}") };
        Usage::syntax(format!("rsync: {typed}: {why}"))
    };
    let digits = text.trim_start();
    let (sign, digits) = match digits.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, digits.strip_prefix('+').unwrap_or(digits)),
    };
    let (radix, digits) = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(digits) => (16, digits),
        None if digits.len() > 1 && digits.starts_with('0') => (8, &digits[1..]),
        None => (10, digits),
    };
    if text.is_empty() {
        return Ok(0);
    }
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return Err(refused("invalid numeric value"));
    }
    let number = i64::from_str_radix(digits, radix).ok().map(|number| sign * number);
    number.filter(|number| i32::try_from(*number).is_ok()).ok_or_else(|| refused("number too large or too small"))
}

/// A whole number that is not negative; what is below counts as 0.
pub(super) fn unsigned(word: &str, value: &[u8]) -> Result<u32, Usage> {
    Ok(u32::try_from(integer(word, value)?.max(0)).unwrap_or(u32::MAX))
}

/// A size in bytes; 0, or from `least` to `most`.
pub(super) fn size(name: &str, value: &[u8], unit: u8, least: u64, most: u64) -> Result<u64, Usage> {
    let text = String::from_utf8_lossy(value);
    let refuse = |why: String| Err(Usage::syntax(format!("rsync: --{name}={text} {why}")));
    // A variable that was never set is no limit, as by stock.
    let value = if value.is_empty() { b"0" } else { value };
    let Some(bytes) = parse_size(value, unit) else { return refuse("is invalid".into()) };
    if bytes > 0 && bytes < least {
        let least = if least < 1024 { least.to_string() } else { numbers::units(least as f64, 1024.0) };
        return refuse(format!("is too small (min: {least} or 0 for unlimited)"));
    }
    if bytes > most {
        return refuse(format!("is too large (max: {})", numbers::units(most as f64, 1024.0)));
    }
    Ok(bytes)
}

/// `--max-alloc` in bytes.
pub(super) fn max_alloc(value: &[u8]) -> Result<u64, Usage> {
    size("max-alloc", value, b'b', 1024 * 1024, i64::MAX as u64)
}

/// `--checksum-choice`: of the transfer, and of the list; `None` for what the ends agree on.
pub(super) fn checksum_choice(value: &[u8]) -> Result<Option<(Checksum, Checksum)>, Usage> {
    let name = |name: &[u8]| match name {
        b"auto" => Ok(None),
        name => Checksum::from_name(name).map(Some).ok_or_else(|| Usage {
            text: format!("unknown checksum name: {}", String::from_utf8_lossy(name)),
            code: exit::UNSUPPORTED,
        }),
    };
    let (transfer, list) = match value.iter().position(|&byte| byte == b',') {
        Some(comma) => (name(&value[..comma])?, name(&value[comma + 1..])?),
        None => {
            let both = name(value)?;
            (both, both)
        }
    };
    match (transfer, list) {
        (Some(transfer), Some(list)) => Ok(Some((transfer, list))),
        (None, None) => Ok(None),
        _ => Err(Usage::syntax("rsync: --checksum-choice takes auto only for both checksums")),
    }
}

/// `--parallel`, or what else names it.
pub(super) fn parallel(word: &str, value: &[u8]) -> Result<Parallel, Usage> {
    let text = String::from_utf8_lossy(value);
    let number = text.parse().ok().filter(|number| (1..=Parallel::MOST).contains(number));
    match (&*text, number) {
        ("auto", _) => Ok(Parallel::Auto),
        (_, Some(number)) => Ok(Parallel::Connections(number)),
        _ => {
            let most = Parallel::MOST;
            Err(Usage::syntax(format!("rsync: {word}={text} is invalid: it takes a number from 1 to {most}, or auto")))
        }
    }
}

/// `--stop-after`, as seconds since 1970.
pub(super) fn minutes(value: &[u8]) -> Result<i64, Usage> {
    let text = String::from_utf8_lossy(value);
    let bad = || Usage::syntax(format!("rsync: invalid --stop-after value: {text}"));
    let minutes: u32 = text.parse().ok().filter(|&minutes| minutes > 0).ok_or_else(bad)?;
    Ok(clock::unix_seconds().saturating_add(i64::from(minutes) * 60))
}

/// `--stop-at`: `y-m-dTh:m`, any part of which may be left out from the left, as seconds since 1970. What is left out makes
/// it the next such moment; a year may have two digits, and slashes may stand for dashes.
pub(super) fn hour(value: &[u8]) -> Result<i64, Usage> {
    let text = String::from_utf8_lossy(value);
    let bad = || Usage::syntax(format!("rsync: invalid --stop-at format: {text}"));
    let past = || Usage::syntax(format!("rsync: --stop-at time is in the past: {text}"));
    let (date, time) = match text.split_once(['T', 't', ' ']) {
        Some((date, time)) => (date, Some(time)),
        None if text.contains(':') => ("", Some(&*text)),
        None => (&*text, None),
    };
    let number = |text: &str| text.parse::<i64>().map_err(|_| bad());
    let here = clock::local(clock::unix_seconds());
    let mut wanted = clock::Moment { second: 0, hour: 0, minute: 0, ..here };
    if let Some(time) = time {
        let (hours, minutes) = time.split_once(':').ok_or_else(bad)?;
        wanted.hour = if hours.is_empty() { here.hour } else { number(hours)? };
        wanted.minute = number(minutes)?;
    }
    let parts: Vec<&str> = if date.is_empty() { vec![] } else { date.split(['-', '/']).collect() };
    match parts[..] {
        [] => {}
        [day] => wanted.day = number(day)?,
        [month, day] => (wanted.month, wanted.day) = (number(month)?, number(day)?),
        [year, month, day] => {
            let year = number(year)?;
            wanted.year = if (0..100).contains(&year) { here.year / 100 * 100 + year } else { year };
            (wanted.month, wanted.day) = (number(month)?, number(day)?);
        }
        _ => return Err(bad()),
    }
    let sound = (1..=12).contains(&wanted.month)
        && (1..=31).contains(&wanted.day)
        && (0..24).contains(&wanted.hour)
        && (0..60).contains(&wanted.minute)
        && (1970..=9999).contains(&wanted.year);
    if !sound {
        return Err(bad());
    }
    let mut at = clock::seconds(&wanted);
    if at <= clock::unix_seconds() {
        match parts.len() {
            0 if text.starts_with(':') => wanted.hour += 1,
            0 => wanted.day += 1,
            1 => wanted.month += 1,
            2 => wanted.year += 1,
            _ => return Err(past()),
        }
        at = clock::seconds(&wanted);
    }
    Ok(at)
}
