//! What goes to people: the log on standard error, a progress bar on a terminal, results on standard output.

use super::flags::{LogArgs, LogFormat};
use crate::status::pace::{Pace, done_bytes};
use crate::status::{Progress, Snapshot};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use std::borrow::Cow;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::prelude::*;

/// How often the bar is drawn.
const TICK: Duration = Duration::from_millis(200);

/// A text in which nothing is left that a terminal would obey; lines and tabs stay.
pub(super) fn harmless(text: &str) -> Cow<'_, str> {
    let obeyed = |char: char| char.is_control() && char != '\n' && char != '\t';
    if !text.contains(obeyed) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match obeyed(char) {
            true => out.extend(char.escape_default()),
            false => out.push(char),
        }
    }
    out.into()
}

/// Says a line on standard error; that nobody listens is no reason to fail.
pub(super) fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{}", harmless(line));
}

/// Prints a result line on standard output.
pub(super) fn print(line: &str) {
    let _ = writeln!(io::stdout(), "{}", harmless(line));
}

/// Prints a line of which each part is known to be harmless but for colours of our own.
pub(super) fn print_coloured(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// One line, and nothing in it that a terminal would obey: some of the words are the far end's.
pub(super) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.trim().chars() {
        match char {
            '\n' => out.push_str(" / "),
            char if char.is_control() => out.extend(char.escape_default()),
            char => out.push(char),
        }
    }
    out
}

/// A JSON object with its fields in this order, and nothing in it that a terminal would obey.
pub(super) fn json_object<const N: usize>(fields: [(&str, Value); N]) -> String {
    json_fields(fields)
}

/// The same, of however many fields.
pub(super) fn json_fields<'a>(fields: impl IntoIterator<Item = (&'a str, Value)>) -> String {
    let fields = fields.into_iter().map(|(name, value)| format!("{}:{value}", Value::from(name)));
    let fields: Vec<_> = fields.collect();
    let mut out = String::new();
    for char in format!("{{{}}}", fields.join(",")).chars() {
        match char {
            // Of these JSON lets some stand.
            char if char.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(char))),
            char => out.push(char),
        }
    }
    out
}

/// Where log lines go: above the bar if there is one.
#[derive(Clone, Default)]
pub(super) struct Screen {
    bar: Option<ProgressBar>,
    file: Option<Arc<File>>,
}

impl Screen {
    /// With a bar when standard error is a terminal and a `bar` is wanted.
    pub(super) fn new(bar: bool) -> Self {
        let bar = bar && io::stderr().is_terminal();
        let style = || ProgressStyle::with_template("{spinner} {wide_msg} [{elapsed_precise}]").ok();
        Self {
            file: None,
            bar: bar
                .then(|| ProgressBar::new_spinner().with_style(style().unwrap_or_else(ProgressStyle::default_spinner))),
        }
    }

    /// Writes every line to this file as well.
    pub(super) fn also_to(&mut self, file: Option<File>) {
        self.file = file.map(Arc::new);
    }

    /// The file alone.
    fn only_file(&self) -> FileCopy {
        FileCopy(self.file.clone())
    }

    /// True when a bar is drawn.
    pub(super) fn has_bar(&self) -> bool {
        self.bar.is_some()
    }

    /// Draws progress until dropped.
    pub(super) fn follow(&self, progress: Arc<Progress>, total: Option<u64>) -> Option<tokio::task::JoinHandle<()>> {
        let bar = self.bar.clone()?;
        Some(tokio::spawn(async move {
            let mut tick = tokio::time::interval(TICK);
            let mut pace = Pace::default();
            loop {
                tick.tick().await;
                let now = progress.snapshot();
                bar.set_message(line(&now, total, pace.learn(&now)));
                bar.tick();
            }
        }))
    }

