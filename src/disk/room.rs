//! How much room a file system has, and when that is too little.

use std::fmt;
use std::io;
use std::path::Path;

use protocol::args::parse_size;

/// How much room there is for those who are not root, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) free: u64,
    /// Free and used together.
    pub(crate) all: u64,
}

/// The room of the file system that a path is on, by what `df` says of it.
pub(crate) fn room_of(path: &Path) -> io::Result<Room> {
    let figures = rustix::fs::statvfs(path)?;
    let bytes = |blocks: u64| blocks.saturating_mul(figures.f_frsize);
    let used = bytes(figures.f_blocks.saturating_sub(figures.f_bfree));
    let free = bytes(figures.f_bavail);
    Ok(Room { free, all: used.saturating_add(free) })
}

/// Below how much free room something is to be done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum FreeMark {
    Percent(f64),
    Bytes(u64),
}

/// By how much more than the mark is to be free again: a tenth, so that not each new file has one deleted.
const BEYOND: f64 = 0.1;

impl FreeMark {
    /// `10%`, or a size such as `200G`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || "expected a share of the file system such as 10%, or a size such as 200G".to_owned();
        if let Some(number) = text.strip_suffix('%') {
            let percent: f64 = number.trim().parse().map_err(|_| wrong())?;
            return (percent > 0.0 && percent <= 90.0)
                .then_some(Self::Percent(percent))
                .ok_or_else(|| format!("cannot be {text}: expected more than 0% and at most 90%"));
        }
        parse_size(text.as_bytes(), b'b').filter(|bytes| *bytes > 0).map(Self::Bytes).ok_or_else(wrong)
    }

    fn bytes(self, all: u64) -> u64 {
        match self {
            Self::Percent(percent) => (all as f64 * percent / 100.0) as u64,
            Self::Bytes(bytes) => bytes.min(all),
        }
    }

    /// How many bytes must become free, where there is less than this.
    pub(crate) fn lacking(self, room: Room) -> Option<u64> {
        let mark = self.bytes(room.all);
        let aim = (mark as f64 * (1.0 + BEYOND)) as u64;
        (room.free < mark).then(|| aim.min(room.all).saturating_sub(room.free))
    }
}

impl fmt::Display for FreeMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percent(percent) => write!(f, "{percent} %"),
            Self::Bytes(bytes) => write!(f, "{:.1} GB", *bytes as f64 / 1e9),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_a_share_or_a_size() {
        assert_eq!(FreeMark::parse("10%"), Ok(FreeMark::Percent(10.0)));
        assert_eq!(FreeMark::parse("2.5 %"), Ok(FreeMark::Percent(2.5)));
        assert_eq!(FreeMark::parse("200G"), Ok(FreeMark::Bytes(200 << 30)));
        for text in ["", "%", "0%", "-1%", "91%", "0", "x", "10 percent", "nan%", "inf%"] {
            assert!(FreeMark::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn below_the_mark_a_tenth_more_is_freed() {
        let room = |free| Room { free, all: 1000 };
        let mark = FreeMark::Percent(10.0);
        assert_eq!([100, 99, 0].map(|free| mark.lacking(room(free))), [None, Some(11), Some(110)]);
        // More than there is cannot be freed.
        assert_eq!(FreeMark::Bytes(5000).lacking(room(400)), Some(600));
    }
}
