//! Lists in segments and files with several names: our ends against stock rsync's.

use crate::support;
use crate::support::both::{Both, STOCK, all_agree};
use crate::support::stock::{Bench, OURS, Run};
use crate::support::tree::{self, THEN, Tree};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Which names below a folder are one file, by the first of them.
fn names_of_one(root: &Path) -> Vec<String> {
    let mut files: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for name in Tree::of(root, i64::MAX).0.into_keys() {
        let meta = fs::symlink_metadata(root.join(OsStr::from_bytes(&name))).unwrap();
        if !meta.is_dir() {
            files.entry(meta.ino()).or_default().push(name.escape_ascii().to_string());
        }
    }
    let groups = files.into_values().filter(|names| names.len() > 1);
    let mut groups: Vec<_> = groups.map(|names| format!("one file: {}", names.join(" = "))).collect();
    groups.sort();
    groups
}

/// A tree of many shapes: wide, deep, hollow, with files of several names within and across directories.
fn build(root: &Path) {
    tree::put(root, "top", b"top\n", 0o644, THEN);
    for dir in 0..12 {
        for file in 0..9 {
            tree::put(root, format!("wide/d{dir}/f{file}"), format!("{dir} {file}\n").as_bytes(), 0o640, THEN);
        }
    }
    let deep = (0..40).map(|depth| format!("n{depth}")).collect::<Vec<_>>().join("/");
    tree::put(root, format!("{deep}/bottom"), b"far down\n", 0o600, THEN);
    fs::create_dir_all(root.join("hollow/er/still")).unwrap();
    tree::put(root, "a-b/x", b"sorted by its slash\n", 0o644, THEN);
    tree::put(root, "a/x", &tree::noise(50_000, 4), 0o644, THEN);
    tree::put(root, "links/one", &tree::noise(3000, 5), 0o644, (THEN.0, 0));
    for name in ["links/two", "links/three", "wide/d3/linked", "wide/d7/linked", "z-last"] {
        fs::hard_link(root.join("links/one"), root.join(name)).unwrap();
    }
    std::os::unix::fs::symlink("nowhere", root.join("links/sym")).unwrap();
    fs::hard_link(root.join("links/sym"), root.join("a/sym")).unwrap();
    tree::put(root, "links/pair", b"pair", 0o644, THEN);
    fs::hard_link(root.join("links/pair"), root.join("links/pear")).unwrap();
    tree::settle(root, (THEN.0 + 50, 0));
}

/// Some of the same tree, some of it different.
fn build_old(root: &Path) {
    tree::put(root, "wide/d3/f1", b"3 1\n", 0o640, THEN);
    tree::put(root, "wide/d4/f2", b"other", 0o640, (THEN.0 - 100, 0));
    let mut changed = tree::noise(50_000, 4);
    changed[20_000..20_005].copy_from_slice(b"other");
    tree::put(root, "a/x", &changed, 0o644, (THEN.0 - 100, 0));
    tree::put(root, "links/two", &tree::noise(3000, 5), 0o644, (THEN.0, 0));
    tree::put(root, "wide/d7/linked", b"was another file", 0o600, (THEN.0 - 9, 0));
    tree::put(root, "stays/here", b"not in the source", 0o644, THEN);
    tree::settle(root, (THEN.0 - 50, 0));
}

/// Runs each command with stock's and with our far end on equal folders: exit code, trees, names of one file, and, unless
/// such names make it a matter of time which is sent, the words must be the same.
fn matrix(version: u8) {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    build(&bench.path().join("src"));
    build_old(&bench.path().join("dst"));
    let whole: &[&str] = &["src/"];
    let mut cases = vec![("-ai", whole), ("-aH", whole), ("-aRi", whole)];
    if version == 32 {
        let more = ["-aHi --no-inc-recursive", "-aci", "-ain", "-aH --existing", "-aHI --no-W -B700"];
        cases.extend(more.map(|options| (options, whole)));
        let sources: [&[&str]; 4] =
            [&["src"], &["src/a/", "src/a-b/"], &["src/links", "src/wide/", "src/top"], &["src/top"]];
        cases.extend(sources.iter().flat_map(|sources| [("-ai", *sources), ("-aRi", *sources)]));
    }
    let prepare =
        |work: &Path| ["src", "dst"].iter().for_each(|name| tree::copy(&bench.path().join(name), &work.join(name)));
    let links = |_: &Run, work: &Path| names_of_one(&work.join("dst"));
    let links_and_words = |run: &Run, work: &Path| [run.lines(), names_of_one(&work.join("dst"))].concat();
    let cases: Vec<_> = cases.into_iter().flat_map(|case| [(case, true), (case, false)]).collect();
    all_agree(&cases, |&((options, sources), push)| {
        let host = if push { "" } else { "host:" };
        let from: String = sources.iter().map(|source| format!("{host}{source} ")).collect();
        let to = if push { "host:dst/" } else { "dst/" };
        let look: &(dyn Fn(&Run, &Path) -> Vec<String> + Sync) =
            if options.contains('H') { &links } else { &links_and_words };
        let both = Both { look, ..Both::new(&bench, &prepare) };
        both.difference((STOCK, OURS), &format!("--protocol={version} {options} {from}{to}"))
    });
}

#[test]
fn trees_of_many_shapes_30() {
    matrix(30);
}

#[test]
fn trees_of_many_shapes_31() {
    matrix(31);
}