    /// Takes the bar away.
    pub(super) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Bytes of all files together: those whose size is known speak for the others.
fn all_bytes(now: &Snapshot, total: u64) -> Option<u64> {
    if now.taken == 0 || now.taken_bytes == 0 {
        return None;
    }
    let all = now.taken_bytes as f64 / now.taken as f64 * total.max(now.taken) as f64;
    Some((all as u64).max(done_bytes(now)))
}

fn line(now: &Snapshot, total: Option<u64>, (bytes_rate, files_rate): (f64, f64)) -> String {
    let done = done_bytes(now);
    // What is confirmed counts, although it may be recorded only with the rest of its batch.
    let files = now.confirmed.max(now.copied);
    let total = total.map(|total| total.max(files));
    let of = total.map(|total| format!(" of {total}")).unwrap_or_default();
    let all = total.and_then(|total| all_bytes(now, total));
    let of_bytes = all.map(|all| format!(" of {:.1}", all as f64 / 1e6)).unwrap_or_default();
    let mut line = format!("{files}{of} files, {:.1}{of_bytes} MB, {:.1} MB/s", done as f64 / 1e6, bytes_rate / 1e6);
    let left = match (all, total) {
        (Some(all), _) if bytes_rate > 0.0 => Some(all.saturating_sub(done) as f64 / bytes_rate),
        (None, Some(total)) if files_rate > 0.0 => Some(total.saturating_sub(files + now.failed) as f64 / files_rate),
        _ => None,
    };
    if let Some(left) = left.filter(|left| *left < 1e6) {
        line.push_str(&format!(", {} left", clock(left)));
    }
    if now.failed > 0 {
        line.push_str(&format!(", {} failed", now.failed));
    }
    let link = now.link.as_ref().filter(|_| !now.flows());
    if let Some(trouble) = now.database.as_ref().or(link).or(now.source.as_ref()) {
        line.push_str(&format!("; waiting: {}", harmless(&trouble.why)));
    }
    line
}

/// A time as people read it: `0:07`, `1:02:30`.
pub(super) fn clock(seconds: f64) -> String {
    let seconds = seconds.ceil() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, minutes, seconds) => format!("{minutes}:{seconds:02}"),
        (hours, minutes, seconds) => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

/// How a run with an end went, in one line.
pub(super) fn summary(now: &Snapshot) -> String {
    let files = |count: u64| if count == 1 { "1 file".to_owned() } else { format!("{count} files") };
    let bytes = now.literal_bytes + now.matched_bytes;
    let mut line = format!("Copied {}, {:.1} MB, in {}", files(now.copied), bytes as f64 / 1e6, clock(now.seconds));
    if now.matched_bytes > 0 {
        line.push_str(&format!(" ({:.1} MB were there already)", now.matched_bytes as f64 / 1e6));
    }
    if now.failed > 0 {
        line.push_str(&format!("; {} failed", files(now.failed)));
    }
    if now.given_up > 0 {
        line.push_str(&format!(", {} given up", now.given_up));
    }
    if let Some(trouble) = &now.source {
        line.push_str(&format!("; others wait: {}", trouble.why));
    }
    line
}

/// The same as one JSON object, with the target where there are several.
pub(super) fn summary_json(target: Option<&str>, now: &Snapshot) -> String {
    let target = target.map(|target| ("target", Value::from(target)));
    json_fields(target.into_iter().chain([
        ("copied", now.copied.into()),
        ("failed", now.failed.into()),
        ("bytes", (now.literal_bytes + now.matched_bytes).into()),
        ("literal_bytes", now.literal_bytes.into()),
        ("matched_bytes", now.matched_bytes.into()),
        ("reconnects", now.link_troubles.into()),
        ("database_troubles", now.database_troubles.into()),
        ("seconds", ((now.seconds * 1000.0).round() / 1000.0).into()),
    ]))
}

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &self.bar {
            Some(bar) => bar.suspend(|| io::stderr().write_all(bytes))?,
            // A log that nobody reads any more must not end the work.
            None => drop(io::stderr().write_all(bytes)),
        }
        if let Some(file) = &self.file {
            drop(file.as_ref().write_all(bytes));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A log file whose lines also go elsewhere.
#[derive(Clone)]
struct FileCopy(Option<Arc<File>>);

impl Write for FileCopy {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(file) = &self.0 {
            drop(file.as_ref().write_all(bytes));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for FileCopy {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl<'a> MakeWriter<'a> for Screen {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Sets the log up. `RUST_LOG` wins over the flags, and they over `wanted`, which an agent's `LOGLEVEL` says.
pub(super) fn start_log(args: &LogArgs, screen: &Screen, wanted: Option<LevelFilter>) {
    let wanted = wanted.map(|level| format!("pysmurf_archiver={level}"));
    let level = match (args.quiet, args.verbose, screen.has_bar()) {
        (false, 0, false) if wanted.is_some() => wanted.as_deref().unwrap_or_default(),
        (true, _, _) => "error",
        // The bar says what the lines would say.
        (false, 0, true) => "pysmurf_archiver=warn,error",
        (false, 0, false) => "pysmurf_archiver=info,warn",
        (false, 1, _) => "pysmurf_archiver=debug,info",
        (false, _, _) => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    // The journal takes each line with its level and its fields; what a person starts by hand is for his eyes.
    let journal = (args.log_format == LogFormat::Auto && is_journal()).then(tracing_journald::layer);
    if let Some(Ok(journal)) = journal {
        let journal = journal.with_field_prefix(Some("ARCHIVER".to_owned()));
        let log = tracing_subscriber::registry().with(filter).with(journal);
        let copy = screen
            .file
            .is_some()
            .then(|| tracing_subscriber::fmt::layer().with_ansi(false).with_writer(screen.only_file()));
        return told(log.with(copy).try_init());
    }
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(screen.clone());
    let colour = screen.file.is_none() && io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    told(match args.log_format {
        LogFormat::Json => log.json().flatten_event(true).with_current_span(false).try_init(),
        LogFormat::Auto | LogFormat::Text => log.with_target(false).with_ansi(colour).try_init(),
    });
}

fn told(set: Result<(), impl std::fmt::Display>) {
    if let Err(error) = set {
        say(&format!("pysmurf-archiver: The log cannot be set up: {error}"));
    }
}

/// Whether standard error is the journal's, as systemd says of the one that it has given us.
fn is_journal() -> bool {
    let said = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    let place = rustix::fs::fstat(io::stderr()).map(|stat| format!("{}:{}", stat.st_dev, stat.st_ino));
    place.is_ok_and(|place| place == said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_that_a_terminal_obeys() {
        assert_eq!(harmless("a\tb\n\u{e9}"), "a\tb\n\u{e9}");
        assert_eq!(harmless("a\u{1b}[2Jb\r\u{9b}c\u{7f}"), "a\\u{1b}[2Jb\\r\\u{9b}c\\u{7f}");
    }

    #[test]
    fn the_bar_says_how_far_how_fast_and_how_long() {
        let now = Snapshot {
            seconds: 4.0,
            confirmed: 30,
            copied: 10,
            read_bytes: 30_000_000,
            found_bytes: 10_000_000,
            taken: 50,
            taken_bytes: 50_000_000,
            ..Snapshot::default()
        };
        let mut pace = Pace::default();
        let rates = pace.learn(&now);
        assert_eq!(rates, (10e6, 7.5));
        assert_eq!(line(&now, Some(100), rates), "30 of 100 files, 40.0 of 100.0 MB, 10.0 MB/s, 0:06 left");
        // Sizes are not known beforehand where files are fetched.
        let unknown = Snapshot { taken_bytes: 0, ..now.clone() };
        assert_eq!(line(&unknown, Some(105), rates), "30 of 105 files, 40.0 MB, 10.0 MB/s, 0:10 left");
        let lost = Snapshot { link: Some("Link lost".into()), failed: 2, ..now.clone() };
        assert!(line(&lost, Some(100), rates).ends_with("0:06 left, 2 failed; waiting: Link lost"));
        let flows = Snapshot { read_since_trouble: 1, ..lost };
        assert!(!line(&flows, Some(100), rates).contains("waiting"));
        let later = Snapshot { seconds: 40.0, read_bytes: 50_000_000, confirmed: 66, ..now };
        assert_eq!(pace.learn(&later), (20e6 / 36.0, 1.0), "the last seconds count");
        assert_eq!([clock(0.0), clock(61.2), clock(3725.0)], ["0:00", "1:02", "1:02:05"]);
    }

    #[test]
    fn a_run_with_an_end_is_summed_up_in_a_line() {
        let now = Snapshot {
            copied: 1,
            failed: 2,
            given_up: 1,
            matched_bytes: 1_500_000,
            literal_bytes: 500_000,
            seconds: 3.2,
            source: Some("Folder /d is not there".into()),
            ..Snapshot::default()
        };
        assert_eq!(
            summary(&now),
            "Copied 1 file, 2.0 MB, in 0:04 (1.5 MB were there already); 2 files failed, 1 given up; others wait: Folder /d is not there"
        );
    }

    #[test]
    fn objects_keep_their_order_and_are_harmless() {
        let text = "a \"b\" c:\\ \n\u{1b}\u{9f} é";
        let object = json_object([("z", text.into()), ("a", 1.5.into())]);
        assert_eq!(object, r#"{"z":"a \"b\" c:\\ \n\u001b\u009f é","a":1.5}"#);
        assert_eq!(serde_json::from_str::<Value>(&object).unwrap()["z"], text);
    }
}
