//! Looks whether copies are what was registered, where they are: the far end reads them, or gives them to be read back.

use super::arguments::{base, hello};
use super::bootstrap::{Bootstrap, runs, upload};
use super::compression::Coding;
use super::far_end::{ServerProbe, probe};
use super::verdict::{LAST_WORDS, explain, push_words};
use super::{Demands, server_args};
use crate::catalog::Md5;
use crate::transfer::fetch::sums::{self, FarSum, far_sums};
use crate::transfer::{FetchObserver, Fetched, WantedFile, greet};
use crate::transport::ssh::sftp::{Sftp, SftpError};
use crate::transport::{Connect, ConnectError};
use protocol::args::ServerArgs;
use protocol::checksum::{Checksum, FileHasher, Sum};
use protocol::mux::Message;
use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Sessions that one look may lose before it is given up.
const LOSSES: u32 = 3;

/// A copy to be looked at.
#[derive(Debug, Clone)]
pub(crate) struct AuditedCopy {
    /// Relative to the archive's base.
    pub(crate) place: String,
    /// What it must have.
    pub(crate) md5: Md5,
}

/// What a copy was found to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CopyState {
    /// What was registered, so many bytes.
    Right(u64),
    /// A file with other bytes, or something else.
    Other(String),
    Missing,
    /// It is there, or may be, and cannot be read.
    Unreadable(String),
}

/// Looks at copies by one connection.
pub(crate) struct Auditor {
    connect: Box<dyn Connect>,
    data_dir: String,
    bootstrap: Option<Bootstrap>,
    way: Option<AuditWay>,
}

enum AuditWay {
    /// A program there reads them.
    Program,
    Sftp(Box<Sftp>),
}

impl Auditor {
    pub(crate) fn new(connect: Box<dyn Connect>, data_dir: &str, bootstrap: Option<Bootstrap>) -> Self {
        Self { connect, data_dir: data_dir.to_owned(), bootstrap, way: None }
    }

    /// The far end's name.
    pub(crate) fn describe(&self) -> String {
        self.connect.describe()
    }

    /// Looks at copies, and hands over what each is found to be, by its number. The error says why none can be looked at.
    pub(crate) fn look(
        &mut self,
        copies: &[AuditedCopy],
        each: &mut dyn FnMut(usize, CopyState),
    ) -> Result<(), String> {
        let mut left: Vec<usize> = (0..copies.len()).collect();
        let mut losses = 0;
        while !left.is_empty() {
            let before = left.len();
            let looked = match self.find_way() {
                Ok(AuditWay::Program) => self.by_program(copies, &mut left, each),
                Ok(AuditWay::Sftp(_)) => self.by_sftp(copies, &mut left, each),
                Err(why) => Err(why),
            };
            if let Err(why) = looked {
                self.way = None;
                self.connect.disconnect();
                losses += 1;
                if losses >= LOSSES {
                    return Err(why);
                }
            } else if left.len() == before {
                return Err(format!("{} takes no name of these", self.connect.describe()));
            }
        }
        Ok(())
    }

    fn find_way(&mut self) -> Result<&AuditWay, String> {
        let way = match self.way.take() {
            Some(way) => way,
            None => self.new_way().map_err(|error| error.to_string())?,
        };
        Ok(self.way.insert(way))
    }

    fn new_way(&mut self) -> Result<AuditWay, ConnectError> {
        let connect = self.connect.as_mut();
        connect.serve_with(None);
        let why = match probe(connect, &server_args(&self.data_dir, Demands::default()))? {
            ServerProbe::Nothing(why) => why,
            ServerProbe::Serves(..) | ServerProbe::Unclear(_) => return Ok(AuditWay::Program),
        };
        let mut sftp = connect.sftp()?;
        if let Some(bootstrap) = &self.bootstrap
            && let Ok(path) = upload(&mut sftp, bootstrap)
        {
            connect.serve_with(Some(vec![path.clone().into()]));
            if runs(connect, &path).is_ok() {
                return Ok(AuditWay::Program);
            }
            connect.serve_with(None);
        }
        tracing::info!("{why}; copies are read back by SFTP");
        Ok(AuditWay::Sftp(Box::new(sftp)))
    }

