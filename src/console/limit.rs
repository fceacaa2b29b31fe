//! How much all sessions together may move: what the timetable says, unless an operator has said something else since.

use crate::clock::{local, unix_seconds};
use crate::throttle::{Rate, parse_rate};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Minutes of a day.
const DAY: u16 = 24 * 60;
/// Windows of one timetable at most.
const WINDOWS_MOST: usize = 100;

/// A limit that goes by the time of day.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Timetable {
    windows: Vec<RateWindow>,
    /// Bytes per second at all other times, 0 for no limit.
    otherwise: u64,
}

/// From one minute of the day to before another one, which may be of the next day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RateWindow {
    from: u16,
    to: u16,
    rate: u64,
}

impl RateWindow {
    fn holds(self, minute: u16) -> bool {
        match self.from < self.to {
            true => (self.from..self.to).contains(&minute),
            false => minute >= self.from || minute < self.to,
        }
    }
}

impl Timetable {
    /// A timetable such as `08:00-18:00 20M, 22:00-06:00 5M, 100M`: windows with their rates, and a rate for all other
    /// times. A rate alone holds always.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut table = Self::default();
        let mut otherwise = None;
        for entry in text.split([',', ';']).map(str::trim) {
            if !entry.contains(':') {
                let rate = parse_rate(entry)?;
                if otherwise.replace(rate).is_some() {
                    return Err(format!("{entry:?} is a second rate without a time; give one for all other times"));
                }
                continue;
            }
            if table.windows.len() >= WINDOWS_MOST {
                return Err(format!("more than {WINDOWS_MOST} windows"));
            }
            table.windows.push(window(entry)?);
        }
        table.otherwise = otherwise.unwrap_or(0);
        Ok(table)
    }

    /// Whether it says something else at different times.
    pub(crate) fn has_windows(&self) -> bool {
        !self.windows.is_empty()
    }

    /// Bytes per second at this minute of the day; the first window that holds counts.
    fn rate_at(&self, minute: u16) -> u64 {
        self.windows.iter().find(|window| window.holds(minute)).map_or(self.otherwise, |window| window.rate)
    }

    /// When, as a minute of the day, it says something else next.
    fn changes(&self, minute: u16) -> Option<u16> {
        let now = self.rate_at(minute);
        (1..DAY).map(|later| (minute + later) % DAY).find(|later| self.rate_at(*later) != now)
    }
}

/// `08:00-18:00 20M`.
fn window(entry: &str) -> Result<RateWindow, String> {
    let wrong = || format!("{entry:?} is no window; expected one such as 08:00-18:00 20M");
    let (times, rate) = entry.split_once(char::is_whitespace).ok_or_else(wrong)?;
    let (from, to) = times.split_once('-').ok_or_else(wrong)?;
    let (from, to) = minute(from).zip(minute(to)).ok_or_else(wrong)?;
    if from == to || from == DAY {
        return Err(format!("{entry:?} has no length; give a rate alone for the whole day"));
    }
    Ok(RateWindow { from, to, rate: parse_rate(rate.trim())? })
}

/// `18:00`, up to `24:00`.
fn minute(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u16>().ok())?;
    let (hour, minute) = (number(hour)?, number(minute).filter(|minute| *minute < 60)?);
    Some(hour.checked_mul(60)? + minute).filter(|minute| *minute <= DAY)
}

/// What an operator says about the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LimitOrder {
    /// So many bytes per second from now on, 0 for no limit.
    Hold(u64),
    /// As the options of `run` have it.
    Follow,
}

impl LimitOrder {
    /// A rate as `--bwlimit` has it, or `auto` or `timetable` for what the options say.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text.trim() {
            "auto" | "timetable" => Ok(Self::Follow),
            rate => {
                let expected =
                    |_| format!("{rate:?} is no limit; expected KiB per second such as 500, 1.5m, 0 for none, or auto");
                parse_rate(rate).map(Self::Hold).map_err(expected)
            }
        }
    }
}

/// The limit of one run, or of several together. Clones are the same limit.
#[derive(Clone)]
pub(crate) struct Limit {
    rate: Rate,
    rules: Arc<Mutex<LimitRules>>,
}

struct LimitRules {
    timetable: Timetable,
    /// What an operator holds it to.
    held: Option<u64>,
}

/// The limit as it stands.
pub(super) struct LimitNow {
    pub(super) rate: u64,
    pub(super) held: bool,
    /// There is a timetable.
    pub(super) timetable: bool,
    /// The next local time at which the timetable says something else, as `18:00`.
    pub(super) until: Option<String>,
}

