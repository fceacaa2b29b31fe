use super::*;
use crate::acl::{Acl, AclName};
use crate::checksum::{Checksum, Sum};
use crate::handshake::{Compat, Negotiated};
use crate::wire::{Decode, Reader};
use crate::xattr::{Xattr, XattrSet, XattrValue};
use proptest::prelude::*;

fn negotiated(version: u8, compat: u32) -> Negotiated {
    Negotiated {
        version,
        compat: Compat(compat),
        checksum: Checksum::Md5,
        list_checksum: Checksum::Md5,
        seed: 1,
        compression: crate::compress::Compression::NONE,
    }
}

#[test]
fn order_of_the_specification() {
    let (file, dir) = (0o100644, 0o40755);
    let mut entries: Vec<_> = [
        ("a/sub", dir),
        ("a-b/x", file),
        ("d.txt", file),
        ("a", dir),
        (".", dir),
        ("a/one", file),
        ("a-b", dir),
        ("c.txt", file),
        ("a.txt", file),
    ]
    .map(|(name, mode)| FileEntry::new(name, mode))
    .into();
    entries.reverse();
    let list = FileList::new(entries);
    let names: Vec<_> = list.iter().map(|(_, entry)| String::from_utf8(entry.name.clone()).unwrap()).collect();
    assert_eq!(names, [".", "a.txt", "c.txt", "d.txt", "a-b", "a-b/x", "a", "a/one", "a/sub"]);
    list.check_parents().unwrap();
}

#[test]
fn repeated_names_die_and_keep_their_index() {
    let list = FileList::new(vec![
        FileEntry::new("x", 0o100644),
        FileEntry::new("x", 0o40755),
        FileEntry::new("y", 0o100600),
        FileEntry::new("y", 0o100644),
    ]);
    assert_eq!(list.len(), 4);
    let living: Vec<_> = list.iter().map(|(ndx, entry)| (ndx.0, entry.mode)).collect();
    assert_eq!(living, [(1, 0o100600), (3, 0o40755)]);
    assert_eq!(list.get(Ndx(0)), None);
    assert_eq!(list.get(Ndx(4)), None);
}

#[test]
fn a_link_cannot_stand_in_for_a_directory() {
    let list = FileList::new(vec![FileEntry::new("d", 0o120777), FileEntry::new("d/passwd", 0o100644)]);
    assert!(matches!(list.check_parents(), Err(crate::PeerError::UnsafeName { .. })));
}

fn any_entry() -> impl Strategy<Value = FileEntry> {
    let name = prop_oneof!["[a-c]{1,3}(/[a-c]{1,3}){0,2}", "[x-z]{250,300}"];
    let kind = prop_oneof![Just(0o100644u32), Just(0o40755), Just(0o120777), Just(0o20600), Just(0o10600)];
    (name, kind, any::<i64>(), 0u32..1_000_000_000, 0u32..3, any::<u32>(), any::<[u8; 16]>(), 0u64..1 << 50).prop_map(
        |(name, mode, mtime, nsec, small, large, sum, len)| {
            let mut entry = FileEntry::new(name, mode);
            (entry.len, entry.mtime, entry.nsec, entry.uid, entry.gid) = (len, mtime, nsec, small, large);
            match entry.kind() {
                Some(Kind::Symlink) => entry.extra.target = Some(b"to/there".to_vec()),
                Some(Kind::Device) => entry.extra.rdev = Some((small, large)),
                Some(Kind::File) => entry.extra.sum = Sum::new(&sum),
                Some(Kind::Dir) => {
                    entry.extra.dir_class =
                        [DirClass::Content, DirClass::Argument, DirClass::NoContent, DirClass::Implied]
                            [(large % 4) as usize]
                }
                _ => {}
            }
            attributes(&mut entry, small, large);
            entry
        },
    )
}

