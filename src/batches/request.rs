//! What is handed over: files and directories with the exact places that they are to get, all together or not at all.

use crate::archiver::layout::RemotePath;
use serde_json::Value;
use std::fmt;
use std::path::PathBuf;

/// The version of requests and states that is read and written.
pub(crate) const VERSION: u64 = 1;
/// Bytes of a request.
pub(crate) const REQUEST_MOST: u64 = 16 << 20;
/// Letters of a batch's name.
const NAME_MOST: usize = 128;
/// Files and directories of one request.
const FILES_MOST: usize = 10_000;
/// Bytes of a path.
const PATH_MOST: usize = 4000;
/// Letters of a link's name.
const LINK_MOST: usize = 255;

/// The name of a batch: a plain file name, whatever it stands in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BatchId(String);

impl BatchId {
    /// Letters, digits, dots, dashes and underscores; no dot or dash at the beginning.
    pub(crate) fn new(text: &str) -> Result<Self, String> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        match text.bytes().all(plain) && !text.starts_with(['.', '-']) && (1..=NAME_MOST).contains(&text.len()) {
            true => Ok(Self(text.to_owned())),
            false => Err(format!(
                "{text:?} names no batch; give 1 to {NAME_MOST} letters, digits, dots, dashes or underscores, and none of . and - first"
            )),
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A file or a directory, where it is and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HandedFile {
    pub(crate) local: PathBuf,
    /// From `/` on.
    pub(crate) remote: String,
    pub(crate) is_dir: bool,
}

/// A batch as it is handed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BatchRequest {
    pub(crate) id: BatchId,
    /// The far end, by the name that it has here.
    pub(crate) link: String,
    /// Who hands it over, for people.
    pub(crate) librarian: String,
    pub(crate) files: Vec<HandedFile>,
}

impl BatchRequest {
    /// Reads a request; the error says which field is wrong and how it should be.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, String> {
        let value: Value = serde_json::from_slice(text).map_err(|error| format!("the request is no JSON: {error}"))?;
        let Value::Object(fields) = &value else { return Err("the request is no JSON object".into()) };
        match fields.get("v") {
            Some(version) if version.as_u64() == Some(VERSION) => {}
            Some(version) => {
                return Err(format!(
                    "the request is of version {version}, and {VERSION} is known; update pysmurf-archiver"
                ));
            }
            None => return Err("the request has no field v, its version".into()),
        }
        let id = BatchId::new(text_of(&value, "batch")?)?;
        let link = text_of(&value, "link")?;
        if link.is_empty() || link.len() > LINK_MOST || link.contains(char::is_control) {
            return Err(format!("field link is {link:?}; name the storage node as `run` has it in --storage-host"));
        }
        let Some(Value::Array(entries)) = fields.get("files") else {
            return Err("the request has no field files, a list".into());
        };
        if !(1..=FILES_MOST).contains(&entries.len()) {
            return Err(format!("field files has {} entries; give 1 to {FILES_MOST}", entries.len()));
        }
        let files = entries.iter().enumerate();
        let files = files.map(|(at, entry)| handed(entry).map_err(|why| format!("files[{at}]: {why}")));
        let files = files.collect::<Result<Vec<_>, _>>()?;
        refuse_overlaps(&files)?;
        let librarian = match fields.get("librarian") {
            None | Some(Value::Null) => String::new(),
            Some(_) => shortened(text_of(&value, "librarian")?),
        };
        Ok(Self { id, link: link.to_owned(), librarian, files })
    }

    /// The request in one line.
    pub(crate) fn to_json(&self) -> String {
        let file = |file: &HandedFile| serde_json::json!({"local": file.local.to_string_lossy(), "remote": file.remote, "dir": file.is_dir});
        let files: Vec<_> = self.files.iter().map(file).collect();
        let all = serde_json::json!({
            "v": VERSION, "batch": self.id.as_str(), "link": self.link, "librarian": self.librarian, "files": files,
        });
        all.to_string()
    }
}

fn text_of<'a>(value: &'a Value, field: &str) -> Result<&'a str, String> {
    match value.get(field) {
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(format!("field {field} is no text: {}", shortened(&other.to_string()))),
        None => Err(format!("field {field} is missing")),
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(100).collect()
}

