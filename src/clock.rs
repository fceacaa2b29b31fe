//! What time it is: unix time, and local time as listings and logs show it.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};
use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The calendar repeats itself, days of the week too, after 400 years of so many seconds.
const CYCLE: i64 = 146_097 * 86_400;
/// Moments that the calendar of the library has in any zone: from before our era to the year 9900.
const KNOWN: std::ops::Range<i64> = -CYCLE..250_000_000_000;

/// The zone of this process, read once.
static ZONE: LazyLock<TimeZone> = LazyLock::new(TimeZone::system);

/// Reads the zone now: who goes into a folder for good does not find the system's files there.
pub(crate) fn remember_zone() {
    LazyLock::force(&ZONE);
}

/// Unix time in seconds, to the microsecond.
pub(crate) fn unix_now() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_micros() as f64 / 1e6
}

/// Unix time in whole seconds.
pub(crate) fn unix_seconds() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

/// The time of cores that this process has used.
pub(crate) fn cpu_time() -> Duration {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(used.tv_sec).unwrap_or(0), u32::try_from(used.tv_nsec).unwrap_or(0))
}

/// Since the machine was started, also while it slept.
pub(crate) fn boot_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// A moment in local time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) year: i64,
    /// 1 to 12; larger ones roll over.
    pub(crate) month: i64,
    /// 1 to 31; larger ones roll over.
    pub(crate) day: i64,
    pub(crate) hour: i64,
    pub(crate) minute: i64,
    pub(crate) second: i64,
}

/// Seconds since 1970 as local time.
pub(crate) fn local(seconds: i64) -> Moment {
    local_in(&ZONE, seconds)
}

fn local_in(zone: &TimeZone, seconds: i64) -> Moment {
    // Of a moment beyond, one that is whole cycles away tells all but the year.
    let cycles = match seconds {
        past if past < KNOWN.start => (past - KNOWN.start).div_euclid(CYCLE),
        future if future >= KNOWN.end => (future - KNOWN.end) / CYCLE + 1,
        _ => 0,
    };
    let known = Timestamp::from_second(seconds - cycles * CYCLE).unwrap_or(Timestamp::UNIX_EPOCH);
    let time = zone.to_datetime(known);
    Moment {
        year: i64::from(time.year()) + 400 * cycles,
        month: time.month().into(),
        day: time.day().into(),
        hour: time.hour().into(),
        minute: time.minute().into(),
        second: time.second().into(),
    }
}

/// The other way round; a moment that does not exist is the next that does, and of two the first.
pub(crate) fn seconds(moment: &Moment) -> i64 {
    seconds_in(&ZONE, moment).unwrap_or(i64::MAX)
}

fn seconds_in(zone: &TimeZone, moment: &Moment) -> Option<i64> {
    let months = moment.year * 12 + moment.month - 1;
    let (year, month) = (i16::try_from(months.div_euclid(12)).ok()?, months.rem_euclid(12) + 1);
    let first = Date::new(year, i8::try_from(month).ok()?, 1).ok()?.at(0, 0, 0, 0);
    let into = (moment.day - 1) * 86_400 + moment.hour * 3600 + moment.minute * 60 + moment.second;
    let time = first.checked_add(SignedDuration::from_secs(into)).ok()?;
    Some(zone.to_zoned(time).ok()?.timestamp().as_second())
}

/// This very moment in local time, in the form that strftime(3) makes of `form`.
pub(crate) fn stamp(form: &str) -> String {
    Zoned::new(Timestamp::now(), ZONE.clone()).strftime(form).to_string()
}

impl Moment {
    /// `2026/01/31`.
    pub(crate) fn date(&self) -> String {
        format!("{:04}/{:02}/{:02}", self.year, self.month, self.day)
    }

    /// `23:59:59`.
    pub(crate) fn time(&self) -> String {
        format!("{:02}:{:02}:{:02}", self.hour, self.minute, self.second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn berlin() -> TimeZone {
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
    }

    fn shown(moment: &Moment) -> String {
        format!("{} {}", moment.date(), moment.time())
    }

    #[test]
    fn moments_roll_over() {
        let moment = Moment { year: 2024, month: 14, day: 1, hour: 24, minute: 0, second: 5 };
        assert_eq!(shown(&local(seconds(&moment))), "2025/02/02 00:00:05");
        for at in [0, 1_500_000_000, 1_790_000_000] {
            assert_eq!(seconds(&local(at)), at);
        }
    }

    #[test]
    fn an_hour_that_is_left_out_is_the_next_and_one_that_comes_twice_the_first() {
        let at = |month, day, hour| {
            let moment = Moment { year: 2026, month, day, hour, minute: 30, second: 0 };
            seconds_in(&berlin(), &moment).unwrap()
        };
        assert_eq!(shown(&local_in(&berlin(), at(3, 29, 2))), "2026/03/29 03:30:00");
        assert_eq!(at(10, 25, 3) - at(10, 25, 2), 7200);
    }

    #[test]
    fn there_is_no_end_of_the_calendar() {
        // As stock rsync 3.5.0 lists files of these times, but that it cuts off what has more than 19 letters.
        for (at, told) in [
            (253_402_300_799, "9999/12/31 23:59:59"),
            (253_402_300_800, "10000/01/01 00:00:00"),
            (1 << 40, "36812/02/20 00:36:16"),
        ] {
            assert_eq!(shown(&local_in(&TimeZone::UTC, at)), told);
        }
        assert_eq!(local_in(&berlin(), 253_402_300_800).hour, 1);
        assert_eq!(shown(&local_in(&TimeZone::UTC, -3 * CYCLE)), "0770/01/01 00:00:00");
        assert!(local(i64::MIN).year < 0 && local(i64::MAX).year > 0);
    }
}
