//! Every option of the command line, once: parsing, help, manual page and completions all come from here.

use super::command_line::{Ask, CommandLine, FilterKind, Outbuf, StderrMode, Whose};
use super::usage::Usage;
use super::values::{checksum_choice, hour, integer, max_alloc, minutes, size, unsigned};
use protocol::args::{AltKind, DeleteWhen};
use std::path::PathBuf;

/// What an option does to the command line.
pub(super) enum Apply {
    /// Switches on.
    Set(fn(&mut CommandLine) -> &mut bool),
    /// Switches off.
    Clear(fn(&mut CommandLine) -> &mut bool),
    /// Counts.
    Count(fn(&mut CommandLine) -> &mut u8),
    /// Forgets the count.
    Zero(fn(&mut CommandLine) -> &mut u8),
    /// Keeps its value.
    Text(fn(&mut CommandLine) -> &mut Option<Vec<u8>>),
    /// Keeps its value, a path here.
    Path(fn(&mut CommandLine) -> &mut Option<PathBuf>),
    /// Something else.
    Do(fn(&mut CommandLine)),
    /// Something else, with its value.
    Take(fn(&mut CommandLine, &[u8]) -> Result<(), Usage>),
}

/// One option.
pub(super) struct Opt {
    /// Names without dashes; the first is the one that is shown.
    pub(super) names: &'static [&'static str],
    /// Letter; 0 for none.
    pub(super) letter: u8,
    /// What its value is called; empty for an option without one.
    pub(super) value: &'static str,
    /// One line of help; empty for what is listed elsewhere.
    pub(super) help: &'static str,
    /// What it does.
    pub(super) apply: Apply,
}

/// The option of this name.
pub(super) fn by_name(name: &[u8]) -> Option<&'static Opt> {
    all().find(|option| option.names.iter().any(|known| known.as_bytes() == name))
}

/// The option of this letter.
pub(super) fn by_letter(letter: u8) -> Option<&'static Opt> {
    all().find(|option| option.letter == letter && letter != 0)
}

/// The long option that somebody may have meant with this word.
pub(super) fn resembling(word: &str) -> Option<&'static str> {
    let name = word.strip_prefix("--")?.split('=').next().filter(|name| (3..64).contains(&name.len()))?;
    let names = all().flat_map(|option| option.names).copied().filter(|known| known.len() > 2);
    let near = |known: &&str| known.starts_with(name) || distance(name, known) <= 1 + name.len() / 8;
    names.filter(near).min_by_key(|known| distance(name, known))
}

/// How many letters are to be added, left out, changed or swapped with the next one to make one word of the other.
fn distance(left: &str, right: &str) -> usize {
    let (left, right) = (left.as_bytes(), right.as_bytes());
    let mut rows: [Vec<usize>; 3] = [vec![0; right.len() + 1], (0..=right.len()).collect(), vec![0; right.len() + 1]];
    for (i, a) in left.iter().enumerate() {
        let [before, above, row] = &mut rows;
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            row[j + 1] = (above[j + 1] + 1).min(row[j] + 1).min(above[j] + usize::from(a != b));
            if i > 0 && j > 0 && *a == right[j - 1] && left[i - 1] == *b {
                row[j + 1] = row[j + 1].min(before[j - 1] + 1);
            }
        }
        rows.rotate_left(1);
    }
    rows[1][right.len()]
}

/// All options, negations last.
pub(super) fn all() -> impl Iterator<Item = &'static Opt> {
    OPTIONS.iter().chain(negations::NEGATIONS)
}

const fn opt(names: &'static [&'static str], letter: u8, value: &'static str, help: &'static str, apply: Apply) -> Opt {
    Opt { names, letter, value, help, apply }
}