/// Times and lists that several entries share, and others that they do not.
fn attributes(entry: &mut FileEntry, small: u32, large: u32) {
    let acl = |number: u32| {
        let names = (0..number % 3).map(|id| AclName { group: id > 0, id: small, perms: 5 }).collect();
        Some(Arc::new(Acl { group_obj: Some(number as u8 & 7), names, ..Acl::default() }))
    };
    if !entry.is_dir() {
        entry.extra.atime = i64::from(large % 5) - 2;
    }
    if entry.kind() != Some(Kind::Symlink) {
        entry.extra.access_acl = acl(small % 7);
    }
    if entry.is_dir() {
        entry.extra.default_acl = acl(large % 7);
    }
    let xattr =
        |len: u32| Xattr { name: format!("user.{len}").into(), value: XattrValue::of(&vec![7; len as usize * 20]) };
    entry.extra.xattrs = Some(Arc::new(XattrSet((0..large % 4).map(xattr).collect())));
}

const FULL: ListShape = ListShape {
    owner: true,
    group: true,
    links: true,
    devices: true,
    specials: true,
    atimes: true,
    acls: true,
    xattrs: true,
    sum_size: 16,
    numeric_ids: false,
    relative: false,
    missing_args: false,
    hard_links: true,
    recurse: true,
    charset: None,
};

/// Without what came with 30; and without `-r` only what an argument names for its contents has them.
const OLD: ListShape = ListShape { acls: false, xattrs: false, recurse: false, ..FULL };

/// An entry as an old peer can have it: one of several names of `file`, unless that is 0.
fn before_30(mut entry: FileEntry, file: u64, version: u8) -> FileEntry {
    entry.mtime &= 0xffff_ffff;
    entry.nsec = 0;
    let extra = &mut entry.extra;
    (extra.access_acl, extra.default_acl, extra.xattrs) = (None, None, None);
    if let Some((major, minor)) = &mut extra.rdev
        && version < 28
    {
        (*major, *minor) = (*major & 0xfff, *minor & 0xf_ffff);
    }
    if extra.dir_class != DirClass::Argument && entry.is_dir() {
        entry.extra.dir_class = DirClass::NoContent;
    }
    if file > 0 && (entry.is_file() || version >= 28 && !entry.is_dir()) {
        entry.extra.link = Some(LinkId { dev: file / 2, ino: u64::MAX - file });
    }
    entry
}

