//! `refuse options`: which of a client's options a module does not take. Counterpart: rsync's `set_refuse_options`.

use crate::disk::wild;

/// Letters and the long names of the same options.
const LETTERS: [(u8, &str); 37] = [
    (b'v', "verbose"),
    (b'q', "quiet"),
    (b'b', "backup"),
    (b'u', "update"),
    (b'n', "dry-run"),
    (b'l', "links"),
    (b'd', "dirs"),
    (b'K', "keep-dirlinks"),
    (b'm', "prune-empty-dirs"),
    (b'O', "omit-dir-times"),
    (b'J', "omit-link-times"),
    (b'y', "fuzzy"),
    (b'L', "copy-links"),
    (b'k', "copy-dirlinks"),
    (b'W', "whole-file"),
    (b'H', "hard-links"),
    (b'o', "owner"),
    (b'g', "group"),
    (b'D', "D"),
    (b't', "times"),
    (b'U', "atimes"),
    (b'N', "crtimes"),
    (b'p', "perms"),
    (b'E', "executability"),
    (b'A', "acls"),
    (b'X', "xattrs"),
    (b'r', "recursive"),
    (b'c', "checksum"),
    (b'C', "cvs-exclude"),
    (b'I', "ignore-times"),
    (b'R', "relative"),
    (b'x', "one-file-system"),
    (b'S', "sparse"),
    (b'z', "compress"),
    (b's', "secluded-args"),
    (b'B', "block-size"),
    (b'@', "modify-window"),
];
/// Other names of an option.
const ALIASES: [(&str, &str); 13] = [
    ("del", "delete-during"),
    ("remove-sent-files", "remove-source-files"),
    ("ignore-non-existing", "existing"),
    ("old-compress", "compress"),
    ("new-compress", "compress"),
    ("zc", "compress-choice"),
    ("zl", "compress-level"),
    ("zt", "compress-threads"),
    ("cc", "checksum-choice"),
    ("log-format", "out-format"),
    ("protect-args", "secluded-args"),
    ("time-limit", "stop-after"),
    ("i-d", "implied-dirs"),
];
/// An option means the other as well.
const IMPLIES: [(&str, &str); 9] = [
    ("append", "inplace"),
    ("append-verify", "inplace"),
    ("write-devices", "inplace"),
    ("delay-updates", "partial-dir"),
    ("partial-dir", "partial"),
    ("compress-choice", "compress"),
    ("D", "devices"),
    ("D", "specials"),
    ("backup-dir", "backup"),
];
/// What no wildcard refuses, for nothing would work without.
const VITAL: [&str; 11] = [
    "server",
    "sender",
    "rsh",
    "out-format",
    "dry-run",
    "secluded-args",
    "from0",
    "iconv",
    "no-iconv",
    "checksum-seed",
    "write-devices",
];
/// What is refused unless the list says otherwise.
const BY_DEFAULT: [&str; 2] = ["copy-devices", "write-devices"];
/// What is refused whatever the list says: it would have the daemon write where the client likes.
const ALWAYS: [&str; 4] = ["log-file", "log-file-format", "insecure-links", "copy-as"];
/// What `a` stands for.
const ARCHIVE: [&str; 10] =
    ["archive", "recursive", "links", "perms", "times", "group", "owner", "D", "devices", "specials"];

/// The rules of a module.
#[derive(Debug, Clone, Default)]
pub(super) struct Refusals<'a> {
    /// The list as it stands.
    pub(super) list: &'a str,
    /// Whether the module has a `charset`; without one nothing can be converted.
    pub(super) charset: bool,
}

