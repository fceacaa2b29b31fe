use std::fs;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use proptest::prelude::*;
use protocol::flist::{Extras, FileEntry, Kind};
use tempfile::TempDir;

use super::output::temp_name;
use super::*;

const TIMES: Preserve = Preserve {
    mtime: true,
    atime: false,
    dir_times: true,
    symlink_times: true,
    perms: false,
    executability: false,
    owner: false,
    group: false,
};
const ALL: Preserve = Preserve { perms: true, owner: true, group: true, ..TIMES };

fn entry(name: &[u8], mode: u32) -> FileEntry {
    FileEntry { mtime: 1_234_567_890, nsec: 123_456_789, ..FileEntry::new(name, mode) }
}

/// A destination with umask 022, whatever the process has.
fn dest() -> (TempDir, Dest) {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("d")).unwrap();
    let mut dest = Dest::open(&folder.path().join("d")).unwrap();
    dest.umask = 0o022;
    (folder, dest)
}

fn put(dest: &Dest, name: &[u8], bytes: &[u8], preserve: &Preserve, mode: u32) -> Result<(), DestError> {
    let existing = dest.stat(name)?;
    let mut temp = dest.create_temp(name)?;
    temp.write_all(bytes).unwrap();
    temp.commit(dest, &dest.wanted(&entry(name, mode), preserve, existing.as_ref()), None, Fsync::Yes)
}

fn names(folder: &Path) -> Vec<Vec<u8>> {
    let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().as_bytes().to_vec()).collect();
    names.sort();
    names
}

#[test]
fn a_committed_file_has_its_bytes_and_exact_attributes() {
    let (folder, dest) = dest();
    let wanted = FileEntry { uid: 4321, gid: 1234, ..entry(b"f", 0o104751) };
    let mut temp = dest.create_temp(b"f").unwrap();
    temp.write_all(b"bytes").unwrap();
    let path = folder.path().join("d");
    assert_eq!(names(&path).len(), 1);
    assert_eq!(temp.file().metadata().unwrap().mode() & 0o7777, 0o600);
    temp.commit(&dest, &dest.wanted(&wanted, &ALL, None), None, Fsync::Yes).unwrap();
    assert_eq!(names(&path), [b"f"]);
    let meta = fs::metadata(path.join("f")).unwrap();
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (1_234_567_890, 123_456_789));
    assert_eq!(meta.mode() & 0o7777, 0o4751);
    if dest.am_root {
        assert_eq!((meta.uid(), meta.gid()), (4321, 1234));
    }
    assert_eq!(fs::read(path.join("f")).unwrap(), b"bytes");
    let found = dest.stat(b"f").unwrap().unwrap();
    assert_eq!((found.len, found.mtime, found.nsec, found.ino), (5, 1_234_567_890, 123_456_789, meta.ino()));
    if dest.am_root {
        assert!(dest.wanted(&wanted, &ALL, Some(&found)).differing_from(&found, 0).is_empty());
    }
}

#[test]
fn a_dropped_temp_file_is_removed() {
    let (folder, dest) = dest();
    let temp = dest.create_temp(b"f").unwrap();
    assert_eq!(names(&folder.path().join("d")).len(), 1);
    drop(temp);
    assert!(names(&folder.path().join("d")).is_empty());
}

#[test]
fn a_failed_commit_leaves_nothing() {
    let (folder, dest) = dest();
    dest.make_dir(b"f", 0o755).unwrap();
    let error = put(&dest, b"f", b"x", &TIMES, 0o100644).unwrap_err();
    assert_eq!(error.to_string(), "rename \"f\" failed: Is a directory (21)");
    assert_eq!(names(&folder.path().join("d")), [b"f"]);
}

