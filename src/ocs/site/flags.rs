//! The options that every OCS agent takes, told apart from the archiver's own before those are parsed: which of the
//! latter are missing is only known once the site file is read.

use super::error::SiteError;
use clap::Args;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
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

/// The options by name, without their dashes.
const NAMES: [&str; 14] = [
    "instance-id",
    "site",
    "site-file",
    "site-host",
    "site-hub",
    "site-http",
    "site-realm",
    "realm",
    "address-root",
    "registry-address",
    "log-dir",
    "working-dir",
    "crossbar-timeout",
    "access-policy",
];

/// The option that a word spells, and the value that hangs on it with `=`.
fn spelled(word: &OsStr) -> Option<(&'static str, Option<&OsStr>)> {
    let bytes = word.as_bytes().strip_prefix(b"--")?;
    let mut parts = bytes.splitn(2, |byte| *byte == b'=');
    let name = parts.next()?;
    let name = NAMES.into_iter().find(|known| known.as_bytes() == name)?;
    Some((name, parts.next().map(OsStr::from_bytes)))
}

/// Whether a word without its value, such as `--site-hub`, is one of these options.
pub(super) fn is_site_option(name: &str) -> bool {
    name.strip_prefix("--").is_some_and(|name| NAMES.contains(&name))
}

impl SiteFlags {
    /// Takes the options out of a command line; the rest stays in its order. What stands behind `--` is not looked at.
    ///
    /// # Errors
    /// An option without its value, or a name that is no UTF-8.
    pub fn take(args: &[OsString]) -> Result<(Self, Vec<OsString>), SiteError> {
        let mut flags = Self::default();
        let mut rest = Vec::new();
        let mut words = args.iter();
        while let Some(word) = words.next() {
            if word == "--" {
                rest.push(word.clone());
                rest.extend(words.by_ref().cloned());
                break;
            }
            let Some((name, attached)) = spelled(word) else {
                rest.push(word.clone());
                continue;
            };
            let value = match attached {
                Some(value) => value.to_os_string(),
                None => match words.clone().next().filter(|next| !super::words::opens_group(next)) {
                    Some(next) => {
                        words.next();
                        next.clone()
                    }
                    None => return Err(SiteError::Usage(format!("Option --{name} needs a value"))),
                },
            };
            flags.set(name, value)?;
        }
        Ok((flags, rest))
    }

    fn set(&mut self, name: &str, value: OsString) -> Result<(), SiteError> {
        match name {
            "site-file" => self.site_file = Some(value.into()),
            "log-dir" => self.log_dir = Some(value.into()),
            "working-dir" => self.working_dir = Some(value.into()),
            _ => {
                let value = value.into_string().map_err(|value| {
                    SiteError::Usage(format!("Option --{name}: {value:?} is no UTF-8; give it another value"))
                })?;
                let field = match name {
                    "instance-id" => &mut self.instance_id,
                    "site" => &mut self.site,
                    "site-host" => &mut self.site_host,
                    "site-hub" => &mut self.site_hub,
                    "site-http" => &mut self.site_http,
                    "site-realm" | "realm" => &mut self.site_realm,
                    "address-root" => &mut self.address_root,
                    "crossbar-timeout" => &mut self.crossbar_timeout,
                    "access-policy" => &mut self.access_policy,
                    _ => &mut self.registry_address,
                };
                *field = Some(value);
            }
        }
        Ok(())
    }

    /// Fills what is lacking from the variables that `ocs-agent-cli` reads. Empty ones count as not set.
    pub fn fill(&mut self, variable: &dyn Fn(&str) -> Option<String>) {
        let fill = |field: &mut Option<String>, name: &str| {
            if field.is_none() {
                *field = variable(name).filter(|value| !value.is_empty());
            }
        };
        fill(&mut self.instance_id, "INSTANCE_ID");
        fill(&mut self.site_host, "SITE_HOST");
        fill(&mut self.site_hub, "SITE_HUB");
        fill(&mut self.site_http, "SITE_HTTP");
        fill(&mut self.crossbar_timeout, "CROSSBAR_TIMEOUT");
    }

    /// Whether these ask for an agent: a name or a place in an observatory is given. Where to log, or how long to wait,
    /// says nothing about that.
    pub(super) fn ask_for_agent(&self) -> bool {
        let texts = [
            &self.instance_id,
            &self.site,
            &self.site_host,
            &self.site_hub,
            &self.site_http,
            &self.site_realm,
            &self.address_root,
            &self.access_policy,
        ];
        self.site_file.is_some() || texts.iter().any(|text| text.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(line: &str) -> Result<(SiteFlags, Vec<OsString>), SiteError> {
        SiteFlags::take(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn both_spellings_are_taken_and_the_rest_is_left() {
        let line = "--once --site-hub=ws://x/ws --target m1 m2 --realm r1 --instance-id a --crossbar-timeout -5 -v --site-realm r2";
        let (flags, rest) = take(line).unwrap();
        assert_eq!(rest, ["--once", "--target", "m1", "m2", "-v"]);
        assert_eq!(flags.site_hub.as_deref(), Some("ws://x/ws"));
        assert_eq!((flags.site_realm.as_deref(), flags.crossbar_timeout.as_deref()), (Some("r2"), Some("-5")));
        assert_eq!(flags.instance_id.as_deref(), Some("a"));
    }

    #[test]
    fn what_stands_behind_two_dashes_is_left_alone() {
        let (flags, rest) = take("--once -- --site x").unwrap();
        assert_eq!(rest, ["--once", "--", "--site", "x"]);
        assert_eq!(flags, SiteFlags::default());
    }

    #[test]
    fn a_missing_value_is_named() {
        for line in ["--site-file", "--site-file --once"] {
            assert_eq!(take(line).unwrap_err().to_string(), "Option --site-file needs a value");
        }
    }

    #[test]
    fn every_name_has_its_field_and_its_flag() {
        use clap::CommandFactory;
        #[derive(clap::Parser)]
        struct All {
            #[command(flatten)]
            flags: SiteFlags,
        }
        for name in NAMES {
            let (flags, rest) = take(&format!("--{name}=7")).unwrap();
            assert!(rest.is_empty() && flags != SiteFlags::default(), "{name}");
            let by_clap = <All as clap::Parser>::try_parse_from(["a".to_owned(), format!("--{name}=7")]).unwrap().flags;
            assert_eq!(by_clap, flags, "{name}");
        }
        let long = All::command().get_arguments().filter(|arg| arg.get_long().is_some()).count();
        // --realm is an alias.
        assert_eq!(long + 1, NAMES.len());
    }

    #[test]
    fn variables_fill_what_the_command_line_lacks() {
        let (mut flags, _) = take("--site-hub=ws://typed/ws").unwrap();
        flags.fill(&|name| Some(if name == "SITE_HTTP" { String::new() } else { format!("of {name}") }));
        assert_eq!(flags.site_hub.as_deref(), Some("ws://typed/ws"));
        assert_eq!(flags.site_http, None);
        assert_eq!(flags.instance_id.as_deref(), Some("of INSTANCE_ID"));
        assert_eq!(flags.site_host.as_deref(), Some("of SITE_HOST"));
        assert_eq!(flags.crossbar_timeout.as_deref(), Some("of CROSSBAR_TIMEOUT"));
    }
}
