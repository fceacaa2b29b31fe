//! `config`: what file, variables and command line say together, and what a file may say.

use super::flags::config::ConfigVerb;
use super::flags::{Command as Verb, Flags};
use super::layers::{self, Layered, SettingOrigin};
use super::output::{harmless, print};
use super::plan;
use anyhow::{Context, Result};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, CommandFactory};
use std::os::unix::fs::PermissionsExt;
use textwrap::WordSplitter;

/// Longest line of a comment in an example.
const WIDTH: usize = 110;

/// Says whether it can be used, and what is in force for each target.
pub(super) fn check(targets: &[Layered]) -> Result<u8> {
    for one in targets {
        let Verb::Config(command) = &one.verb else { continue };
        let ConfigVerb::Check(args) = &command.verb else { continue };
        if let Some(target) = &one.target {
            print(&format!("[[target]]\nname = {}", quoted(target)));
        }
        for line in in_force(one, args.all) {
            print(&line);
        }
        let named = || one.target.as_ref().map_or("The configuration".to_owned(), |name| format!("Target {name}"));
        plan::run(args.run.clone(), None, None).with_context(named)?;
        print("");
    }
    match targets {
        [_] => print("# It can be used"),
        all => print(&format!("# All {} targets can be used", all.len())),
    }
    Ok(0)
}

/// A line for each option that somebody says, or that has a default.
fn in_force(one: &Layered, with_defaults: bool) -> Vec<String> {
    let options = layers::options();
    let mut lines = Vec::new();
    for arg in options.get_arguments().filter(|arg| layers::is_setting(arg)) {
        let (Some(option), id) = (arg.get_long(), arg.get_id().as_str()) else { continue };
        let values: Vec<String> = match one.matches.try_get_raw(id) {
            Ok(Some(raw)) => raw.map(|value| value.to_string_lossy().into_owned()).collect(),
            _ => continue,
        };
        let setting = one.settings.get(option);
        let origin = match (one.matches.value_source(id), setting) {
            (Some(ValueSource::CommandLine), _) => "command line".to_owned(),
            (_, Some(setting)) => setting.origin.to_string(),
            _ if with_defaults => "default".to_owned(),
            _ => continue,
        };
        let shown: Vec<String> = values.iter().map(|value| masked(option, value)).collect();
        lines.push(format!("{option} = {}  # {origin}", literal(arg, &shown)));
        let readable = setting.filter(|_| shown != values).and_then(readable_by_all);
        lines.extend(readable);
    }
    lines
}

/// What is to be said of a file with a secret that everybody may read.
fn readable_by_all(setting: &layers::Setting) -> Option<String> {
    let SettingOrigin::File { path, .. } = &setting.origin else { return None };
    let mode = std::fs::metadata(path).ok()?.permissions().mode();
    (mode & 0o004 != 0).then(|| {
        let path = path.display();
        format!("# {path} holds a password and everybody may read it: chmod o-r {path}, or name the password's file by MYSQL_PASSWORD_FILE")
    })
}

/// The value without a password in it.
fn masked(option: &str, value: &str) -> String {
    let account = (option == "db").then(|| value.split_once("://").zip(value.rsplit_once('@'))).flatten();
    match account {
        Some(((scheme, _), (account, place))) => match account[scheme.len() + 3..].split_once(':') {
            Some((user, _)) => format!("{scheme}://{user}:***@{place}"),
            None => value.to_owned(),
        },
        None => value.to_owned(),
    }
}

/// The value as the file has it.
fn literal(arg: &Arg, values: &[String]) -> String {
    let one = |value: &String| match value.parse::<f64>() {
        Ok(number) if number.is_finite() && value.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') => {
            value.clone()
        }
        _ => quoted(value),
    };
    match (arg.get_action(), values) {
        (ArgAction::SetTrue, [value]) => value.clone(),
        (ArgAction::Append, values) => format!("[{}]", values.iter().map(one).collect::<Vec<_>>().join(", ")),
        (_, values) => values.first().map(one).unwrap_or_else(|| quoted("")),
    }
}