#[test]
fn permissions_follow_rsyncs_rules() {
    let (folder, dest) = dest();
    let mode = |name: &str| fs::symlink_metadata(folder.path().join("d").join(name)).unwrap().mode() & 0o7777;
    let executability = Preserve { executability: true, ..TIMES };
    // (already there, entry, without -p, with -E, with -p), as stock 3.5.0 does
    let rows = [
        (None, 0o104777, 0o755, 0o755, 0o4777),
        (None, 0o100600, 0o600, 0o600, 0o600),
        (Some(0o4600), 0o104755, 0o4600, 0o4700, 0o4755),
        (Some(0o640), 0o100711, 0o640, 0o750, 0o711),
        (Some(0o751), 0o100600, 0o751, 0o640, 0o600),
    ];
    for (before, source, plain, with_e, with_p) in rows {
        for (preserve, expected) in [(TIMES, plain), (executability, with_e), (ALL, with_p)] {
            dest.remove_non_dir(b"f").unwrap();
            if let Some(before) = before {
                put(&dest, b"f", b"old", &ALL, 0o100000 | before).unwrap();
            }
            put(&dest, b"f", b"new", &preserve, source).unwrap();
            assert_eq!(mode("f"), expected, "{before:?} {source:o} {preserve:?}");
        }
    }
}

/// As stock 3.5.0 does without -p, but for the symlink's.
#[test]
fn a_node_has_the_permissions_of_what_it_replaces() {
    let (folder, dest) = dest();
    let path = folder.path().join("d/n");
    let fifo = entry(b"n", 0o010640);
    let wanted = || dest.wanted(&fifo, &TIMES, dest.stat(b"n").unwrap().as_ref()).mode;
    assert_eq!(wanted(), Some(0o640));
    fs::write(&path, b"a file").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o711)).unwrap();
    assert_eq!(wanted(), Some(0o711));
    fs::remove_file(&path).unwrap();
    symlink("nowhere", &path).unwrap();
    assert_eq!(wanted(), Some(0o640), "a symlink's would let everybody write");
}

#[test]
fn attributes_of_a_file_right_in_content_are_set_in_place() {
    let (folder, dest) = dest();
    let path = folder.path().join("d/f");
    fs::write(&path, b"same").unwrap();
    let before = dest.stat(b"f").unwrap().unwrap();
    let attrs = dest.wanted(&entry(b"f", 0o100440), &ALL, Some(&before)).differing_from(&before, 0);
    assert_eq!((attrs.mode, attrs.mtime), (Some(0o440), Some((1_234_567_890, 123_456_789))));
    dest.set_attrs(b"f", Kind::File, &attrs).unwrap();
    let after = dest.stat(b"f").unwrap().unwrap();
    assert_eq!((after.ino, after.mode, after.mtime, after.nsec), (before.ino, 0o100440, 1_234_567_890, 123_456_789));
}

#[test]
fn permissions_can_be_given_back_to_what_cannot_be_read() {
    // Run as another user than root, this takes the way through /proc.
    let (_folder, dest) = dest();
    let mut temp = dest.create_temp(b"f").unwrap();
    temp.write_all(b"x").unwrap();
    temp.commit(&dest, &Attrs { mode: Some(0), ..Attrs::default() }, None, Fsync::No).unwrap();
    dest.make_dir(b"a", 0o755).unwrap();
    for (name, kind) in [(&b"f"[..], Kind::File), (b"a", Kind::Dir)] {
        for mode in [0, 0o751] {
            dest.set_attrs(name, kind, &Attrs { mode: Some(mode), ..Attrs::default() }).unwrap();
            assert_eq!(dest.stat(name).unwrap().unwrap().mode & 0o7777, mode);
        }
    }
}

#[test]
fn a_change_of_owner_keeps_the_setuid_bit() {
    let (_folder, dest) = dest();
    if !dest.am_root {
        eprintln!("SKIPPED: changing owners needs root");
        return;
    }
    put(&dest, b"f", b"x", &ALL, 0o104755).unwrap();
    let before = dest.stat(b"f").unwrap().unwrap();
    let wanted = FileEntry { uid: 77, ..entry(b"f", 0o104755) };
    dest.set_attrs(b"f", Kind::File, &dest.wanted(&wanted, &ALL, Some(&before)).differing_from(&before, 0)).unwrap();
    let after = dest.stat(b"f").unwrap().unwrap();
    assert_eq!((after.uid, after.mode), (77, 0o104755));
}

