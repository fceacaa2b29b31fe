//! The options, in the order in which the manual lists them. What a server may be told is spelt in `protocol::args::table`,
//! and named here by its row.

use super::Refusable::{Always, Unasked, Vital};
use super::{Apply, Opt, own, told};
use crate::exit;
use crate::rsync::command_line::{Ask, CommandLine, FilterKind, Outbuf, StderrMode, Whose};
use crate::rsync::usage::Usage;
use crate::rsync::values::{checksum_choice, hour, integer, max_alloc, minutes, parallel, size, unsigned};
use protocol::args::{AltKind, DeleteWhen, table as wire};

macro_rules! set {
    ($($field:ident).+) => { Apply::Set(|line| &mut line.$($field).+, true) };
}
macro_rules! count {
    ($($field:ident).+) => { Apply::Count(|line| &mut line.$($field).+) };
}
macro_rules! choose {
    ($($field:ident).+) => { Apply::Choose(|line| &mut line.$($field).+, true) };
}
macro_rules! text {
    ($($field:ident).+) => { Apply::Text(|line| &mut line.$($field).+) };
}
macro_rules! path {
    ($($field:ident).+) => { Apply::Path(|line| &mut line.$($field).+) };
}
/// All of them; those without help come last where they are listed.
pub(super) const OPTIONS: &[Opt] = &[
    told(wire::VERBOSE, "", "say more; repeat for more still").back(),
    told(wire::INFO, "FLAGS", "say more or less of something; see --info=help").takes(|line, value| {
        line.ask = if line.options.info.set(value).map_err(Usage::syntax)? { Some(Ask::InfoHelp) } else { line.ask };
        Ok(())
    }),
    told(wire::DEBUG, "FLAGS", "the same for tracing; see --debug=help").takes(|line, value| {
        line.ask = if line.options.debug.set(value).map_err(Usage::syntax)? { Some(Ask::DebugHelp) } else { line.ask };
        Ok(())
    }),
    told(wire::STDERR, "e|a|c", "what goes to standard error: errors, all, or errors by way of the client").takes(
        |line, value| {
            let word = String::from_utf8_lossy(value);
            let names = [("errors", StderrMode::Errors), ("all", StderrMode::All), ("client", StderrMode::Client)];
            let found = names.iter().find(|(name, _)| !word.is_empty() && name.starts_with(&*word));
            let bad = || Usage::syntax(format!("rsync: --stderr mode \"{word}\" is not one of errors, all, or client"));
            line.stderr = found.ok_or_else(bad)?.1;
            Ok(())
        },
    ),
    told(wire::QUIET, "", "say nothing but errors").by(count!(quiet)),
    own("no-motd", "", "leave out a daemon's message of the day").by(set!(no_motd)).back(),
    told(wire::CHECKSUM, "", "compare files by checksum, not by size and time").back(),
    own("archive", "", "keep nearly everything: -rlptgoD").letter(b'a').does(|line| {
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
    told(wire::RECURSIVE, "", "descend into directories")
        .back()
        .does(|line| (line.options.recurse, line.recurse_by_archive) = (true, false)),
    own("inc-recursive", "", "list while transferring").also(&["i-r"]).by(Apply::Untold(wire::NO_INC_RECURSIVE)),
    told(wire::NO_INC_RECURSIVE, "", "list everything before the transfer").also(&["no-i-r"]),
    told(wire::RELATIVE, "", "keep the whole names of the arguments").by(choose!(relative)).back(),
    told(wire::NO_IMPLIED_DIRS, "", "with -R, leave the directories on the way alone").also(&["no-i-d"]).back(),
    told(wire::BACKUP, "", "keep what is replaced or deleted").back_by_name(),
    told(wire::BACKUP_DIR, "DIR", "keep it in DIR"),
    told(wire::SUFFIX, "SUFFIX", "what its name ends in (~ unless --backup-dir)"),
    told(wire::UPDATE, "", "leave files alone that are newer at the destination"),
    told(wire::INPLACE, "", "write files where they stand").back(),
    told(wire::APPEND, "", "write only what shorter files lack").back(),
    own("append-verify", "", "the same, and prove the whole file").does(|line| line.options.append = 2),
    told(wire::DIRS, "", "transfer directories without their contents").by(choose!(dirs)).back(),
    own("old-dirs", "", "-d for a peer too old to know it")
        .also(&["old-d"])
        .does(|line| (line.old_dirs, line.dirs) = (true, Some(true))),
    told(wire::MKPATH, "", "make the directories on the way to the destination").back(),
    told(wire::LINKS, "", "copy symlinks as symlinks").back(),
    told(wire::COPY_LINKS, "", "copy what symlinks point to"),
    told(wire::COPY_UNSAFE_LINKS, "", "copy what symlinks out of the tree point to"),
    told(wire::SAFE_LINKS, "", "leave out symlinks that point out of the tree"),
    told(wire::INSECURE_LINKS, "", "follow symlinks of strangers in named paths").refused(&[Always]).back(),
    told(wire::CONFINE_ROOT, "DIR", "refuse named paths that lead out of DIR"),
    told(wire::MUNGE_LINKS, "", "make symlinks safe and unusable").back(),
    told(wire::COPY_DIRLINKS, "", "copy directories that symlinks point to"),
    told(wire::KEEP_DIRLINKS, "", "take a symlink to a directory at the destination for one"),
    told(wire::HARD_LINKS, "", "keep hard links").back(),
    told(wire::PERMS, "", "keep permissions").back(),
    told(wire::EXECUTABILITY, "", "keep whether a file is a program"),
    own("chmod", "CHMOD", "change permissions on the way").takes(|line, value| {
        let before = line.options.chmod.take();
        line.options.chmod = Some(before.map_or_else(|| value.to_vec(), |before| [&before, &b","[..], value].concat()));
        Ok(())
    }),
    told(wire::ACLS, "", "keep ACLs and permissions")
        .back()
        .does(|line| (line.options.acls, line.options.perms) = (true, true)),
    told(wire::XATTRS, "", "keep extended attributes").back(),
    told(wire::OWNER, "", "keep owners (as root)").back(),
    told(wire::GROUP, "", "keep groups").back(),
    own("devices", "", "keep device files (as root)").by(set!(options.devices)).back(),
    told(wire::COPY_DEVICES, "", "copy what devices hold as files").refused(&[Unasked]),
    told(wire::WRITE_DEVICES, "", "write to devices as to files; implies --inplace")
        .refused(&[Vital, Unasked])
        .back()
        .does(|line| (line.options.write_devices, line.options.inplace) = (true, true)),
    told(wire::SPECIALS, "", "keep fifos and sockets").by(set!(options.specials)).back(),
    told(wire::DROP_DEVICES, "", "make no devices, fifos and sockets").back(),
    told(wire::DEVICES_AND_SPECIALS, "", "--devices --specials")
        .back_by(|line| (line.options.devices, line.options.specials) = (false, false)),
    told(wire::TIMES, "", "keep modification times").back(),
    told(wire::ATIMES, "", "keep access times").back(),
    told(wire::OPEN_NOATIME, "", "leave access times of what is read alone").back(),
    told(wire::CRTIMES, "", "keep times of creation").back(),
    told(wire::OMIT_DIR_TIMES, "", "but not times of directories").back(),
    told(wire::OMIT_LINK_TIMES, "", "but not times of symlinks").back(),
    told(wire::SUPER, "", "try what only root may, whoever one is").by(choose!(options.super_user)).back(),
    told(wire::FAKE_SUPER, "", "keep what only root may in extended attributes"),
    told(wire::SPARSE, "", "make holes of runs of zeros").back(),
    told(wire::PREALLOCATE, "", "claim room for a file before writing it"),
    told(wire::DRY_RUN, "", "do nothing, say what would be done").refused(&[Vital]),
    told(wire::WHOLE_FILE, "", "copy whole files, no delta transfer").by(choose!(whole_file)),
    own("no-whole-file", "", "always use the delta transfer, even where whole files come faster")
        .also(&[wire::NO_WHOLE_FILE.name])
        .by(Apply::Choose(|line| &mut line.whole_file, false)),
    told(wire::CHECKSUM_CHOICE, "STR", "the checksum to use")
        .also(&["cc"])
        .takes(|line, value| put(&mut line.options.checksum_choice, checksum_choice(value)?)),
    told(wire::ONE_FILE_SYSTEM, "", "stay on each argument's file system").back(),
    told(wire::BLOCK_SIZE, "SIZE", "the delta transfer's block size").takes(|line, value| {
        put(
            &mut line.options.block_length,
            match size(wire::BLOCK_SIZE.name, value, b'b', 0, 131_072)? {
                0 => None,
                bytes => Some(bytes as u32),
            },
        )
    }),
    own("rsh", "COMMAND", "reach the other machine by COMMAND, not by the SSH within")
        .refused(&[Vital])
        .letter(b'e')
        .by(text!(rsh)),
    own("rsync-path", "PROGRAM", "the rsync to start over there").by(text!(rsync_path)),
    told(wire::EXISTING, "", "make nothing that is not there yet"),
    told(wire::IGNORE_EXISTING, "", "leave alone what is there already"),
    told(wire::REMOVE_SOURCE_FILES, "", "remove files at the source once they have arrived"),
    told(wire::DEL, "", "the same as --delete-during").does(|line| line.delete_when(DeleteWhen::During)),
    told(wire::DELETE, "", "delete at the destination what the source does not have").does(|line| {
        line.options.delete.get_or_insert(DeleteWhen::Default);
    }),
    told(wire::DELETE_BEFORE, "", "the same, before the transfer").does(|line| line.delete_when(DeleteWhen::Before)),
    told(wire::DELETE_DURING, "", "the same, during the transfer").does(|line| line.delete_when(DeleteWhen::During)),
    told(wire::DELETE_DELAY, "", "the same, found during the transfer and done after it")
        .does(|line| line.delete_when(DeleteWhen::Delay)),
    told(wire::DELETE_AFTER, "", "the same, after the transfer").does(|line| line.delete_when(DeleteWhen::After)),
    told(wire::DELETE_EXCLUDED, "", "delete what is left out as well").does(|line| {
        line.options.delete_excluded = true;
        line.options.delete.get_or_insert(DeleteWhen::Default);
    }),
    told(wire::IGNORE_MISSING_ARGS, "", "say nothing of arguments that do not exist"),
    told(wire::DELETE_MISSING_ARGS, "", "delete at the destination arguments that do not exist"),
    told(wire::IGNORE_ERRORS, "", "delete in spite of read errors").back(),
    told(wire::FORCE, "", "delete full directories that are in the way").back(),
    told(wire::MAX_DELETE, "NUM", "delete at most NUM files")
        .takes(|line, value| put(&mut line.options.max_delete, Some(integer(&line.word, value)?.max(0) as u64))),
    told(wire::MAX_SIZE, "SIZE", "leave out files larger than SIZE").takes(|line, value| {
        put(&mut line.options.max_size, Some(size(wire::MAX_SIZE.name, value, b'b', 0, i64::MAX as u64)?))
    }),
    told(wire::MIN_SIZE, "SIZE", "leave out files smaller than SIZE").takes(|line, value| {
        put(&mut line.options.min_size, Some(size(wire::MIN_SIZE.name, value, b'b', 0, i64::MAX as u64)?))
    }),
    told(wire::MAX_ALLOC, "SIZE", "how much memory one request may take")
        .takes(|line, value| put(&mut line.options.max_alloc, Some(max_alloc(value)?))),
    told(wire::PARTIAL, "", "keep what was received of a broken-off file").back(),
    told(wire::PARTIAL_DIR, "DIR", "keep it in DIR"),
    told(wire::DELAY_UPDATES, "", "put all files in place at the end").back(),
    told(wire::PRUNE_EMPTY_DIRS, "", "leave out directories without files").back(),
    told(wire::NUMERIC_IDS, "", "keep owners and groups by number").back(),
    told(wire::USERMAP, "STRING", "other owners for some").takes(|line, value| {
        line.maps(Whose::Owner, "--usermap")?;
        line.options.usermap = Some(value.to_vec());
        Ok(())
    }),
    told(wire::GROUPMAP, "STRING", "other groups for some").takes(|line, value| {
        line.maps(Whose::Group, "--groupmap")?;
        line.options.groupmap = Some(value.to_vec());
        Ok(())
    }),
    own("chown", "USER:GROUP", "one owner and group for all").takes(|line, value| {
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
    told(wire::TIMEOUT, "SECONDS", "give up after so long without a byte")
        .takes(|line, value| put(&mut line.options.timeout, Some(unsigned(&line.word, value)?)))
        .back_by(|line| line.options.timeout = None),
    own("contimeout", "SECONDS", "give up connecting to a daemon after so long")
        .takes(|line, value| {
            put(&mut line.contimeout, Some(unsigned(&line.word, value)?).filter(|&seconds| seconds > 0))
        })
        .back_by(|line| line.contimeout = None),
    told(wire::IGNORE_TIMES, "", "transfer files though size and time agree"),
    told(wire::SIZE_ONLY, "", "compare files by size alone"),
    told(wire::MODIFY_WINDOW, "NUM", "times differ only beyond NUM seconds; -1 compares nanoseconds")
        .takes(|line, value| put(&mut line.options.modify_window, integer(&line.word, value)? as i32)),
    told(wire::TEMP_DIR, "DIR", "build files in DIR").letter(b'T'),
    told(wire::FUZZY, "", "build a new file over one that looks like it").back(),
    told(wire::COMPARE_DEST, "DIR", "leave out what DIR holds already")
        .takes(|line, value| alternative(line, AltKind::Compare, value)),
    told(wire::COPY_DEST, "DIR", "copy it from DIR").takes(|line, value| alternative(line, AltKind::Copy, value)),
    told(wire::LINK_DEST, "DIR", "make hard links to it in DIR")
        .takes(|line, value| alternative(line, AltKind::Link, value)),
    told(wire::COMPRESS, "", "compress on the way")
        .back_by(|line| (line.options.compress, line.options.compress_choice) = (false, None)),
    told(wire::OLD_COMPRESS, "", "")
        .does(|line| (line.options.compress, line.options.compress_choice) = (true, Some(b"zlib".to_vec()))),
    told(wire::NEW_COMPRESS, "", ""),
    told(wire::COMPRESS_CHOICE, "STR", "how to compress").also(&["zc"]).takes(|line, value| {
        const KNOWN: [&[u8]; 5] = [b"zstd", b"lz4", b"zlibx", b"zlib", b"none"];
        if value == b"auto" {
            line.options.compress_choice = None;
            return Ok(());
        }
        if !KNOWN.contains(&value) {
            let text = format!("unknown compress name: {}", String::from_utf8_lossy(value));
            return Err(Usage { text, code: exit::UNSUPPORTED });
        }
        line.options.compress = value != b"none";
        line.options.compress_choice = line.options.compress.then(|| value.to_vec());
        Ok(())
    }),
    told(wire::COMPRESS_LEVEL, "NUM", "how hard to compress").also(&["zl"]).takes(|line, value| {
        put(&mut line.options.compress_level, Some(integer(&line.word, value)?.clamp(-200_000, 100) as i32))
    }),
    own("compress-threads", "NUM", "how many threads compress")
        .also(&["zt"])
        .takes(|line, value| put(&mut line.options.compress_threads, Some(unsigned(&line.word, value)?))),
    told(wire::SKIP_COMPRESS, "LIST", "suffixes of files not worth compressing"),
    told(wire::CVS_EXCLUDE, "", "leave out what CVS would"),
    own("filter", "RULE", "a filter rule").letter(b'f').takes(|line, value| filter(line, FilterKind::Rule, value)),
    own("", "", "--filter='dir-merge /.rsync-filter'; again: --filter='- .rsync-filter'").letter(b'F').does(|line| {
        line.merge_files = line.merge_files.saturating_add(1);
        let rule: &[u8] = match line.merge_files {
            1 => b": /.rsync-filter",
            2 => b"- .rsync-filter",
            _ => return,
        };
        line.filters.push((FilterKind::Rule, rule.to_vec()));
    }),
    own("exclude", "PATTERN", "leave out what matches").takes(|line, value| filter(line, FilterKind::Exclude, value)),
    own("exclude-from", "FILE", "the same, patterns from FILE")
        .takes(|line, value| filter(line, FilterKind::ExcludeFrom, value)),
    own("include", "PATTERN", "do not leave out what matches")
        .takes(|line, value| filter(line, FilterKind::Include, value)),
    own("include-from", "FILE", "the same, patterns from FILE")
        .takes(|line, value| filter(line, FilterKind::IncludeFrom, value)),
    told(wire::FILES_FROM, "FILE", "names of what to transfer, from FILE"),
    told(wire::FROM0, "", "names in such files end with a zero byte").refused(&[Vital]).letter(b'0').back_by_name(),
    own("old-args", "", "let the remote shell split and expand arguments").by(choose!(old_args)).back(),
    told(wire::SECLUDED_ARGS, "", "send arguments by the connection, past the remote shell")
        .refused(&[Vital])
        .also(&["protect-args"])
        .by(choose!(secluded_args))
        .back(),
    told(wire::TRUST_SENDER, "", "do not compare the list with what was asked for"),
    told(wire::COPY_AS, "USER[:GROUP]", "read and write here as USER").refused(&[Always]),
    own("address", "ADDRESS", "the address to call a daemon from").by(text!(address)),
    own("port", "PORT", "the port to call a daemon at")
        .takes(|line, value| put(&mut line.port, Some(integer(&line.word, value)?.clamp(0, 65_535) as u16))),
    own("sockopts", "OPTIONS", "TCP options of a daemon's connection").by(text!(sockopts)),
    own("blocking-io", "", "taken, without meaning here").does(|_| {}).back_by(|_| {}),
    own("outbuf", "N|L|B", "buffer output not at all, by line, by block").takes(|line, value| {
        put(
            &mut line.outbuf,
            Some(match value.first().map(u8::to_ascii_uppercase) {
                Some(b'N' | b'U') => Outbuf::None,
                Some(b'L') => Outbuf::Line,
                Some(b'B' | b'F') => Outbuf::Block,
                _ => return Err(Usage::syntax("rsync: Invalid --outbuf setting -- specify N, L, or B.")),
            }),
        )
    }),
    told(wire::STATS, "", "say at the end what was done"),
    own("8-bit-output", "", "leave bytes beyond ASCII in names as they are").letter(b'8').by(set!(eight_bit)).back(),
    own("human-readable", "", "numbers with units; repeat for powers of 1024").letter(b'h').by(count!(human)).back(),
    own("progress", "", "show the progress of each file").by(set!(progress)).back(),
    own("", "", "--partial --progress").letter(b'P').does(|line| (line.options.partial, line.progress) = (true, true)),
    own("itemize-changes", "", "show what differs of each entry; -ii: of all").letter(b'i').by(count!(itemize)).back(),
    own("remote-option", "OPT", "an option for the other side only").letter(b'M').takes(|line, value| {
        if !value.starts_with(b"-") {
            let text = format!("rsync: Remote option must start with a dash: {}", String::from_utf8_lossy(value));
            return Err(Usage::syntax(text));
        }
        line.options.remote_options.push(value.to_vec());
        Ok(())
    }),
    own("out-format", "FORMAT", "a line for each entry, as FORMAT says")
        .refused(&[Vital])
        .also(&[wire::LOG_FORMAT.name])
        .by(text!(out_format)),
    told(wire::LOG_FILE, "FILE", "write what is done to FILE").refused(&[Always]).by(path!(log_file)),
    told(wire::LOG_FILE_FORMAT, "FMT", "its lines, as FMT says").refused(&[Always]).by(text!(log_file_format)),
    own("password-file", "FILE", "the password for a daemon").by(path!(password_file)),
    own("early-input", "FILE", "what a daemon's early command reads").by(path!(early_input)),
    told(wire::LIST_ONLY, "", "list, do not copy"),
    told(wire::BWLIMIT, "RATE", "send at most RATE KiB in a second")
        .takes(|line, value| {
            let rate = size(wire::BWLIMIT.name, value, b'K', 512, i64::MAX as u64)?;
            line.options.bwlimit = (rate > 0).then_some(rate);
            Ok(())
        })
        .back_by(|line| line.options.bwlimit = None),
    own("stop-after", "MINS", "stop after so many minutes")
        .also(&["time-limit"])
        .takes(|line, value| put(&mut line.options.stop_at, Some(minutes(value)?))),
    own("stop-at", "y-m-dTh:m", "stop at this moment")
        .takes(|line, value| put(&mut line.options.stop_at, Some(hour(value)?))),
    told(wire::FSYNC, "", "sync every file to the disk"),
    own("parallel", "N|auto", "have up to N connections bring files; our own, see the manual")
        .takes(|line, value| put(&mut line.parallel, Some(parallel("--parallel", value)?))),
    own("write-batch", "FILE", "keep a copy of the transfer in FILE").by(text!(batch.write)),
    told(wire::ONLY_WRITE_BATCH, "FILE", "the same, and change nothing").by(text!(batch.only_write)),
    own("read-batch", "FILE", "repeat the transfer in FILE").by(text!(batch.read)),
    own("protocol", "NUM", "speak an older version of the protocol")
        .takes(|line, value| put(&mut line.protocol, Some(unsigned(&line.word, value)?))),
    told(wire::ICONV, "CONVERT_SPEC", "character sets of names: here,there")
        .refused(&[Vital])
        .back_by(|line| line.options.iconv = Some(b"-".to_vec())),
    told(wire::CHECKSUM_SEED, "NUM", "the seed of block checksums").refused(&[Vital]).takes(|line, value| {
        put(&mut line.options.checksum_seed, Some(integer(&line.word, value)? as i32).filter(|&seed| seed != 0))
    }),
    own("ipv4", "", "prefer IPv4").letter(b'4').does(|line| line.family = Some(4)),
    own("ipv6", "", "prefer IPv6").letter(b'6').does(|line| line.family = Some(6)),
    own("version", "", "say what this is; twice as JSON").letter(b'V').does(|line| {
        line.ask = match line.ask {
            Some(Ask::Version | Ask::VersionJson) => Some(Ask::VersionJson),
            _ => Some(Ask::Version),
        };
    }),
    own("help", "", "this help (also -h alone)").does(|line| line.ask = Some(Ask::Help)),
    told(wire::MSGS2STDERR, "", "").does(|line| line.stderr = StderrMode::All),
    told(wire::NO_MSGS2STDERR, "", "").does(|line| line.stderr = StderrMode::Client),
];

/// Takes a value that has been read.
fn put<T>(field: &mut T, read: T) -> Result<(), Usage> {
    *field = read;
    Ok(())
}

fn filter(line: &mut CommandLine, kind: FilterKind, value: &[u8]) -> Result<(), Usage> {
    line.filters.push((kind, value.to_vec()));
    Ok(())
}

fn alternative(line: &mut CommandLine, kind: AltKind, dir: &[u8]) -> Result<(), Usage> {
    /// As many as stock takes.
    const DIRS_MOST: usize = 20;
    let name = |kind| match kind {
        AltKind::Compare => wire::COMPARE_DEST.word(),
        AltKind::Copy => wire::COPY_DEST.word(),
        AltKind::Link => wire::LINK_DEST.word(),
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