impl Limit {
    /// As the timetable says.
    pub(crate) fn new(timetable: Timetable) -> Self {
        let limit = Self { rate: Rate::new(0), rules: Arc::new(Mutex::new(LimitRules { timetable, held: None })) };
        limit.apply();
        limit
    }

    /// The rate that it sets.
    pub(crate) fn rate(&self) -> Rate {
        self.rate.clone()
    }

    /// From now on as another timetable says, unless an operator holds it.
    pub(crate) fn follow(&self, timetable: Timetable) {
        self.rules().timetable = timetable;
        self.apply();
    }

    /// Held by an operator as the other one is.
    pub(crate) fn take_over(&self, before: &Self) {
        let held = before.rules().held;
        self.rules().held = held;
        self.apply();
    }

    fn rules(&self) -> MutexGuard<'_, LimitRules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be called now and then: the time goes on.
    pub(super) fn apply(&self) {
        let rules = self.rules();
        self.rate.set(rules.held.unwrap_or_else(|| rules.timetable.rate_at(minute_now())));
    }

    pub(super) fn order(&self, order: LimitOrder) {
        let rate = match order {
            LimitOrder::Hold(rate) => Some(rate),
            LimitOrder::Follow => None,
        };
        self.rules().held = rate;
        self.apply();
    }

    pub(super) fn now(&self) -> LimitNow {
        self.apply();
        let rules = self.rules();
        let held = rules.held.is_some();
        let change = rules.timetable.changes(minute_now()).filter(|_| !held);
        let until = change.map(|minute| format!("{:02}:{:02}", minute / 60, minute % 60));
        LimitNow { rate: self.rate.get(), held, until, timetable: rules.timetable.has_windows() }
    }
}

fn minute_now() -> u16 {
    let now = local(unix_seconds());
    u16::try_from(now.hour * 60 + now.minute).unwrap_or(0) % DAY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timetable_goes_by_the_time_of_day_and_over_midnight() {
        let table = Timetable::parse("08:00-18:00 20M, 22:00-06:00 5M; 100M").unwrap();
        let at = |time: &str| table.rate_at(minute(time).unwrap());
        let mib = 1 << 20;
        assert_eq!([at("08:00"), at("17:59"), at("18:00"), at("21:59")], [20 * mib, 20 * mib, 100 * mib, 100 * mib]);
        assert_eq!(
            [at("22:00"), at("23:59"), at("00:00"), at("05:59"), at("06:00")].map(|rate| rate / mib),
            [5, 5, 5, 5, 100]
        );
        assert_eq!(table.changes(minute("23:00").unwrap()), minute("06:00"));
        let always = Timetable::parse("500").unwrap();
        assert_eq!((always.rate_at(0), always.changes(0), always.has_windows()), (500 << 10, None, false));
        // The first that holds counts, and other times have no limit.
        let table = Timetable::parse("12:00-13:00 0;08:00-24:00 1m").unwrap();
        assert_eq!([0, 12 * 60, 23 * 60].map(|minute| table.rate_at(minute)), [0, 0, mib]);
    }

    #[test]
    fn what_is_no_timetable_is_told() {
        for (text, word) in [
            ("", "rate"),
            ("8-18 20M", "rate"),
            ("08:00-18:00", "no window"),
            ("08:00-18:60 20M", "no window"),
            ("08:00-25:00 20M", "no window"),
            ("08:00-08:00 20M", "no length"),
            ("24:00-08:00 20M", "no length"),
            ("08:00-18:00 fast", "rate"),
            ("08:00-18:00 20M, 5M, 6M", "second rate"),
        ] {
            let why = Timetable::parse(text).unwrap_err();
            assert!(why.contains(word), "{text}: {why}");
        }
    }

    #[test]
    fn an_operator_holds_the_limit_until_told_otherwise() {
        let limit = Limit::new(Timetable::parse("00:00-24:00 1m").unwrap());
        let rate = limit.rate();
        assert_eq!(rate.get(), 1 << 20);
        limit.order(LimitOrder::parse("2m").unwrap());
        limit.apply();
        assert_eq!((rate.get(), limit.now().held), (2 << 20, true));
        limit.order(LimitOrder::parse("auto").unwrap());
        assert_eq!((rate.get(), limit.now().held), (1 << 20, false));
        limit.follow(Timetable::parse("3m").unwrap());
        assert_eq!(rate.get(), 3 << 20);
        assert!(LimitOrder::parse("quick").is_err());
    }
}
