//! The options of SupRsync, in ours.
//!
//! | SupRsync | here |
//! |---|---|
//! | `--archive-name`, `--ssh-key`, `--max-copy-attempts`, `--bwlimit`, `--chmod`, `--delete-local-after`, `--suprsync-file-root` | the same |
//! | `--delete-after S` | `--delete-local-after S`, as it was called later |
//! | `--remote-basedir DIR` | `--data-dir DIR` |
//! | `--db-path FILE` | `--db sqlite:FILE` |
//! | `--ssh-host HOST` | `--storage-host HOST` |
//! | `--sleep-time S` | `--poll S` |
//! | `--copy-timeout S` | `--stall-timeout S`, 60 at least: there the limit of a whole batch, here of silence |
//! | `--cmd-timeout` | noted: no command is run at the storage node |
//! | `--files-per-batch` | noted: files are sent and recorded one by one, whatever the batch |
//! | `--compression` | noted: the same files arrive |
//! | `--db-echo`, `--db-pool-size`, `--db-pool-max-overflow` | noted: of its database library |
//! | `--stop-on-exception`, `--timeout-wait` | noted: of 2021, long without meaning |
//!
//! All others are left to our own parser.

use super::error::SiteError;
use super::words::Group;
use std::ffi::{OsStr, OsString};

/// Below this, one large file that the storage node reads for comparison would count as a stall; in seconds.
const STALL_LEAST: f64 = 60.0;
/// What `--stall-timeout` takes; in seconds.
const STALL_MOST: f64 = 86_399.0;

/// What an option says instead; `None` if nothing. What is left without effect is noted.
///
/// # Errors
/// An option that asks for something we do not do, or has no usable value.
pub(super) fn translate(group: Group, notes: &mut Vec<String>) -> Result<Option<Group>, SiteError> {
    let without_effect = |notes: &mut Vec<String>, why: &str| {
        let origin = group.place.as_ref().map(|place| format!("Site file {place}: ")).unwrap_or_default();
        notes.push(format!("{origin}Option {} of SupRsync has no effect: {why}", group.name));
        Ok(None)
    };
    match group.name.as_str() {
        "--remote-basedir" => renamed(&group, "--data-dir", None).map(Some),
        "--ssh-host" => renamed(&group, "--storage-host", None).map(Some),
        "--sleep-time" => renamed(&group, "--poll", None).map(Some),
        "--db-path" => {
            let mut url = OsString::from("sqlite:");
            url.push(group.value()?);
            renamed(&group, "--db", Some(url)).map(Some)
        }
        "--copy-timeout" => {
            let seconds = number(&group)?;
            let stall = seconds.clamp(STALL_LEAST, STALL_MOST).ceil();
            renamed(&group, "--stall-timeout", Some(format!("{stall}").into())).map(Some)
        }
        "--cmd-timeout" => number(&group).and_then(|_| without_effect(notes, "no command is run at the storage node")),
        "--files-per-batch" => {
            number(&group)?;
            without_effect(notes, "files are sent and recorded one by one; see --queue")
        }
        "--compression" => switch(&group).and_then(|()| without_effect(notes, "files are sent as they are")),
        "--db-echo" | "--stop-on-exception" => {
            switch(&group).and_then(|()| without_effect(notes, "there is nothing like it here"))
        }
        "--db-pool-size" | "--db-pool-max-overflow" | "--timeout-wait" => {
            without_effect(notes, "there is nothing like it here")
        }
        "--delete-after" => renamed(&group, "--delete-local-after", None).map(Some),
        _ => Ok(Some(group)),
    }
}

fn renamed(group: &Group, name: &str, value: Option<OsString>) -> Result<Group, SiteError> {
    let value = value.map_or_else(|| group.value().map(OsStr::to_os_string), Ok)?;
    // One word, so that a value beginning with a dash stays a value.
    Ok(Group { name: name.into(), attached: Some(value), values: Vec::new(), place: group.place.clone() })
}

fn number(group: &Group) -> Result<f64, SiteError> {
    let text = group.text()?;
    match text.trim().parse::<f64>() {
        Ok(number) if number.is_finite() && number >= 0.0 => Ok(number),
        _ => Err(group.wrong(&format!("found {text:?}; expected a number"))),
    }
}

fn switch(group: &Group) -> Result<(), SiteError> {
    match (&group.attached, group.values.first()) {
        (None, None) => Ok(()),
        (Some(value), _) | (None, Some(value)) => Err(group.wrong(&format!("found {value:?}; expected no value"))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::words;
    use super::*;

    fn translated(line: &str) -> Result<(String, Vec<String>), SiteError> {
        let mut notes = Vec::new();
        let mut words = Vec::new();
        for group in words::group(line.split(' ').map(|word| (word.into(), None))) {
            words.extend(translate(group, &mut notes)?.into_iter().flat_map(Group::into_words));
        }
        Ok((words.join(OsStr::new(" ")).into_string().unwrap(), notes))
    }

    #[test]
    fn each_option_has_its_counterpart() {
        for (theirs, ours) in [
            ("--archive-name smurf", "--archive-name smurf"),
            ("--remote-basedir /a", "--data-dir=/a"),
            ("--db-path=/d.db", "--db=sqlite:/d.db"),
            ("--ssh-host u@h", "--storage-host=u@h"),
            ("--ssh-key k", "--ssh-key k"),
            ("--max-copy-attempts 3", "--max-copy-attempts 3"),
            ("--sleep-time 20", "--poll=20"),
            ("--copy-timeout 20", "--stall-timeout=60"),
            ("--copy-timeout 600.5", "--stall-timeout=601"),
            ("--copy-timeout 1000000", "--stall-timeout=86399"),
            ("--workers 2", "--workers 2"),
            ("--bwlimit 1000", "--bwlimit 1000"),
            ("--delete-local-after 604800", "--delete-local-after 604800"),
            ("--delete-after 86400", "--delete-local-after=86400"),
            ("--chmod g+rwX,o+rX", "--chmod g+rwX,o+rX"),
            ("--suprsync-file-root /s", "--suprsync-file-root /s"),
        ] {
            assert_eq!(translated(theirs).unwrap(), (ours.to_owned(), vec![]), "{theirs}");
        }
    }

    #[test]
    fn options_without_effect_are_noted() {
        for line in [
            "--cmd-timeout 5",
            "--files-per-batch 100",
            "--compression",
            "--db-echo",
            "--db-pool-size 5",
            "--db-pool-max-overflow 10",
            "--stop-on-exception",
            "--timeout-wait 20",
        ] {
            let (words, notes) = translated(line).unwrap();
            let name = line.split(' ').next().unwrap();
            assert_eq!((words.as_str(), notes.len()), ("", 1), "{line}");
            assert!(notes[0].starts_with(&format!("Option {name} of SupRsync has no effect: ")), "{notes:?}");
        }
    }

    #[test]
    fn values_are_checked() {
        for (line, expected) in [
            ("--db-path", "Option --db-path: found 0 values; expected one"),
            ("--ssh-host a b", "Option --ssh-host: found 2 values; expected one"),
            ("--copy-timeout soon", "Option --copy-timeout: found \"soon\"; expected a number"),
            ("--cmd-timeout inf", "Option --cmd-timeout: found \"inf\"; expected a number"),
            ("--compression yes", "Option --compression: found \"yes\"; expected no value"),
        ] {
            assert_eq!(translated(line).unwrap_err().to_string(), expected);
        }
    }
}
