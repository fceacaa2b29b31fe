//! How archives stand, for the eyes of somebody who was just woken: short lines, what is wrong first.

use super::super::output::printable;
use crate::clock::{local, unix_now};
use crate::console::report::{BacklogReport, ProcessReport, RunReport, SpeedReport, StatusReport, TroubleReport};
use std::fmt::Write;
use std::io::{self, IsTerminal};
use textwrap::WordSplitter;

/// Reasons that are shown for which rows were given up.
const REASONS_SHOWN: usize = 5;
/// Sessions that have a line of their own.
const SESSIONS_SHOWN: usize = 8;
/// Letters of a line of words, beside what stands before them on a terminal of 80.
const LINE_MOST: usize = 72;
/// Letters of a path that are shown, its end.
const PATH_MOST: usize = 36;
/// Counts older than this say so, in seconds.
const OLD_COUNT: f64 = 15.0;

/// How it is written.
#[derive(Clone, Copy)]
pub(super) struct View {
    colour: bool,
}

impl View {
    /// As it suits standard output.
    pub(super) fn of_output() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { colour: wanted && io::stdout().is_terminal() }
    }

    #[cfg(test)]
    pub(super) fn plain() -> Self {
        Self { colour: false }
    }

    /// All archives, one below the other.
    pub(super) fn page(self, reports: &[ProcessReport]) -> String {
        let archives = reports.iter().flat_map(|report| report.archives.iter().map(move |archive| (report, archive)));
        let blocks: Vec<_> = archives.map(|(report, archive)| self.archive(report, archive)).collect();
        blocks.join("\n")
    }

    fn archive(self, process: &ProcessReport, archive: &StatusReport) -> String {
        let mut text = self.head(process, archive);
        self.troubles(&mut text, &archive.troubles, archive.time);
        for reason in archive.reasons.iter().take(REASONS_SHOWN) {
            let rows = if reason.rows == 1 { "1 row".to_owned() } else { format!("{} rows", reason.rows) };
            let path = reason.paths.first().map_or(String::new(), |path| format!(", as {}", tail(&printable(path))));
            let _ = writeln!(text, "   {rows}: {}{path}", printable(&reason.reason));
        }
        if !archive.table.is_empty() {
            row(&mut text, "from", &printable(&archive.table));
        }
        if !archive.far_end.is_empty() {
            row(&mut text, "to", &printable(&archive.far_end));
        }
        row(&mut text, "backlog", &backlog(&archive.backlog, archive.time));
        if let Some(speed) = &archive.speed {
            row(&mut text, "rate", &rate(speed));
            if let Some(left) = left(archive, speed) {
                row(&mut text, "done in", &left);
            }
        }
        if let Some(limit) = archive.limit.as_ref().filter(|limit| limit.bytes_per_second > 0 || limit.timetable) {
            row(&mut text, "limit", &limit.told());
        }
        self.sessions(&mut text, archive);
        if let Some(fleet) = &archive.fleet {
            row(&mut text, "fleet", &crate::console::fleet::line(fleet));
        }
        if archive.running {
            let last = archive.last_proven.as_ref().map_or("none yet in this run".to_owned(), |last| {
                format!("{}, {} ago: {}", at(last.time), span(archive.time - last.time), tail(&printable(&last.path)))
            });
            row(&mut text, "last copy", &last);
        }
        if let Some(run) = &archive.run {
            row(&mut text, "this run", &this_run(run));
            if run.failed > 0 {
                row(&mut text, "failures", &failures(run));
            }
        }
        let BacklogReport { copied, given_up, at_least, .. } = archive.backlog;
        let least = if at_least { "at least " } else { "" };
        if archive.backlog.counted.is_some() {
            row(&mut text, "table", &format!("{least}{} copied, {given_up} given up", files(copied)));
        }
        text
    }

    /// What is wrong at this time, and what to do.
    pub(super) fn troubles(self, text: &mut String, troubles: &[TroubleReport], time: f64) {
        for trouble in troubles {
            let since = trouble.since.map_or(String::new(), |since| format!(" (for {})", span(time - since)));
            let [why, remedy] =
                [&format!("{}{since}", trouble.why), &trouble.remedy].map(|words| wrapped(&printable(words)));
            let _ = writeln!(text, "  {} {why}", self.red("WRONG"));
            let _ = writeln!(text, "   {} {remedy}", self.bold("do:"));
        }
    }

    fn head(self, process: &ProcessReport, archive: &StatusReport) -> String {
        let name = self.bold(&printable(&archive.archive));
        let word = match archive {
            _ if !archive.running => self.red("not running"),
            _ if archive.is_troubled() && archive.paused => self.red("trouble, paused"),
            _ if archive.is_troubled() => self.red("trouble"),
            _ if archive.paused => self.yellow("paused"),
            _ if archive.backlog.files.is_some_and(|files| files > 0) => self.green("copying"),
            _ => self.green("all is well"),
        };
        let who = match (&archive.run, archive.running) {
            (Some(run), _) => format!("for {}, pid {}", span(run.seconds), process.pid),
            (None, true) => format!("pid {}", process.pid),
            (None, false) if process.pid > 0 => format!("pid {}", process.pid),
            (None, false) => "what the table says".to_owned(),
        };
        format!("{name}  {word}  ({who}, at {})\n", at(archive.time))
    }

    fn sessions(self, text: &mut String, archive: &StatusReport) {
        let Some(run) = &archive.run else { return };
        let at_work = archive.sessions.iter().filter(|session| session.rate > 0.0 || session.file.is_some());
        let count = at_work.clone().count();
        let road = match &archive.road {
            Some(road) => format!(", by {}", printable(road)),
            None => String::new(),
        };
        let flight = match run.in_flight {
            0 => String::new(),
            flight => format!(", {} in flight", files(flight)),
        };
        row(text, "sessions", &format!("{count} at work{flight}{road}"));
        for session in at_work.take(SESSIONS_SHOWN) {
            let file = session.file.as_ref().map_or(String::new(), |file| {
                let percent = (file.done as f64 * 100.0 / file.size.max(1) as f64).min(100.0);
                format!(" {percent:3.0} % of {:>8}  {}", bytes(file.size as f64), tail(&printable(&file.path)))
            });
            let _ = writeln!(text, "{:13}{:>9}/s{file}", "", bytes(session.rate));
        }
    }

    fn painted(self, code: &str, word: &str) -> String {
        if self.colour { format!("\x1b[{code}m{word}\x1b[0m") } else { word.to_owned() }
    }

    pub(super) fn bold(self, word: &str) -> String {
        self.painted("1", word)
    }

    pub(super) fn red(self, word: &str) -> String {
        self.painted("1;31", word)
    }

    fn yellow(self, word: &str) -> String {
        self.painted("1;33", word)
    }

    pub(super) fn green(self, word: &str) -> String {
        self.painted("32", word)
    }
}

