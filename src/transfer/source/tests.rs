use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use protocol::flist::DirClass;
use rustix::fs::{CWD, Mode};
use tempfile::TempDir;

use super::*;

/// What was found.
struct Scan {
    entries: Vec<(FileEntry, Location)>,
    io_error: i32,
    tree: SourceTree,
}

fn scan(arguments: &[PathBuf], options: &ScanOptions, hooks: Hooks<'_>) -> Result<Scan, ScanError> {
    let mut walk = Walk::new(options, hooks);
    let entries = walk
        .everything(Arguments::Paths(arguments))
        .map(|(entries, places)| entries.into_iter().zip(places).collect())?;
    Ok(Scan { entries, io_error: walk.take_io_error(), tree: walk.tree })
}

const RECURSE: ScanOptions = ScanOptions {
    recurse: true,
    dirs: false,
    relative: false,
    one_file_system: 0,
    tells_mounts: false,
    tells_unsafe_links: false,
    tells_rules: false,
    links: true,
    copy_links: false,
    copy_dirlinks: false,
    devices: true,
    specials: true,
    copy_unsafe_links: false,
    unmunge_links: false,
    acls: false,
    xattrs: 0,
    fake_super: false,
    super_user: None,
    open_noatime: false,
    copy_devices: false,
    atimes: false,
    hard_links: false,
    ignore_missing_args: false,
    delete_missing_args: false,
    charset: None,
};
const NO_RECURSE: ScanOptions = ScanOptions { recurse: false, ..RECURSE };

/// `a/b/f`, `a/ld -> ../real`, `real/y`, `lnk -> real`, `fl -> a/b/f`, `dang -> nowhere`, `ff` a fifo.
fn tree() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir_all(at("a/b")).unwrap();
    fs::create_dir(at("real")).unwrap();
    fs::write(at("a/b/f"), b"content").unwrap();
    fs::write(at("real/y"), b"y").unwrap();
    symlink("../real", at("a/ld")).unwrap();
    symlink("real", at("lnk")).unwrap();
    symlink("a/b/f", at("fl")).unwrap();
    symlink("nowhere", at("dang")).unwrap();
    rustix::fs::mkfifoat(CWD, at("ff"), Mode::RWXU).unwrap();
    folder
}

struct Listed {
    scan: Scan,
    /// Names in order, a `/` behind directories and a mark of their class.
    names: Vec<String>,
    messages: Vec<String>,
}

fn list(folder: &TempDir, arguments: &[&str], options: &ScanOptions) -> Listed {
    let root = folder.path().to_str().unwrap();
    let arguments: Vec<PathBuf> = arguments.iter().map(|argument| format!("{root}/{argument}").into()).collect();
    let mut messages = Vec::new();
    let report = |_: Severity, text: String| messages.push(text.replace(root, "ROOT"));
    let scan = scan(&arguments, options, Hooks { report: Box::new(report), ..Hooks::default() }).unwrap();
    let mut names: Vec<String> = scan.entries.iter().map(|(entry, _)| named(entry)).collect();
    names.sort();
    messages.sort();
    Listed { scan, names, messages }
}

fn named(entry: &FileEntry) -> String {
    let mark = match (entry.kind(), entry.extra.dir_class) {
        (Some(Kind::Dir), DirClass::Content) => "/",
        (Some(Kind::Dir), DirClass::Argument) => "/ argument",
        (Some(Kind::Dir), DirClass::NoContent) => "/ no content",
        (Some(Kind::Dir), DirClass::Implied) => "/ implied",
        _ => "",
    };
    shown(&entry.name) + mark
}

fn read(scan: &Scan, name: &str) -> io::Result<String> {
    let (entry, at) = scan.entries.iter().find(|(entry, _)| entry.name == name.as_bytes()).unwrap();
    let mut text = String::new();
    scan.tree.open(&entry.name, *at)?.read_to_string(&mut text)?;
    Ok(text)
}