#[test]
fn without_root_a_foreign_owner_or_group_is_no_error() {
    let (_folder, mut dest) = dest();
    put(&dest, b"f", b"x", &TIMES, 0o100644).unwrap();
    dest.am_root = false;
    assert_eq!(dest.wanted(&entry(b"f", 0o100644), &ALL, None).uid, None);
    assert!(dest.unless_unprivileged(Err(Errno::PERM)).is_ok());
    assert_eq!(dest.unless_unprivileged(Err(Errno::ROFS)), Err(Errno::ROFS));
    dest.am_root = true;
    assert_eq!(dest.unless_unprivileged(Err(Errno::PERM)), Err(Errno::PERM));
}

#[test]
fn directory_times_survive_their_contents() {
    let (folder, dest) = dest();
    let mut late = LateDirs::default();
    for name in [&b"."[..], b"a", b"a/b"] {
        let found = dest.make_dir(name, 0o755).unwrap();
        late.enter(&dest, name, &dest.wanted(&entry(name, 0o040755), &TIMES, None), &found).unwrap();
    }
    put(&dest, b"a/b/f", b"x", &TIMES, 0o100644).unwrap();
    put(&dest, b"a/g", b"x", &TIMES, 0o100644).unwrap();
    assert!(late.finish(&dest).is_empty());
    for name in ["d", "d/a", "d/a/b"] {
        let meta = fs::metadata(folder.path().join(name)).unwrap();
        assert_eq!((meta.mtime(), meta.mtime_nsec()), (1_234_567_890, 123_456_789), "{name}");
    }
}

#[test]
fn a_directory_closed_to_its_owner_is_filled_first() {
    let (folder, mut dest) = dest();
    dest.am_root = false;
    let found = dest.make_dir(b"a", 0o555).unwrap();
    assert_eq!(found.mode & 0o700, 0o700);
    let mut late = LateDirs::default();
    late.enter(&dest, b"a", &dest.wanted(&entry(b"a", 0o040555), &TIMES, None), &found).unwrap();
    assert_eq!(dest.stat(b"a").unwrap().unwrap().mode & 0o7777, 0o755);
    put(&dest, b"a/f", b"x", &TIMES, 0o100644).unwrap();
    assert!(late.finish(&dest).is_empty());
    let meta = fs::metadata(folder.path().join("d/a")).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.mtime()), (0o555, 1_234_567_890));
}

#[test]
fn a_new_directory_keeps_an_inherited_setgid_bit() {
    let (folder, dest) = dest();
    fs::set_permissions(folder.path().join("d"), fs::Permissions::from_mode(0o2777)).unwrap();
    let found = dest.make_dir(b"a", 0o6755).unwrap();
    let mut late = LateDirs::default();
    late.enter(&dest, b"a", &dest.wanted(&entry(b"a", 0o046755), &TIMES, None), &found).unwrap();
    assert!(late.finish(&dest).is_empty());
    assert_eq!(dest.stat(b"a").unwrap().unwrap().mode & 0o7000, 0o2000);
}

#[test]
fn make_dirs_makes_only_parents() {
    let (folder, dest) = dest();
    dest.make_dirs(b"a/b/c").unwrap();
    dest.make_dirs(b"a/b/c").unwrap();
    assert!(folder.path().join("d/a/b").is_dir());
    assert!(dest.stat(b"a/b/c").unwrap().is_none());
    put(&dest, b"f", b"", &TIMES, 0o100644).unwrap();
    assert_eq!(dest.make_dir(b"f", 0o755).unwrap_err().to_string(), "mkdir \"f\" failed: File exists (17)");
    assert!(dest.remove_dir(b"a/b").unwrap());
    assert!(!dest.remove_dir(b"a/b").unwrap());
}