impl Refusals<'_> {
    /// What stock says of the first argument that the module does not take; `sender` when the daemon is to send.
    pub(super) fn check<A: AsRef<[u8]>>(&self, args: &[A], sender: bool) -> Option<String> {
        for arg in args.iter().map(AsRef::as_ref).take_while(|arg| *arg != b".") {
            match arg {
                [b'-', b'-', long @ ..] => {
                    let name = long.split(|&byte| byte == b'=').next().unwrap_or_default();
                    let name = String::from_utf8_lossy(name);
                    let text = format!("--{name}");
                    if self.refuses(&name, sender) {
                        return Some(refused(&text, letter_of(&name)));
                    }
                }
                [b'-', letter @ (b'B' | b'@'), ..] => {
                    let name = name_of(*letter);
                    if self.refuses(name, sender) {
                        return Some(refused(&format!("--{name}"), Some(*letter)));
                    }
                }
                [b'-', letters @ ..] => {
                    // What follows `e` are capabilities.
                    for &letter in letters.iter().take_while(|&&letter| letter != b'e') {
                        let name = name_of(letter);
                        if self.refuses(name, sender) {
                            return Some(refused(&format!("--{name}"), Some(letter)));
                        }
                    }
                }
                _ => {}
            }
        }
        None
    }

    fn refuses(&self, name: &str, sender: bool) -> bool {
        let name = ALIASES.into_iter().find(|(alias, _)| *alias == name).map_or(name, |(_, name)| name);
        let delete = (name.starts_with("delete") && name != "delete") || (name == "remove-source-files" && sender);
        self.names(name)
            || (delete && self.names("delete"))
            || IMPLIES.into_iter().any(|(option, implied)| option == name && self.names(implied))
    }

    /// Whether the list names this very option.
    fn names(&self, name: &str) -> bool {
        if ALWAYS.contains(&name) || (name == "iconv" && !self.charset) {
            return true;
        }
        let mut refused = BY_DEFAULT.contains(&name);
        for word in self.list.split_whitespace() {
            let (word, wanted) = word.strip_prefix('!').map_or((word, true), |word| (word, false));
            let word = word.trim_start_matches('-');
            let hit = match word {
                "a" | "archive" => ARCHIVE.contains(&name),
                word if wild::is_wild(word.as_bytes()) => {
                    !VITAL.contains(&name) && wild::matches(word.as_bytes(), name.as_bytes())
                }
                word => {
                    let letter = word.len() == 1 && letter_of(name) == word.bytes().next();
                    let alias = ALIASES.into_iter().find(|(alias, _)| *alias == word).map(|(_, name)| name);
                    letter || alias.unwrap_or(word) == name
                }
            };
            if hit {
                refused = wanted;
            }
        }
        refused
    }
}

fn refused(option: &str, letter: Option<u8>) -> String {
    let letter = letter.map(|letter| format!(" (-{})", letter.escape_ascii())).unwrap_or_default();
    format!("The server is configured to refuse {option}{letter}")
}

fn name_of(letter: u8) -> &'static str {
    LETTERS.into_iter().find(|(known, _)| *known == letter).map_or("", |(_, name)| name)
}

fn letter_of(name: &str) -> Option<u8> {
    LETTERS.into_iter().find(|(_, known)| *known == name).map(|(letter, _)| letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(list: &str, args: &str) -> Option<String> {
        let words: Vec<_> = args.split(' ').collect();
        let sender = words.contains(&"--sender");
        let said = Refusals { list, charset: false }.check(&words, sender)?;
        said.strip_prefix("The server is configured to refuse ").map(str::to_owned)
    }

    #[test]
    fn lists_refuse_as_stocks_do() {
        for (list, args, expected) in [
            ("", "--server -logDtpre.iLsfxCIvu --delete-during . mod/", None),
            ("", "--server -logDtpre.iLsfxCIvu --write-devices . mod/", Some("--write-devices")),
            ("!write-devices", "--server -le. --write-devices . mod/", None),
            ("!log-file", "--server -le. --log-file=/x . mod/", Some("--log-file")),
            ("", "--server -le. --iconv=utf8 . mod/", Some("--iconv")),
            ("checksum", "--server --sender -logDtprce.iLsfxCIvu . mod/", Some("--checksum (-c)")),
            ("c delete", "--server -le.c --delete-before . mod/", Some("--delete-before")),
            ("delete", "--server -le.iv --del . mod/", Some("--del")),
            ("delete", "--server -le.iv --remove-source-files . mod/", None),
            ("delete", "--server --sender -le.iv --remove-source-files . mod/", Some("--remove-source-files")),
            ("delete-*", "--server --sender -le.iv --remove-source-files . mod/", None),
            ("delete-* !delete-during", "--server -le. --delete-during . mod/", None),
            ("delete-* !delete-during", "--server -le. --delete-after . mod/", Some("--delete-after")),
            ("* !a !delete* delete-after", "--server -logDtpre.iLsf --delete-during . mod/", None),
            ("* !a !delete* delete-after", "--server -logDtpre.iLsf --delete-after . mod/", Some("--delete-after")),
            ("* !a !v !compress*", "--server -vvlogDtprze.iLsf --compress-level=3 --log-format=%i . mod/", None),
            ("* !a", "--server -vlogDtpre.iLsf . mod/", Some("--verbose (-v)")),
            ("* !a", "--server -nlogDtpre.iLsf --checksum-seed=3 --from0 . mod/", None),
            ("compress", "--server -le. --new-compress . mod/", Some("--new-compress")),
            ("compress", "--server -le. --compress-choice=zstd . mod/", Some("--compress-choice")),
            ("compress-threads", "--server -le. --zt=9 . mod/", Some("--zt")),
            ("inplace", "--server -le. --append . mod/", Some("--append")),
            ("block-size", "--server -le. -B700 . mod/", Some("--block-size (-B)")),
            ("partial", "--server -le. --partial-dir x . mod/", Some("--partial-dir")),
            ("n", "--server -nle. . mod/", Some("--dry-run (-n)")),
        ] {
            assert_eq!(check(list, args).as_deref(), expected, "{list} | {args}");
        }
    }
}
