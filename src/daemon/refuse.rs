//! `refuse options`: which of a client's options a module does not take. Counterpart: rsync's `set_refuse_options`.

use crate::disk::wild;
use crate::rsync::table::{self, Refusable};

/// What is refused where another option is.
const SAME: [(&str, &str); 3] = [("del", "delete-during"), ("old-compress", "compress"), ("new-compress", "compress")];
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
/// What no wildcard refuses beside the options that say so.
const VITAL: [&str; 3] = ["server", "sender", "no-iconv"];
/// What `a` stands for.
const ARCHIVE: [&str; 10] =
    ["archive", "recursive", "links", "perms", "times", "group", "owner", "D", "devices", "specials"];
/// What `P` stands for.
const PARTIAL_PROGRESS: [&str; 2] = ["partial", "progress"];

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
                    let found = table::by_name(name);
                    let name = String::from_utf8_lossy(name).into_owned();
                    if self.refuses(&found.map_or_else(|| name.clone(), |found| found.name()), sender) {
                        return Some(refused(&name));
                    }
                }
                [b'-', letters @ ..] => {
                    // What follows `e` are capabilities.
                    for &letter in letters.iter().take_while(|&&letter| letter != b'e') {
                        let found = table::by_letter(letter);
                        let name = found.map(|found| found.name()).unwrap_or_default();
                        // Of several options in one the first is named.
                        let parts = match letter {
                            b'a' => &ARCHIVE[..],
                            b'P' => &PARTIAL_PROGRESS,
                            _ => &[&*name],
                        };
                        if let Some(part) = parts.iter().find(|part| self.refuses(part, sender)) {
                            return Some(refused(part));
                        }
                        if found.is_some_and(|found| found.takes_value()) {
                            break;
                        }
                    }
                }
                _ => {}
            }
        }
        None
    }

    fn refuses(&self, name: &str, sender: bool) -> bool {
        let name = SAME.into_iter().find(|(alias, _)| *alias == name).map_or(name, |(_, name)| name);
        let delete = (name.starts_with("delete") && name != "delete") || (name == "remove-source-files" && sender);
        self.names(name)
            || (delete && self.names("delete"))
            || IMPLIES.into_iter().any(|(option, implied)| option == name && self.names(implied))
    }

    /// Whether the list names this very option.
    fn names(&self, name: &str) -> bool {
        let found = table::by_name(name.as_bytes()).filter(|found| !found.taken_back);
        let is = |refusal: Refusable| found.is_some_and(|found| found.option.refusals.contains(&refusal));
        if is(Refusable::Always) || (name == "iconv" && !self.charset) {
            return true;
        }
        let mut refused = is(Refusable::Unasked);
        for word in self.list.split_whitespace() {
            let (word, wanted) = word.strip_prefix('!').map_or((word, true), |word| (word, false));
            let word = word.trim_start_matches('-');
            let hit = match word {
                "a" | "archive" => ARCHIVE.contains(&name),
                word if wild::is_wild(word.as_bytes()) => {
                    let vital = is(Refusable::Vital) || VITAL.contains(&name);
                    !vital && wild::matches(word.as_bytes(), name.as_bytes())
                }
                word => {
                    let letter = word.bytes().next().filter(|_| word.len() == 1).and_then(table::by_letter);
                    let meant = letter.or_else(|| table::by_name(word.as_bytes())).map(|found| found.name());
                    let meant = meant.as_deref().unwrap_or(word);
                    SAME.into_iter().find(|(alias, _)| *alias == meant).map_or(meant, |(_, meant)| meant) == name
                }
            };
            if hit {
                refused = wanted;
            }
        }
        refused
    }
}

/// What is said of an option by the name it was given by; another name than its first has no letter.
fn refused(name: &str) -> String {
    let found = table::by_name(name.as_bytes()).filter(|found| !found.taken_back && found.option.name == name);
    let letter = found.map(|found| found.option.letter).or(name.bytes().next().filter(|_| name.len() == 1));
    let letter = letter.filter(|letter| *letter != 0).map(|letter| format!(" (-{})", letter.escape_ascii()));
    format!("The server is configured to refuse --{name}{}", letter.unwrap_or_default())
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
            // What a user gives by `-M`.
            ("temp-dir", "--server -le. -T/x . mod/", Some("--temp-dir (-T)")),
            ("times", "--server -le. -Ttmp . mod/", None),
            ("*", "--server -le. -fx . mod/", Some("--links (-l)")),
            ("* !l", "--server -le. -fx . mod/", Some("--filter (-f)")),
            ("itemize-changes", "--server -le. -i . mod/", Some("--itemize-changes (-i)")),
            ("from0", "--server -le. -0 . mod/", Some("--from0 (-0)")),
            ("archive", "--server -le. -a . mod/", Some("--links (-l)")),
            ("archive !l", "--server -le. -a . mod/", Some("--archive (-a)")),
            ("times", "--server -le. -a . mod/", Some("--times (-t)")),
            ("secluded-args", "--server -le. --protect-args . mod/", Some("--protect-args")),
            ("partial progress", "--server -le. -P . mod/", Some("--partial")),
        ] {
            assert_eq!(check(list, args).as_deref(), expected, "{list} | {args}");
        }
    }
}
