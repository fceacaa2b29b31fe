//! What a copy does to a destination that holds something already, told as stories: a few words make the folders, then
//! commands run on every road and in every pairing, and must leave and say what stock leaves and says.

use crate::support::both::{self, Ends, Outcome, STOCK};
use crate::support::stock::{Bench, OURS, client_behind, ended};
use crate::support::tree::{self, Tree};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::Path;
use std::process::Command;

/// Seconds in 2020, and in each year before and after.
const YEAR_2020: i64 = 1_577_836_800;
const YEAR: i64 = 31_536_000;

/// A story: what stands where, a line for each thing, and the commands that are run on copies of it.
#[derive(Clone, Copy)]
pub(crate) struct Story {
    pub(crate) name: &'static str,
    pub(crate) setup: &'static str,
    /// Each ends with the source and the destination; `WORK` is the folder both are in.
    pub(crate) runs: &'static [&'static str],
    /// Whether it is played by somebody who is not root, and owns it all.
    pub(crate) powerless: bool,
}

fn moment(year: Option<&&str>) -> (i64, i64) {
    let year: i64 = year.map_or(2020, |year| year.parse().unwrap());
    (YEAR_2020 + (year - 2020) * YEAR, 0)
}

/// Makes what the lines say. Folders get a time of their own in the end.
pub(crate) fn make(work: &Path, setup: &str) {
    for line in setup.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<_> = line.split(' ').collect();
        let at = |nth: usize| work.join(words[nth]);
        let number = |nth: usize| words[nth].parse::<u32>().unwrap();
        let special = |kind, device| {
            let mode = rustix::fs::Mode::from_raw_mode(0o644);
            rustix::fs::mknodat(rustix::fs::CWD, at(1), kind, mode, device).unwrap();
            tree::set_mtime(&at(1), YEAR_2020, 0);
        };
        match words[0] {
            "put" => tree::put(work, words[1], words[2].as_bytes(), 0o644, moment(words.get(3))),
            "dir" => fs::create_dir_all(at(1)).unwrap(),
            "link" => {
                symlink(words[2].replace("WORK", work.to_str().unwrap()), at(1)).unwrap();
                let (seconds, nanoseconds) = moment(words.get(3));
                tree::set_mtime(&at(1), seconds, nanoseconds);
            }
            "name" => fs::hard_link(at(2), at(1)).unwrap(),
            "fifo" => special(rustix::fs::FileType::Fifo, 0),
            "node" => {
                special(rustix::fs::FileType::CharacterDevice, rustix::fs::makedev(number(2), number(3)));
            }
            "mode" => {
                let mode = u32::from_str_radix(words[2], 8).unwrap();
                fs::set_permissions(at(1), fs::Permissions::from_mode(mode)).unwrap();
            }
            "owner" => lchown(at(1), Some(number(2)), Some(number(3))).unwrap(),
            "attr" => {
                let flags = rustix::fs::XattrFlags::empty();
                rustix::fs::lsetxattr(at(1), words[2], words[3].replace('_', " ").as_bytes(), flags).unwrap();
            }
            "copy" => {
                let done = Command::new("cp").arg("-a").arg(at(1)).arg(at(2)).status().unwrap();
                assert!(done.success());
            }
            "remove" => fs::remove_file(at(1)).unwrap(),
            other => panic!("{other}"),
        }
    }
    tree::settle(work, (YEAR_2020 - YEAR, 0));
}

/// Extended attributes, and which names are of one file.
fn further(root: &Path) -> Vec<String> {
    let (mut lines, mut inodes) = (Vec::new(), BTreeMap::<u64, Vec<String>>::new());
    for (name, _) in Tree::of(root, 0).0 {
        let path = root.join(OsStr::from_bytes(&name));
        let text = String::from_utf8_lossy(&name).into_owned();
        let mut names = vec![0; 4096];
        let len = rustix::fs::llistxattr(&path, &mut names[..]).unwrap_or(0);
        for attribute in names[..len].split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
            let mut value = vec![0; 4096];
            let len = rustix::fs::lgetxattr(&path, OsStr::from_bytes(attribute), &mut value[..]).unwrap_or(0);
            lines.push(format!("{text}: {} = {}", attribute.escape_ascii(), value[..len].escape_ascii()));
        }
        inodes.entry(fs::symlink_metadata(&path).unwrap().ino()).or_default().push(text);
    }
    lines.extend(inodes.into_values().filter(|names| names.len() > 1).map(|names| names.join(" = ")));
    lines.sort();
    lines
}

