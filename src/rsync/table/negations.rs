//! What takes options back.

use super::{Apply, Opt};
use crate::rsync::command_line::StderrMode;

const fn no(names: &'static [&'static str], apply: Apply) -> Opt {
    Opt { names, letter: 0, value: "", help: "", apply }
}

/// What takes an option back, and other names without a line of their own.
pub(super) const NEGATIONS: &[Opt] = &[
    no(&["no-verbose", "no-v"], zero!(options.verbose)),
    no(&["motd"], clear!(no_motd)),
    no(&["no-checksum", "no-c"], clear!(options.checksum)),
    no(&["no-recursive", "no-r"], clear!(options.recurse)),
    no(&["no-relative", "no-R"], Apply::Do(|line| line.relative = Some(false))),
    no(&["implied-dirs", "i-d"], clear!(options.no_implied_dirs)),
    no(&["no-backup"], clear!(options.backup)),
    no(&["no-inplace"], clear!(options.inplace)),
    no(&["no-append"], zero!(options.append)),
    no(&["no-dirs", "no-d"], Apply::Do(|line| line.dirs = Some(false))),
    no(&["no-mkpath"], clear!(options.mkpath)),
    no(&["no-links", "no-l"], clear!(options.links)),
    no(&["no-insecure-links"], clear!(options.insecure_links)),
    no(&["no-munge-links"], clear!(options.munge_links)),
    no(&["no-hard-links", "no-H"], clear!(options.hard_links)),
    no(&["no-perms", "no-p"], clear!(options.perms)),
    no(&["no-acls", "no-A"], clear!(options.acls)),
    no(&["no-xattrs", "no-X"], zero!(options.xattrs)),
    no(&["no-owner", "no-o"], clear!(options.owner)),
    no(&["no-group", "no-g"], clear!(options.group)),
    no(&["no-devices"], clear!(options.devices)),
    no(&["no-write-devices"], clear!(options.write_devices)),
    no(&["no-specials"], clear!(options.specials)),
    no(&["no-drop-D"], clear!(options.drop_devices)),
    no(
        &["no-D"],
        Apply::Do(|line| {
            line.options.devices = false;
            line.options.specials = false;
        }),
    ),
    no(&["no-times", "no-t"], clear!(options.times)),
    no(&["no-atimes", "no-U"], zero!(options.atimes)),
    no(&["no-open-noatime"], clear!(options.open_noatime)),
    no(&["no-crtimes", "no-N"], clear!(options.crtimes)),
    no(&["no-omit-dir-times", "no-O"], clear!(options.omit_dir_times)),
    no(&["no-omit-link-times", "no-J"], clear!(options.omit_link_times)),
    no(&["no-super"], Apply::Do(|line| line.options.super_user = Some(false))),
    no(&["no-sparse", "no-S"], clear!(options.sparse)),
    no(&["no-one-file-system", "no-x"], zero!(options.one_file_system)),
    no(&["no-ignore-errors"], clear!(options.ignore_errors)),
    no(&["no-force"], clear!(options.force)),
    no(&["no-partial"], clear!(options.partial)),
    no(&["no-delay-updates"], clear!(options.delay_updates)),
    no(&["no-prune-empty-dirs", "no-m"], clear!(options.prune_empty_dirs)),
    no(&["no-numeric-ids"], clear!(options.numeric_ids)),
    no(&["no-timeout"], Apply::Do(|line| line.options.timeout = None)),
    no(&["no-contimeout"], Apply::Do(|line| line.contimeout = None)),
    no(&["no-fuzzy", "no-y"], zero!(options.fuzzy)),
    no(
        &["no-compress", "no-z"],
        Apply::Do(|line| {
            line.options.compress = false;
            line.options.compress_choice = None;
        }),
    ),
    no(
        &["old-compress"],
        Apply::Do(|line| {
            line.options.compress = true;
            line.options.compress_choice = Some(b"zlib".to_vec());
        }),
    ),
    no(
        &["new-compress"],
        Apply::Do(|line| {
            line.options.compress = true;
            line.options.compress_choice = Some(b"zlibx".to_vec());
        }),
    ),
    no(&["no-from0"], clear!(options.from0)),
    no(&["no-old-args"], Apply::Do(|line| line.old_args = Some(false))),
    no(&["no-secluded-args", "no-protect-args", "no-s"], Apply::Do(|line| line.secluded_args = Some(false))),
    no(&["no-blocking-io"], Apply::Do(|_| {})),
    no(&["no-8-bit-output", "no-8"], clear!(eight_bit)),
    no(&["no-human-readable", "no-h"], zero!(human)),
    no(&["no-progress"], clear!(progress)),
    no(&["no-itemize-changes", "no-i"], zero!(itemize)),
    no(&["no-bwlimit"], Apply::Do(|line| line.options.bwlimit = None)),
    no(&["no-iconv"], Apply::Do(|line| line.options.iconv = Some(b"-".to_vec()))),
    no(&["msgs2stderr"], Apply::Do(|line| line.stderr = StderrMode::All)),
    no(&["no-msgs2stderr"], Apply::Do(|line| line.stderr = StderrMode::Client)),
];
