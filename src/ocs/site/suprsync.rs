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
use std::ffi::OsString;

/// Below this, one large file that the storage node reads for comparison would count as a stall; in seconds.
const STALL_LEAST: f64 = 60.0;
/// What `--stall-timeout` takes; in seconds.
const STALL_MOST: f64 = 86_399.0;

/// What an option says instead; `None` if nothing. What is left without effect is noted.
///
/// # Errors
/// A value that cannot be translated.
pub(super) fn translate(group: Group, notes: &mut Vec<String>) -> Result<Option<Group>, SiteError> {
    let (name, value) = match group.name.as_str() {
        "--remote-basedir" => ("--data-dir", group.value()?.into()),
        "--ssh-host" => ("--storage-host", group.value()?.into()),
        "--sleep-time" => ("--poll", group.value()?.into()),
        "--delete-after" => ("--delete-local-after", group.value()?.into()),
        "--db-path" => {
            let mut url = OsString::from("sqlite:");
            url.push(group.value()?);
            ("--db", url)
        }
        "--copy-timeout" => ("--stall-timeout", stall(&group)?),
        name => {
            let Some(why) = without_effect(name) else { return Ok(Some(group)) };
            let origin = group.place.as_ref().map(|place| format!("Site file {place}: ")).unwrap_or_default();
            notes.push(format!("{origin}Option {name} of SupRsync has no effect: {why}"));
            return Ok(None);
        }
    };
    // One word, so that a value beginning with a dash stays a value.
    Ok(Some(Group { name: name.into(), attached: Some(value), values: Vec::new(), place: group.place }))
}

fn without_effect(name: &str) -> Option<&'static str> {
    Some(match name {
        "--cmd-timeout" => "no command is run at the storage node",
        "--files-per-batch" => "files are sent and recorded one by one; see --queue",
        "--compression" => "files are sent as they are",
        "--db-echo" | "--db-pool-size" | "--db-pool-max-overflow" | "--stop-on-exception" | "--timeout-wait" => {
            "there is nothing like it here"
        }
        _ => return None,
    })
}

fn stall(group: &Group) -> Result<OsString, SiteError> {
    let text = group.text()?;
    match text.trim().parse::<f64>() {
        Ok(seconds) if seconds.is_finite() && seconds >= 0.0 => {
            Ok(seconds.clamp(STALL_LEAST, STALL_MOST).ceil().to_string().into())
        }
        _ => Err(group.found(text, "a number")),
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
        Ok((words.join(std::ffi::OsStr::new(" ")).into_string().unwrap(), notes))
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
            ("--copy-timeout inf", "Option --copy-timeout: found \"inf\"; expected a number"),
        ] {
            assert_eq!(translated(line).unwrap_err().to_string(), expected);
        }
    }
}
