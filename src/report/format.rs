//! Lines about entries: `-i`, `--out-format` and `--log-file-format`. Counterpart: rsync's `log_formatted`.

use super::numbers;
use super::peer::LoggedPeer;
use crate::clock;
use protocol::args::Options;
use protocol::checksum::{Checksum, Sum};
use protocol::flist::{FileEntry, Kind};
use protocol::item::{ItemFlags, ItemHeader};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// One entry that something happened to.
pub(crate) struct Event<'a> {
    /// The entry; `None` for a name that was deleted.
    pub(crate) entry: Option<&'a FileEntry>,
    /// Its name, with the slash of a directory that was deleted.
    pub(crate) name: &'a [u8],
    pub(crate) header: &'a ItemHeader,
    pub(crate) sends: bool,
    /// Within this machine.
    pub(crate) local: bool,
    /// Bytes that went over the wire for it.
    pub(crate) sent: u64,
    /// Bytes of block sums that came for it, where we send.
    pub(crate) sums: u64,
    /// What its bytes came to, if they went over.
    pub(crate) sum: Option<Sum>,
    /// The session's algorithm for whole files, and the one of its list.
    pub(crate) checksums: [Checksum; 2],
    /// Path of its source on this machine.
    pub(crate) path: Option<&'a [u8]>,
    /// The other end of a daemon's session.
    pub(crate) site: Option<&'a LoggedPeer>,
    /// What of an entry's attributes is kept.
    pub(crate) kept: KeptAttributes,
    /// Level of `-h`.
    pub(crate) human: u8,
}

/// What of the attributes is kept at the destination: the rest is no change, and an owner that does not come is not told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeptAttributes {
    pub(crate) times: bool,
    pub(crate) owner: bool,
    pub(crate) group: bool,
}

impl KeptAttributes {
    /// As the options of a session want it.
    pub(crate) fn of(options: &Options) -> Self {
        Self { times: options.times, owner: options.owner, group: options.group }
    }
}

/// The eleven characters of `%i`.
pub(crate) fn itemized(event: &Event<'_>) -> String {
    let Some(entry) = event.entry else { return "*deleting  ".into() };
    let flags = event.header.flags;
    let kind = entry.kind();
    let has = |flag| flags.has(flag);
    let action = if has(ItemFlags::LOCAL_CHANGE) {
        if has(ItemFlags::XNAME) { 'h' } else { 'c' }
    } else if !has(ItemFlags::TRANSFER) {
        '.'
    } else if event.sends && !event.local {
        '<'
    } else {
        '>'
    };
    let letter = match kind {
        Some(Kind::Dir) => 'd',
        Some(Kind::Symlink) => 'L',
        Some(Kind::Device) => 'D',
        Some(Kind::Special) => 'S',
        Some(Kind::File) | None => 'f',
    };
    let mut text = format!("{action}{letter}");
    if has(ItemFlags::NEW) {
        text += "+++++++++";
        return text;
    }
    if has(ItemFlags::UNTOLD) {
        text += "?????????";
        return text;
    }
    let symlink = kind == Some(Kind::Symlink);
    let time = match () {
        () if symlink && has(ItemFlags::SIZE) => 'T',
        () if !has(ItemFlags::TIME) => '.',
        () if !event.kept.times || symlink && has(ItemFlags::SIZE) => 'T',
        () => 't',
    };
    let accessed = has(ItemFlags(0x0001));
    let born = has(ItemFlags(0x0400));
    let access = match (accessed, born) {
        (true, true) => 'b',
        (true, false) => 'u',
        (false, true) => 'n',
        (false, false) => '.',
    };
    let pick = |flag, letter| if has(flag) { letter } else { '.' };
    let report = [
        pick(ItemFlags::CHANGE, 'c'),
        if symlink { '.' } else { pick(ItemFlags::SIZE, 's') },
        time,
        pick(ItemFlags::PERMS, 'p'),
        pick(ItemFlags::OWNER, 'o'),
        pick(ItemFlags::GROUP, 'g'),
        access,
        pick(ItemFlags(0x0080), 'a'),
        pick(ItemFlags::XATTR, 'x'),
    ];
    let same = report.iter().all(|&letter| letter == '.') && matches!(action, '.' | 'h' | 'c');
    text.extend(if same { [' '; 9] } else { report });
    text
}

