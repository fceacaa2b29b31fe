//! What was found, for people and for machines.

use crate::cli::output::{json_object, print, print_coloured, printable};
use std::io::{self, IsTerminal};

/// Longest name of an item.
const ITEM_WIDTH: usize = 14;

/// How an item stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CheckStatus {
    /// In order.
    Ok,
    /// Not as it should be, but files are copied.
    Warn,
    /// Files cannot be copied.
    Fail,
    /// Not checked.
    Skip,
}

impl CheckStatus {
    /// The word, and its colour on a terminal.
    fn word(self) -> (&'static str, &'static str) {
        match self {
            Self::Ok => ("ok", "32"),
            Self::Warn => ("warn", "33"),
            Self::Fail => ("FAIL", "1;31"),
            Self::Skip => ("skip", "2"),
        }
    }
}

/// Says each line as soon as it is known; for machines, all at the end.
pub(super) struct CheckReport {
    json: bool,
    quiet: bool,
    colour: bool,
    target: Option<String>,
    objects: Vec<String>,
    failed: bool,
}

impl CheckReport {
    /// With `json`, an array at the end instead of lines; with `quiet`, only lines of what is not in order.
    pub(super) fn new(json: bool, quiet: bool) -> Self {
        let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { json, quiet, colour, target: None, objects: Vec::new(), failed: false }
    }

    /// What is said from now on concerns this target.
    pub(super) fn begin(&mut self, target: Option<&str>) {
        self.target = target.map(str::to_owned);
        if let (Some(target), false, false) = (target, self.json, self.quiet) {
            print(&format!("Target {target}:"));
        }
    }

    /// How `item` stands.
    pub(super) fn say(&mut self, item: &str, status: CheckStatus, detail: &str) {
        self.failed |= status == CheckStatus::Fail;
        if self.json {
            let status = status.word().0.to_ascii_lowercase();
            let (item, status, detail) = (("item", item.into()), ("status", status.into()), ("detail", detail.into()));
            self.objects.push(match &self.target {
                Some(target) => json_object([("target", target.as_str().into()), item, status, detail]),
                None => json_object([item, status, detail]),
            });
        } else if !self.quiet || matches!(status, CheckStatus::Warn | CheckStatus::Fail) {
            print_coloured(&line(item, status, detail, self.colour));
        }
    }

    pub(super) fn ok(&mut self, item: &str, detail: &str) {
        self.say(item, CheckStatus::Ok, detail);
    }

    pub(super) fn fail(&mut self, item: &str, detail: &str) {
        self.say(item, CheckStatus::Fail, detail);
    }

    /// These items depend on something else, and `why` says on what.
    pub(super) fn not_checked(&mut self, items: &[&str], why: &str) {
        for item in items {
            self.say(item, CheckStatus::Skip, &format!("not checked: {why}"));
        }
    }

    /// Says what is left to say; false when something failed.
    pub(super) fn end(self) -> bool {
        if self.json {
            print(&format!("[{}]", self.objects.join(",\n ")));
        }
        !self.failed
    }
}

fn line(item: &str, status: CheckStatus, detail: &str, colour: bool) -> String {
    let (word, code) = status.word();
    let (before, after) = if colour { (format!("\x1b[{code}m"), "\x1b[0m") } else { (String::new(), "") };
    format!("{before}{word:<4}{after}  {item:<ITEM_WIDTH$}  {}", printable(detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_aligned_and_harmless() {
        assert_eq!(line("table", CheckStatus::Ok, "a\nb\x1b[2J\n", false), "ok    table           a / b\\u{1b}[2J");
        assert_eq!(line("authentication", CheckStatus::Fail, "x", false), "FAIL  authentication  x");
        assert!(line("table", CheckStatus::Warn, "x", true).starts_with("\x1b[33mwarn\x1b[0m  table"));
    }
}