#[test]
fn a_folder_is_sent_by_its_last_name() {
    let folder = tree();
    let listed = list(&folder, &["a"], &RECURSE);
    assert_eq!(listed.names, ["a/ argument", "a/b/", "a/b/f", "a/ld"]);
    assert_eq!((listed.scan.io_error, listed.messages.len()), (0, 0));
    assert_eq!(read(&listed.scan, "a/b/f").unwrap(), "content");
    let (link, _) = listed.scan.entries.iter().find(|(entry, _)| entry.name == b"a/ld").unwrap();
    assert_eq!((link.extra.target.as_deref(), link.len), (Some(&b"../real"[..]), 7));
    let (file, _) = listed.scan.entries.iter().find(|(entry, _)| entry.name == b"a/b/f").unwrap();
    let meta = fs::metadata(folder.path().join("a/b/f")).unwrap();
    assert_eq!((file.len, file.mode, file.mtime), (7, meta.mode(), meta.mtime()));
    assert_eq!((i64::from(file.nsec), file.uid, file.gid), (meta.mtime_nsec(), meta.uid(), meta.gid()));
}

#[test]
fn a_trailing_slash_or_dot_sends_the_contents() {
    let folder = tree();
    for argument in ["a/", "a/.", "a//", "a/b/.."] {
        let listed = list(&folder, &[argument], &RECURSE);
        assert_eq!(listed.names, ["./ argument", "b/", "b/f", "ld"], "{argument}");
        assert_eq!(read(&listed.scan, "b/f").unwrap(), "content");
    }
    let listed = list(&folder, &["lnk/"], &RECURSE);
    assert_eq!(listed.names, ["./ argument", "y"]);
    assert_eq!(read(&listed.scan, "y").unwrap(), "y");
    assert_eq!(list(&folder, &["lnk"], &RECURSE).names, ["lnk"]);
}

#[test]
fn without_recursion_directories_are_skipped_or_listed_bare() {
    let folder = tree();
    let listed = list(&folder, &["a", "a/", "a/b/f"], &NO_RECURSE);
    assert_eq!(listed.names, ["f"]);
    assert_eq!(listed.messages, ["skipping directory .", "skipping directory a"]);
    assert_eq!(listed.scan.io_error, 0);
    let dirs = ScanOptions { dirs: true, ..NO_RECURSE };
    assert_eq!(list(&folder, &["a"], &dirs).names, ["a/ no content"]);
    assert_eq!(list(&folder, &["a/"], &dirs).names, ["./ argument", "b/ no content", "ld"]);
}

#[test]
fn what_the_options_leave_out_is_named() {
    let folder = tree();
    let bare = ScanOptions { links: false, specials: false, ..RECURSE };
    let listed = list(&folder, &["a", "ff", "fl"], &bare);
    assert_eq!(listed.names, ["a/ argument", "a/b/", "a/b/f"]);
    assert_eq!(
        listed.messages,
        [
            r#"skipping non-regular file "a/ld""#,
            r#"skipping non-regular file "ff""#,
            r#"skipping non-regular file "fl""#
        ]
    );
    assert_eq!(listed.scan.io_error, 0);
    let null = scan(&["/dev/null".into()], &RECURSE, Hooks::default()).unwrap();
    assert_eq!(null.entries[0].0.extra.rdev, Some((1, 3)));
}

#[test]
fn a_fifo_is_listed_and_never_waited_for() {
    let folder = tree();
    let listed = list(&folder, &["ff"], &RECURSE);
    assert_eq!(listed.names, ["ff"]);
    assert!(read(&listed.scan, "ff").is_err());
    // One that takes a file's place after the listing is not waited for either.
    let listed = list(&folder, &["a"], &RECURSE);
    fs::remove_file(folder.path().join("a/b/f")).unwrap();
    fs::rename(folder.path().join("ff"), folder.path().join("a/b/f")).unwrap();
    assert!(read(&listed.scan, "a/b/f").is_err());
}

