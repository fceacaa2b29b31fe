//! Sources and a destination: which of them are here, and how the others are reached.

use super::usage::{Usage, refuse};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OperandPlace {
    /// On this machine.
    Here(Vec<u8>),
    /// Behind a remote shell: `[user@]host:path`.
    Shell(Host, Vec<u8>),
    /// At a daemon: `[user@]host::module/path` or `rsync://…`.
    Daemon(Host, Vec<u8>),
}

/// Another machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    /// Who to be there.
    pub user: Option<Vec<u8>>,
    /// Its name, without the brackets of an IPv6 address.
    pub name: Vec<u8>,
    /// Its port, where a URL says one.
    pub port: Option<u16>,
}

/// What is to be copied where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// How the other end is reached; `None` for a copy within this machine.
    pub remote: Option<RemoteHost>,
    /// The sources are there and come here.
    pub pull: bool,
    pub sources: Vec<Vec<u8>>,
    /// Path of the destination; `None` where things are only listed.
    pub destination: Option<Vec<u8>>,
}

/// Another machine and the way to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RemoteHost {
    /// The machine.
    pub host: Host,
    /// By a daemon, not by a shell.
    pub daemon: bool,
}

/// The daemon an operand names, if it does.
pub(super) fn daemon(operand: &[u8]) -> Option<Host> {
    match place(operand) {
        Ok(OperandPlace::Daemon(host, _)) => Some(host),
        _ => None,
    }
}

/// Where an operand is: a colon before the first slash makes it remote.
pub(crate) fn place(operand: &[u8]) -> Result<OperandPlace, Usage> {
    const SCHEME: &[u8] = b"rsync://";
    if operand.len() >= SCHEME.len() && operand[..SCHEME.len()].eq_ignore_ascii_case(SCHEME) {
        let rest = &operand[SCHEME.len()..];
        let slash = rest.iter().position(|&byte| byte == b'/').unwrap_or(rest.len());
        let path = rest.get(slash + 1..).unwrap_or_default().to_vec();
        return Ok(OperandPlace::Daemon(authority(&rest[..slash])?, path));
    }
    let slash = operand.iter().position(|&byte| byte == b'/').unwrap_or(operand.len());
    let front = &operand[..slash];
    let start = match front.iter().position(|&byte| byte == b'[') {
        Some(open) if open == 0 || front[open - 1] == b'@' => match front.windows(2).position(|pair| pair == b"]:") {
            Some(close) => close + 1,
            None => return Ok(OperandPlace::Here(operand.to_vec())),
        },
        _ => 0,
    };
    let Some(colon) = front[start..].iter().position(|&byte| byte == b':').map(|at| at + start) else {
        return Ok(OperandPlace::Here(operand.to_vec()));
    };
    let host = host(&operand[..colon])?;
    match &operand[colon + 1..] {
        [b':', path @ ..] => Ok(OperandPlace::Daemon(host, path.to_vec())),
        path => Ok(OperandPlace::Shell(host, path.to_vec())),
    }
}

fn authority(text: &[u8]) -> Result<Host, Usage> {
    let after = text.iter().rposition(|&byte| byte == b']').map_or(0, |close| close + 1);
    let after = after.max(text.iter().rposition(|&byte| byte == b'@').map_or(0, |at| at + 1));
    let Some(colon) = text[after..].iter().position(|&byte| byte == b':').map(|at| at + after) else {
        return host(text);
    };
    let digits = String::from_utf8_lossy(&text[colon + 1..]);
    let port = digits.parse().map_err(|_| Usage::syntax(format!("rsync: invalid port in URL: {digits}")))?;
    Ok(Host { port: Some(port), ..host(&text[..colon])? })
}

fn host(text: &[u8]) -> Result<Host, Usage> {
    let (user, name) = match text.iter().rposition(|&byte| byte == b'@') {
        Some(at) => (Some(text[..at].to_vec()).filter(|user| !user.is_empty()), &text[at + 1..]),
        None => (None, text),
    };
    let name = name.strip_prefix(b"[").and_then(|name| name.strip_suffix(b"]")).unwrap_or(name);
    // A remote shell would take such a name, or such a user, for an option of its own.
    if name.starts_with(b"-") {
        return Err(Usage::syntax("Invalid remote host: hostnames may not start with '-'."));
    }
    if user.as_ref().is_some_and(|user| user.starts_with(b"-")) {
        return Err(Usage::syntax("Invalid remote user: user names may not start with '-'."));
    }
    Ok(Host { user, name: name.to_vec(), port: None })
}