/// Whether an item says that something changed.
pub(crate) fn is_change(header: &ItemHeader) -> bool {
    says_more(header.flags) || header.flags.has(ItemFlags::LOCAL_CHANGE)
}

/// Whether an item says what changed, not only that the receiving side saw to it or by what.
pub(crate) fn says_more(flags: ItemFlags) -> bool {
    const NO_CHANGE: u16 = ItemFlags::BASIS_TYPE.0 | ItemFlags::XNAME.0 | ItemFlags::LOCAL_CHANGE.0;
    flags.0 & !NO_CHANGE != 0
}

/// Whether an item is told to a user who asks for names alone.
pub(crate) fn is_told(header: &ItemHeader) -> bool {
    says_more(header.flags) || header.xname.as_ref().is_some_and(|name| !name.is_empty())
}

/// Whether all that happens to something is that it gets other attributes; of a folder that is told as any change.
pub(crate) fn is_attributes(entry: &FileEntry, header: &ItemHeader) -> bool {
    let moved = ItemFlags::TRANSFER.and(ItemFlags::LOCAL_CHANGE).and(ItemFlags::NEW);
    !entry.is_dir() && says_more(header.flags) && header.flags.0 & moved.0 == 0
}

/// Whether a receiving side's log has the name of a change without data. Of new folders stock speaks when it sets their
/// times, or in a dry run (`new_folders`, see [`logs_new_folders`]).
pub(crate) fn is_logged_by_name(entry: &FileEntry, header: &ItemHeader, new_folders: bool) -> bool {
    let new_folder = entry.is_dir() && header.flags.has(ItemFlags::NEW);
    let told = is_told(header) && !is_attributes(entry, header);
    told && !header.flags.has(ItemFlags::TRANSFER) && (new_folders || !new_folder)
}

/// Whether a receiving side's log has the names of new folders, by its options.
pub(crate) fn logs_new_folders(options: &Options) -> bool {
    options.dry_run || options.times && !options.omit_dir_times
}

/// The words for an entry that is told by its name alone.
pub(crate) fn named(name: &[u8], entry: &FileEntry, header: &ItemHeader) -> Vec<u8> {
    let (mark, other): (&[u8], &[u8]) = match (entry.is_dir(), &entry.extra.target, &header.xname) {
        (true, ..) => (b"/", b""),
        (_, Some(target), _) => (b" -> ", target),
        (_, _, Some(name)) if !name.is_empty() => (b" => ", name),
        _ => (b"", b""),
    };
    [name, mark, other].concat()
}

/// Whether a format asks for the itemized changes, so that it needs every changed entry.
pub(crate) fn holds(format: &[u8], letter: u8) -> bool {
    let mut bytes = format.iter();
    while let Some(byte) = bytes.next() {
        if *byte == b'%' {
            let found = bytes.find(|byte| !byte.is_ascii_digit() && !matches!(byte, b'\'' | b'-'));
            if found == Some(&letter) {
                return true;
            }
        }
    }
    false
}

/// The line about a name that was deleted: a format that does not ask what was done has no word for it.
pub(crate) fn deleted(format: &[u8], event: &Event<'_>) -> Vec<u8> {
    match holds(format, b'i') || holds(format, b'o') {
        true => expand(format, event),
        false => [b"deleting ", event.name].concat(),
    }
}

