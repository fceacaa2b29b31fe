//! The same command once with stock and once with ours: nothing may differ.

use super::stock::{Bench, OURS, Run, client, ended};
use super::tree::{self, Tree};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Stock's program at one end.
pub const STOCK: &str = "rsync";

/// A client's program and its server's.
pub type Ends<'a> = (&'a str, &'a str);

/// The ends that are held against stock at both.
pub const PAIRINGS: [Ends<'static>; 3] = [(STOCK, OURS), (OURS, STOCK), (OURS, OURS)];

/// What came of a command, as far as it must be the same.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub run: Run,
    /// Lines of what was said, and of what was left besides the trees.
    pub lines: Vec<String>,
    /// What stands in each folder that was to be looked at, by its name.
    pub trees: Vec<(String, Tree)>,
}

impl Outcome {
    /// Looks at the folders of these names; times from `since` on count as "now".
    pub fn new(run: Run, lines: Vec<String>, work: &Path, folders: &[&str], since: i64) -> Self {
        let trees = folders.iter().map(|name| ((*name).to_owned(), Tree::of(&work.join(name), since))).collect();
        Self { run, lines, trees }
    }

    /// What stands in the folder of this name.
    pub fn tree(&self, name: &str) -> &Tree {
        let (_, tree) = self.trees.iter().find(|(folder, _)| folder == name).unwrap();
        tree
    }

    /// What differs between stock's and ours; empty when nothing does.
    pub fn difference(&self, ours: &Self) -> String {
        let mut text = String::new();
        if self.run.code != ours.run.code {
            text += &format!("  exit code {} | {}\n", self.run.code, ours.run.code);
        }
        for (whose, these, those) in [("stock", &self.lines, &ours.lines), ("ours", &ours.lines, &self.lines)] {
            for line in these.iter().filter(|line| !those.contains(line)) {
                text += &format!("  only {whose}: {line}\n");
            }
        }
        if self.lines != ours.lines && text.is_empty() {
            text += &format!("  in another order or number {:#?} | {:#?}\n", self.lines, ours.lines);
        }
        for ((name, left), (_, right)) in self.trees.iter().zip(&ours.trees) {
            let lines = left.difference(right);
            if !lines.is_empty() {
                text += &format!("  {name} after stock | after ours:\n{lines}");
            }
        }
        if !text.is_empty() {
            text += &format!("  stock said {:?}\n  ours said {:?}\n", self.run.stderr, ours.run.stderr);
        }
        text
    }
}

/// How commands are run that must do the same with stock and with ours, each on its own copy of everything.
pub struct Both<'a> {
    pub bench: &'a Bench,
    /// Fills the folder to work in.
    pub prepare: &'a (dyn Fn(&Path) + Sync),
    /// The remote shell; see [`Bench::script`].
    pub shell: PathBuf,
    /// What stands before the server's program, such as `setpriv …`.
    pub before: &'a str,
    /// The folders whose trees must be the same.
    pub folders: &'a [&'a str],
    /// What else must be: lines about the run and the folder it ran in.
    pub look: &'a (dyn Fn(&Run, &Path) -> Vec<String> + Sync),
    /// Times from then on count as "now".
    pub since: i64,
    /// What the client finds in its environment.
    pub env: &'a [(&'a str, &'a str)],
}

impl<'a> Both<'a> {
    /// Compares `src`, `dst` and the lines about items and totals.
    pub fn new(bench: &'a Bench, prepare: &'a (dyn Fn(&Path) + Sync)) -> Self {
        let since = tree::now() - 1;
        let look = &|run: &Run, _: &Path| run.lines();
        Self { bench, prepare, shell: bench.shell(), before: "", folders: &["src", "dst"], look, since, env: &[] }
    }

    /// Runs a command with these programs; `WORK` in it, and in the server's, stands for the folder.
    pub fn run<A: AsRef<str>>(&self, (near, far): Ends, words: &[A]) -> Outcome {
        let folder = self.bench.fresh("work");
        let work = folder.path();
        (self.prepare)(work);
        // Otherwise a folder and its copy differ when a second begins between the two.
        for folder in self.folders.iter().map(|name| work.join(name)) {
            tree::pin_recent(&folder, self.since);
        }
        let here = |word: &str| word.replace("WORK", work.to_str().unwrap());
        let mut command = client(near);
        command.arg("-e").arg(&self.shell).args(["--rsync-path", &here(&format!("{}{far}", self.before))]);
        command.args(words.iter().map(|word| here(word.as_ref())));
        let run = ended(command.envs(self.env.iter().copied()).current_dir(work));
        let mut outcome = Outcome::new(run, Vec::new(), work, self.folders, self.since);
        outcome.lines = (self.look)(&outcome.run, work);
        outcome
    }

    /// What differs between stock at both ends and these, and what came of these.
    pub fn compare<A: AsRef<str>>(&self, ends: Ends, words: &[A]) -> (String, Outcome) {
        let stock = self.run((STOCK, STOCK), words);
        let ours = self.run(ends, words);
        let text = stock.difference(&ours);
        let words: Vec<_> = words.iter().map(AsRef::as_ref).collect();
        (if text.is_empty() { text } else { format!("{} to {}: {}\n{text}", ends.0, ends.1, words.join(" ")) }, ours)
    }

    /// What differs of a line of words without spaces.
    pub fn difference(&self, ends: Ends, line: &str) -> String {
        self.compare(ends, &words(line)).0
    }

    /// Runs a line by stock's client, with stock and with ours as its server; nothing may differ.
    pub fn same(&self, line: &str) -> Run {
        let (text, ours) = self.compare((STOCK, OURS), &words(line));
        assert!(text.is_empty(), "{text}");
        ours.run
    }
}

/// Words without spaces.
pub fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

/// Asserts that nothing differs in any case. A session mostly waits, so that several at once cost little.
pub fn all_agree<T: Sync>(cases: &[T], difference: impl Fn(&T) -> String + Sync) {
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let text = difference(case);
                    if !text.is_empty() {
                        failures.lock().unwrap().push(text);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}{} of {} differ", failures.concat(), failures.len(), cases.len());
}