/// Lines that depend on the program, the road or the moment.
fn is_kept(line: &&str) -> bool {
    let passing = [
        "sent ",
        "total",
        "sending ",
        "receiving ",
        "building ",
        "delta-transmission ",
        "skipping ",
        "done",
        "opening ",
    ];
    !line.is_empty() && !passing.iter().any(|start| line.starts_with(start))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Road {
    Local,
    Push,
    Pull,
}

/// Plays one command of a story.
pub(crate) fn play(bench: &Bench, story: &Story, command: &str, road: Road, (near, far): Ends) -> Outcome {
    let since = tree::now() - 1;
    let folder = bench.fresh("story");
    let work = folder.path();
    make(work, story.setup);
    let place = work.to_str().unwrap();
    let mut words: Vec<String> = command.split(' ').map(|word| word.replace("WORK", place)).collect();
    let (to, from) = (words.pop().unwrap(), words.pop().unwrap());
    if road != Road::Local {
        words.extend(["-e".into(), bench.shell().to_str().unwrap().into(), format!("--rsync-path={far}")]);
    }
    match road {
        Road::Local => words.extend([from, to]),
        Road::Push => words.extend([from, format!("host:{place}/{to}")]),
        Road::Pull => words.extend([format!("host:{place}/{from}"), to]),
    }
    let mut before: &[&str] = &[];
    if story.powerless {
        before = &["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
        for name in Tree::of(work, 0).0.into_keys() {
            lchown(work.join(OsStr::from_bytes(&name)), Some(65534), Some(65534)).unwrap();
        }
    }
    let run = ended(client_behind(before, near).args(&words).current_dir(work));
    let text = String::from_utf8_lossy(&run.stdout).replace(place, "WORK");
    let mut said: Vec<_> = text.lines().filter(is_kept).map(str::to_owned).collect();
    said.sort();
    let lines = [said, further(work)].concat();
    Outcome::new(run, lines, work, &["."], since)
}

/// Plays every command on every road; the pairings take turns, and with `ARCHIVER_SLOW=1` all of them play every one.
pub(crate) fn all_agree(stories: &[Story]) {
    if !tree::is_root() {
        eprintln!("SKIPPED: only root can make the trees; run as root");
        return;
    }
    let Some(bench) = Bench::with(&["rsync", "setpriv"]) else { return };
    fs::set_permissions(bench.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let all = std::env::var_os("ARCHIVER_SLOW").is_some();
    let only = std::env::var("STORIES_ONLY").unwrap_or_default();
    let pairings = [(OURS, OURS), (STOCK, OURS), (OURS, STOCK)];
    let mut cases = Vec::new();
    for (turn, (story, command)) in
        stories.iter().flat_map(|story| story.runs.iter().map(move |run| (story, *run))).enumerate()
    {
        if !format!("{} {command}", story.name).contains(&only) {
            continue;
        }
        cases.push((story, command, Road::Local, (OURS, OURS)));
        for (nth, pairing) in pairings.into_iter().enumerate() {
            for (road, share) in [(Road::Push, 0), (Road::Pull, 3)] {
                if all || turn % 6 == nth + share {
                    cases.push((story, command, road, pairing));
                }
            }
        }
    }
    both::all_agree(&cases, |(story, command, road, ends)| {
        let stock = play(&bench, story, command, *road, (STOCK, STOCK));
        let text = stock.difference(&play(&bench, story, command, *road, *ends));
        if text.is_empty() { text } else { format!("{}, {road:?}, {ends:?}: {command}\n{text}", story.name) }
    });
}