#[test]
fn copied_links_are_listed_as_what_they_point_to() {
    let folder = tree();
    symlink("gone", folder.path().join("a/dang")).unwrap();
    let listed = list(&folder, &["a", "fl", "dang"], &ScanOptions { copy_links: true, ..RECURSE });
    assert_eq!(listed.names, ["a/ argument", "a/b/", "a/b/f", "a/ld/", "a/ld/y", "fl"]);
    assert_eq!(read(&listed.scan, "a/ld/y").unwrap(), "y");
    assert_eq!(read(&listed.scan, "fl").unwrap(), "content");
    assert_eq!(
        listed.messages,
        [r#"link_stat "ROOT/dang" failed: No such file or directory (2)"#, r#"symlink has no referent: "ROOT/a/dang""#]
    );
    assert_eq!(listed.scan.io_error, IO_GENERAL);
    fs::remove_file(folder.path().join("a/dang")).unwrap();
    let listed = list(&folder, &["a", "fl"], &ScanOptions { copy_dirlinks: true, ..RECURSE });
    assert_eq!(listed.names, ["a/ argument", "a/b/", "a/b/f", "a/ld/", "a/ld/y", "fl"]);
    assert_eq!(listed.scan.entries.iter().filter(|(entry, _)| entry.extra.target.is_some()).count(), 1);
    assert_eq!(read(&listed.scan, "a/ld/y").unwrap(), "y");
}

#[test]
fn a_link_back_up_ends() {
    let folder = tree();
    symlink("..", folder.path().join("a/b/up")).unwrap();
    let listed = list(&folder, &["a"], &ScanOptions { copy_links: true, ..RECURSE });
    assert_eq!(listed.names, ["a/ argument", "a/b/", "a/b/f", "a/b/up/", "a/ld/", "a/ld/y"]);
    assert_eq!(listed.messages, [r#"opendir "ROOT/a/b/up" failed: Too many levels of symbolic links (40)"#]);
    assert_eq!(listed.scan.io_error, IO_GENERAL);
}

#[test]
fn relative_sends_whole_names_and_their_parents_once() {
    let folder = tree();
    let relative = ScanOptions { relative: true, ..RECURSE };
    let listed = list(&folder, &["./a/b/f", "./a/ld", "./real"], &relative);
    assert_eq!(listed.names, ["a/ implied", "a/b/ implied", "a/b/f", "a/ld", "real/ argument", "real/y"]);
    assert_eq!(read(&listed.scan, "a/b/f").unwrap(), "content");
    assert_eq!(read(&listed.scan, "real/y").unwrap(), "y");
    // A symlink named on the way is a real directory to the receiver.
    let listed = list(&folder, &["./a/ld/y"], &relative);
    assert_eq!(listed.names, ["a/ implied", "a/ld/ implied", "a/ld/y"]);
    assert_eq!(read(&listed.scan, "a/ld/y").unwrap(), "y");
    let listed = list(&folder, &["./a/ld/"], &relative);
    assert_eq!(listed.names, ["a/ implied", "a/ld/ argument", "a/ld/y"]);
    assert_eq!(read(&listed.scan, "a/ld/y").unwrap(), "y");
    let listed = list(&folder, &["a/./b/../../a"], &ScanOptions { relative: false, ..RECURSE });
    assert_eq!(listed.names, ["a/ argument", "a/b/", "a/b/f", "a/ld"]);
    let listed = list(&folder, &["a/b/./"], &relative);
    assert_eq!(listed.names, ["./ argument", "f"]);
    // Nothing comes before an argument that is skipped.
    assert!(list(&folder, &["./a/b/"], &ScanOptions { relative: true, ..NO_RECURSE }).names.is_empty());
    let dirs = ScanOptions { relative: true, dirs: true, ..NO_RECURSE };
    assert_eq!(list(&folder, &["./a/b/"], &dirs).names, ["a/ implied", "a/b/ argument", "a/b/f"]);
}

#[test]
fn arguments_split_as_rsync_splits_them() {
    // argument, relative, root, name, skip, implied
    type Row = (&'static str, bool, &'static str, &'static str, usize, &'static [&'static str]);
    let rows: &[Row] = &[
        ("f", false, ".", "f", 0, &[]),
        ("", false, ".", ".", 0, &[]),
        ("/", false, "/", ".", 0, &[]),
        ("/f", false, "/", "f", 0, &[]),
        ("a/b/c", false, "a/b/", "c", 0, &[]),
        ("a/b/", false, "a/b/", ".", 0, &[]),
        ("..", false, "..", ".", 0, &[]),
        ("a/b/c", true, "./a/b", "a/b/c", 4, &["a", "a/b"]),
        ("./f", true, ".", "f", 0, &["."]),
        ("./a/f", true, "./a", "a/f", 2, &[".", "a"]),
        ("f", true, ".", "f", 0, &[]),
        (".", true, ".", ".", 0, &[]),
        ("/x/y", true, "/x", "x/y", 2, &["x"]),
        ("x/./y//z", true, "x/y", "y/z", 2, &["y"]),
        ("a/b/.", true, "./a/b", "a/b", 4, &["a"]),
        ("../x/./y", true, "../x", "y", 0, &[]),
    ];
    for &(argument, relative, root, name, skip, implied) in rows {
        let operand = operand::split(Path::new(argument), relative).unwrap();
        let implied: Vec<_> = implied.iter().map(|name| name.as_bytes().to_vec()).collect();
        assert_eq!(
            (operand.root.as_path(), &*operand.name, operand.skip, operand.implied),
            (Path::new(root), name.as_bytes(), skip, implied),
            "{argument:?}"
        );
    }
    for refused in ["a/../b", "..", "a/./..", "/../x"] {
        assert_eq!(operand::split(Path::new(refused), true), None, "{refused:?}");
    }
    let refused = scan(&["a/../b".into()], &ScanOptions { relative: true, ..RECURSE }, Hooks::default());
    assert_eq!(refused.err().unwrap().to_string(), r#"found ".." dir in relative path: a/../b"#);
}

#[test]
fn what_is_missing_or_unreadable_is_reported_and_left_out() {
    let folder = tree();
    let listed = list(&folder, &["nope", "nodir/f", "nodir/", "a/b/f/", "a/b/f"], &RECURSE);
    assert_eq!(listed.names, ["f"]);
    assert_eq!(
        listed.messages,
        [
            r#"change_dir "ROOT/a/b/f" failed: Not a directory (20)"#,
            r#"change_dir "ROOT/nodir" failed: No such file or directory (2)"#,
            r#"change_dir "ROOT/nodir" failed: No such file or directory (2)"#,
            r#"link_stat "ROOT/nope" failed: No such file or directory (2)"#,
        ]
    );
    assert_eq!(listed.scan.io_error, IO_GENERAL);
    let listed = list(&folder, &["./nodir/f"], &ScanOptions { relative: true, ..RECURSE });
    assert_eq!(listed.messages, [r#"link_stat "ROOT/nodir/f" failed: No such file or directory (2)"#]);
    let quiet = ScanOptions { ignore_missing_args: true, ..RECURSE };
    let listed = list(&folder, &["nope"], &quiet);
    assert_eq!((listed.messages.len(), listed.scan.io_error), (0, 0));
    let full_names = ScanOptions { relative: true, ..quiet };
    let listed = list(&folder, &["./nodir/f"], &full_names);
    assert_eq!((listed.messages.len(), listed.scan.io_error), (0, 0));
    fs::set_permissions(folder.path().join("a/b"), fs::Permissions::from_mode(0o000)).unwrap();
    let listed = without_capabilities(|| list(&folder, &["a"], &RECURSE));
    assert_eq!(listed.names, ["a/ argument", "a/b/", "a/ld"]);
    assert_eq!(listed.messages, [r#"opendir "ROOT/a/b" failed: Permission denied (13)"#]);
    assert_eq!(listed.scan.io_error, IO_GENERAL);
    fs::set_permissions(folder.path().join("a/b"), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_folder_that_is_not_there_is_no_missing_argument() {
    let folder = tree();
    let missing = |ignore: bool| ScanOptions { ignore_missing_args: ignore, delete_missing_args: !ignore, ..RECURSE };
    for options in [missing(true), missing(false)] {
        for argument in ["nodir/f", "nodir/", "a/./nodir/f"] {
            let listed = list(&folder, &[argument], &options);
            assert!(listed.names.is_empty(), "{argument}: {:?}", listed.names);
            assert!(listed.messages[0].starts_with("change_dir "), "{argument}: {:?}", listed.messages);
            assert_eq!(listed.scan.io_error, IO_GENERAL, "{argument}");
        }
        let listed = list(&folder, &["nodir/./f"], &ScanOptions { relative: true, ..options });
        assert_eq!((listed.names.len(), listed.scan.io_error), (0, IO_GENERAL));
    }
    let listed = list(&folder, &["a/./nodir/f"], &ScanOptions { relative: true, ..missing(false) });
    assert_eq!((listed.names.len(), listed.scan.io_error), (0, IO_VANISHED));
    assert_eq!(listed.messages, [r#"the folder of "ROOT/a/nodir/f" has vanished"#]);
}

/// Does it as one whom modes bind, root too: on a thread of its own, whose capabilities are gone.
fn without_capabilities<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
    let none = CapabilitySet::empty();
    let thread = || {
        set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none }).unwrap();
        work()
    };
    std::thread::scope(|scope| scope.spawn(thread).join().unwrap())
}

/// Lists `a` while something happens to the tree at the moment `a/b` is listed.
fn meanwhile(folder: &TempDir, change: impl Fn()) -> (Vec<String>, Vec<String>, i32) {
    let messages = RefCell::new(Vec::new());
    let report = |_: Severity, text: String| messages.borrow_mut().push(text);
    let keep = |name: &[u8], _: bool| {
        if name == b"a/b" {
            change();
        }
        true
    };
    let hooks = Hooks { report: Box::new(report), keep: Some(Box::new(keep)), ..Hooks::default() };
    let scan = scan(&[folder.path().join("a")], &RECURSE, hooks).unwrap();
    let mut names: Vec<String> = scan.entries.iter().map(|(entry, _)| named(entry)).collect();
    names.sort();
    (names, messages.take(), scan.io_error)
}

#[test]
fn a_directory_that_vanishes_is_no_disaster() {
    let folder = tree();
    let (names, messages, io_error) = meanwhile(&folder, || fs::remove_dir_all(folder.path().join("a/b")).unwrap());
    assert_eq!(names, ["a/ argument", "a/b/", "a/ld"]);
    assert_eq!(messages, [format!("file has vanished: \"{}/a/b\"", folder.path().display())]);
    assert_eq!(io_error, IO_VANISHED);
}

#[test]
fn a_directory_replaced_by_a_symlink_is_not_scanned() {
    let folder = tree();
    let (names, messages, io_error) = meanwhile(&folder, || {
        fs::rename(folder.path().join("a/b"), folder.path().join("elsewhere")).unwrap();
        symlink("../elsewhere", folder.path().join("a/b")).unwrap();
    });
    assert_eq!(names, ["a/ argument", "a/b/", "a/ld"]);
    assert_eq!(messages, [format!("opendir \"{}/a/b\" failed: Not a directory (20)", folder.path().display())]);
    assert_eq!(io_error, IO_GENERAL);
}

#[test]
fn a_listed_file_is_opened_only_where_it_was() {
    let folder = tree();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("secret"), b"s").unwrap();
    let listed = list(&folder, &["a"], &RECURSE);
    fs::remove_file(at("a/b/f")).unwrap();
    symlink(at("secret"), at("a/b/f")).unwrap();
    assert!(read(&listed.scan, "a/b/f").is_err());

    fs::create_dir(at("out")).unwrap();
    fs::write(at("out/f"), b"s").unwrap();
    fs::rename(at("a/b"), at("a/old")).unwrap();
    symlink(at("out"), at("a/b")).unwrap();
    let listed = list(&folder, &["a"], &RECURSE);
    let (_, location) = listed.scan.entries[0];
    assert!(listed.scan.tree.open(b"a/b/f", location).is_err());
    assert!(listed.scan.tree.open(b"../secret", location).is_err());
    assert!(listed.scan.tree.open(b"a", location).is_err());
    // The folder above was the argument's own: replaced, it is still the one that was held.
    let listed = list(&folder, &["out/f"], &RECURSE);
    fs::rename(at("out"), at("moved")).unwrap();
    assert_eq!(read(&listed.scan, "f").unwrap(), "s");
}

#[test]
fn a_file_is_removed_only_as_it_was_listed() {
    let folder = tree();
    let listed = list(&folder, &["a", "real/y"], &RECURSE);
    let entry = |name: &str| listed.scan.entries.iter().find(|(entry, _)| entry.name == name.as_bytes()).unwrap();
    let (file, at) = entry("a/b/f");
    assert!(listed.scan.tree.remove(file, *at).unwrap());
    assert!(!folder.path().join("a/b/f").exists());
    let (file, at) = entry("y");
    fs::write(folder.path().join("real/y"), b"changed").unwrap();
    assert!(!listed.scan.tree.remove(file, *at).unwrap());
    assert!(folder.path().join("real/y").exists());
    let (dir, at) = entry("a");
    assert!(!listed.scan.tree.remove(dir, *at).unwrap());
}

#[test]
fn names_are_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let name = b"new\nline \xff\xfe";
    fs::write(folder.path().join(OsStr::from_bytes(name)), b"odd").unwrap();
    let found = scan(&[folder.path().join("")], &RECURSE, Hooks::default()).unwrap();
    let (entry, at) = &found.entries[1];
    assert_eq!(entry.name, name);
    assert_eq!(found.tree.open(&entry.name, *at).unwrap().metadata().unwrap().len(), 3);
}

#[test]
fn filters_and_sums_take_part() {
    let folder = tree();
    let summed = RefCell::new(0);
    let sum = |file: &mut File| {
        *summed.borrow_mut() += file.metadata()?.len();
        Ok(None)
    };
    let keep = |name: &[u8], is_dir: bool| !(is_dir && name == b"a/b");
    let hooks = Hooks { sum: Some(Box::new(sum)), keep: Some(Box::new(keep)), ..Hooks::default() };
    let found = scan(&[folder.path().join("a"), folder.path().join("real")], &RECURSE, hooks).unwrap();
    let mut names: Vec<String> = found.entries.iter().map(|(entry, _)| named(entry)).collect();
    names.sort();
    assert_eq!(names, ["a/ argument", "a/ld", "real/ argument", "real/y"]);
    assert_eq!(summed.take(), 1);
}

#[test]
fn deep_trees_and_many_roots_cost_no_descriptors() {
    let folder = tempfile::tempdir().unwrap();
    let deep = ["d"; 600].join("/");
    // Made beneath a held directory, for the whole path is longer than one call takes in some places.
    let dest = crate::transfer::dest::Dest::open(folder.path()).unwrap();
    dest.make_dirs(format!("{deep}/f").as_bytes()).unwrap();
    let listed = list(&folder, &["d"], &RECURSE);
    assert_eq!((listed.names.len(), listed.scan.io_error), (600, 0));

    let names: Vec<String> = (0..1500).map(|number| format!("r{number}/f")).collect();
    for name in &names {
        fs::create_dir(folder.path().join(name).parent().unwrap()).unwrap();
        fs::write(folder.path().join(name), name).unwrap();
    }
    let arguments: Vec<&str> = names.iter().map(String::as_str).collect();
    let listed = list(&folder, &arguments, &RECURSE);
    for (name, (entry, at)) in names.iter().zip(&listed.scan.entries) {
        let mut text = String::new();
        listed.scan.tree.open(&entry.name, *at).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, *name);
    }
    // A root that is not held must still be the directory that was listed.
    fs::rename(folder.path().join("r1499"), folder.path().join("old")).unwrap();
    fs::create_dir(folder.path().join("r1499")).unwrap();
    fs::write(folder.path().join("r1499/f"), b"other").unwrap();
    let (entry, at) = listed.scan.entries.last().unwrap();
    assert!(listed.scan.tree.open(&entry.name, *at).is_err());
}