/// Refuses operands that are empty, such as a variable of a script that was never set leaves behind: read as the folder
/// one happens to stand in, `--delete` would lay waste to the other end. With `--old-args` an empty destination is that
/// folder all the same.
fn refuse_empty(sources: &[Vec<u8>], destination: Option<&Vec<u8>>, old_args: bool) -> Result<(), Usage> {
    if destination.is_some_and(Vec::is_empty) && !old_args {
        return Err(Usage::syntax("Empty destination arg specified (use \".\" or see --old-args)."));
    }
    // Behind a remote source it is told apart as what is not remote.
    let own = |source: &Vec<u8>| matches!(place(source), Ok(OperandPlace::Here(_)));
    if sources.first().is_none_or(own) && sources.iter().any(Vec::is_empty) {
        return Err(Usage::syntax("Empty source arg specified."));
    }
    Ok(())
}

/// The operands of a command line whose files come out of a batch file: the last one is the destination. With `old_args` an
/// empty word is a folder, as it was of old.
pub(super) fn playback(operands: &[Vec<u8>], old_args: bool) -> Result<Plan, Usage> {
    let Some(last) = operands.last() else { return Err(Usage::syntax("")) };
    refuse_empty(&[], Some(last), old_args)?;
    match place(last)? {
        OperandPlace::Here(path) => Ok(Plan { remote: None, pull: true, sources: Vec::new(), destination: Some(path) }),
        _ => Err(Usage::syntax("remote destination is not allowed with --read-batch")),
    }
}