pub(super) fn row(text: &mut String, name: &str, value: &str) {
    let _ = writeln!(text, "  {name:<9}  {value}");
}

fn backlog(backlog: &BacklogReport, time: f64) -> String {
    let Some(count) = backlog.files else { return "not counted yet".to_owned() };
    let mut text = String::new();
    if backlog.at_least {
        text.push_str("at least ");
    }
    match count {
        0 if backlog.at_least => text.push_str("0 files wait: none of the newest rows does; --exact counts them all"),
        0 => text.push_str("nothing waits"),
        count => text.push_str(&files(count)),
    }
    if count > 0 {
        if let Some(size) = backlog.bytes {
            let _ = write!(text, ", {}", bytes(size as f64));
        }
        if let Some(oldest) = backlog.oldest_seconds {
            let _ = write!(text, ", the oldest for {}", span(oldest));
        }
    }
    if let Some(age) = backlog.counted.map(|counted| time - counted).filter(|age| *age > OLD_COUNT) {
        let _ = write!(text, " (counted {} ago)", span(age));
    }
    text
}

fn rate(speed: &SpeedReport) -> String {
    let now = format!("{}/s now", bytes(speed.bytes_now));
    match speed.hour_seconds {
        0 => now,
        known if known < 3600 => format!("{now}, {}/s over {}", bytes(speed.bytes_hour), span(known as f64)),
        _ => format!("{now}, {}/s over the last hour", bytes(speed.bytes_hour)),
    }
}

fn left(archive: &StatusReport, speed: &SpeedReport) -> Option<String> {
    match (archive.backlog.files?, speed.seconds_left) {
        (0, _) => None,
        (_, Some(seconds)) => Some(format!("about {}", span(seconds))),
        (_, None) => Some("unknown: nothing moves".to_owned()),
    }
}

fn this_run(run: &RunReport) -> String {
    let mut text = format!("{} copied, {} sent", files(run.copied), bytes(run.literal_bytes as f64));
    if run.matched_bytes > 0 {
        let _ = write!(text, ", {} were there already", bytes(run.matched_bytes as f64));
    }
    for (count, what) in [(run.link_troubles, "link"), (run.database_troubles, "database")] {
        if count > 0 {
            let _ = write!(text, ", {count} troubles of the {what}");
        }
    }
    text
}