#[test]
fn trees_of_many_shapes_32() {
    matrix(32);
}

fn offers(run: &Run) -> bool {
    String::from_utf8_lossy(&run.stdout).contains("incremental file list")
}

#[test]
fn many_small_files_in_many_directories() {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    let work = bench.path();
    let src = work.join("src");
    for file in 0..5000 {
        tree::put(&src, format!("d{}/e{}/f{file}", file % 20, file % 300), b"small", 0o644, THEN);
    }
    // Stock leaves a folder's time as it is where it is off by less than a second.
    for file in 0..300 {
        tree::set_mtime(&src.join(format!("d{}/e{file}", file % 20)), THEN.0, 0);
    }
    for folder in 0..20 {
        tree::set_mtime(&src.join(format!("d{folder}")), THEN.0, 0);
    }
    tree::set_mtime(&src, THEN.0, 0);
    let expected = Tree::of(&src, i64::MAX);
    for (words, dst) in [(["-av", "src/", "host:push/"], "push"), (["-av", "host:src/", "pull/"], "pull")] {
        let run = bench.rsync(OURS, work, &words);
        assert_eq!((run.code, offers(&run)), (0, true), "{}", run.stderr);
        assert_eq!(Tree::of(&work.join(dst), i64::MAX).difference(&expected), "");
        let again = bench.rsync(OURS, work, &["-a", "--stats", words[1], words[2]]);
        assert_eq!((again.code, again.stat("Number of regular files transferred")), (0, 0), "{}", again.stderr);
    }
    let run = bench.rsync(OURS, work, &["-av", "--no-inc-recursive", "src/", "host:whole/"]);
    assert_eq!((run.code, offers(&run)), (0, false));
    assert_eq!(Tree::of(&work.join("whole"), i64::MAX).difference(&expected), "");
}

/// Which name of a file is sent and what is said of the others, where all are in one directory.
#[test]
fn links_of_one_directory_are_told_as_stock_tells_them() {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    for there in [&[][..], &["a"], &["b"], &["c"], &["a", "b"], &["a", "b", "c"]] {
        let prepare = |work: &Path| {
            let (src, dst) = (work.join("src"), work.join("dst"));
            tree::put(&src, "a", b"one file", 0o644, THEN);
            fs::hard_link(src.join("a"), src.join("b")).unwrap();
            fs::hard_link(src.join("a"), src.join("c")).unwrap();
            fs::create_dir(&dst).unwrap();
            for name in there {
                tree::put(&dst, name, b"one file", 0o644, THEN);
            }
            tree::settle(&src, (THEN.0, 0));
            tree::settle(&dst, (THEN.0 - 1, 0));
        };
        let look = |run: &Run, work: &Path| {
            let mut said: Vec<_> =
                run.stdout.split(|&byte| byte == b'\n').map(|line| line.escape_ascii().to_string()).collect();
            said.retain(|line| line.as_bytes().get(11) == Some(&b' '));
            said.sort();
            let left = Tree::of(&work.join("src"), i64::MAX).files().len();
            [said, names_of_one(&work.join("dst")), vec![format!("{left} files stay")]].concat()
        };
        let both = Both { folders: &[], look: &look, ..Both::new(&bench, &prepare) };
        for options in ["-aHii", "-aHni", "-aHi --remove-source-files"] {
            for operands in ["src/ host:dst/", "host:src/ dst/"] {
                both.same(&format!("{options} {operands}"));
            }
        }
    }
}

/// The highest memory a program had, KiB.
fn peak(text: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix("PEAK ")).unwrap_or_else(|| panic!("no peak in {text}"));
    line.trim().parse().unwrap()
}

/// Lists are let go of as they are finished: twenty times the tree is not twenty times the memory.
#[test]
fn a_large_tree_costs_little_memory() {
    if !support::tools::require("rsync") || !support::tools::require("python3") {
        return;
    }
    let slow = std::env::var_os("ARCHIVER_SLOW").is_some();
    let bench = Bench::start();
    let server = bench.script(
        "measured",
        &format!(
            "exec python3 -c 'import resource,subprocess,sys
code = subprocess.call(sys.argv[1:])
print(\"PEAK\", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(code)' {OURS} \"$@\"\n"
        ),
    );
    let sizes = if slow { [10_000, 100_000] } else { [6000, 24_000] };
    let mut peaks = Vec::new();
    for (round, size) in sizes.into_iter().enumerate() {
        let work = bench.path().join(round.to_string());
        for dir in 0..size / 200 {
            let folder = work.join(format!("src/{dir:05}"));
            fs::create_dir_all(&folder).unwrap();
            for file in 0..200 {
                fs::write(folder.join(format!("a-file-with-a-name-of-some-length-{file:05}")), "").unwrap();
            }
        }
        for paths in [["src/", "host:dst/"], ["host:src/", "back/"]] {
            let words = ["-a", "--ignore-times", "--existing", paths[0], paths[1]];
            let run = bench.rsync(server.to_str().unwrap(), &work, &words);
            assert_eq!(run.code, 0, "{}", run.stderr);
            peaks.push(peak(&run.stderr));
        }
    }
    eprintln!("KiB receiving and sending {sizes:?} entries: {peaks:?}");
    assert!(peaks[2] < peaks[0] + 8000 && peaks[3] < peaks[1] + 8000, "{peaks:?}");
}