#[test]
fn names_that_lead_out_are_refused() {
    let (folder, dest) = dest();
    fs::write(folder.path().join("secret"), b"s").unwrap();
    let long = [&b"a/".repeat(2048)[..], b"f"].concat();
    for name in
        [&b"../secret"[..], b"a/../../secret", b"", b"/etc/passwd", b"a//b", b"a/./b", b"..", b"a\0b", b"a/", &long]
    {
        assert!(dest.stat(name).is_err(), "{name:?}");
        assert!(dest.basis(name).is_err(), "{name:?}");
        assert!(dest.create_temp(name).is_err(), "{name:?}");
        assert!(dest.remove_non_dir(name).is_err(), "{name:?}");
        assert!(dest.make_symlink(name, b"x", &Attrs::default()).is_err(), "{name:?}");
        assert!(dest.set_attrs(name, Kind::File, &Attrs { mode: Some(0), ..Attrs::default() }).is_err(), "{name:?}");
    }
    assert_eq!(names(folder.path()), [&b"d"[..], b"secret"]);
}

#[test]
fn a_parent_that_is_a_symlink_is_never_followed() {
    let (folder, dest) = dest();
    let outside = folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("victim"), b"v").unwrap();
    fs::set_permissions(outside.join("victim"), fs::Permissions::from_mode(0o644)).unwrap();
    dest.make_dir(b"a", 0o755).unwrap();
    put(&dest, b"a/victim", b"inside", &TIMES, 0o100644).unwrap();
    fs::rename(folder.path().join("d/a"), folder.path().join("d/moved")).unwrap();
    symlink(&outside, folder.path().join("d/a")).unwrap();

    // A handle that walks anew meets the symlink.
    let fresh = dest.handle();
    assert!(fresh.stat(b"a/victim").unwrap().is_none());
    assert!(fresh.basis(b"a/victim").unwrap().is_none());
    assert!(fresh.create_temp(b"a/victim").is_err());
    assert!(fresh.make_dir(b"a/new", 0o755).is_err());
    assert!(fresh.make_dirs(b"a/new/f").is_err());
    assert!(fresh.make_dir(b"a", 0o755).is_err());
    assert!(fresh.make_symlink(b"a/l", b"x", &Attrs::default()).is_err());
    assert!(fresh.make_node(b"a/p", &entry(b"a/p", 0o010644), &Attrs::default()).is_err());
    assert!(fresh.remove_non_dir(b"a/victim").is_err());
    assert!(fresh.remove_dir(b"a/victim").is_err());
    let attrs = Attrs { mode: Some(0o777), mtime: Some((0, 0)), ..Attrs::default() };
    assert!(fresh.set_attrs(b"a/victim", Kind::File, &attrs).is_err());
    // One that holds the old directory goes on writing there, wherever its name went.
    put(&dest, b"a/victim", b"newer", &TIMES, 0o100644).unwrap();
    assert_eq!(fs::read(folder.path().join("d/moved/victim")).unwrap(), b"newer");

    assert_eq!(names(&outside), [b"victim"]);
    assert_eq!(fs::read(outside.join("victim")).unwrap(), b"v");
    let meta = fs::metadata(outside.join("victim")).unwrap();
    assert_eq!(meta.mode() & 0o777, 0o644);
    assert_ne!(meta.mtime(), 0);
}

#[test]
fn a_symlink_at_the_final_name_is_replaced_not_followed() {
    let (folder, dest) = dest();
    let victim = folder.path().join("victim");
    fs::write(&victim, b"v").unwrap();
    fs::set_permissions(&victim, fs::Permissions::from_mode(0o600)).unwrap();
    symlink(&victim, folder.path().join("d/f")).unwrap();
    assert!(dest.basis(b"f").unwrap().is_none());
    assert_eq!(dest.stat(b"f").unwrap().unwrap().kind(), Some(Kind::Symlink));
    let attrs = Attrs { mode: Some(0o666), ..Attrs::default() };
    assert!(dest.set_attrs(b"f", Kind::File, &attrs).is_err());
    put(&dest, b"f", b"new", &TIMES, 0o100644).unwrap();
    assert_eq!(fs::read(&victim).unwrap(), b"v");
    assert_eq!(fs::metadata(&victim).unwrap().mode() & 0o777, 0o600);
    let path = folder.path().join("d/f");
    assert!(fs::symlink_metadata(&path).unwrap().is_file());
    assert_eq!(fs::read(path).unwrap(), b"new");
}