fn failures(run: &RunReport) -> String {
    let kinds = run.failures.kinds();
    let kinds: Vec<_> =
        kinds.iter().filter(|(_, count)| *count > 0).map(|(kind, count)| format!("{count} {kind}")).collect();
    let attempts = if run.failed == 1 { "attempt" } else { "attempts" };
    format!("{} {attempts}: {}", run.failed, kinds.join(", "))
}

pub(super) fn files(count: u64) -> String {
    match count {
        1 => "1 file".to_owned(),
        count => format!("{} files", crate::report::numbers::grouped(&count.to_string())),
    }
}

/// Bytes with three digits that count.
pub(super) fn bytes(number: f64) -> String {
    let mut left = number;
    for unit in ["B", "kB", "MB", "GB", "TB"] {
        if left < 999.5 || unit == "TB" {
            let digits = if unit == "B" || left >= 99.95 { 0 } else { 1 };
            return format!("{left:.digits$} {unit}");
        }
        left /= 1000.0;
    }
    format!("{number:.0} B")
}

/// A time of two units: `3 s`, `5 min 20 s`, `2 h 5 min`, `3 d 4 h`.
pub(super) fn span(seconds: f64) -> String {
    let seconds = seconds.max(0.0).round() as u64;
    let two = |large: u64, first: &str, small: u64, second: &str| match small {
        0 => format!("{large} {first}"),
        small => format!("{large} {first} {small} {second}"),
    };
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => two(seconds / 60, "min", seconds % 60, "s"),
        3600..86_400 => two(seconds / 3600, "h", seconds / 60 % 60, "min"),
        _ => two(seconds / 86_400, "d", seconds / 3600 % 24, "h"),
    }
}

/// A local time; with its date if that is another day.
pub(super) fn at(seconds: f64) -> String {
    let (moment, today) = (local(seconds as i64), local(unix_now() as i64));
    match moment.date() == today.date() {
        true => moment.time(),
        false => format!("{} {}", moment.date(), moment.time()),
    }
}

/// Words in lines that fit beside their name.
fn wrapped(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let lines = textwrap::Options::new(LINE_MOST).break_words(false).word_splitter(WordSplitter::NoHyphenation);
    textwrap::wrap(&text, lines).join("\n       ")
}

/// The end of a long path.
fn tail(path: &str) -> String {
    let length = path.chars().count();
    if length <= PATH_MOST {
        return path.to_owned();
    }
    path.chars().skip(length - PATH_MOST + 1).fold("…".to_owned(), |mut tail, char| {
        tail.push(char);
        tail
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::report::TroubleKind;

    #[test]
    fn numbers_are_short_and_have_their_units() {
        assert_eq!(
            [0.0, 999.0, 1000.0, 99_900.0, 123_456_789.0].map(bytes),
            ["0 B", "999 B", "1.0 kB", "99.9 kB", "123 MB"]
        );
        assert_eq!(bytes(5e15), "5000 TB");
        assert_eq!(
            [0.4, 61.0, 3600.0, 7500.0, 90_000.0].map(span),
            ["0 s", "1 min 1 s", "1 h", "2 h 5 min", "1 d 1 h"]
        );
        assert_eq!((files(1), files(1234)), ("1 file".into(), "1,234 files".into()));
    }

    #[test]
    fn every_line_fits_on_a_terminal_and_nothing_of_others_moves_its_cursor() {
        let long = "word ".repeat(60);
        let archive = StatusReport {
            archive: "a\u{1b}[2J".into(),
            running: true,
            backlog: BacklogReport {
                files: Some(1234),
                bytes: Some(5_000_000),
                counted: Some(1.0),
                ..Default::default()
            },
            troubles: vec![TroubleReport {
                kind: TroubleKind::Link,
                why: format!("{long}\u{9b}"),
                remedy: long.clone(),
                since: Some(-90.0),
            }],
            ..StatusReport::default()
        };
        let report = ProcessReport { archives: vec![archive], ..ProcessReport::default() };
        let page = View { colour: false }.page(std::slice::from_ref(&report));
        assert!(page.lines().all(|line| line.chars().count() <= 80), "{page}");
        assert!(!page.contains(['\u{1b}', '\u{9b}']), "{page:?}");
        assert!(page.contains("backlog    1,234 files, 5.0 MB"), "{page}");
        assert!(page.contains("(for 1 min 30 s)"), "{page}");
        assert!(View { colour: true }.page(&[report]).contains("\u{1b}[1;31mtrouble\u{1b}[0m"));
    }

    #[test]
    fn a_part_of_a_table_is_told_as_such() {
        let least = |count| backlog(&BacklogReport { files: Some(count), at_least: true, ..Default::default() }, 0.0);
        assert_eq!(least(5), "at least 5 files");
        assert!(least(0).contains("--exact"));
        assert_eq!(backlog(&BacklogReport::default(), 0.0), "not counted yet");
    }
}