/// Expands a format. Letters that mean nothing stay as they stand.
pub(crate) fn expand(format: &[u8], event: &Event<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(&byte) = format.get(at) {
        if byte != b'%' {
            out.push(byte);
            at += 1;
            continue;
        }
        let start = at;
        at += 1;
        let quotes = format[at..].iter().take_while(|byte| **byte == b'\'').count();
        at += quotes;
        let left = format.get(at) == Some(&b'-');
        at += usize::from(left);
        let digits = format[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        // Wider than any terminal is a slip.
        let width = std::str::from_utf8(&format[at..at + digits]).ok().and_then(|text| text.parse::<usize>().ok());
        let width = width.unwrap_or(0).min(1000);
        at += digits;
        let field = format.get(at).and_then(|&letter| field(letter, quotes, event));
        let Some(field) = field else {
            let end = (at + 1).min(format.len());
            out.extend_from_slice(&format[start..end]);
            at = end;
            continue;
        };
        at += 1;
        let padding = std::iter::repeat_n(b' ', width.saturating_sub(field.len()));
        if left {
            out.extend_from_slice(&field);
            out.extend(padding);
        } else {
            out.extend(padding);
            out.extend_from_slice(&field);
        }
    }
    out
}

fn field(letter: u8, quotes: usize, event: &Event<'_>) -> Option<Vec<u8>> {
    let number = |number: u64| {
        let level = match quotes {
            0 if event.human < 2 => 0,
            0 => event.human,
            quotes => quotes.min(3) as u8,
        };
        numbers::human(number, level).into_bytes()
    };
    let entry = event.entry;
    let id = |id: Option<u32>| id.unwrap_or(0).to_string().into_bytes();
    let KeptAttributes { owner, group, .. } = event.kept;
    Some(match letter {
        b'%' => b"%".to_vec(),
        b'b' => number(event.sent),
        b'c' => number(event.sums),
        b'B' => permissions(entry.map_or(0, |entry| entry.mode))[1..].into(),
        b'C' => whole_file_sum(event).into_bytes(),
        b'f' => {
            let path = event.path.unwrap_or(event.name);
            let path = path.strip_suffix(b"/").filter(|_| entry.is_none()).unwrap_or(path);
            path.strip_prefix(b"/").filter(|_| event.path.is_some()).unwrap_or(path).to_vec()
        }
        b'G' if !group => b"DEFAULT".to_vec(),
        b'G' => id(entry.map(|entry| entry.gid)),
        b'U' => id(entry.filter(|_| owner).map(|entry| entry.uid)),
        b'i' => itemized(event).into_bytes(),
        b'l' => number(entry.map_or(0, |entry| entry.len)),
        b'L' => link(event),
        b'M' => {
            let moment = clock::local(entry.map_or(0, |entry| entry.mtime));
            format!("{}-{}", moment.date(), moment.time()).into_bytes()
        }
        b'a' => event.site?.address.clone().into_bytes(),
        b'h' => event.site?.host.clone().into_bytes(),
        b'm' => event.site.map_or_else(Vec::new, |site| site.module.clone().into_bytes()),
        b'P' => event.site?.path.clone().into_bytes(),
        b'u' => event.site?.user.clone().into_bytes(),
        b'n' => {
            let mut name = event.name.to_vec();
            if entry.is_some_and(FileEntry::is_dir) && !name.ends_with(b"/") {
                name.push(b'/');
            }
            name
        }
        b'o' => match (entry, event.sends) {
            (None, _) => b"del.".to_vec(),
            (_, true) => b"send".to_vec(),
            (_, false) => b"recv".to_vec(),
        },
        b'p' => std::process::id().to_string().into_bytes(),
        b't' => {
            let moment = clock::local(clock::unix_seconds());
            format!("{} {}", moment.date(), moment.time()).into_bytes()
        }
        _ => return None,
    })
}

/// The sum that the list has, else the one that the bytes came to; zeros where none went over that would have.
fn whole_file_sum(event: &Event<'_>) -> String {
    let [checksum, listed] = event.checksums;
    let file = event.entry.filter(|entry| entry.is_file());
    match (file, file.and_then(|entry| entry.extra.sum.as_ref())) {
        (_, Some(sum)) => listed.text(sum),
        // One that is seeded says nothing to anybody else.
        (Some(_), None) if event.header.flags.has(ItemFlags::TRANSFER) && !checksum.is_seeded() => {
            checksum.text(&event.sum.unwrap_or_else(|| Sum::zero(checksum.size())))
        }
        _ => " ".repeat(2 * checksum.size()),
    }
}

fn link(event: &Event<'_>) -> Vec<u8> {
    let header = event.header;
    match (event.entry.and_then(|entry| entry.extra.target.as_deref()), &header.xname) {
        (_, Some(name)) if header.flags.has(ItemFlags::LOCAL_CHANGE) && !name.is_empty() => {
            [b" => ", name.as_slice()].concat()
        }
        (Some(target), _) => [b" -> ", target].concat(),
        _ => Vec::new(),
    }
}

/// A mode as `ls` writes it.
pub(crate) fn permissions(mode: u32) -> String {
    let kind = match mode & 0o170_000 {
        0o040_000 => 'd',
        0o120_000 => 'l',
        0o060_000 => 'b',
        0o020_000 => 'c',
        0o140_000 => 's',
        0o010_000 => 'p',
        _ => '-',
    };
    let mut text = String::from(kind);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (bits & 1 != 0, mode & special != 0) {
            (true, false) => 'x',
            (false, false) => '-',
            (true, true) => letter,
            (false, true) => letter.to_ascii_uppercase(),
        });
    }
    text
}

