//! The lines of `--list-only`.

use super::format::permissions;
use super::numbers;
use crate::clock;
use crate::disk::names;
use protocol::flist::FileEntry;

/// One entry. `human` is the level of `-h`; `eight_bit` as for [`names::put`]; `links`: where symlinks point is shown.
pub(crate) fn line(entry: &FileEntry, human: u8, eight_bit: bool, links: bool) -> Vec<u8> {
    made_of(entry, human, links, |name, line| names::put(name, eight_bit, line))
}

/// The same, `links` too, with names as they are, for a client that will look after what its terminal cannot show.
pub(crate) fn raw_line(entry: &FileEntry, links: bool) -> Vec<u8> {
    made_of(entry, 1, links, |name, line| line.extend_from_slice(name))
}

fn made_of(entry: &FileEntry, human: u8, links: bool, put: impl Fn(&[u8], &mut Vec<u8>)) -> Vec<u8> {
    let moment = clock::local(entry.mtime);
    let size = numbers::human(entry.len, human);
    let mut line = format!("{} {size:>14} {} {} ", permissions(entry.mode), moment.date(), moment.time()).into_bytes();
    put(&entry.name, &mut line);
    if let Some(target) = entry.extra.target.as_ref().filter(|_| links) {
        line.extend_from_slice(b" -> ");
        put(target, &mut line);
    }
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::flist::Extras;

    #[test]
    fn lines_are_those_of_a_long_listing() {
        let entry = FileEntry { len: 300_000, mtime: 1_577_836_800, ..FileEntry::new("b\nig", 0o100_644) };
        let shown = String::from_utf8(line(&entry, 1, false, true)).unwrap();
        assert!(shown.starts_with("-rw-r--r--        300,000 20") && shown.ends_with(" b\\#012ig\n"), "{shown}");
        let link = FileEntry {
            extra: Extras { target: Some(b"to".to_vec()), ..Extras::default() }.into(),
            len: 2,
            ..FileEntry::new("l", 0o120_777)
        };
        assert!(String::from_utf8(line(&link, 0, false, true)).unwrap().ends_with(" l -> to\n"));
        assert!(String::from_utf8(line(&link, 0, false, false)).unwrap().ends_with(" l\n"));
    }
}
