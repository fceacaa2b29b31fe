//! From a message to the row of a file: the rules of the Python monitor, and what ours does where that one loses the file.

use super::message::{MessageTopic, PublisherMessage};
use super::value::{PyText, PyValue};
use std::path::Path;

/// Which agent copies a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum ArchiveName {
    Smurf,
    Timestreams,
    /// Whichever a watched folder belongs to.
    Watched,
}

impl ArchiveName {
    /// All there are.
    pub(crate) const ALL: [Self; 3] = [Self::Smurf, Self::Timestreams, Self::Watched];
    /// Those that messages name.
    const OF_MESSAGES: [Self; 2] = [Self::Smurf, Self::Timestreams];

    /// As tables have it; of watched folders the lane's.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Smurf => "smurf",
            Self::Timestreams => "timestreams",
            Self::Watched => "watched",
        }
    }
}

/// A file that was announced: all of its row but what only the file itself tells.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FileNotice {
    pub(crate) topic: MessageTopic,
    pub(crate) archive: ArchiveName,
    /// Its name in the table.
    pub(crate) named: String,
    /// Where the file is, as the message has it.
    pub(crate) path: String,
    /// SupRsync: where it goes.
    pub(crate) remote: String,
    /// SupRsync: whether it may be deleted once copied.
    pub(crate) deletable: bool,
    /// What the columns of the pysmurf tables are made of.
    pub(crate) words: FileWords,
    /// What was not said, and taken to be what is said of it here.
    pub(crate) supplied: Vec<&'static str>,
}

/// What a message says of a file, where pysmurf's tables have columns for it.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct FileWords {
    pub(crate) publisher: Option<PyValue>,
    pub(crate) action: Option<PyValue>,
    pub(crate) action_timestamp: Option<PyValue>,
    /// Unix time in seconds.
    pub(crate) timestamp: Option<f64>,
    pub(crate) format: Option<PyValue>,
    pub(crate) plot: Option<PyValue>,
    pub(crate) file_type: Option<PyValue>,
}

