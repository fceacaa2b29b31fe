//! What time it is: unix time, and local time as listings and logs show it.

use chrono::{DateTime, Datelike, Local, NaiveDate, TimeZone, Timelike};
use std::time::{SystemTime, UNIX_EPOCH};

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

/// Seconds since 1970 as local time; times beyond the calendar stand still at its end.
pub(crate) fn local(seconds: i64) -> Moment {
    let time: DateTime<Local> = match Local.timestamp_opt(seconds, 0) {
        chrono::LocalResult::Single(time) | chrono::LocalResult::Ambiguous(time, _) => time,
        chrono::LocalResult::None => DateTime::<chrono::Utc>::MIN_UTC.into(),
    };
    Moment {
        year: time.year().into(),
        month: time.month().into(),
        day: time.day().into(),
        hour: time.hour().into(),
        minute: time.minute().into(),
        second: time.second().into(),
    }
}

/// The other way round; a moment that does not exist is the next that does.
pub(crate) fn seconds(moment: &Moment) -> i64 {
    let months = moment.year * 12 + moment.month - 1;
    let (year, month) = (months.div_euclid(12), months.rem_euclid(12) + 1);
    let first = NaiveDate::from_ymd_opt(year as i32, month as u32, 1).and_then(|date| date.and_hms_opt(0, 0, 0));
    let Some(first) = first else { return i64::MAX };
    let into = (moment.day - 1) * 86_400 + moment.hour * 3600 + moment.minute * 60 + moment.second;
    let Some(naive) = chrono::TimeDelta::try_seconds(into).and_then(|into| first.checked_add_signed(into)) else {
        return i64::MAX;
    };
    // In the hour that daylight saving leaves out, an hour later exists.
    let exists = |shift: i64| Local.from_local_datetime(&(naive + chrono::TimeDelta::seconds(shift))).earliest();
    exists(0).or_else(|| exists(3600)).map_or(i64::MAX, |time| time.timestamp())
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

    #[test]
    fn moments_roll_over() {
        let moment = Moment { year: 2024, month: 14, day: 1, hour: 24, minute: 0, second: 5 };
        let rolled = local(seconds(&moment));
        assert_eq!((rolled.date(), rolled.time()), ("2025/02/02".to_owned(), "00:00:05".to_owned()));
        for at in [0, 1_500_000_000, 1_790_000_000] {
            assert_eq!(seconds(&local(at)), at);
        }
        assert_eq!(local(i64::MIN).year, local(i64::MAX).year);
    }
}
