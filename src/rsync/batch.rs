//! Batch files of the command: which are written or read, and the script that goes with one.

use super::command_line::CommandLine;
use super::operands::Plan;
use super::table;
use super::usage::Usage;
use crate::exit;
use crate::transfer::TransferError;
use crate::transfer::batch::BatchFile;
use protocol::checksum::Checksum;
use protocol::filter::Rule;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Where the rules end in a script.
const END: &[u8] = b"#E#";

/// The path of a batch file as messages show it.
pub(super) fn path(name: &[u8]) -> PathBuf {
    let path = Path::new(OsStr::from_bytes(name));
    match name {
        b"-" => path.to_owned(),
        // An empty name is none, and stock looks into its folder for it.
        b"" => std::env::current_dir().unwrap_or_default().join(""),
        _ => std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
    }
}

/// The file this command line writes its session to, if any. A dry run writes none.
pub(super) fn written(line: &CommandLine) -> Option<&[u8]> {
    let batch = &line.batch;
    batch.write.as_deref().or(batch.only_write.as_deref()).filter(|_| !line.options.dry_run)
}

/// Holds the session to what a batch file can say: it does not name its algorithms.
pub(super) fn constrain(line: &mut CommandLine) -> Result<(), Usage> {
    if written(line).is_none() {
        line.options.only_write_batch = false;
        return Ok(());
    }
    let options = &mut line.options;
    let refused = |name: &str, value: &str| {
        Err(Usage {
            text: format!("A batch file cannot tell of --{name}={value}; leave it out"),
            code: exit::UNSUPPORTED,
        })
    };
    if let Some((transfer, list)) = options.checksum_choice
        && (transfer, list) != (Checksum::Md5, Checksum::Md5)
    {
        let other = if transfer == Checksum::Md5 { list } else { transfer };
        return refused("checksum-choice", other.name());
    }
    match options.compress_choice.as_deref() {
        Some(b"auto" | b"zlib" | b"none") | None => {}
        Some(name) => return refused("compress-choice", &String::from_utf8_lossy(name)),
    }
    if options.compress && options.compress_choice.as_deref() != Some(b"none") {
        options.compress_choice = Some(b"zlib".to_vec());
    }
    Ok(())
}

/// Makes the batch file and the script beside it.
pub(super) fn create(line: &CommandLine, plan: &Plan, rules: &[Rule]) -> Result<Option<BatchFile>, Usage> {
    let Some(name) = written(line) else { return Ok(None) };
    let failed = |code: i32| move |error: TransferError| Usage { text: format!("rsync: [Receiver] {error}"), code };
    let program: Vec<_> = std::env::args_os().take(2).collect();
    let beside = path(&[name, b".sh"].concat());
    BatchFile::script(&beside, &script(&program, line, plan, rules)).map_err(failed(exit::SELECTION))?;
    BatchFile::create(&path(name)).map(Some).map_err(failed(exit::FILE))
}

/// The commands that play a batch file back: the same options but for those of the list of files.
fn script(program: &[OsString], line: &CommandLine, plan: &Plan, rules: &[Rule]) -> Vec<u8> {
    let mut text = Vec::new();
    let called = program.first().map(|word| word.as_bytes()).unwrap_or(b"rsync");
    put_quoted(called, &mut text);
    // By another name the program takes its own for a verb.
    if Path::new(OsStr::from_bytes(called)).file_name() != Some(OsStr::new("rsync")) {
        text.extend_from_slice(b" rsync");
    }
    if !rules.is_empty() {
        text.extend_from_slice(b" --filter='._-'");
    }
    for (word, value) in &line.given {
        let name = word.strip_prefix(b"--").map(|name| name.split(|&byte| byte == b'=').next().unwrap_or_default());
        let option = name.and_then(table::by_name).map_or("", |found| found.option.name);
        match (option, name) {
            ("files-from" | "filter" | "include" | "exclude" | "include-from" | "exclude-from", Some(_)) => continue,
            (_, None) if word.starts_with(b"-f") => continue,
            _ => {}
        }
        text.push(b' ');
        let cut = word.iter().position(|&byte| byte == b'=').filter(|_| name.is_some());
        match cut {
            Some(cut) => {
                let recorded = matches!(option, "write-batch" | "only-write-batch");
                text.extend_from_slice(if recorded { b"--read-batch" } else { &word[..cut] });
                text.push(b'=');
                put_quoted(&word[cut + 1..], &mut text);
            }
            None if matches!(option, "write-batch" | "only-write-batch") => text.extend_from_slice(b"--read-batch"),
            None => put_quoted(word, &mut text),
        }
        if let Some(value) = value {
            text.push(b' ');
            put_quoted(value, &mut text);
        }
    }
    text.extend_from_slice(b" ${1:-");
    let there = plan.destination.as_deref().or(plan.sources.first().map(Vec::as_slice));
    put_quoted(there.unwrap_or_default(), &mut text);
    text.push(b'}');
    if !rules.is_empty() {
        text.extend_from_slice(b" <<'");
        text.extend_from_slice(END);
        text.extend_from_slice(b"'\n");
        for rule in rules {
            text.extend_from_slice(&rule.text());
            // With -0 the line ends belong to a rule of their own, a comment.
            text.extend_from_slice(if line.options.from0 { b"\0;\n" } else { b"\n" });
        }
        text.extend_from_slice(END);
    }
    text.push(b'\n');
    text
}

