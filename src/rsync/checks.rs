//! What follows from options taken together, and what cannot stand together.

use super::command_line::{Ask, CommandLine, StderrMode};
use super::environment::Environment;
use super::operands;
use super::usage::Usage;
use super::values::{max_alloc, parallel};
use protocol::args::{Info, ItemDetail, table};

/// Completes a command line whose words have all been read.
pub(super) fn finish(line: &mut CommandLine, environment: &Environment) -> Result<(), Usage> {
    quoting(line, environment)?;
    if let (None, Some(value)) = (line.options.max_alloc, &environment.max_alloc) {
        line.options.max_alloc = Some(max_alloc(value)?);
    }
    if let (None, Some(value)) = (line.parallel, &environment.parallel) {
        line.parallel = Some(parallel("RSYNC_PARALLEL", value)?);
    }
    implications(line, environment);
    conflicts(line)?;
    said(line);
    if line.operands.is_empty() {
        line.ask = Some(Ask::Help);
        return Err(Usage::syntax(""));
    }
    Ok(())
}

fn quoting(line: &mut CommandLine, environment: &Environment) -> Result<(), Usage> {
    if line.secluded_args == Some(true) && line.old_args == Some(true) {
        return Err(Usage::syntax("rsync: --secluded-args conflicts with --old-args."));
    }
    let options = &mut line.options;
    options.secluded_args =
        line.secluded_args.unwrap_or(line.old_args != Some(true) && environment.protect_args == Some(true));
    options.old_args = line.old_args.unwrap_or(!options.secluded_args && environment.old_args == Some(true));
    Ok(())
}

fn implications(line: &mut CommandLine, environment: &Environment) {
    let alone = line.operands.len() == 1 && line.batch.read.is_none();
    let options = &mut line.options;
    if options.files_from.is_some() {
        // A named directory stands for itself, unless -r was said in so many words.
        options.recurse &= !line.recurse_by_archive;
    }
    let from_list = options.files_from.is_some();
    options.relative = line.relative.unwrap_or(from_list);
    let listing = options.list_only || alone;
    options.dirs = match line.dirs {
        Some(wanted) => wanted && !options.recurse,
        None => !options.recurse && (from_list || listing),
    };
    options.list_only = listing;
    options.backup |= options.backup_dir.is_some();
    if options.delay_updates && options.partial_dir.is_none() {
        options.partial_dir = Some(b".~tmp~".to_vec());
    }
    if options.partial && options.partial_dir.is_none() && !options.inplace {
        options.partial_dir.clone_from(&environment.partial_dir);
    }
    if options.iconv.is_none() {
        options.iconv.clone_from(&environment.iconv);
    }
    if options.iconv.as_deref() == Some(b"-") {
        options.iconv = None;
    }
    options.quiet = line.quiet > 0;
    (options.whole_file, options.no_whole_file) = (line.whole_file == Some(true), line.whole_file == Some(false));
    line.rsh_given = line.rsh.is_some();
    if line.rsh.is_none() {
        line.rsh.clone_from(&environment.rsh);
    }
    if line.batch.only_write.is_some() {
        options.only_write_batch = true;
    }
}

fn conflicts(line: &CommandLine) -> Result<(), Usage> {
    let options = &line.options;
    let no = |text: &str| Err(Usage::syntax(format!("rsync: {text}")));
    if line.batch.read.is_some() && (line.batch.write.is_some() || line.batch.only_write.is_some()) {
        return no("--write-batch and --read-batch can not be used together");
    }
    if options.crtimes {
        return no("This rsync does not support --crtimes (-N)");
    }
    if options.insecure_links && options.confine_root.is_some() {
        return no("--insecure-links cannot be combined with --confine-root");
    }
    if options.confine_root.as_ref().is_some_and(|root| !root.starts_with(b"/")) {
        return no("--confine-root must be an absolute path");
    }
    if line.deletes > 1 {
        return Err(Usage::syntax("rsync: You may not combine multiple --delete-WHEN options."));
    }
    if options.delete.is_some() && !options.recurse && !options.dirs {
        return no("--delete does not work without --recursive (-r) or --dirs (-d).");
    }
    if let Some(suffix) = &options.suffix {
        if suffix.contains(&b'/') {
            return no(&format!("--suffix cannot contain slashes: {}", String::from_utf8_lossy(suffix)));
        }
        if suffix.is_empty() && options.backup_dir.is_none() {
            return no("--suffix cannot be empty without a --backup-dir");
        }
    }
    let same_place = matches!(options.backup_dir.as_deref(), Some(b"" | b"."));
    if same_place && options.suffix.as_deref().unwrap_or_default().is_empty() {
        return no("--suffix cannot be empty when --backup-dir is the same as the dest dir");
    }
    let in_place = match (options.append > 0, options.inplace) {
        (true, _) => "--append",
        (false, true) => "--inplace",
        _ => "",
    };
    if options.append > 0 && options.whole_file {
        return no("--append cannot be used with --whole-file");
    }
    if !in_place.is_empty() {
        if options.delay_updates {
            return no(&format!("{in_place} cannot be used with --delay-updates"));
        }
        if options.partial_dir.is_some() {
            return no(&format!("{in_place} cannot be used with --partial-dir"));
        }
    }
    if line.batch.read.is_some() {
        if options.files_from.is_some() {
            return no("--read-batch cannot be used with --files-from");
        }
        if options.remove_source_files {
            return no("--read-batch cannot be used with --remove-source-files");
        }
    }
    if line.operands.iter().all(|operand| operands::daemon(operand).is_none()) {
        let daemon_only =
            [("--password-file", line.password_file.is_some()), ("--contimeout", line.contimeout.is_some())];
        if let Some((name, _)) = daemon_only.iter().find(|(_, given)| *given) {
            let verb = if *name == "--contimeout" { "connecting to" } else { "accessing" };
            return Err(Usage::syntax(format!("The {name} option may only be used when {verb} an rsync daemon.")));
        }
    }
    Ok(())
}

/// What is said, and what of it the other end must know.
fn said(line: &mut CommandLine) {
    // A quiet client needs no words from its server.
    if line.quiet > 0 {
        line.options.verbose = 0;
    }
    if line.options.stats {
        line.options.info.raise(Info::Stats, 2);
    }
    if line.progress {
        for flag in [Info::Progress, Info::Name, Info::Flist] {
            line.options.info.raise(flag, 1);
        }
    }
    if line.options.level(Info::Stats) >= 2 {
        line.options.stats = true;
    }
    let format = line.out_format.as_deref().unwrap_or_default();
    let has = |what: &[u8]| format.windows(what.len()).any(|window| window == what);
    line.options.detail = match () {
        () if line.itemize > 1 || has(b"%I") => ItemDetail::All,
        () if line.itemize > 0 || has(b"%i") => ItemDetail::Changed,
        () if has(b"%o") => ItemDetail::Names,
        () if line.options.verbose > 0 => ItemDetail::None,
        () if line.out_format.is_some() || line.options.level(Info::Name) > 0 => ItemDetail::Names,
        () => ItemDetail::None,
    };
    line.peer_words = match line.stderr {
        StderrMode::All => vec![table::MSGS2STDERR.word().into_bytes()],
        StderrMode::Client => vec![table::NO_MSGS2STDERR.word().into_bytes()],
        StderrMode::Errors => vec![],
    };
}