/// Why no row can be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoticeError {
    #[error("It registers a file and has no {0}")]
    Lacks(&'static str),
    #[error("Its {0} is no text")]
    NoText(&'static str),
    #[error("Its {0} holds bytes that are no letters ({1}), which the table cannot hold; rename the file")]
    Undecodable(&'static str, String),
    #[error("Its {0} is a list or an object, by which nothing can be named")]
    Nested(&'static str),
    #[error("Its archive is {0}, and there are only smurf and timestreams")]
    UnknownArchive(String),
    #[error("Its path holds a NUL, which no file's name can")]
    Nul,
}

impl FileNotice {
    /// What a message that registers a file, received at that time, comes to.
    pub(crate) fn of(message: &PublisherMessage, received: f64) -> Result<Self, NoticeError> {
        if message.topic == MessageTopic::WatchedFile {
            return Self::of_watched(message, received);
        }
        let archive = match message.payload("archive_name") {
            None => ArchiveName::Smurf,
            Some(value) => known_archive(value)?,
        };
        let path = text("path", message.payload("path").ok_or(NoticeError::Lacks("path"))?)?;
        if path.contains('\0') {
            return Err(NoticeError::Nul);
        }
        let numpy = message.payload("format").and_then(PyValue::as_text).and_then(PyText::as_str) == Some("npy");
        let path = if numpy && !path.ends_with(".npy") { format!("{path}.npy") } else { path.to_owned() };
        let mut supplied = Vec::new();
        let mut field = |name: &str, instead: &'static str| match message.payload(name) {
            Some(value) => value.clone(),
            None => {
                supplied.push(instead);
                PyValue::None
            }
        };
        let of_smurf = archive == ArchiveName::Smurf;
        let remote = match of_smurf {
            true => {
                let publisher = message.get("id").ok_or(NoticeError::Lacks("id"))?;
                let publisher = text("id", publisher)?;
                let started = field("action_ts", "action_ts: None");
                let action = field("action", "action: None");
                let kind = if field("plot", "plot: false").is_truthy() { "plots" } else { "outputs" };
                let time = match message.payload("timestamp") {
                    Some(time) => time.clone(),
                    None => {
                        supplied.push("timestamp: the message's time");
                        message.get("time").cloned().unwrap_or(PyValue::Float(received))
                    }
                };
                let time = written("timestamp", &time)?.chars().take(5).collect::<String>();
                let place = format!("{}_{}", written("action_ts", &started)?, written("action", &action)?);
                let name = path.rsplit('/').next().unwrap_or_default();
                join(&[&time, publisher, &place, kind, name])
            }
            false => last_three(&path),
        };
        let deletable = !of_smurf || may_be_deleted(&path, &mut supplied);
        let number = |name| message.payload(name).and_then(PyValue::as_number);
        let sent = || message.get("time").and_then(PyValue::as_number).unwrap_or(received);
        let words = FileWords {
            publisher: message.get("id").cloned(),
            action: message.payload("action").cloned(),
            action_timestamp: message.payload("action_ts").cloned(),
            timestamp: Some(number("timestamp").unwrap_or_else(sent)),
            format: message.payload("format").cloned(),
            plot: message.payload("plot").cloned(),
            file_type: message.payload("type").cloned(),
        };
        let named = archive.name().to_owned();
        Ok(Self { topic: message.topic, archive, named, path, remote, deletable, words, supplied })
    }

    /// All of it is said.
    fn of_watched(message: &PublisherMessage, received: f64) -> Result<Self, NoticeError> {
        let said = |name: &'static str| text(name, message.payload(name).ok_or(NoticeError::Lacks(name))?);
        let of = |name| message.payload(name).cloned();
        let words = FileWords {
            publisher: message.get("id").cloned(),
            action: of("action"),
            action_timestamp: of("action_ts"),
            timestamp: Some(of("timestamp").and_then(|time| time.as_number()).unwrap_or(received)),
            format: of("format"),
            plot: of("plot"),
            file_type: of("action"),
        };
        Ok(Self {
            topic: message.topic,
            archive: ArchiveName::Watched,
            named: said("archive_name")?.to_owned(),
            path: said("path")?.to_owned(),
            remote: said("remote")?.to_owned(),
            deletable: message.payload("deletable").is_some_and(PyValue::is_truthy),
            words,
            supplied: Vec::new(),
        })
    }

    /// Whether it goes where its message means it to: no name leads elsewhere.
    pub(crate) fn is_plain(&self) -> bool {
        let parts: Vec<_> = self.remote.split('/').collect();
        // Of these an id or an action with a slash makes more.
        let fits = self.archive != ArchiveName::Smurf || parts.len() == 5;
        fits && parts.iter().all(|part| !["", ".", ".."].contains(part))
    }

    /// The file.
    pub(crate) fn file(&self) -> &Path {
        Path::new(&self.path)
    }
}

/// A text without surrogates.
fn text<'a>(field: &'static str, value: &'a PyValue) -> Result<&'a str, NoticeError> {
    let text = value.as_text().ok_or(NoticeError::NoText(field))?;
    text.as_str().ok_or_else(|| NoticeError::Undecodable(field, text.shown()))
}

/// What `str()` makes of it.
fn written(field: &'static str, value: &PyValue) -> Result<String, NoticeError> {
    let text = value.str().ok_or(NoticeError::Nested(field))?;
    text.as_str().map(str::to_owned).ok_or_else(|| NoticeError::Undecodable(field, text.shown()))
}

fn known_archive(value: &PyValue) -> Result<ArchiveName, NoticeError> {
    let name = value.as_text().and_then(PyText::as_str);
    let known = ArchiveName::OF_MESSAGES.into_iter().find(|archive| name == Some(archive.name()));
    let shown = || value.str().map_or_else(|| "none that has a name".to_owned(), |text| format!("{:?}", text.shown()));
    known.ok_or_else(|| NoticeError::UnknownArchive(shown()))
}

/// As `os.path.join` joins: what begins with a slash begins anew.
fn join(parts: &[&str]) -> String {
    let mut joined = String::new();
    for part in parts {
        if part.starts_with('/') {
            joined.clear();
        } else if !joined.is_empty() && !joined.ends_with('/') {
            joined.push('/');
        }
        joined.push_str(part);
    }
    joined
}

/// The last three components of `os.path.normpath`.
fn last_three(path: &str) -> String {
    let normal = normal(path);
    let parts: Vec<_> = normal.split('/').collect();
    join(&parts[parts.len().saturating_sub(3)..])
}

/// As `os.path.normpath` has it.
fn normal(path: &str) -> String {
    // Two slashes at the beginning stay two, and any other number is one.
    let slashes = match path.len() - path.trim_start_matches('/').len() {
        0 => "",
        2 => "//",
        _ => "/",
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            ".." if !slashes.is_empty() && parts.is_empty() => {}
            part => parts.push(part),
        }
    }
    match format!("{slashes}{}", parts.join("/")) {
        empty if empty.is_empty() => ".".into(),
        normal => normal,
    }
}

/// Files in folders named by a time, but for those that are needed for longer.
fn may_be_deleted(path: &str, supplied: &mut Vec<&'static str>) -> bool {
    let kept = ["iv", "channel_assignment", "tune"].iter().any(|key| path.contains(key));
    match path.split('/').nth(3) {
        Some(third) => !kept && !third.is_empty() && third.chars().all(|char| char.is_ascii_digit()),
        None => {
            supplied.push("deletable: false, since the path is so short");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(json: &str) -> Result<FileNotice, NoticeError> {
        FileNotice::of(&PublisherMessage::read(json.as_bytes()).unwrap(), 1_700_000_000.25)
    }

    /// Fields of a payload, as JSON has them.
    type Fields<'a> = &'a [(&'a str, &'a str)];

    /// A message with these fields of its payload in the place of the usual ones.
    fn with(path: &str, changed: Fields<'_>) -> String {
        let mut fields = vec![
            ("path", format!("{path:?}")),
            ("type", "\"tune\"".into()),
            ("format", "\"txt\"".into()),
            ("timestamp", "1589517264.5".into()),
            ("action", "\"save_tune\"".into()),
            ("action_ts", "1589517264".into()),
            ("plot", "false".into()),
        ];
        for (name, value) in changed {
            fields.retain(|(field, _)| field != name);
            if !value.is_empty() {
                fields.push((name, (*value).to_owned()));
            }
        }
        let payload: Vec<_> = fields.iter().map(|(name, value)| format!("{name:?}: {value}")).collect();
        format!(
            "{{\"host\":\"h\",\"id\":\"crate1slot2\",\"script\":\"undeclared\",\"time\":1589517265.75,\"seq_no\":17,\"type\":\"data_file\",\"payload\":{{{}}}}}",
            payload.join(", ")
        )
    }

    /// The vectors of `pysmurf-monitor.md`, part 3: what the genuine monitor was seen to write.
    #[test]
    fn rows_are_named_as_the_python_monitor_names_them() {
        let usual = "15895/crate1slot2/1589517264_save_tune";
        let known: &[(&str, Fields<'_>, &str, &str)] = &[
            ("a1_plain", &[("format", "\"npy\"")], "a1_plain.npy", "{}/outputs/a1_plain.npy"),
            ("a2_x.npy", &[("format", "\"npy\"")], "a2_x.npy", "{}/outputs/a2_x.npy"),
            ("b9.NPY", &[("format", "\"npy\"")], "b9.NPY.npy", "{}/outputs/b9.NPY.npy"),
            ("a9.npyt", &[("format", "\"npyt\"")], "a9.npyt", "{}/outputs/a9.npyt"),
            ("a3.txt", &[("plot", "true")], "a3.txt", "{}/plots/a3.txt"),
            ("a3.txt", &[("plot", "\"no\"")], "a3.txt", "{}/plots/a3.txt"),
            ("a4.txt", &[("action_ts", "\"1589517264\"")], "a4.txt", "{}/outputs/a4.txt"),
            (
                "a5_null.txt",
                &[("action", "null"), ("action_ts", "null")],
                "a5_null.txt",
                "15895/crate1slot2/None_None/outputs/a5_null.txt",
            ),
            (
                "d2.txt",
                &[("action", "5"), ("action_ts", "1589517264.9")],
                "d2.txt",
                "15895/crate1slot2/1589517264.9_5/outputs/d2.txt",
            ),
            ("t", &[("timestamp", "null")], "t", "None/crate1slot2/1589517264_save_tune/outputs/t"),
            ("t", &[("timestamp", "\"2020-05-15\"")], "t", "2020-/crate1slot2/1589517264_save_tune/outputs/t"),
            ("t", &[("timestamp", "989517264.5")], "t", "98951/crate1slot2/1589517264_save_tune/outputs/t"),
            ("t", &[("timestamp", "1589517264")], "t", "{}/outputs/t"),
            ("t", &[("timestamp", "NaN")], "t", "nan/crate1slot2/1589517264_save_tune/outputs/t"),
            ("b5.txt", &[("action", "\"../x\"")], "b5.txt", "15895/crate1slot2/1589517264_../x/outputs/b5.txt"),
            ("f", &[("format", "")], "f", "{}/outputs/f"),
            ("a \u{e9}\u{f1}", &[], "a \u{e9}\u{f1}", "{}/outputs/a \u{e9}\u{f1}"),
        ];
        for (name, changed, local, remote) in known {
            let row = notice(&with(&format!("/data/b/x/{name}"), changed)).unwrap();
            assert_eq!(row.path, format!("/data/b/x/{local}"), "{name} {changed:?}");
            assert_eq!(row.remote, remote.replace("{}", usual), "{name} {changed:?}");
            assert_eq!(row.is_plain(), *name != "b5.txt", "{name}");
            assert_eq!((row.archive, row.deletable, &row.supplied[..]), (ArchiveName::Smurf, false, &[][..]));
        }
    }

    #[test]
    fn timestreams_are_named_by_the_end_of_their_path() {
        let row = |path: &str| {
            let json = format!(
                "{{\"id\":\"STREAMER:crate1slot2\",\"type\":\"g3_file\",\"payload\":{{\"path\":{path:?},\"archive_name\":\"timestreams\"}}}}"
            );
            let row = notice(&json).unwrap();
            assert_eq!((row.archive, row.deletable, &*row.path), (ArchiveName::Timestreams, true, path));
            row.remote
        };
        assert_eq!(row("/data/../data/./ts//15895/x/y.g3"), "15895/x/y.g3");
        assert_eq!(row("/a/y.g3"), "a/y.g3");
        assert_eq!(row("y.g3"), "y.g3");
        assert_eq!(row("../../../y.g3"), "../../y.g3");
    }

    #[test]
    fn only_files_in_folders_of_digits_may_be_deleted() {
        let deletable = |path: &str| notice(&with(path, &[])).unwrap().deletable;
        assert!(deletable("/data/smurf_data/20200515/1589517262/outputs/x.txt"));
        assert!(!deletable("/data/smurf_data/tune/x.npy"));
        assert!(!deletable("/archive/smurf_data/20260101/x.txt"));
        assert!(!deletable("/data/smurf_data/20200515/x_channel_assignment.txt"));
        assert!(!deletable("/data/smurf_data/2020051a/x.txt"));
    }

    /// M5, M7: the Python monitor loses these.
    #[test]
    fn what_is_not_said_is_supplied_and_told() {
        let row = notice(&with("/data/b/x/f", &[("action", ""), ("action_ts", ""), ("plot", ""), ("timestamp", "")]));
        let row = row.unwrap();
        assert_eq!(row.remote, "15895/crate1slot2/None_None/outputs/f");
        assert_eq!(row.supplied.len(), 4);
        assert_eq!(row.words.timestamp, Some(1589517265.75));
        let row = notice(&with("/tmp/x.txt", &[])).unwrap();
        assert_eq!((&*row.remote, row.deletable), ("15895/crate1slot2/1589517264_save_tune/outputs/x.txt", false));
        let row = notice("{\"id\":\"i\",\"type\":\"data_file\",\"payload\":{\"path\":\"/d/e/f/g\"}}").unwrap();
        assert_eq!(row.remote, "17000/i/None_None/outputs/g");
    }

    /// M8, M9, and what no sense can be made of.
    #[test]
    fn what_cannot_be_a_row_is_refused_with_its_reason() {
        let known = [
            ("{\"type\":\"data_file\",\"payload\":{\"path\":\"/a/b\"}}", "has no id"),
            ("{\"id\":5,\"type\":\"data_file\",\"payload\":{\"path\":\"/a/b\"}}", "id is no text"),
            ("{\"id\":\"i\",\"type\":\"data_file\",\"payload\":{}}", "has no path"),
            ("{\"id\":\"i\",\"type\":\"data_file\",\"payload\":\"p\"}", "has no path"),
            ("{\"id\":\"i\",\"type\":\"data_file\",\"payload\":{\"path\":null}}", "path is no text"),
            ("{\"id\":\"i\",\"type\":\"data_file\",\"payload\":{\"path\":\"/a\\u0000b\"}}", "NUL"),
            ("{\"id\":\"i\",\"type\":\"data_file\",\"payload\":{\"path\":\"/a/\\udc80\"}}", "no letters (/a/\\udc80)"),
            (
                "{\"id\":\"i\",\"type\":\"data_file\",\"payload\":{\"path\":\"/a\",\"action\":[1]}}",
                "a list or an object",
            ),
            (
                "{\"id\":\"i\",\"type\":\"g3_file\",\"payload\":{\"path\":\"/a\",\"archive_name\":\"other\"}}",
                "is \"other\"",
            ),
            ("{\"id\":\"i\",\"type\":\"g3_file\",\"payload\":{\"path\":\"/a\",\"archive_name\":null}}", "is \"None\""),
        ];
        for (json, why) in known {
            let said = notice(json).unwrap_err().to_string();
            assert!(said.contains(why), "{json}: {said}");
        }
    }
}
