//! The arguments of a server: those that clients send by themselves, and any other option of the command line, which `-M`
//! and wrappers hand on.

use super::command_line::CommandLine;
use super::usage::Usage;
use super::wanted;
use protocol::args::{ArgsError, ItemDetail, Options, ServerArgs};
use std::os::unix::ffi::OsStrExt;

/// Whom the files belong to that an option may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// To whoever starts the server.
    Operator,
    /// Perhaps to others than the client of a daemon: it has no say in what is read.
    Stranger,
}

/// Reads the arguments of a server that an operator starts.
pub(crate) fn operators(words: &[&[u8]]) -> Result<ServerArgs, ArgsError> {
    args(words, Trust::Operator)
}

/// Reads the arguments of a server.
pub(crate) fn args(words: &[&[u8]], trust: Trust) -> Result<ServerArgs, ArgsError> {
    let mut filters = Vec::new();
    let mut args = ServerArgs::parse_with(words, &mut |options, word, more| {
        let mut line = CommandLine { options: std::mem::take(options), ..CommandLine::default() };
        let taken = line.option(word, more);
        filters.append(&mut line.filters);
        *options = settled(line);
        taken.map_err(refused)
    })?;
    let rules = wanted::gathered(&args.options, &filters, trust == Trust::Operator).map_err(refused)?;
    args.rules = rules;
    Ok(args)
}

/// What an option of the command line comes to at a server.
fn settled(line: CommandLine) -> Options {
    let mut options = line.options;
    options.relative = line.relative.unwrap_or(options.relative);
    options.dirs = line.dirs.unwrap_or(options.dirs);
    if let Some(whole) = line.whole_file {
        (options.whole_file, options.no_whole_file) = (whole, !whole);
    }
    options.secluded_args = line.secluded_args.unwrap_or(options.secluded_args);
    options.quiet |= line.quiet > 0;
    if line.itemize > 0 && matches!(options.detail, ItemDetail::None | ItemDetail::Names) {
        options.detail = ItemDetail::Changed;
    }
    if let Some(path) = line.log_file {
        options.log_file = Some(path.as_os_str().as_bytes().to_vec());
    }
    if line.log_file_format.is_some() {
        options.log_file_format = line.log_file_format;
    }
    options
}

fn refused(usage: Usage) -> ArgsError {
    match usage.text.strip_prefix("rsync: ").and_then(|text| text.split_once(": unknown option")) {
        Some((option, _)) => ArgsError::Unsupported(option.to_owned()),
        None => ArgsError::Refused(usage.text.strip_prefix("rsync: ").unwrap_or(&usage.text).to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Result<ServerArgs, ArgsError> {
        operators(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>())
    }

    #[test]
    fn a_server_takes_every_option_of_the_command_line() {
        for option in super::super::table::all().filter(|option| option.letter != b'e' && !option.names.is_empty()) {
            let value = match (option.value, &*option.names[0]) {
                ("", _) => "",
                (_, "chmod") => "=a+r",
                (_, "filter") => "=-_x",
                (_, "exclude-from" | "include-from" | "files-from") => "=/dev/null",
                (_, "chown" | "usermap" | "groupmap") => "=0:0",
                (_, "compress-choice") => "=zlib",
                (_, "checksum-choice") => "=md5",
                (_, "confine-root") => "=/x",
                (_, "stop-at") => "=2099-01-01T00:00",
                (_, "outbuf") => "=N",
                (_, "stderr") => "=e",
                (_, "info" | "debug") => "=NONE",
                (_, "remote-option") => "=-v",
                _ => "=1",
            };
            let name = &*option.names[0];
            // What stands in for a transfer, and what we do not have.
            if matches!(name, "help" | "version" | "crtimes") {
                continue;
            }
            let line = format!("--server --sender -logDtpr -e.LsfxCIvu --{name}{value} -- . a b");
            let args = of(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
            assert_eq!((args.paths.len(), &args.capabilities[..]), (2, &b"LsfxCIvu"[..]), "{line}");
        }
    }

    #[test]
    fn options_hold_in_their_order_and_rules_are_kept() {
        let args =
            of("--server -lgtpre.v --no-perms --owner --no-D --specials --backup -f -_*.o --exclude x . d").unwrap();
        let options = &args.options;
        assert!(!options.perms && options.owner && options.specials && !options.devices && options.backup);
        assert_eq!(args.rules.len(), 2);
        let args = of("--server -re.v --archive --suffix .bak -T /tmp . d").unwrap();
        assert!(args.options.devices && args.options.specials && args.options.suffix.as_deref() == Some(b".bak"));
        assert_eq!(of("--server -re.v --bogus . d").unwrap_err(), ArgsError::Unsupported("--bogus".into()));
    }

    #[test]
    fn a_stranger_has_no_file_read() {
        for words in ["--exclude-from=/dev/null", "-f ._/dev/null", "--include-from /dev/null"] {
            let line = format!("--server -re.v {words} . d");
            let words: Vec<_> = line.split(' ').map(str::as_bytes).collect();
            assert!(args(&words, Trust::Operator).is_ok() && args(&words, Trust::Stranger).is_err(), "{line}");
        }
    }
}