#[test]
fn a_temp_file_goes_on_in_a_directory_made_again() {
    let (folder, dest) = dest();
    dest.make_dir(b"a", 0o755).unwrap();
    put(&dest, b"a/f", b"1", &TIMES, 0o100644).unwrap();
    fs::remove_dir_all(folder.path().join("d/a")).unwrap();
    fs::create_dir(folder.path().join("d/a")).unwrap();
    put(&dest, b"a/f", b"2", &TIMES, 0o100644).unwrap();
    assert_eq!(fs::read(folder.path().join("d/a/f")).unwrap(), b"2");
}

#[test]
fn symlinks_replace_in_one_step_with_their_times() {
    let (folder, dest) = dest();
    put(&dest, b"l", b"file", &TIMES, 0o100644).unwrap();
    let attrs = dest.wanted(&entry(b"l", 0o120777), &TIMES, None);
    dest.make_symlink(b"l", b"../t\nt\xff", &attrs).unwrap();
    let path = folder.path().join("d/l");
    assert_eq!(fs::read_link(&path).unwrap().as_os_str().as_bytes(), b"../t\nt\xff");
    let meta = fs::symlink_metadata(&path).unwrap();
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (1_234_567_890, 123_456_789));
    dest.make_dir(b"x", 0o755).unwrap();
    assert!(dest.make_symlink(b"x", b"t", &attrs).is_err());
    assert_eq!(names(&folder.path().join("d")), [&b"l"[..], b"x"]);
}

#[test]
fn fifos_sockets_and_devices_are_made_with_their_permissions() {
    let (folder, dest) = dest();
    for (name, mode) in [("p", 0o010640), ("s", 0o140600)] {
        let node = entry(name.as_bytes(), mode);
        dest.make_node(name.as_bytes(), &node, &dest.wanted(&node, &ALL, None)).unwrap();
        let meta = fs::symlink_metadata(folder.path().join("d").join(name)).unwrap();
        assert_eq!((meta.mode(), meta.mtime_nsec()), (mode, 123_456_789), "{name}");
    }
    assert!(fs::symlink_metadata(folder.path().join("d/p")).unwrap().file_type().is_fifo());
    assert!(dest.basis(b"p").unwrap().is_none());
    assert!(dest.basis(b"s").unwrap().is_none());
    let device =
        FileEntry { extra: Extras { rdev: Some((1, 3)), ..Extras::default() }.into(), ..entry(b"n", 0o020666) };
    match dest.make_node(b"n", &device, &dest.wanted(&device, &ALL, None)) {
        Ok(()) => assert_eq!(dest.stat(b"n").unwrap().unwrap().rdev, (1, 3)),
        Err(error) => assert_eq!(error.source.kind(), std::io::ErrorKind::PermissionDenied),
    }
    assert!(dest.make_node(b"x", &entry(b"x", 0o020666), &Attrs::default()).is_err());
}

#[test]
fn basis_reads_the_file_that_stands_there() {
    let (_folder, dest) = dest();
    put(&dest, b"f", b"basis", &TIMES, 0o100644).unwrap();
    let mut bytes = String::new();
    dest.basis(b"f").unwrap().unwrap().read_to_string(&mut bytes).unwrap();
    assert_eq!(bytes, "basis");
    assert!(dest.basis(b"nothing").unwrap().is_none());
    assert!(dest.basis(b"f/below").unwrap().is_none());
    assert!(dest.basis(b".").unwrap().is_none());
    assert!(dest.remove_non_dir(b"f").unwrap());
    assert!(!dest.remove_non_dir(b"f").unwrap());
}

#[test]
fn names_are_bytes() {
    let (folder, dest) = dest();
    let name = b"new\nline \xff\xfe";
    put(&dest, name, b"x", &TIMES, 0o100644).unwrap();
    assert_eq!(names(&folder.path().join("d")), [name]);
    let error = dest.make_dir(name, 0o755).unwrap_err();
    assert_eq!(error.to_string(), "mkdir \"new\\#012line \\#377\\#376\" failed: File exists (17)");
    assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::AlreadyExists);
}

