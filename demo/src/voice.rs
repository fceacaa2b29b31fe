//! How the story looks: numbered steps, sentences in lines of a terminal, colour where somebody looks.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use textwrap::WordSplitter;

/// Letters of a line.
const WIDTH: usize = 80;

/// What stands before all lines but the headings.
const MARGIN: &str = "   ";

const BOLD: &str = "1";
const DIM: &str = "2";
const GREEN: &str = "32";
const RED: &str = "31";

/// Tells it on standard output.
pub(crate) struct Voice {
    colour: bool,
    steps: u32,
}

impl Voice {
    /// As it suits standard output and `NO_COLOR`.
    pub(crate) fn of_output() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { colour: wanted && io::stdout().is_terminal(), steps: 0 }
    }

    /// What all of it is.
    pub(crate) fn title(&self, text: &str) {
        put(self.painted(BOLD, text));
    }

    /// The heading of the next step.
    pub(crate) fn step(&mut self, heading: &str) {
        self.steps += 1;
        put(format_args!("\n{}", self.painted(BOLD, &format!("{}. {heading}", self.steps))));
    }

    /// Sentences, broken into lines.
    pub(crate) fn say(&self, text: &str) {
        for line in lines(text, WIDTH - MARGIN.len()) {
            put(format_args!("{MARGIN}{line}"));
        }
    }

    /// What an operator types.
    pub(crate) fn command(&self, text: &str) {
        put(format_args!("{MARGIN}{} {}", self.painted(DIM, "$"), self.painted(BOLD, text)));
    }

    /// What a program printed, line by line as it did.
    pub(crate) fn quote(&self, text: &str) {
        for line in text.trim_end().lines() {
            put(format_args!("{MARGIN}  {}", self.painted(DIM, line)));
        }
    }

    /// A claim that holds or does not.
    pub(crate) fn claim(&self, text: &str, holds: bool) {
        let mark = if holds { self.painted(GREEN, "yes") } else { self.painted(RED, "NO ") };
        let mut lines = lines(text, WIDTH - MARGIN.len() - 5).into_iter();
        put(format_args!("{MARGIN}{mark}  {}", lines.next().unwrap_or_default()));
        for line in lines {
            put(format_args!("{MARGIN}     {line}"));
        }
    }

    /// The last word.
    pub(crate) fn verdict(&self, text: &str, good: bool) {
        put(format_args!("\n{}", self.painted(if good { GREEN } else { RED }, text)));
    }

    fn painted(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// One line. Whoever reads no further must not keep the rest from being done.
fn put(line: impl Display) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// Words in lines of so many letters; one that is longer has a line of its own.
fn lines(text: &str, width: usize) -> Vec<String> {
    let options = textwrap::Options::new(width).break_words(false).word_splitter(WordSplitter::NoHyphenation);
    textwrap::wrap(text, options).into_iter().map(Cow::into_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::lines;

    #[test]
    fn sentences_are_broken_between_words() {
        assert_eq!(lines("one two three", 7), ["one two", "three"]);
        assert_eq!(lines("a /very/long/path b", 7), ["a", "/very/long/path", "b"]);
        assert_eq!(lines("", 7), [""]);
    }
}
