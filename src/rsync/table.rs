//! Every option of the command line, once: parsing, help, manual page, completions and what a daemon refuses all come from here.

use super::command_line::CommandLine;
use super::usage::Usage;
use protocol::args::ServerOption;
use std::path::PathBuf;

mod options;
use options::OPTIONS;

/// What an option does to the command line.
#[derive(Clone, Copy)]
pub(super) enum Apply {
    /// What it does at a server.
    Told(ServerOption),
    /// Takes that back.
    Untold(ServerOption),
    /// Switches on or off.
    Set(fn(&mut CommandLine) -> &mut bool, bool),
    /// The same for what is as others have it unless it was said.
    Choose(fn(&mut CommandLine) -> &mut Option<bool>, bool),
    /// Counts.
    Count(fn(&mut CommandLine) -> &mut u8),
    /// Forgets the count.
    Zero(fn(&mut CommandLine) -> &mut u8),
    /// Keeps its value.
    Text(fn(&mut CommandLine) -> &mut Option<Vec<u8>>),
    /// Keeps its value, a path here.
    Path(fn(&mut CommandLine) -> &mut Option<PathBuf>),
    /// Something else.
    Do(fn(&mut CommandLine)),
    /// Something else, with its value.
    Take(fn(&mut CommandLine, &[u8]) -> Result<(), Usage>),
}

/// What `refuse options` of a daemon does with an option beside what its list says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusable {
    /// No wildcard refuses it, for nothing would work without.
    Vital,
    /// It is refused unless the list says otherwise.
    Unasked,
    /// It is refused whatever the list says: the daemon would write where the client likes.
    Always,
}

/// One option.
#[derive(Clone, Copy)]
pub(crate) struct Opt {
    /// Its name without dashes, which is shown; empty for a letter alone.
    pub(crate) name: &'static str,
    /// Other names.
    also: &'static [&'static str],
    /// Letter; 0 for none.
    pub(crate) letter: u8,
    /// What its value is called; empty for an option without one.
    value: &'static str,
    /// One line of help; empty for what is listed elsewhere.
    pub(super) help: &'static str,
    /// What it does.
    apply: Apply,
    /// What takes it back, if anything.
    back: Option<Apply>,
    /// `--no-` and its letter take it back, too.
    back_by_letter: bool,
    /// What a daemon does with it.
    pub(crate) refusals: &'static [Refusable],
}

/// An option that a server may be told. It does here what it does there, unless something else is said.
const fn told(option: ServerOption, value: &'static str, help: &'static str) -> Opt {
    let ServerOption { name, also, letter, .. } = option;
    Opt { also, letter, apply: Apply::Told(option), ..own(name, value, help) }
}

/// An option of the client alone.
const fn own(name: &'static str, value: &'static str, help: &'static str) -> Opt {
    let apply = Apply::Do(|_| {});
    Opt { name, also: &[], letter: 0, value, help, apply, back: None, back_by_letter: true, refusals: &[] }
}

/// What is said of an option beside its name and its help.
impl Opt {
    const fn letter(self, letter: u8) -> Self {
        Self { letter, ..self }
    }

    const fn also(self, also: &'static [&'static str]) -> Self {
        Self { also, ..self }
    }

    const fn by(self, apply: Apply) -> Self {
        Self { apply, ..self }
    }

    const fn does(self, act: fn(&mut CommandLine)) -> Self {
        self.by(Apply::Do(act))
    }

    const fn takes(self, read: fn(&mut CommandLine, &[u8]) -> Result<(), Usage>) -> Self {
        self.by(Apply::Take(read))
    }

    /// What takes it back undoes what was said of it so far.
    const fn back(self) -> Self {
        let back = match self.apply {
            Apply::Told(option) => Apply::Untold(option),
            Apply::Set(flag, on) => Apply::Set(flag, !on),
            Apply::Choose(choice, on) => Apply::Choose(choice, !on),
            Apply::Count(count) => Apply::Zero(count),
            _ => Apply::Do(|_| {}),
        };
        Self { back: Some(back), ..self }
    }

    const fn back_by(self, act: fn(&mut CommandLine)) -> Self {
        Self { back: Some(Apply::Do(act)), ..self }
    }

    /// The same as `back`, but not by its letter.
    const fn back_by_name(self) -> Self {
        Self { back_by_letter: false, ..self.back() }
    }

    const fn refused(self, refusals: &'static [Refusable]) -> Self {
        Self { refusals, ..self }
    }

    fn names(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.name).chain(self.also.iter().copied()).filter(|name| !name.is_empty())
    }

    /// As it is typed.
    fn spelt(&self) -> Spelt {
        let names = self.names().map(str::to_owned).collect();
        Spelt { names, letter: self.letter, value: self.value, help: self.help }
    }

    /// What takes it back, as it is typed; nothing for what cannot be taken back.
    fn spelt_back(&self) -> Option<Spelt> {
        let opposite = |name: &str| name.strip_prefix("no-").map_or_else(|| format!("no-{name}"), str::to_owned);
        let letter = Some(self.letter).filter(|letter| self.back_by_letter && *letter != 0);
        let letter = letter.map(|letter| format!("no-{}", char::from(letter)));
        let names = self.names().map(opposite).chain(letter).collect();
        self.back.is_some().then_some(Spelt { names, letter: 0, value: "", help: "" })
    }
}

