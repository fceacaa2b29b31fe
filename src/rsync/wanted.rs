//! What the rules and lists of names on a command line come to, their files read.

use super::command_line::{CommandLine, FilterKind, Filters};
use super::operands::Plan;
use super::usage::Usage;
use crate::exit;
use crate::transfer::TransferError;
use crate::transfer::filters::{self, Forwarded, Rules, RulesError};
use protocol::args::Options;
use protocol::filter::{Action, Rule};

/// The user's rules as the script of a batch file holds them: without those that `-C` brings.
pub(super) fn rules_of_script(line: &CommandLine) -> Result<Vec<Rule>, Usage> {
    if line.batch.write.is_none() && line.batch.only_write.is_none() {
        return Ok(Vec::new());
    }
    let rules = user_rules(line)?.finish(&Options { cvs_exclude: false, ..line.options.clone() });
    let rules = rules.map_err(bad_rules)?;
    // The script has a line for each; what stood behind a line end could as well be commands of a shell.
    if rules.iter().any(|rule| rule.text().contains(&b'\n')) {
        return Err(Usage::syntax("cannot write a filter rule containing a newline to the batch replay script"));
    }
    Ok(rules)
}

fn user_rules(line: &CommandLine) -> Result<Rules, Usage> {
    read(&line.options, &line.filters, true)
}

/// The rules that were given, and no others. `files`: those that stand in files are read.
pub(super) fn gathered(options: &Options, filters: &Filters, files: bool) -> Result<Vec<Rule>, Usage> {
    read(options, filters, files).map(Rules::given)
}

fn read(options: &Options, filters: &Filters, files: bool) -> Result<Rules, Usage> {
    let mut rules = if files { Rules::new(options) } else { Rules::without_files(options) };
    for (kind, text) in filters {
        let taken = match kind {
            FilterKind::Rule => rules.filter(text),
            FilterKind::Exclude => rules.pattern(Action::Exclude, text),
            FilterKind::Include => rules.pattern(Action::Include, text),
            FilterKind::ExcludeFrom => rules.file(Action::Exclude, text),
            FilterKind::IncludeFrom => rules.file(Action::Include, text),
        };
        taken.map_err(bad_rules)?;
    }
    Ok(rules)
}

/// What the user's rules and lists of names come to.
pub(super) struct Wanted {
    pub(super) rules: Vec<Rule>,
    /// Names for this side, the sender, to look up.
    pub(super) here: Option<Vec<Vec<u8>>>,
    /// Names for the server, the sender, to look up.
    pub(super) asked: Option<Forwarded>,
}

impl Wanted {
    /// Reads the files of rules and names, and leaves of `--files-from` what a server may be told. In a `pull` the server,
    /// as the sender, adds the rules of `-C` itself.
    pub(super) fn of(line: &mut CommandLine, plan: &Plan, pull: bool) -> Result<Self, Usage> {
        let cvs_exclude = line.options.cvs_exclude && !pull;
        let rules = user_rules(line)?.finish(&Options { cvs_exclude, ..line.options.clone() }).map_err(bad_rules)?;
        let mut wanted = Self { rules, here: None, asked: None };
        let Some(given) = line.options.files_from.clone() else { return Ok(wanted) };
        let cut = given.iter().position(|byte| b":/".contains(byte)).filter(|&at| given[at] == b':');
        if let Some(cut) = cut {
            let same = plan.remote.as_ref().is_some_and(|remote| cut == 0 || remote.host.name == given[..cut]);
            if !same {
                return Err(Usage::syntax("--files-from hostname is not the same as the transfer hostname"));
            }
            line.options.files_from = Some(given[given.len().min(cut + 1)..].to_vec());
            return Ok(wanted);
        }
        let unreadable = |error: TransferError| Usage { text: format!("rsync: {error}"), code: error.exit_code() };
        if pull {
            wanted.asked = Some(filters::names_to_forward(&given, &line.options).map_err(unreadable)?);
            line.options.files_from = Some(b"-".to_vec());
            line.options.from0 = true;
        } else {
            let names = filters::names_of_file(&given, line.options.from0).and_then(|names| names.collect());
            wanted.here = Some(names.map_err(unreadable)?);
        }
        Ok(wanted)
    }
}

fn bad_rules(error: RulesError) -> Usage {
    let code = if matches!(error, RulesError::File { .. }) { exit::FILE } else { exit::SYNTAX };
    Usage { text: format!("rsync: {error}"), code }
}