macro_rules! set {
    ($($field:ident).+) => { Apply::Set(|line| &mut line.$($field).+) };
}
macro_rules! clear {
    ($($field:ident).+) => { Apply::Clear(|line| &mut line.$($field).+) };
}
macro_rules! count {
    ($($field:ident).+) => { Apply::Count(|line| &mut line.$($field).+) };
}
macro_rules! zero {
    ($($field:ident).+) => { Apply::Zero(|line| &mut line.$($field).+) };
}
macro_rules! text {
    ($($field:ident).+) => { Apply::Text(|line| &mut line.$($field).+) };
}
macro_rules! path {
    ($($field:ident).+) => { Apply::Path(|line| &mut line.$($field).+) };
}

mod negations;

/// What the manual lists, in the order in which it is listed.
pub(super) const OPTIONS: &[Opt] = &[
    opt(&["verbose"], b'v', "", "say more; repeat for more still", count!(options.verbose)),
    opt(
        &["info"],
        0,
        "FLAGS",
        "say more or less of something; see --info=help",
        Apply::Take(|line, value| {
            line.ask =
                if line.options.info.set(value).map_err(Usage::syntax)? { Some(Ask::InfoHelp) } else { line.ask };
            Ok(())
        }),
    ),
    opt(
        &["debug"],
        0,
        "FLAGS",
        "the same for tracing; see --debug=help",
        Apply::Take(|line, value| {
            line.ask =
                if line.options.debug.set(value).map_err(Usage::syntax)? { Some(Ask::DebugHelp) } else { line.ask };
            Ok(())
        }),
    ),
    opt(
        &["stderr"],
        0,
        "e|a|c",
        "what goes to standard error: errors, all, or errors by way of the client",
        Apply::Take(|line, value| {
            let word = String::from_utf8_lossy(value);
            let names = [("errors", StderrMode::Errors), ("all", StderrMode::All), ("client", StderrMode::Client)];
            let found = names.iter().find(|(name, _)| !word.is_empty() && name.starts_with(&*word));
            let bad = || Usage::syntax(format!("rsync: --stderr mode \"{word}\" is not one of errors, all, or client"));
            line.stderr = found.ok_or_else(bad)?.1;
            Ok(())
        }),
    ),
    opt(&["quiet"], b'q', "", "say nothing but errors", count!(quiet)),
    opt(&["no-motd"], 0, "", "leave out a daemon's message of the day", set!(no_motd)),
    opt(&["checksum"], b'c', "", "compare files by checksum, not by size and time", set!(options.checksum)),
    opt(
        &["archive"],
        b'a',
        "",
        "keep nearly everything: -rlptgoD",
        Apply::Do(|line| {
            let options = &mut line.options;
            for flag in [
                &mut options.recurse,
                &mut options.links,
                &mut options.perms,
                &mut options.times,
                &mut options.group,
                &mut options.owner,
                &mut options.devices,
                &mut options.specials,
            ] {
                *flag = true;
            }
            line.recurse_by_archive = true;
        }),
    ),
    opt(
        &["recursive"],
        b'r',
        "",
        "descend into directories",
        Apply::Do(|line| {
            line.options.recurse = true;
            line.recurse_by_archive = false;
        }),
    ),
    opt(&["inc-recursive", "i-r"], 0, "", "list while transferring", clear!(options.no_inc_recursive)),
    opt(&["no-inc-recursive", "no-i-r"], 0, "", "list everything before the transfer", set!(options.no_inc_recursive)),
    opt(&["relative"], b'R', "", "keep the whole names of the arguments", Apply::Do(|line| line.relative = Some(true))),
    opt(
        &["no-implied-dirs", "no-i-d"],
        0,
        "",
        "with -R, leave the directories on the way alone",
        set!(options.no_implied_dirs),
    ),
    opt(&["backup"], b'b', "", "keep what is replaced or deleted", set!(options.backup)),
    opt(&["backup-dir"], 0, "DIR", "keep it in DIR", text!(options.backup_dir)),
    opt(&["suffix"], 0, "SUFFIX", "what its name ends in (~ unless --backup-dir)", text!(options.suffix)),
    opt(&["update"], b'u', "", "leave files alone that are newer at the destination", set!(options.update)),
    opt(&["inplace"], 0, "", "write files where they stand", set!(options.inplace)),
    opt(&["append"], 0, "", "write only what shorter files lack", count!(options.append)),
    opt(&["append-verify"], 0, "", "the same, and prove the whole file", Apply::Do(|line| line.options.append = 2)),
    opt(&["dirs"], b'd', "", "transfer directories without their contents", Apply::Do(|line| line.dirs = Some(true))),
    opt(
        &["old-dirs", "old-d"],
        0,
        "",
        "-d for a peer too old to know it",
        Apply::Do(|line| {
            line.old_dirs = true;
            line.dirs = Some(true);
        }),
    ),
    opt(&["mkpath"], 0, "", "make the directories on the way to the destination", set!(options.mkpath)),
    opt(&["links"], b'l', "", "copy symlinks as symlinks", set!(options.links)),
    opt(&["copy-links"], b'L', "", "copy what symlinks point to", set!(options.copy_links)),
    opt(&["copy-unsafe-links"], 0, "", "copy what symlinks out of the tree point to", set!(options.copy_unsafe_links)),
    opt(&["safe-links"], 0, "", "leave out symlinks that point out of the tree", set!(options.safe_links)),
    opt(&["insecure-links"], 0, "", "follow symlinks of strangers in named paths", set!(options.insecure_links)),
    opt(&["confine-root"], 0, "DIR", "refuse named paths that lead out of DIR", text!(options.confine_root)),
    opt(&["munge-links"], 0, "", "make symlinks safe and unusable", set!(options.munge_links)),
    opt(&["copy-dirlinks"], b'k', "", "copy directories that symlinks point to", set!(options.copy_dirlinks)),
    opt(
        &["keep-dirlinks"],
        b'K',
        "",
        "take a symlink to a directory at the destination for one",
        set!(options.keep_dirlinks),
    ),
    opt(&["hard-links"], b'H', "", "keep hard links", set!(options.hard_links)),
    opt(&["perms"], b'p', "", "keep permissions", set!(options.perms)),
    opt(&["executability"], b'E', "", "keep whether a file is a program", set!(options.executability)),
    opt(
        &["chmod"],
        0,
        "CHMOD",
        "change permissions on the way",
        Apply::Take(|line, value| {
            line.options.chmod = Some(match line.options.chmod.take() {
                Some(before) => [&before, &b","[..], value].concat(),
                None => value.to_vec(),
            });
            Ok(())
        }),
    ),
    opt(
        &["acls"],
        b'A',
        "",
        "keep ACLs and permissions",
        Apply::Do(|line| {
            line.options.acls = true;
            line.options.perms = true;
        }),
    ),
    opt(&["xattrs"], b'X', "", "keep extended attributes", count!(options.xattrs)),
    opt(&["owner"], b'o', "", "keep owners (as root)", set!(options.owner)),
    opt(&["group"], b'g', "", "keep groups", set!(options.group)),
    opt(&["devices"], 0, "", "keep device files (as root)", set!(options.devices)),
    opt(&["copy-devices"], 0, "", "copy what devices hold as files", set!(options.copy_devices)),
    opt(
        &["write-devices"],
        0,
        "",
        "write to devices as to files; implies --inplace",
        Apply::Do(|line| {
            line.options.write_devices = true;
            line.options.inplace = true;
        }),
    ),
    opt(&["specials"], 0, "", "keep fifos and sockets", set!(options.specials)),
    opt(&["drop-D"], 0, "", "make no devices, fifos and sockets", set!(options.drop_devices)),
    opt(
        &[""],
        b'D',
        "",
        "--devices --specials",
        Apply::Do(|line| {
            line.options.devices = true;
            line.options.specials = true;
        }),
    ),
    opt(&["times"], b't', "", "keep modification times", set!(options.times)),
    opt(&["atimes"], b'U', "", "keep access times", count!(options.atimes)),
    opt(&["open-noatime"], 0, "", "leave access times of what is read alone", set!(options.open_noatime)),
    opt(&["crtimes"], b'N', "", "keep times of creation", set!(options.crtimes)),
    opt(&["omit-dir-times"], b'O', "", "but not times of directories", set!(options.omit_dir_times)),
    opt(&["omit-link-times"], b'J', "", "but not times of symlinks", set!(options.omit_link_times)),
    opt(
        &["super"],
        0,
        "",
        "try what only root may, whoever one is",
        Apply::Do(|line| line.options.super_user = Some(true)),
    ),
    opt(&["fake-super"], 0, "", "keep what only root may in extended attributes", set!(options.fake_super)),
    opt(&["sparse"], b'S', "", "make holes of runs of zeros", set!(options.sparse)),
    opt(&["preallocate"], 0, "", "claim room for a file before writing it", set!(options.preallocate)),
    opt(&["dry-run"], b'n', "", "do nothing, say what would be done", set!(options.dry_run)),
    opt(
        &["whole-file"],
        b'W',
        "",
        "copy whole files, no delta transfer",
        Apply::Do(|line| line.whole_file = Some(true)),
    ),
    opt(
        &["no-whole-file", "no-W"],
        0,
        "",
        "always use the delta transfer, even where whole files come faster",
        Apply::Do(|line| line.whole_file = Some(false)),
    ),
    opt(
        &["checksum-choice", "cc"],
        0,
        "STR",
        "the checksum to use",
        Apply::Take(|line, value| {
            line.options.checksum_choice = checksum_choice(value)?;
            Ok(())
        }),
    ),
    opt(&["one-file-system"], b'x', "", "stay on each argument's file system", count!(options.one_file_system)),
    opt(
        &["block-size"],
        b'B',
        "SIZE",
        "the delta transfer's block size",
        Apply::Take(|line, value| {
            line.options.block_length = match size("block-size", value, b'b', 0, 131_072)? {
                0 => None,
                bytes => Some(bytes as u32),
            };
            Ok(())
        }),
    ),
    opt(&["rsh"], b'e', "COMMAND", "reach the other machine by COMMAND, not by the SSH within", text!(rsh)),
    opt(&["rsync-path"], 0, "PROGRAM", "the rsync to start over there", text!(rsync_path)),
    opt(&["existing", "ignore-non-existing"], 0, "", "make nothing that is not there yet", set!(options.existing)),
    opt(&["ignore-existing"], 0, "", "leave alone what is there already", set!(options.ignore_existing)),
    opt(
        &["remove-source-files", "remove-sent-files"],
        0,
        "",
        "remove files at the source once they have arrived",
        set!(options.remove_source_files),
    ),
    opt(&["del"], 0, "", "the same as --delete-during", Apply::Do(|line| line.delete_when(DeleteWhen::During))),
    opt(
        &["delete"],
        0,
        "",
        "delete at the destination what the source does not have",
        Apply::Do(|line| {
            line.options.delete.get_or_insert(DeleteWhen::Default);
        }),
    ),
    opt(
        &["delete-before"],
        0,
        "",
        "the same, before the transfer",
        Apply::Do(|line| line.delete_when(DeleteWhen::Before)),
    ),
    opt(
        &["delete-during"],
        0,
        "",
        "the same, during the transfer",
        Apply::Do(|line| line.delete_when(DeleteWhen::During)),
    ),
    opt(
        &["delete-delay"],
        0,
        "",
        "the same, found during the transfer and done after it",
        Apply::Do(|line| line.delete_when(DeleteWhen::Delay)),
    ),
    opt(
        &["delete-after"],
        0,
        "",
        "the same, after the transfer",
        Apply::Do(|line| line.delete_when(DeleteWhen::After)),
    ),
    opt(
        &["delete-excluded"],
        0,
        "",
        "delete what is left out as well",
        Apply::Do(|line| {
            line.options.delete_excluded = true;
            line.options.delete.get_or_insert(DeleteWhen::Default);
        }),
    ),
    opt(
        &["ignore-missing-args"],
        0,
        "",
        "say nothing of arguments that do not exist",
        set!(options.ignore_missing_args),
    ),
    opt(
        &["delete-missing-args"],
        0,
        "",
        "delete at the destination arguments that do not exist",
        set!(options.delete_missing_args),
    ),
    opt(&["ignore-errors"], 0, "", "delete in spite of read errors", set!(options.ignore_errors)),
    opt(&["force"], 0, "", "delete full directories that are in the way", set!(options.force)),
    opt(
        &["max-delete"],
        0,
        "NUM",
        "delete at most NUM files",
        Apply::Take(|line, value| {
            line.options.max_delete = Some(integer(&line.word, value)?.max(0) as u64);
            Ok(())
        }),
    ),
    opt(
        &["max-size"],
        0,
        "SIZE",
        "leave out files larger than SIZE",
        Apply::Take(|line, value| {
            line.options.max_size = Some(size("max-size", value, b'b', 0, i64::MAX as u64)?);
            Ok(())
        }),
    ),
    opt(
        &["min-size"],
        0,
        "SIZE",
        "leave out files smaller than SIZE",
        Apply::Take(|line, value| {
            line.options.min_size = Some(size("min-size", value, b'b', 0, i64::MAX as u64)?);
            Ok(())
        }),
    ),
    opt(
        &["max-alloc"],
        0,
        "SIZE",
        "how much memory one request may take",
        Apply::Take(|line, value| {
            line.options.max_alloc = Some(max_alloc(value)?);
            Ok(())
        }),
    ),
    opt(&["partial"], 0, "", "keep what was received of a broken-off file", set!(options.partial)),
    opt(&["partial-dir"], 0, "DIR", "keep it in DIR", text!(options.partial_dir)),
    opt(&["delay-updates"], 0, "", "put all files in place at the end", set!(options.delay_updates)),
    opt(&["prune-empty-dirs"], b'm', "", "leave out directories without files", set!(options.prune_empty_dirs)),
    opt(&["numeric-ids"], 0, "", "keep owners and groups by number", set!(options.numeric_ids)),
    opt(
        &["usermap"],
        0,
        "STRING",
        "other owners for some",
        Apply::Take(|line, value| {
            line.maps(Whose::Owner, "--usermap")?;
            line.options.usermap = Some(value.to_vec());
            Ok(())
        }),
    ),
    opt(
        &["groupmap"],
        0,
        "STRING",
        "other groups for some",
        Apply::Take(|line, value| {
            line.maps(Whose::Group, "--groupmap")?;
            line.options.groupmap = Some(value.to_vec());
            Ok(())
        }),
    ),
    opt(
        &["chown"],
        0,
        "USER:GROUP",
        "one owner and group for all",
        Apply::Take(|line, value| {
            let colon = value.iter().position(|&byte| byte == b':');
            let (user, group) = match colon {
                Some(at) => (&value[..at], &value[at + 1..]),
                None => (value, &b""[..]),
            };
            if !user.is_empty() {
                line.maps(Whose::Owner, "--chown")?;
                line.options.usermap = Some([b"*:", user].concat());
            }
            if !group.is_empty() {
                line.maps(Whose::Group, "--chown")?;
                line.options.groupmap = Some([b"*:", group].concat());
            }
            Ok(())
        }),
    ),
    opt(
        &["timeout"],
        0,
        "SECONDS",
        "give up after so long without a byte",
        Apply::Take(|line, value| {
            line.options.timeout = Some(unsigned(&line.word, value)?);
            Ok(())
        }),
    ),
    opt(
        &["contimeout"],
        0,
        "SECONDS",
        "give up connecting to a daemon after so long",
        Apply::Take(|line, value| {
            line.contimeout = Some(unsigned(&line.word, value)?).filter(|&seconds| seconds > 0);
            Ok(())
        }),
    ),
    opt(&["ignore-times"], b'I', "", "transfer files though size and time agree", set!(options.ignore_times)),
    opt(&["size-only"], 0, "", "compare files by size alone", set!(options.size_only)),
    opt(
        &["modify-window"],
        b'@',
        "NUM",
        "times differ only beyond NUM seconds; -1 compares nanoseconds",
        Apply::Take(|line, value| {
            line.options.modify_window = integer(&line.word, value)? as i32;
            Ok(())
        }),
    ),
    opt(&["temp-dir"], b'T', "DIR", "build files in DIR", text!(options.temp_dir)),
    opt(&["fuzzy"], b'y', "", "build a new file over one that looks like it", count!(options.fuzzy)),
    opt(
        &["compare-dest"],
        0,
        "DIR",
        "leave out what DIR holds already",
        Apply::Take(|line, value| alternative(line, AltKind::Compare, value)),
    ),
    opt(
        &["copy-dest"],
        0,
        "DIR",
        "copy it from DIR",
        Apply::Take(|line, value| alternative(line, AltKind::Copy, value)),
    ),
    opt(
        &["link-dest"],
        0,
        "DIR",
        "make hard links to it in DIR",
        Apply::Take(|line, value| alternative(line, AltKind::Link, value)),
    ),
    opt(&["compress"], b'z', "", "compress on the way", set!(options.compress)),
    opt(
        &["compress-choice", "zc"],
        0,
        "STR",
        "how to compress",
        Apply::Take(|line, value| {
            const KNOWN: [&[u8]; 5] = [b"zstd", b"lz4", b"zlibx", b"zlib", b"none"];
            if value == b"auto" {
                line.options.compress_choice = None;
                return Ok(());
            }
            if !KNOWN.contains(&value) {
                let text = format!("unknown compress name: {}", String::from_utf8_lossy(value));
                return Err(Usage { text, code: 4 });
            }
            line.options.compress = value != b"none";
            line.options.compress_choice = line.options.compress.then(|| value.to_vec());
            Ok(())
        }),
    ),
    opt(
        &["compress-level", "zl"],
        0,
        "NUM",
        "how hard to compress",
        Apply::Take(|line, value| {
            line.options.compress_level = Some(integer(&line.word, value)?.clamp(-200_000, 100) as i32);
            Ok(())
        }),
    ),
    opt(
        &["compress-threads", "zt"],
        0,
        "NUM",
        "how many threads compress",
        Apply::Take(|line, value| {
            line.options.compress_threads = Some(unsigned(&line.word, value)?);
            Ok(())
        }),
    ),
    opt(&["skip-compress"], 0, "LIST", "suffixes of files not worth compressing", text!(options.skip_compress)),
    opt(&["cvs-exclude"], b'C', "", "leave out what CVS would", set!(options.cvs_exclude)),
    opt(&["filter"], b'f', "RULE", "a filter rule", Apply::Take(|line, value| filter(line, FilterKind::Rule, value))),
    opt(
        &[""],
        b'F',
        "",
        "--filter='dir-merge /.rsync-filter'; again: --filter='- .rsync-filter'",
        Apply::Do(|line| {
            line.merge_files = line.merge_files.saturating_add(1);
            let rule: &[u8] = match line.merge_files {
                1 => b": /.rsync-filter",
                2 => b"- .rsync-filter",
                _ => return,
            };
            line.filters.push((FilterKind::Rule, rule.to_vec()));
        }),
    ),
    opt(
        &["exclude"],
        0,
        "PATTERN",
        "leave out what matches",
        Apply::Take(|line, value| filter(line, FilterKind::Exclude, value)),
    ),
    opt(
        &["exclude-from"],
        0,
        "FILE",
        "the same, patterns from FILE",
        Apply::Take(|line, value| filter(line, FilterKind::ExcludeFrom, value)),
    ),
    opt(
        &["include"],
        0,
        "PATTERN",
        "do not leave out what matches",
        Apply::Take(|line, value| filter(line, FilterKind::Include, value)),
    ),
    opt(
        &["include-from"],
        0,
        "FILE",
        "the same, patterns from FILE",
        Apply::Take(|line, value| filter(line, FilterKind::IncludeFrom, value)),
    ),
    opt(&["files-from"], 0, "FILE", "names of what to transfer, from FILE", text!(options.files_from)),
    opt(&["from0"], b'0', "", "names in such files end with a zero byte", set!(options.from0)),
    opt(
        &["old-args"],
        0,
        "",
        "let the remote shell split and expand arguments",
        Apply::Do(|line| line.old_args = Some(true)),
    ),
    opt(
        &["secluded-args", "protect-args"],
        b's',
        "",
        "send arguments by the connection, past the remote shell",
        Apply::Do(|line| line.secluded_args = Some(true)),
    ),
    opt(&["trust-sender"], 0, "", "do not compare the list with what was asked for", set!(options.trust_sender)),
    opt(&["copy-as"], 0, "USER[:GROUP]", "read and write here as USER", text!(options.copy_as)),
    opt(&["address"], 0, "ADDRESS", "the address to call a daemon from", text!(address)),
    opt(
        &["port"],
        0,
        "PORT",
        "the port to call a daemon at",
        Apply::Take(|line, value| {
            line.port = Some(integer(&line.word, value)?.clamp(0, 65_535) as u16);
            Ok(())
        }),
    ),
    opt(&["sockopts"], 0, "OPTIONS", "TCP options of a daemon's connection", text!(sockopts)),
    opt(&["blocking-io"], 0, "", "taken, without meaning here", Apply::Do(|_| {})),
    opt(
        &["outbuf"],
        0,
        "N|L|B",
        "buffer output not at all, by line, by block",
        Apply::Take(|line, value| {
            line.outbuf = Some(match value.first().map(u8::to_ascii_uppercase) {
                Some(b'N' | b'U') => Outbuf::None,
                Some(b'L') => Outbuf::Line,
                Some(b'B' | b'F') => Outbuf::Block,
                _ => return Err(Usage::syntax("rsync: Invalid --outbuf setting -- specify N, L, or B.")),
            });
            Ok(())
        }),
    ),
    opt(&["stats"], 0, "", "say at the end what was done", set!(options.stats)),
    opt(&["8-bit-output"], b'8', "", "leave bytes beyond ASCII in names as they are", set!(eight_bit)),
    opt(&["human-readable"], b'h', "", "numbers with units; repeat for powers of 1024", count!(human)),
    opt(&["progress"], 0, "", "show the progress of each file", set!(progress)),
    opt(
        &[""],
        b'P',
        "",
        "--partial --progress",
        Apply::Do(|line| {
            line.options.partial = true;
            line.progress = true;
        }),
    ),
    opt(&["itemize-changes"], b'i', "", "show what differs of each entry; -ii: of all", count!(itemize)),
    opt(
        &["remote-option"],
        b'M',
        "OPT",
        "an option for the other side only",
        Apply::Take(|line, value| {
            if !value.starts_with(b"-") {
                let text = format!("rsync: Remote option must start with a dash: {}", String::from_utf8_lossy(value));
                return Err(Usage::syntax(text));
            }
            line.options.remote_options.push(value.to_vec());
            Ok(())
        }),
    ),
    opt(&["out-format", "log-format"], 0, "FORMAT", "a line for each entry, as FORMAT says", text!(out_format)),
    opt(&["log-file"], 0, "FILE", "write what is done to FILE", path!(log_file)),
    opt(&["log-file-format"], 0, "FMT", "its lines, as FMT says", text!(log_file_format)),
    opt(&["password-file"], 0, "FILE", "the password for a daemon", path!(password_file)),
    opt(&["early-input"], 0, "FILE", "what a daemon's early command reads", path!(early_input)),
    opt(&["list-only"], 0, "", "list, do not copy", set!(options.list_only)),
    opt(
        &["bwlimit"],
        0,
        "RATE",
        "send at most RATE KiB in a second",
        Apply::Take(|line, value| {
            let rate = size("bwlimit", value, b'K', 512, i64::MAX as u64)?;
            line.options.bwlimit = (rate > 0).then_some(rate);
            Ok(())
        }),
    ),
    opt(
        &["stop-after", "time-limit"],
        0,
        "MINS",
        "stop after so many minutes",
        Apply::Take(|line, value| {
            line.options.stop_at = Some(minutes(value)?);
            Ok(())
        }),
    ),
    opt(
        &["stop-at"],
        0,
        "y-m-dTh:m",
        "stop at this moment",
        Apply::Take(|line, value| {
            line.options.stop_at = Some(hour(value)?);
            Ok(())
        }),
    ),
    opt(&["fsync"], 0, "", "sync every file to the disk", set!(options.fsync)),
    opt(&["write-batch"], 0, "FILE", "keep a copy of the transfer in FILE", text!(batch.write)),
    opt(&["only-write-batch"], 0, "FILE", "the same, and change nothing", text!(batch.only_write)),
    opt(&["read-batch"], 0, "FILE", "repeat the transfer in FILE", text!(batch.read)),
    opt(
        &["protocol"],
        0,
        "NUM",
        "speak an older version of the protocol",
        Apply::Take(|line, value| {
            line.protocol = Some(unsigned(&line.word, value)?);
            Ok(())
        }),
    ),
    opt(&["iconv"], 0, "CONVERT_SPEC", "character sets of names: here,there", text!(options.iconv)),
    opt(
        &["checksum-seed"],
        0,
        "NUM",
        "the seed of block checksums",
        Apply::Take(|line, value| {
            line.options.checksum_seed = Some(integer(&line.word, value)? as i32).filter(|&seed| seed != 0);
            Ok(())
        }),
    ),
    opt(&["ipv4"], b'4', "", "prefer IPv4", Apply::Do(|line| line.family = Some(4))),
    opt(&["ipv6"], b'6', "", "prefer IPv6", Apply::Do(|line| line.family = Some(6))),
    opt(
        &["version"],
        b'V',
        "",
        "say what this is; twice as JSON",
        Apply::Do(|line| {
            line.ask = match line.ask {
                Some(Ask::Version | Ask::VersionJson) => Some(Ask::VersionJson),
                _ => Some(Ask::Version),
            };
        }),
    ),
    opt(&["help"], 0, "", "this help (also -h alone)", Apply::Do(|line| line.ask = Some(Ask::Help))),
];

fn filter(line: &mut CommandLine, kind: FilterKind, value: &[u8]) -> Result<(), Usage> {
    line.filters.push((kind, value.to_vec()));
    Ok(())
}

fn alternative(line: &mut CommandLine, kind: AltKind, dir: &[u8]) -> Result<(), Usage> {
    /// As many as stock takes.
    const DIRS_MOST: usize = 20;
    let name = |kind| match kind {
        AltKind::Compare => "--compare-dest",
        AltKind::Copy => "--copy-dest",
        AltKind::Link => "--link-dest",
    };
    if let Some(earlier) = line.options.alt_kind.filter(|earlier| *earlier != kind) {
        let text = format!("rsync: ERROR: the {} option conflicts with the {} option", name(kind), name(earlier));
        return Err(Usage::syntax(text));
    }
    if line.options.alt_dirs.len() == DIRS_MOST {
        let text = format!("rsync: ERROR: at most {DIRS_MOST} {} args may be specified", name(kind));
        return Err(Usage::syntax(text));
    }
    line.options.alt_kind = Some(kind);
    line.options.alt_dirs.push(dir.to_vec());
    Ok(())
}
