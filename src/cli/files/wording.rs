//! A row in words, for people at a terminal.

use super::super::output::printable;
use crate::catalog::files::FileRow;
use crate::clock;
use crate::console::files::told::FilePlaces;

/// How long ago, in the largest unit that fits.
pub(super) fn age(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A moment in local time.
pub(super) fn moment(seconds: f64) -> String {
    let local = clock::local(seconds as i64);
    format!("{} {}", local.date().replace('/', "-"), local.time())
}

/// A row in a line, for lists of what was done.
pub(super) fn named(row: &FileRow) -> String {
    format!("row {}, {}", row.id().0, printable(FilePlaces::of(row).shown()))
}

/// Bytes as people read them.
pub(in crate::cli) fn bytes(count: u64) -> String {
    match count {
        0..1_000_000 => format!("{:.1} kB", count as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", count as f64 / 1e6),
        _ => format!("{:.2} GB", count as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_told_in_the_largest_unit() {
        assert_eq!([5.0, 130.0, 7300.0, 200_000.0, -1.0].map(age), ["5s", "2m", "2h", "2d", "0s"]);
    }
}