/// A text of TOML: what JSON lets stand in its texts is the same there.
fn quoted(text: &str) -> String {
    serde_json::Value::from(harmless(text)).to_string()
}

/// Prints a file with all options, each with its help, as its default or an example.
pub(super) fn example() -> Result<u8> {
    print(
        "# Configuration of pysmurf-archiver: `pysmurf-archiver config check --config FILE` says whether it can be used.",
    );
    print(
        "# Each option may also be a variable (ARCHIVER_DATA_DIR for data-dir), which wins over this file, and an option",
    );
    print("# of the command line, which wins over both. What stands above the first [[target]] holds for all targets.");
    let mut heading = "";
    let mut command = Flags::command();
    command.build();
    let options = layers::options();
    for arg in options.get_arguments().filter(|arg| layers::is_setting(arg)) {
        let own = arg.get_help_heading().unwrap_or("Options");
        if own != heading {
            heading = own;
            print(&format!("\n# ---- {heading} ----"));
        }
        print("");
        let help = arg.get_long_help().or_else(|| arg.get_help()).map(ToString::to_string).unwrap_or_default();
        let known: Vec<_> = arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
        let known = match arg.get_action() {
            ArgAction::SetTrue | ArgAction::Count => String::new(),
            _ if known.is_empty() => String::new(),
            _ => format!(" [{}]", known.join(", ")),
        };
        let text = format!("{help}{known}").split_whitespace().collect::<Vec<_>>().join(" ");
        let lines = textwrap::Options::new(WIDTH).break_words(false).word_splitter(WordSplitter::NoHyphenation);
        for line in textwrap::wrap(&text, lines) {
            print(&format!("# {line}"));
        }
        print(&format!("#{} = {}", arg.get_long().unwrap_or_default(), sample(arg)));
    }
    print("\n# ---- Several targets in one process: each with what it has of its own ----\n");
    print("#[[target]]\n#name = \"timestreams\"\n#archive-name = \"timestreams\"\n#data-dir = \"/data/timestreams\"\n");
    print("#[[target]]\n#name = \"smurf\"\n#archive-name = \"smurf\"\n#data-dir = \"/data/smurf\"");
    print("\n# ---- Several storage nodes, which all targets have copies at: each with what it has of its own ----\n");
    print("#[[node]]\n#name = \"storage-a\"\n#storage-host = \"ocs@storage-a\"\n");
    print("#[[node]]\n#name = \"storage-b\"\n#storage-host = \"ocs@storage-b\"");
    Ok(0)
}

/// A value that shows the form.
fn sample(arg: &Arg) -> String {
    let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect();
    match (arg.get_action(), defaults.is_empty()) {
        (ArgAction::SetTrue, _) => "false".to_owned(),
        (ArgAction::Count, _) => "0".to_owned(),
        (_, false) => literal(arg, &defaults),
        (action, true) => {
            let name =
                arg.get_value_names().and_then(|names| names.first()).map(ToString::to_string).unwrap_or_default();
            let text = quoted(&name);
            if matches!(action, ArgAction::Append) { format!("[{text}]") } else { text }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_is_shown() {
        let known = [
            ("mysql://ocs:se@c:ret@db:3306/files", "mysql://ocs:***@db:3306/files"),
            ("mysql://ocs@db/files", "mysql://ocs@db/files"),
            ("sqlite:/data/a@b:c.db", "sqlite:/data/a@b:c.db"),
        ];
        for (value, shown) in known {
            assert_eq!(masked("db", value), shown);
        }
    }

    #[test]
    fn texts_are_those_of_toml() {
        let options = layers::options();
        let arg = |long: &str| options.get_arguments().find(|arg| arg.get_long() == Some(long)).unwrap().clone();
        assert_eq!(literal(&arg("ssh-key"), &["a\"b".into(), "c\n".into()]), r#"["a\"b", "c\n"]"#);
        assert_eq!(literal(&arg("poll"), &["0.5".into()]), "0.5");
        assert_eq!(literal(&arg("bootstrap-remove"), &["true".into()]), "true");
        assert_eq!(literal(&arg("split-size"), &["64M".into()]), "\"64M\"");
    }
}
