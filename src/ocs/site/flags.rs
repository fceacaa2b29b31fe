//! The options that every OCS agent takes, told apart from the archiver's own before those are parsed: which of the
//! latter are missing is only known once the site file is read.

use super::error::SiteError;
use super::words::{self, Group};
use clap::{Args, Command};
use std::path::PathBuf;

/// Where the agent stands in its observatory, as typed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "OCS agent")]
pub struct SiteFlags {
    /// Our name on the network, and our entry in the site file [variable INSTANCE_ID]
    #[arg(long, value_name = "ID")]
    pub instance_id: Option<String>,

    /// The site file is NAME.yaml in the directory OCS_CONFIG_DIR; `default` by default, `none` to be no agent
    #[arg(long, value_name = "NAME")]
    pub site: Option<String>,

    /// The site file
    #[arg(long, value_name = "FILE")]
    pub site_file: Option<PathBuf>,

    /// Host entry of the site file; by default this machine's name, else `localhost` [variable SITE_HOST]
    #[arg(long, value_name = "NAME")]
    pub site_host: Option<String>,

    /// WAMP router, ws:// or wss:// [variable SITE_HUB]
    #[arg(long, value_name = "URL")]
    pub site_hub: Option<String>,

    /// HTTP bridge of the WAMP router [variable SITE_HTTP]
    #[arg(long, value_name = "URL")]
    pub site_http: Option<String>,

    /// WAMP realm
    #[arg(long, visible_alias = "realm", value_name = "NAME")]
    pub site_realm: Option<String>,

    /// First part of the addresses of all agents
    #[arg(long, value_name = "NAME")]
    pub address_root: Option<String>,

    /// Accepted for old command lines, and without effect
    #[arg(long, value_name = "ADDRESS", hide = true)]
    pub registry_address: Option<String>,

    /// Directory of the log file; it must exist
    #[arg(long, value_name = "DIR")]
    pub log_dir: Option<PathBuf>,

    /// What a relative --log-dir is relative to
    #[arg(long, value_name = "DIR")]
    pub working_dir: Option<PathBuf>,

    /// Leave after so long without a router, 0 for never; by default never [variable CROSSBAR_TIMEOUT]
    #[arg(long, value_name = "SECONDS")]
    pub crossbar_timeout: Option<String>,

    /// Who may do what: none, override:PW2,PW3 or director:ID
    #[arg(long, value_name = "POLICY")]
    pub access_policy: Option<String>,
}

/// Parts these options, each with one value, from all others.
///
/// # Errors
/// One of these without its value.
pub(super) fn part(groups: Vec<Group>) -> Result<(Vec<Group>, Vec<Group>), SiteError> {
    let command = SiteFlags::augment_args(Command::new("site"));
    let known = |name: &str| command.get_arguments().any(|flag| flag.get_long() == Some(name));
    let (mut ours, others) = (groups.into_iter())
        .map(|group| if group.name == "--realm" { Group { name: "--site-realm".into(), ..group } } else { group })
        .partition::<Vec<_>, _>(|group| group.name.strip_prefix("--").is_some_and(known));
    for group in &ours {
        group.value()?;
    }
    ours = words::last_ones(ours);
    Ok((ours, others))
}

/// These options as typed, else as the variables have them. Empty variables count as not set.
pub(super) fn or_set(typed: Vec<Group>, variable: &dyn Fn(&str) -> Option<String>) -> Vec<Group> {
    let set = words::VARIABLES.iter().filter_map(|(option, name)| {
        let value = variable(name).filter(|value| !value.is_empty())?;
        Some(Group { name: (*option).into(), attached: Some(value.into()), values: Vec::new(), place: None })
    });
    words::merge(typed, set.collect())
}

/// Whether these ask for an agent: a name or a place in an observatory is given. Where to log, or how long to wait, says
/// nothing about that.
pub(super) fn ask_for_agent(groups: &[Group]) -> bool {
    let silent = ["--registry-address", "--log-dir", "--working-dir", "--crossbar-timeout"];
    groups.iter().any(|group| !silent.contains(&group.name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;

    /// Ours, one word each, and the others.
    fn parted(line: &str) -> Result<(Vec<Group>, String), SiteError> {
        let (ours, others) = part(words::group(line.split_whitespace().map(|word| (word.into(), None))))?;
        Ok((ours, words_of(others).join(" ".as_ref()).into_string().unwrap()))
    }

    fn words_of(groups: Vec<Group>) -> Vec<OsString> {
        groups.into_iter().flat_map(Group::into_words).collect()
    }

    #[test]
    fn both_spellings_are_taken_and_the_rest_is_left() {
        let line = "--once --site-hub=ws://x/ws --target m1 m2 --realm r1 --instance-id a --crossbar-timeout -5 -v --site-realm r2";
        let (ours, others) = parted(line).unwrap();
        assert_eq!(others, "--once --target m1 m2 -v");
        let expected = ["--site-hub=ws://x/ws", "--instance-id", "a", "--crossbar-timeout", "-5", "--site-realm", "r2"];
        assert_eq!(words_of(ours), expected);
    }

    #[test]
    fn each_takes_one_value() {
        for (line, found) in
            [("--site-file", 0), ("--site-file --once", 0), ("--site-file a b", 2), ("--site-file=a b", 2)]
        {
            let expected = format!("Option --site-file: found {found} values; expected one");
            assert_eq!(parted(line).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn variables_fill_what_the_command_line_lacks() {
        let (typed, _) = parted("--site-hub=ws://typed/ws").unwrap();
        let all = or_set(typed, &|name| Some(if name == "SITE_HTTP" { String::new() } else { format!("of {name}") }));
        let expected = [
            "--site-hub=ws://typed/ws",
            "--instance-id=of INSTANCE_ID",
            "--site-host=of SITE_HOST",
            "--crossbar-timeout=of CROSSBAR_TIMEOUT",
        ];
        assert_eq!(words_of(all), expected);
    }
}
