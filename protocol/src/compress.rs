//! Which compression the file data of a session has, and how two ends agree on it.

/// Methods in the order in which stock lists and prefers them.
const PREFERENCE: [Method; 4] = [Method::Zstd, Method::Lz4, Method::Zlibx, Method::Zlib];

/// How file data is compressed, if at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Method {
    /// Not at all: plain tokens.
    #[default]
    None,
    /// Raw deflate whose history holds the matched blocks, too.
    Zlib,
    /// Raw deflate over the literals.
    Zlibx,
    /// Independent LZ4 blocks.
    Lz4,
    /// One Zstandard stream for the session.
    Zstd,
}

impl Method {
    /// Its name on the command line and on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Zlib => "zlib",
            Self::Zlibx => "zlibx",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// The method of this name.
    pub fn from_name(name: &[u8]) -> Option<Self> {
        PREFERENCE.into_iter().chain([Self::None]).find(|method| method.name().as_bytes() == name)
    }
}

/// A method with its level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Compression {
    /// The method.
    pub method: Method,
    /// The level, in the method's own terms; matters to the end that writes only.
    pub level: i32,
}

impl Compression {
    /// Plain tokens.
    pub const NONE: Self = Self { method: Method::None, level: 0 };

    /// A method at the asked level, held to what the method allows. Level 0 of deflate means plain tokens.
    pub fn new(method: Method, level: Option<i32>) -> Self {
        let level = match (method, level) {
            (Method::None | Method::Lz4, _) => 0,
            (Method::Zlib | Method::Zlibx, Some(0)) => return Self::NONE,
            (Method::Zlib | Method::Zlibx, None | Some(-1)) => 6,
            (Method::Zlib | Method::Zlibx, Some(level)) => level.clamp(1, 9),
            (Method::Zstd, None | Some(0)) => 3,
            (Method::Zstd, Some(level)) => level.clamp(-131_072, 22),
        };
        Self { method, level }
    }
}

/// Whether and how the options of a session ask for compression; both ends see them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choice {
    /// No compression.
    #[default]
    Off,
    /// Whatever both ends know; zlib with an end that names nothing.
    Negotiated,
    /// One of these, the best first, as a user listed them.
    Among([Option<Method>; 5]),
    /// This method.
    Named(Method),
}

/// What the options say of compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wish {
    /// Which.
    pub choice: Choice,
    /// `--compress-level`.
    pub level: Option<i32>,
}

impl Wish {
    /// No compression.
    pub const OFF: Self = Self { choice: Choice::Off, level: None };

    /// What there is without negotiation.
    pub(crate) fn outright(self) -> Compression {
        match self.choice {
            Choice::Off => Compression::NONE,
            // Ends that name nothing know nothing else.
            Choice::Negotiated | Choice::Among(_) => Compression::new(Method::Zlib, self.level),
            Choice::Named(method) => Compression::new(method, self.level),
        }
    }

    /// The first method of the common order that the peer names, too; `None` if there is none. With a list of its user's a
    /// `server` follows the peer, and a client the list.
    pub(crate) fn agree(self, theirs: &[u8], server: bool) -> Option<Compression> {
        let names = theirs.split(|&byte| byte == b' ');
        let method = match self.choice {
            Choice::Among(ours) if server => {
                names.filter_map(Method::from_name).find(|method| ours.contains(&Some(*method)))
            }
            Choice::Among(ours) => {
                let theirs: Vec<_> = names.filter_map(Method::from_name).collect();
                ours.into_iter().flatten().find(|method| theirs.contains(method))
            }
            _ => PREFERENCE
                .into_iter()
                .chain(server.then_some(Method::None))
                .find(|method| names.clone().any(|name| name == method.name().as_bytes())),
        };
        method.map(|method| Compression::new(method, self.level))
    }

    /// The list that we write. Without one of the user's both ends prefer what stands first, and so agree as long as
    /// nobody reorders it. A `server` names that nothing is compressed, too.
    pub(crate) fn list(self, server: bool) -> String {
        let names: Vec<_> = match self.choice {
            Choice::Among(ours) => ours.into_iter().flatten().map(Method::name).collect(),
            _ => PREFERENCE.into_iter().map(Method::name).chain(server.then_some(Method::None.name())).collect(),
        };
        // So stock says that nothing will do.
        if names.is_empty() { "INVALID".into() } else { names.join(" ") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_held_to_the_method() {
        for (method, asked, given) in [
            (Method::Zlib, None, 6),
            (Method::Zlibx, Some(-1), 6),
            (Method::Zlibx, Some(-5), 1),
            (Method::Zlib, Some(999_999_999), 9),
            (Method::Zstd, None, 3),
            (Method::Zstd, Some(0), 3),
            (Method::Zstd, Some(99), 22),
            (Method::Zstd, Some(i32::MIN), -131_072),
            (Method::Lz4, Some(5), 0),
        ] {
            assert_eq!(Compression::new(method, asked), Compression { method, level: given }, "{method:?} {asked:?}");
        }
        assert_eq!(Compression::new(Method::Zlib, Some(0)), Compression::NONE);
    }

    #[test]
    fn names_and_lists_are_stocks() {
        assert_eq!(Wish::OFF.list(false), "zstd lz4 zlibx zlib");
        assert_eq!(Wish::OFF.list(true), "zstd lz4 zlibx zlib none");
        for method in [Method::None, Method::Zlib, Method::Zlibx, Method::Lz4, Method::Zstd] {
            assert_eq!(Method::from_name(method.name().as_bytes()), Some(method));
        }
        assert_eq!(Method::from_name(b"zip"), None);
    }

    #[test]
    fn the_common_order_decides() {
        let wish = Wish { choice: Choice::Negotiated, level: None };
        let agreed = |theirs: &[u8]| wish.agree(theirs, false).map(|compression| compression.method);
        assert_eq!(agreed(b"zlib zlibx lz4"), Some(Method::Lz4));
        assert_eq!(agreed(b"zip zstd"), Some(Method::Zstd));
        assert_eq!(agreed(b"zlib none"), Some(Method::Zlib));
        assert_eq!((agreed(b"none"), agreed(b"INVALID"), agreed(b"")), (None, None, None));
    }
}