#[test]
fn a_missing_destination_is_made_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/");
    assert!(Dest::open(&path).is_err());
    Dest::open_or_make(&path).unwrap().make_dir(b"a", 0o755).unwrap();
    assert!(path.join("a").is_dir());
    assert!(Dest::open_or_make(&folder.path().join("x/y")).is_err());
    fs::write(folder.path().join("file"), b"").unwrap();
    assert!(Dest::open_or_make(&folder.path().join("file")).is_err());
}

#[test]
fn an_operand_follows_only_our_own_symlinks() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("real/sub")).unwrap();
    symlink("real", folder.path().join("ours")).unwrap();
    symlink("loop", folder.path().join("loop")).unwrap();
    let dest = Dest::open(&folder.path().join("ours/../ours/sub")).unwrap();
    dest.make_dir(b"here", 0o755).unwrap();
    assert!(folder.path().join("real/sub/here").is_dir());
    assert!(Dest::open(&folder.path().join("loop")).is_err());
    if dest.am_root {
        std::os::unix::fs::lchown(folder.path().join("ours"), Some(4321), None).unwrap();
        let refused = Dest::open(&folder.path().join("ours/sub")).err().unwrap();
        assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);
    }
}

#[test]
fn deep_trees_cost_no_descriptors() {
    let (_folder, dest) = dest();
    let name = [&b"d/".repeat(500)[..], b"f"].concat();
    dest.make_dirs(&name).unwrap();
    put(&dest, &name, b"deep", &TIMES, 0o100644).unwrap();
    assert_eq!(dest.stat(&name).unwrap().unwrap().len, 4);
}

#[test]
fn one_handle_serves_a_thread_of_its_own() {
    fn shared<T: Send + Sync>(_: &T) {}
    let (folder, dest) = dest();
    shared(&dest);
    let other = dest.handle();
    std::thread::scope(|scope| {
        scope.spawn(|| put(&dest, b"a", b"1", &TIMES, 0o100644).unwrap());
        scope.spawn(|| put(&other, b"b", b"2", &TIMES, 0o100644).unwrap());
    });
    assert_eq!(names(&folder.path().join("d")), [b"a", b"b"]);
}

#[test]
fn temp_names_follow_rsyncs_rules() {
    let name = |leaf: &[u8]| temp_name(leaf, || b'x');
    assert_eq!(name(b"f"), b".f.xxxxxx");
    assert_eq!(name(b".profile"), b".profile.xxxxxx");
    assert_eq!(name(&[b'a'; 255]).len(), 255);
    // 82 three-byte characters are 246 bytes, and the 83rd would need two more than the 247 there is room for
    let euros = "€".repeat(84);
    assert_eq!(name(euros.as_bytes()), [b".", "€".repeat(82).as_bytes(), b".xxxxxx"].concat());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, rng_seed: proptest::test_runner::RngSeed::Fixed(7), ..ProptestConfig::default() })]

    #[test]
    fn temp_names_fit_and_stay_text(leaf in "\\PC{1,90}") {
        let temp = temp_name(leaf.as_bytes(), || b'x');
        prop_assert!(temp.len() <= 255);
        prop_assert!(temp.starts_with(b".") && temp.ends_with(b".xxxxxx"));
        prop_assert!(String::from_utf8(temp).is_ok());
    }

    #[test]
    fn temp_names_of_any_bytes_fit(leaf in prop::collection::vec(any::<u8>(), 1..300)) {
        let temp = temp_name(&leaf, || b'x');
        prop_assert!(temp.len() <= 255 && temp.ends_with(b".xxxxxx"));
    }
}

fn with_options(dest: Dest, options: &protocol::args::Options) -> Dest {
    let (dest, missing) = dest.with_places(options, b"d", Path::new("d"));
    assert_eq!(missing, []);
    dest
}