/// The path of a name, as the arguments tell it that it is listed for.
pub(crate) fn path_by_arguments(arguments: &[Vec<u8>], name: &[u8]) -> Option<Vec<u8>> {
    let matching = |argument: &&Vec<u8>| {
        let last = argument.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        matches!(last, b"" | b"." | b"..")
            || name.strip_prefix(last).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    };
    arguments.iter().find(matching).map(|argument| source_path(argument, name))
}

/// A path as `%f` shows it: the argument's own, cleaned of what says nothing.
fn source_path(argument: &[u8], name: &[u8]) -> Vec<u8> {
    let folder = match argument.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => &argument[..=slash],
        None => &b""[..],
    };
    let last = &argument[folder.len()..];
    if matches!(argument, b"." | b"./") {
        return name.to_vec();
    }
    if name == b"." {
        let folder = if last.is_empty() { folder.strip_suffix(b"/").unwrap_or(folder) } else { argument };
        return if matches!(last, b"" | b"..") { [folder, b"/."].concat() } else { folder.to_vec() };
    }
    let path = match last {
        b"." | b".." => [argument, b"/", name].concat(),
        _ => [folder, name].concat(),
    };
    std::path::Path::new(std::ffi::OsStr::from_bytes(&path))
        .components()
        .collect::<PathBuf>()
        .into_os_string()
        .into_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event<'a>(entry: &'a FileEntry, header: &'a ItemHeader) -> Event<'a> {
        Event {
            entry: Some(entry),
            name: &entry.name,
            header,
            sends: true,
            local: true,
            sent: 52,
            sums: 16,
            sum: None,
            checksums: [Checksum::Md5; 2],
            path: None,
            site: None,
            kept: KeptAttributes { times: true, owner: true, group: true },
            human: 1,
        }
    }

    #[test]
    fn changes_are_eleven_letters() {
        let file = FileEntry::new("f", 0o100_644);
        let dir = FileEntry::new("d", 0o040_755);
        for (entry, flags, wanted) in [
            (&file, 0xA000, ">f+++++++++"),
            (&file, 0x8008, ">f..t......"),
            (&file, 0x800C, ">f.st......"),
            (&file, 0x800A, ">fc.t......"),
            (&file, 0x0050, ".f...p.g..."),
            (&file, 0x0000, ".f         "),
            (&dir, 0x6000, "cd+++++++++"),
            (&dir, 0x0008, ".d..t......"),
        ] {
            let header = ItemHeader { flags: ItemFlags(flags), ..ItemHeader::default() };
            assert_eq!(itemized(&event(entry, &header)), wanted, "{flags:x}");
        }
    }

    #[test]
    fn formats_expand() {
        let mut file = FileEntry::new("some file", 0o104_755);
        file.len = 300_000;
        let header = ItemHeader { flags: ItemFlags(0xA000), ..ItemHeader::default() };
        let event = event(&file, &header);
        let text = |format: &str| String::from_utf8(expand(format.as_bytes(), &event)).unwrap();
        assert_eq!(
            text("%n|%'l|%''l|%10l|%-10l|%B|%o|%%|%q|%"),
            "some file|300,000|300.00K|    300000|300000    |rwsr-xr-x|send|%|%q|%"
        );
        assert_eq!(text("%i %n%L"), ">f+++++++++ some file");
        assert!(holds(b"%-10i", b'i') && !holds(b"%n i", b'i'));
    }

    #[test]
    fn source_paths_are_those_of_the_arguments() {
        for (argument, name, wanted) in [
            ("src/", ".", "src/."),
            ("src/", "a/b", "src/a/b"),
            ("src", "src/a", "src/a"),
            ("x/src", "src/a", "x/src/a"),
            (".", "a", "a"),
            (".", ".", "."),
            ("/x/./y/", "a", "/x/y/a"),
        ] {
            assert_eq!(source_path(argument.as_bytes(), name.as_bytes()), wanted.as_bytes(), "{argument} {name}");
        }
    }
}