/// An option, or what takes one back, as it is typed.
pub(super) struct Spelt {
    /// Names without dashes; none for a letter alone.
    pub(super) names: Vec<String>,
    /// Letter; 0 for none.
    pub(super) letter: u8,
    /// What its value is called; empty for an option without one.
    pub(super) value: &'static str,
    /// One line of help; empty for what is listed elsewhere.
    pub(super) help: &'static str,
}

/// An option that was found by what was typed.
#[derive(Clone, Copy)]
pub(crate) struct Meant {
    /// The option.
    pub(crate) option: &'static Opt,
    /// It is taken back.
    pub(crate) taken_back: bool,
}

impl Meant {
    /// What is done.
    pub(super) fn apply(&self) -> Apply {
        if self.taken_back { self.option.back.unwrap_or(self.option.apply) } else { self.option.apply }
    }

    /// Its first name, which is its letter where it has no other.
    pub(crate) fn name(&self) -> String {
        let spelt =
            if self.taken_back { self.option.spelt_back() } else { None }.unwrap_or_else(|| self.option.spelt());
        spelt.names.into_iter().next().unwrap_or_else(|| char::from(self.option.letter).to_string())
    }

    /// Whether it comes with a value.
    pub(crate) fn takes_value(&self) -> bool {
        !self.taken_back && !self.option.value.is_empty()
    }
}

/// The option of this name.
pub(crate) fn by_name(name: &[u8]) -> Option<Meant> {
    let given = OPTIONS.iter().find(|option| option.names().any(|known| known.as_bytes() == name));
    given.map(|option| Meant { option, taken_back: false }).or_else(|| {
        let name = std::str::from_utf8(name).ok()?;
        let is_back =
            |option: &&Opt| option.spelt_back().is_some_and(|back| back.names.iter().any(|known| known == name));
        OPTIONS.iter().find(is_back).map(|option| Meant { option, taken_back: true })
    })
}

/// The option of this letter.
pub(crate) fn by_letter(letter: u8) -> Option<Meant> {
    let option = OPTIONS.iter().find(|option| option.letter == letter && letter != 0)?;
    Some(Meant { option, taken_back: false })
}

/// The long option that somebody may have meant with this word.
pub(super) fn resembling(word: &str) -> Option<String> {
    let name = word.strip_prefix("--")?.split('=').next().filter(|name| (3..64).contains(&name.len()))?;
    let names = all().flat_map(|spelt| spelt.names).filter(|known| known.len() > 2);
    let near = |known: &String| known.starts_with(name) || distance(name, known) <= 1 + name.len() / 8;
    names.filter(near).min_by_key(|known| distance(name, known))
}

/// How many letters are to be added, left out, changed or swapped with the next one to make one word of the other.
fn distance(left: &str, right: &str) -> usize {
    let (left, right) = (left.as_bytes(), right.as_bytes());
    let mut rows: [Vec<usize>; 3] = [vec![0; right.len() + 1], (0..=right.len()).collect(), vec![0; right.len() + 1]];
    for (i, a) in left.iter().enumerate() {
        let [before, above, row] = &mut rows;
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            row[j + 1] = (above[j + 1] + 1).min(row[j] + 1).min(above[j] + usize::from(a != b));
            if i > 0 && j > 0 && *a == right[j - 1] && left[i - 1] == *b {
                row[j + 1] = row[j + 1].min(before[j - 1] + 1);
            }
        }
        rows.rotate_left(1);
    }
    rows[1][right.len()]
}

/// What the manual lists, in the order in which it is listed.
pub(super) fn listed() -> impl Iterator<Item = Spelt> {
    OPTIONS.iter().filter(|option| !option.help.is_empty()).map(Opt::spelt)
}

/// What it leaves out: what takes an option back, and other names without a line of their own.
pub(super) fn unlisted() -> impl Iterator<Item = Spelt> {
    let bare = |option: &'static Opt| Some(option.spelt()).filter(|spelt| spelt.help.is_empty());
    OPTIONS.iter().flat_map(move |option| bare(option).into_iter().chain(option.spelt_back()))
}

/// All options.
pub(super) fn all() -> impl Iterator<Item = Spelt> {
    listed().chain(unlisted())
}