/// Sorts the operands of a command line; `old_args` as for [`playback`].
pub(crate) fn plan(operands: &[Vec<u8>], old_args: bool) -> Result<Plan, Usage> {
    match operands {
        [sources @ .., last] if !sources.is_empty() => refuse_empty(sources, Some(last), old_args)?,
        sources => refuse_empty(sources, None, old_args)?,
    }
    let places = operands.iter().map(|operand| place(operand)).collect::<Result<Vec<_>, _>>()?;
    let (sources, destination) = match places.len() {
        0 | 1 => (&places[..], None),
        _ => (&places[..places.len() - 1], places.last()),
    };
    let machines = || Usage::syntax("All source args must come from the same machine.");
    let Some(first) = sources.first() else { return Err(refuse("a transfer without a source")) };
    let (remote, pull) = match (first, destination) {
        (OperandPlace::Here(_), Some(OperandPlace::Shell(host, _))) => (Some((host, false)), false),
        (OperandPlace::Here(_), Some(OperandPlace::Daemon(host, _))) => (Some((host, true)), false),
        (OperandPlace::Here(_), _) => (None, false),
        (
            OperandPlace::Shell(..) | OperandPlace::Daemon(..),
            Some(OperandPlace::Shell(..) | OperandPlace::Daemon(..)),
        ) => {
            return Err(Usage::syntax("The source and destination cannot both be remote."));
        }
        (OperandPlace::Shell(host, _), _) => (Some((host, false)), true),
        (OperandPlace::Daemon(host, _), _) => (Some((host, true)), true),
    };
    let mut paths = Vec::with_capacity(sources.len());
    for (source, word) in sources.iter().zip(operands) {
        match (source, &remote) {
            (OperandPlace::Here(path), _) if !pull => paths.push(path.clone()),
            (OperandPlace::Here(_), _) => {
                let word = String::from_utf8_lossy(word);
                return Err(Usage::syntax(format!(
                    "Unexpected local arg: {word}\nIf arg is a remote file/dir, prefix it with a colon (:)."
                )));
            }
            (_, _) if !pull => {
                let word = String::from_utf8_lossy(word);
                return Err(Usage::syntax(format!("Unexpected remote arg: {word}")));
            }
            // Further sources of the same machine may leave its name out.
            (OperandPlace::Shell(host, path), Some((first, false)))
            | (OperandPlace::Daemon(host, path), Some((first, true))) => {
                if !host.name.is_empty() && (host.name != first.name || host.user != first.user) {
                    return Err(machines());
                }
                paths.push(path.clone());
            }
            _ => return Err(Usage::syntax("All source args must use the same hostspec format.")),
        }
    }
    let destination = destination.map(|place| match place {
        OperandPlace::Here(path) | OperandPlace::Shell(_, path) | OperandPlace::Daemon(_, path) => path.clone(),
    });
    let remote = remote.map(|(host, daemon)| RemoteHost { host: host.clone(), daemon });
    Ok(Plan { remote, pull, sources: paths, destination })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(operand: &str) -> String {
        let host = |host: Host| {
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
            format!("{}|{}|{}", host.user.map_or("-".into(), text), text(host.name), host.port.unwrap_or(0))
        };
        match place(operand.as_bytes()) {
            Ok(OperandPlace::Here(_)) => "here".into(),
            Ok(OperandPlace::Shell(at, path)) => format!("shell {} {}", host(at), String::from_utf8(path).unwrap()),
            Ok(OperandPlace::Daemon(at, path)) => format!("daemon {} {}", host(at), String::from_utf8(path).unwrap()),
            Err(usage) => usage.text,
        }
    }

    #[test]
    fn a_colon_before_a_slash_is_another_machine() {
        for (operand, wanted) in [
            ("a", "here"),
            ("./a:b", "here"),
            ("[::1:a", "here"),
            ("[a]b:c", "here"),
            ("/a:b", "here"),
            ("h:a", "shell -|h|0 a"),
            ("h:", "shell -|h|0 "),
            (":a", "shell -||0 a"),
            ("u@h:~/x y", "shell u|h|0 ~/x y"),
            ("u@v@h:a:b", "shell u@v|h|0 a:b"),
            ("[::1]:a", "shell -|::1|0 a"),
            ("u@[fe80::1%eth0]:/a", "shell u|fe80::1%eth0|0 /a"),
            ("h::m/p", "daemon -|h|0 m/p"),
            ("rsync://h", "daemon -|h|0 "),
            ("RSYNC://u@h:8730/m/p", "daemon u|h|8730 m/p"),
            ("rsync://[::1]:8/m", "daemon -|::1|8 m"),
        ] {
            assert_eq!(shown(operand), wanted, "{operand}");
        }
        for operand in ["-oProxyCommand=x:a", "u@-h:a", "-u@h:a", "rsync://-h/a", "rsync://h:x/m"] {
            assert!(place(operand.as_bytes()).is_err(), "{operand}");
        }
    }

    #[test]
    fn all_sources_are_on_one_machine() {
        let of = |line: &str| plan(&line.split(' ').map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>(), false);
        let several = of("u@h:a :b u@h:c d").unwrap();
        assert!(several.pull && several.sources == [b"a", b"b", b"c"] && several.destination == Some(b"d".to_vec()));
        assert!(!of("a b h:c").unwrap().pull);
        assert_eq!(of("a b").unwrap().remote, None);
        assert_eq!(of("h:a").unwrap().destination, None);
        for line in ["h:a i:b c", "h:a b c", "h:a i:b", "a h:b c", "h:a h::b c", "u@h:a h:b c", "a h:b i:c"] {
            assert!(of(line).is_err(), "{line}");
        }
    }
    #[test]
    fn an_empty_operand_is_refused_wherever_it_stands() {
        let of = |words: &[&str], old_args| {
            plan(&words.iter().map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>(), old_args)
        };
        for words in
            [&["", "b"][..], &["a", ""], &["", ""], &["a", "", "b"], &["", "h:"], &["h:", ""], &["h:a", "", "b"], &[""]]
        {
            assert_eq!(of(words, false).unwrap_err().code, 1, "{words:?}");
        }
        assert!(of(&["", "b"], true).is_err() && of(&["a", ""], true).is_ok());
        // A home directory is a place.
        assert!(of(&["h:", "b"], false).is_ok() && of(&["a", "h:"], false).is_ok());
        assert!(playback(&[Vec::new()], false).is_err() && playback(&[Vec::new()], true).is_ok());
    }
}