fn decode(wire: &[u8], n: &Negotiated, shape: ListShape) -> Result<super::decode::Arrived, Decode> {
    let mut decoder = ListDecoder::new(n, shape, ListLimits::default());
    let mut reader = Reader::new(wire);
    while !decoder.step(&mut reader)? {}
    assert_eq!(reader.position(), wire.len());
    Ok(decoder.next_segment())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn lists_survive(entries in proptest::collection::vec(any_entry(), 0..30), version in 30u8..=32, compat in prop_oneof![Just(0u32), Just(0x1f8)], io_error in 0i32..8) {
        let n = negotiated(version, compat);
        let names = IdNames { users: vec![(2, b"bin".to_vec()), (0, b"root".to_vec())], groups: vec![(7, b"seven".to_vec())] };
        let mut out = Vec::new();
        let mut encoder = ListEncoder::new(&n, FULL);
        for entry in &entries { encoder.entry(entry, &mut out); }
        let reports = encoder.reports_errors();
        encoder.end(io_error, &names, &mut out);
        let arrived = decode(&out, &n, FULL).unwrap();
        let mut expected = entries;
        if version < 31 { for entry in &mut expected { entry.nsec = 0; } }
        prop_assert_eq!(arrived.list, FileList::new(expected));
        prop_assert_eq!(arrived.io_error, if reports { io_error } else { 0 });
        if compat != 0 { prop_assert_eq!(arrived.names, names); }
        for cut in 0..out.len() {
            let mut decoder = ListDecoder::new(&n, FULL, ListLimits::default());
            let mut reader = Reader::new(&out[..cut]);
            let end = loop { match decoder.step(&mut reader) { Ok(false) => {}, other => break other } };
            prop_assert_eq!(end, Err(Decode::Incomplete));
        }
    }

    #[test]
    fn lists_before_30_survive(entries in proptest::collection::vec((any_entry(), 0u64..4), 0..30), version in 27u8..=29, io_error in 0i32..8) {
        let (n, shape) = (negotiated(version, 0), OLD);
        let names = IdNames { users: vec![(2, b"bin".to_vec()), (0, b"root".to_vec())], groups: vec![(7, b"seven".to_vec())] };
        let mut entries: Vec<_> = entries.into_iter().map(|(entry, file)| before_30(entry, file, version)).collect();
        let mut out = Vec::new();
        let mut encoder = ListEncoder::new(&n, shape);
        for entry in &entries { encoder.entry(entry, &mut out); }
        encoder.end(io_error, &names, &mut out);
        // Before 28 a file with one name has a number too.
        for (at, entry) in (1..).zip(&mut entries) {
            if version < 28 && entry.is_file() && entry.extra.link.is_none() {
                entry.extra.link = Some(LinkId { dev: 0, ino: at });
            }
        }
        let arrived = decode(&out, &n, shape).unwrap();
        prop_assert_eq!(arrived.list, FileList::sorted(Sorting::of(version), 0, entries));
        prop_assert_eq!((arrived.io_error, arrived.names.users, arrived.names.groups), (io_error, names.users[..1].to_vec(), names.groups));
        for cut in 0..out.len() {
            let mut decoder = ListDecoder::new(&n, shape, ListLimits::default());
            let mut reader = Reader::new(&out[..cut]);
            let end = loop { match decoder.step(&mut reader) { Ok(false) => {}, other => break other } };
            prop_assert_eq!(end, Err(Decode::Incomplete));
        }
    }

    #[test]
    fn garbage_is_a_list_or_an_error(wire in proptest::collection::vec(any::<u8>(), 0..200), version in 27u8..=32, compat in prop_oneof![Just(0u32), Just(0x1f8)]) {
        let n = negotiated(version, if version < 30 { 0 } else { compat });
        let mut decoder = ListDecoder::new(&n, if version < 30 { OLD } else { FULL }, ListLimits::default());
        let mut reader = Reader::new(&wire);
        while let Ok(false) = decoder.step(&mut reader) {}
    }
}

#[test]
fn hostile_names_are_refused() {
    let n = negotiated(31, 0x1f8);
    for name in ["/etc/passwd", "../up", "a/../../b", "a/..", ""] {
        let mut out = Vec::new();
        let mut encoder = ListEncoder::new(&n, ListShape::default());
        encoder.entry(&FileEntry::new(name, 0o100644), &mut out);
        encoder.end(0, &IdNames::default(), &mut out);
        assert!(matches!(decode(&out, &n, ListShape::default()), Err(Decode::Bad(_))), "{name}");
    }
    let relative = ListShape { relative: true, ..ListShape::default() };
    let mut out = Vec::new();
    let mut encoder = ListEncoder::new(&n, relative);
    encoder.entry(&FileEntry::new("/a//./b", 0o100644), &mut out);
    encoder.end(0, &IdNames::default(), &mut out);
    assert_eq!(decode(&out, &n, relative).unwrap().list.get(Ndx(0)).unwrap().name, b"a/b");
}

#[test]
fn empty_directories_are_pruned() {
    let entry =
        |name: &str| FileEntry::new(name.trim_end_matches('/'), if name.ends_with('/') { 0o40755 } else { 0o100644 });
    let names = [".", "a", "e/", "e/f/", "g/", "g/h/", "g/h/x", "k/", "k/l/", "m/", "m.d/"];
    let mut list = FileList::new(names.iter().map(|name| entry(if *name == "." { "./" } else { name })).collect());
    list.prune(|entry| entry.name == b"k/l");
    let left: Vec<_> = list.iter().map(|(_, entry)| String::from_utf8(entry.name.clone()).unwrap()).collect();
    assert_eq!(left, [".", "a", "g", "g/h", "g/h/x", "k", "k/l"]);
    assert!(list.find(b"e", true).is_none() && list.find(b"k", true).is_some());
}