#[test]
fn what_was_kept_apart_is_gone_on_with_and_tidied_away() {
    let (folder, dest) = dest();
    let options = protocol::args::Options { partial_dir: Some(b".p".to_vec()), ..Default::default() };
    let dest = with_options(dest, &options);
    let path = folder.path().join("d");
    let attrs = dest.wanted(&entry(b"f", 0o100640), &ALL, None);
    let mut output = dest.create_temp(b"f").unwrap();
    output.write_all(b"first").unwrap();
    assert!(output.keep(&dest, &attrs).unwrap());
    assert_eq!(names(&path), [b".p"]);
    assert_eq!(fs::metadata(path.join(".p")).unwrap().mode() & 0o777, 0o700);
    assert_eq!(dest.partial(b"f").unwrap().unwrap().len, 5);
    let mut output = dest.resume_partial(b"f").unwrap().unwrap();
    output.pass(5).unwrap();
    output.write_all(b", second").unwrap();
    output.commit(&dest, &attrs, None, Fsync::No).unwrap();
    dest.drop_partial(b"f");
    assert_eq!(names(&path), [b"f"]);
    assert_eq!(fs::read(path.join("f")).unwrap(), b"first, second");
}

#[test]
fn nothing_is_kept_of_a_file_without_bytes_or_without_being_asked() {
    let (folder, dest) = dest();
    let attrs = Attrs::default();
    let mut output = dest.create_temp(b"f").unwrap();
    output.write_all(b"x").unwrap();
    assert!(!output.keep(&dest, &attrs).unwrap());
    let dest = with_options(dest, &protocol::args::Options { partial: true, ..Default::default() });
    assert!(!dest.create_temp(b"f").unwrap().keep(&dest, &attrs).unwrap());
    assert!(names(&folder.path().join("d")).is_empty());
}

#[test]
fn zeros_become_holes_also_over_what_was_there() {
    let (folder, dest) = dest();
    let path = folder.path().join("d/f");
    fs::write(&path, vec![7; 100_000]).unwrap();
    let mut output = dest.open_in_place(b"f").unwrap();
    output.make_holes();
    output.write_all(b"begin").unwrap();
    output.write_all(&[0; 60_000]).unwrap();
    output.write_all(b"end").unwrap();
    output.write_all(&[0; 9_000]).unwrap();
    output.commit(&dest, &Attrs::default(), None, Fsync::No).unwrap();
    let expected = [&b"begin"[..], &[0; 60_000], b"end", &[0; 9_000]].concat();
    assert!(fs::read(&path).unwrap() == expected);
}

#[test]
fn backups_keep_their_attributes_and_replace_older_ones() {
    let (folder, dest) = dest();
    let options = protocol::args::Options { backup_dir: Some(b"../bak/deep".to_vec()), ..Default::default() };
    let dest = with_options(dest, &options);
    dest.make_dir(b"s", 0o755).unwrap();
    for content in [&b"one"[..], b"two", b"three"] {
        put(&dest, b"s/f", content, &ALL, 0o100600).unwrap();
    }
    let kept = folder.path().join("bak/deep/s/f");
    assert_eq!(fs::read(&kept).unwrap(), b"two");
    assert_eq!(fs::metadata(&kept).unwrap().mtime(), 1_234_567_890);
    assert!(dest.back_up(b"s/f").unwrap());
    assert_eq!(fs::read(&kept).unwrap(), b"three");
    assert!(dest.stat(b"s/f").unwrap().is_none());
    assert!(!dest.back_up(b"s/f").unwrap());
}

#[test]
fn a_place_cannot_be_left() {
    let (folder, dest) = dest();
    fs::write(folder.path().join("secret"), b"s").unwrap();
    fs::create_dir(folder.path().join("alt")).unwrap();
    symlink(folder.path(), folder.path().join("alt/out")).unwrap();
    let options = protocol::args::Options {
        alt_kind: Some(protocol::args::AltKind::Copy),
        alt_dirs: vec![b"../alt".to_vec()],
        partial_dir: Some(b"../x".to_vec()),
        ..Default::default()
    };
    let dest = with_options(dest, &options);
    let there = dest.alternative(0).unwrap();
    assert!(there.basis(b"../secret").is_err());
    assert!(there.basis(b"out/secret").unwrap().is_none());
    assert!(dest.alternative(1).is_none());
    // A partial-dir beside the file stays beneath the destination.
    assert!(dest.partial(b"f").is_err());
}