fn put_quoted(word: &[u8], text: &mut Vec<u8>) {
    text.push(b'\'');
    for &byte in word {
        match byte {
            b'\'' => text.extend_from_slice(b"'\\''"),
            byte => text.push(byte),
        }
    }
    text.push(b'\'');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rsync::environment::Environment;
    use crate::rsync::operands;

    fn of(words: &[&str]) -> String {
        let line = CommandLine::parse(words, &Environment::default()).unwrap();
        let plan = operands::plan(&line.operands, false).unwrap();
        let rules = crate::rsync::wanted::rules_of_script(&line).unwrap();
        String::from_utf8(script(&["rsync".into()], &line, &plan, &rules)).unwrap()
    }

    /// Each as stock rsync 3.5.0 writes it.
    #[test]
    fn scripts_are_stock_rsyncs() {
        for (words, wanted) in [
            ("-a -H --write-batch=/tmp/b src/ dst/", "'rsync' '-a' '-H' --read-batch='/tmp/b' ${1:-'dst/'}\n"),
            ("-a --write-batch b src/ h:/x/y", "'rsync' '-a' --read-batch 'b' ${1:-'/x/y'}\n"),
            ("-qa --only-write-batch b -- src/ d", "'rsync' '-qa' --read-batch 'b' '--' ${1:-'d'}\n"),
            ("-a --files-from=/dev/null --write-batch=b s d", "'rsync' '-a' --read-batch='b' ${1:-'d'}\n"),
            ("-a -C --write-batch=b s d", "'rsync' '-a' '-C' --read-batch='b' ${1:-'d'}\n"),
            (
                "-aH --exclude=a --delete --write-batch=b s d",
                "'rsync' --filter='._-' '-aH' '--delete' --read-batch='b' ${1:-'d'} <<'#E#'\n- a\n#E#\n",
            ),
            (
                "-a -B 800 --exclude r -f -_*.x --include=z --write-batch=b s d",
                "'rsync' --filter='._-' '-a' '-B' '800' --read-batch='b' ${1:-'d'} <<'#E#'\n- r\n- *.x\n+ z\n#E#\n",
            ),
            (
                "-rvb --del --write-batch=b s d",
                "'rsync' --filter='._-' '-rvb' '--del' --read-batch='b' ${1:-'d'} <<'#E#'\n-r *~\n#E#\n",
            ),
            (
                "-0a --exclude=p --write-batch=b s d",
                "'rsync' --filter='._-' '-0a' --read-batch='b' ${1:-'d'} <<'#E#'\n- p\0;\n#E#\n",
            ),
        ] {
            assert_eq!(of(&words.split(' ').collect::<Vec<_>>()), wanted, "{words}");
        }
        assert_eq!(
            of(&["-a", "--suffix=a'b", "--write-batch=it's", "s", "d'x y"]),
            "'rsync' '-a' --suffix='a'\\''b' --read-batch='it'\\''s' ${1:-'d'\\''x y'}\n"
        );
    }
}