fn handed(entry: &Value) -> Result<HandedFile, String> {
    let path = |field: &str| {
        let path = text_of(entry, field)?;
        let wrong = match path {
            "" => "is empty",
            path if !path.starts_with('/') => "does not begin with /",
            path if path.len() > PATH_MOST => "is longer than paths may be",
            path if path.contains('\0') => "holds a NUL",
            _ => return Ok(path),
        };
        Err(format!("{field} {wrong}: {:?}", shortened(path)))
    };
    let (local, remote) = (path("local")?, path("remote")?);
    RemotePath::new(remote[1..].to_owned()).map_err(|why| why.replace("its path in the archive", "remote"))?;
    let is_dir = match entry.get("dir") {
        Some(Value::Bool(is_dir)) => *is_dir,
        Some(other) => return Err(format!("dir is neither true nor false: {}", shortened(&other.to_string()))),
        None => return Err("dir is missing; give true for a directory and false for a file".into()),
    };
    Ok(HandedFile { local: local.into(), remote: remote.to_owned(), is_dir })
}

/// No place may be given twice, or lie within another.
fn refuse_overlaps(files: &[HandedFile]) -> Result<(), String> {
    // With a slash behind, what lies within a place follows it at once.
    let mut places: Vec<_> = files.iter().map(|file| format!("{}/", file.remote)).collect();
    places.sort_unstable();
    for pair in places.windows(2) {
        if pair[1].starts_with(&pair[0]) {
            let [one, other] = [&pair[0], &pair[1]].map(|place| place.trim_end_matches('/'));
            return Err(match one == other {
                true => format!("remote {one:?} is given twice"),
                false => format!("remote {other:?} lies within remote {one:?}"),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn request() -> Value {
        json!({"v": 1, "batch": "b1", "link": "ocs@storage-b", "librarian": "A",
            "files": [{"local": "/a/x y", "remote": "/staging/u/x y", "dir": false}, {"local": "/a/book", "remote": "/staging/v/é", "dir": true}]})
    }

    fn error_of(change: impl FnOnce(&mut Value)) -> String {
        let mut value = request();
        change(&mut value);
        BatchRequest::parse(value.to_string().as_bytes()).unwrap_err()
    }

    #[test]
    fn a_request_is_read_and_written() {
        let read = BatchRequest::parse(request().to_string().as_bytes()).unwrap();
        assert_eq!((read.id.as_str(), read.link.as_str(), read.files.len()), ("b1", "ocs@storage-b", 2));
        assert_eq!(read.files[1].remote, "/staging/v/é");
        assert!(read.files[1].is_dir && !read.files[0].is_dir);
        assert_eq!(serde_json::from_str::<Value>(&read.to_json()).unwrap(), request());
    }

    #[test]
    fn what_is_wrong_with_a_request_is_said() {
        for (text, why) in [("", "no JSON"), ("[1]", "no JSON object"), ("{}", "no field v"), ("{\"v\":1}", "batch")] {
            assert!(BatchRequest::parse(text.as_bytes()).unwrap_err().contains(why), "{text}");
        }
        assert!(error_of(|value| value["v"] = json!(2)).contains("version 2"));
        assert!(error_of(|value| value["v"] = json!("1")).contains("version"));
        for wrong in ["", "..", ".x", "-x", "a/b", "a b", &"x".repeat(129)] {
            assert!(error_of(|value| value["batch"] = json!(wrong)).contains("names no batch"), "{wrong}");
        }
        assert!(error_of(|value| value["link"] = json!("")).contains("link"));
        assert!(error_of(|value| value["files"] = json!([])).contains("0 entries"));
        assert!(error_of(|value| value["files"] = json!({})).contains("a list"));
        let entry = request()["files"][0].clone();
        assert!(error_of(|value| value["files"] = json!(vec![entry; FILES_MOST + 1])).contains("10001 entries"));
        for (field, wrong, why) in [
            ("remote", json!("staging/x"), "does not begin with /"),
            ("remote", json!("/staging/../x"), "component . or .."),
            ("remote", json!("/staging//x"), "empty component"),
            ("remote", json!("/staging/x/"), "empty component"),
            ("remote", json!("/"), "empty"),
            ("remote", json!(format!("/{}", "x".repeat(256))), "255"),
            ("remote", json!("/x".repeat(3000)), "longer"),
            ("remote", json!(7), "no text"),
            ("local", json!("x"), "does not begin with /"),
            ("local", json!("/a\0b"), "NUL"),
            ("dir", json!("true"), "neither true nor false"),
        ] {
            let said = error_of(|value| value["files"][1][field] = wrong.clone());
            assert!(said.starts_with("files[1]: ") && said.contains(why), "{field} {wrong}: {said}");
        }
        let without = |value: &mut Value| drop(value["files"][0].as_object_mut().unwrap().remove("dir"));
        assert!(error_of(without).contains("files[0]: dir is missing"));
        assert!(error_of(|value| value["files"][1]["remote"] = json!("/staging/u/x y")).contains("given twice"));
        assert!(error_of(|value| value["files"][1]["remote"] = json!("/staging/u")).contains("lies within"));
    }
}
