//! Which files are not worth compressing, by the ends of their names (`--skip-compress`).

/// Suffixes of files that are compressed already, as rsync's manual lists them.
const USUAL: &[u8] = b"3g2/3gp/7z/aac/ace/apk/avi/bz2/deb/dmg/ear/f4v/flac/flv/gpg/gz/iso/jar/jpeg/jpg/lrz/lz/lz4/lzma/lzo/\
m1a/m1v/m2a/m2ts/m2v/m4a/m4b/m4p/m4r/m4v/mka/mkv/mov/mp1/mp2/mp3/mp4/mpa/mpeg/mpg/mpv/mts/odb/odf/odg/odi/odm/odp/ods/odt/\
oga/ogg/ogm/ogv/ogx/opus/otg/oth/otp/ots/ott/oxt/png/qt/rar/rpm/rz/rzip/spx/squashfs/sxc/sxd/sxg/sxm/sxw/sz/tbz/tbz2/tgz/\
tlz/ts/txz/tzo/vob/war/webm/webp/xz/z/zip/zst";

/// Suffixes, each with the dot before it left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suffixes(Vec<Vec<SuffixPlace>>);

/// What may stand at one place of a suffix.
#[derive(Debug, Clone, PartialEq, Eq)]
enum SuffixPlace {
    Byte(u8),
    OneOf(Vec<u8>),
}

impl SuffixPlace {
    /// Capital letters are as good as small ones.
    fn takes(&self, byte: u8) -> bool {
        match self {
            Self::Byte(wanted) => wanted.eq_ignore_ascii_case(&byte),
            Self::OneOf(bytes) => bytes.iter().any(|wanted| wanted.eq_ignore_ascii_case(&byte)),
        }
    }
}

impl Default for Suffixes {
    fn default() -> Self {
        Self::new(USUAL)
    }
}

impl Suffixes {
    /// Suffixes with slashes between them; `[abc]` stands for one of its letters. An empty list holds nothing.
    pub fn new(list: &[u8]) -> Self {
        let suffixes = list.split(|&byte| byte == b'/').filter(|suffix| !suffix.is_empty());
        Self(suffixes.map(places).collect())
    }

    /// Whether a path ends with a dot and one of the suffixes.
    pub fn holds(&self, path: &[u8]) -> bool {
        self.0.iter().any(|suffix| {
            let Some(start) = path.len().checked_sub(suffix.len()) else { return false };
            let (before, end) = path.split_at(start);
            before.ends_with(b".") && suffix.iter().zip(end).all(|(place, &byte)| place.takes(byte))
        })
    }
}

fn places(mut suffix: &[u8]) -> Vec<SuffixPlace> {
    let mut places = Vec::new();
    while let Some((&first, rest)) = suffix.split_first() {
        let close = rest.iter().position(|&byte| byte == b']').filter(|_| first == b'[');
        match close {
            Some(close) => {
                places.push(SuffixPlace::OneOf(rest[..close].to_vec()));
                suffix = &rest[close + 1..];
            }
            None => {
                places.push(SuffixPlace::Byte(first));
                suffix = rest;
            }
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_ones() {
        let usual = Suffixes::default();
        for name in [&b"a.gz"[..], b"dir/b.tar.GZ", b"c.mp3", b"d.squashfs", b"e.zst", b"f.3g2", b"g.Z"] {
            assert!(usual.holds(name), "{}", name.escape_ascii());
        }
        for name in [&b"gz"[..], b"agz", b"a.gz/b", b"a.g", b"a.gzz", b"", b"a.txt", b"a."] {
            assert!(!usual.holds(name), "{}", name.escape_ascii());
        }
    }

    #[test]
    fn lists_of_ones_own() {
        let own = Suffixes::new(b"gz/jpg/mp[34]/7z//b*2/x[y");
        for (name, held) in [
            (&b"a.mp3"[..], true),
            (b"a.mp4", true),
            (b"a.mp5", false),
            (b"a.mp[34]", false),
            (b"a.bz2", false),
            (b"a.b*2", true),
            (b"a.x[y", true),
            (b"a.", false),
        ] {
            assert_eq!(own.holds(name), held, "{}", name.escape_ascii());
        }
        assert!(!Suffixes::new(b"").holds(b"a.gz"));
    }
}