    /// One session, for as many names as it takes.
    fn by_program(
        &mut self,
        copies: &[AuditedCopy],
        left: &mut Vec<usize>,
        each: &mut dyn FnMut(usize, CopyState),
    ) -> Result<(), String> {
        let names: Vec<_> = left
            .iter()
            .map(|&at| WantedFile {
                name: copies[at].place.clone().into_bytes(),
                place: Vec::new(),
                md5: None,
                replaces: false,
            })
            .collect();
        let link = self.connect.open(&summing_args(&self.data_dir)).map_err(|error| error.to_string())?;
        let remote = link.remote.clone();
        let mut words = AuditWords::default();
        let found = greet(link, hello(Coding::Plain)).and_then(|session| far_sums(session, &names, &mut words));
        let found = found.map_err(|error| explain(error, &remote));
        remote.wait(LAST_WORDS);
        let words = format!("{}{}", words.text, remote.stderr());
        let found = match found {
            Ok(found) => found,
            Err(error) => return Err(format!("{error}{}", said(&words))),
        };
        self.base_is_there(&found, &words)?;
        for (at, sum) in found.iter().map(|(at, sum)| (left[*at], sum)) {
            each(at, judge(&copies[at], sum, &words));
        }
        let mut number = 0;
        left.retain(|_| {
            number += 1;
            !found.contains_key(&(number - 1))
        });
        Ok(())
    }

    /// Where nothing at all was found, that may be the base directory's trouble.
    fn base_is_there(&mut self, found: &HashMap<usize, FarSum>, words: &str) -> Result<(), String> {
        let listed = found.values().any(|sum| *sum != FarSum::NotListed);
        let entered = !words.lines().any(|line| line.contains("change_dir") || line.contains("chdir"));
        match listed || entered {
            true => Ok(()),
            false => Err(format!("Directory {} cannot be entered there{}", self.data_dir, said(words))),
        }
    }

    fn by_sftp(
        &mut self,
        copies: &[AuditedCopy],
        left: &mut Vec<usize>,
        each: &mut dyn FnMut(usize, CopyState),
    ) -> Result<(), String> {
        let Some(AuditWay::Sftp(sftp)) = &mut self.way else { return Ok(()) };
        let base = PathBuf::from(&self.data_dir);
        match sftp.is_dir(&base) {
            Ok(true) => {}
            Ok(false) => return Err(format!("Directory {} is not there", self.data_dir)),
            Err(error) => return Err(format!("Directory {} cannot be looked at: {error}", self.data_dir)),
        }
        while let Some(&at) = left.last() {
            let state = read_back(sftp, &base.join(&copies[at].place), &copies[at].md5);
            each(at, state.map_err(|error| error.to_string())?);
            left.pop();
        }
        Ok(())
    }
}

fn read_back(sftp: &mut Sftp, path: &Path, md5: &Md5) -> Result<CopyState, SftpError> {
    match sftp.stat(path) {
        Ok(None) => return Ok(CopyState::Missing),
        Ok(Some(stat)) if !stat.is_file => return Ok(CopyState::Other("it is no regular file".into())),
        Ok(Some(_)) => {}
        Err(error) if error.is_of_the_line() => return Err(error),
        Err(error) => return Ok(CopyState::Unreadable(error.to_string())),
    }
    let mut hasher = FileHasher::new(Checksum::Md5);
    match sftp.read(path, &mut |bytes| hasher.update(bytes)) {
        Ok(len) if hasher.finish().as_bytes() == md5 => Ok(CopyState::Right(len)),
        Ok(_) => Ok(CopyState::Other("its MD5 is another one".into())),
        Err(error) if error.is_of_the_line() => Err(error),
        Err(error) => Ok(CopyState::Unreadable(error.to_string())),
    }
}

/// The arguments of a server that sums the files it is told.
fn summing_args(data_dir: &str) -> Vec<OsString> {
    let paths = vec![format!("{}/", base(data_dir)).into_bytes()];
    let args = ServerArgs { sender: true, options: sums::options(), paths, ..ServerArgs::default() };
    args.to_words().into_iter().map(OsString::from_vec).collect()
}

fn judge(copy: &AuditedCopy, found: &FarSum, words: &str) -> CopyState {
    let path = crate::disk::shown(copy.place.as_bytes());
    let about = words.lines().find(|line| line.contains(&path));
    match found {
        FarSum::File(Some(sum), len) if Some(*sum) == Sum::new(&copy.md5) => CopyState::Right(*len),
        FarSum::File(Some(_), _) => CopyState::Other("its MD5 is another one".into()),
        FarSum::File(None, _) => CopyState::Unreadable(about.unwrap_or("the far end cannot read it").to_owned()),
        FarSum::NotAFile => CopyState::Other("it is no regular file".into()),
        FarSum::NotListed => match about {
            Some(line) if !line.contains("No such file") && !line.contains("Not a directory") => {
                CopyState::Unreadable(line.to_owned())
            }
            _ => CopyState::Missing,
        },
    }
}

fn said(words: &str) -> String {
    match words.trim() {
        "" => String::new(),
        words => format!(": {}", words.lines().take(3).collect::<Vec<_>>().join(" / ")),
    }
}

#[derive(Default)]
struct AuditWords {
    text: String,
}

impl FetchObserver for AuditWords {
    fn fetched(&mut self, _at: usize, _fetched: Fetched) {}

    fn message(&mut self, message: &Message) {
        push_words(&mut self.text, message);
    }
}
