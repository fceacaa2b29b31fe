//! What goes to people: the log on standard error, a progress bar on a terminal, results on standard output.

use super::flags::{LogArgs, LogFormat};
use crate::status::{Progress, Snapshot};
use indicatif::{ProgressBar, ProgressStyle};
use std::borrow::Cow;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

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

/// A text as JSON, with its quotes.
pub(super) fn json_string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            char if char.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(char))),
            char => out.push(char),
        }
    }
    out.push('"');
    out
}

/// Where log lines go: above the bar if there is one.
#[derive(Clone, Default)]
pub(super) struct Screen {
    bar: Option<ProgressBar>,
    file: Option<Arc<File>>,
}

impl Screen {
    /// With a bar when standard error is a terminal and a bar is wanted.
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

    /// True when a bar is drawn.
    pub(super) fn has_bar(&self) -> bool {
        self.bar.is_some()
    }

    /// Draws progress until dropped.
    pub(super) fn follow(&self, progress: Arc<Progress>, total: Option<u64>) -> Option<tokio::task::JoinHandle<()>> {
        let bar = self.bar.clone()?;
        Some(tokio::spawn(async move {
            let mut tick = tokio::time::interval(TICK);
            loop {
                tick.tick().await;
                bar.set_message(line(&progress.snapshot(), total));
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

fn line(now: &Snapshot, total: Option<u64>) -> String {
    let of = total.map(|total| format!(" of {total}")).unwrap_or_default();
    let rate = now.read_bytes as f64 / 1e6 / now.seconds.max(0.001);
    let mut line = format!("{}{of} files, {:.1} MB, {rate:.1} MB/s", now.copied, now.read_bytes as f64 / 1e6);
    if now.failed > 0 {
        line.push_str(&format!(", {} failed attempts", now.failed));
    }
    if let Some(why) = now.link.as_ref().or(now.database.as_ref()) {
        line.push_str(&format!("; waiting: {}", harmless(why)));
    }
    line
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
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(screen.clone());
    let colour = screen.file.is_none() && io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let set = match args.log_format {
        LogFormat::Json => log.json().flatten_event(true).with_current_span(false).try_init(),
        LogFormat::Auto | LogFormat::Text => log.with_target(false).with_ansi(colour).try_init(),
    };
    if let Err(error) = set {
        say(&format!("pysmurf-archiver: The log cannot be set up: {error}"));
    }
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
    fn texts_as_json() {
        assert_eq!(json_string("a \"b\" c:\\ \n\u{1b}\u{9f} é"), r#""a \"b\" c:\\ \u000a\u001b\u009f é""#);
    }
}
