//! Which road files take: pulled from the far end, or pushed to its own rsync, to this program uploaded, or by plain SFTP.
//! Found once per connection.

use super::arguments::{Demands, server_args};
use super::bootstrap::{runs, upload};
use super::far_end::{FarProgram, ServerProbe, probe};
use super::{ArchiverSettings, Direction};
use crate::status::Progress;
use crate::transport::ssh::sftp::Sftp;
use crate::transport::{Connect, ConnectError};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long the far end's answer about its version is believed.
const VERSION_LASTS: Duration = Duration::from_secs(60);
/// How long an answer is waited for that somebody else has asked for.
const ANSWER_MOST: Duration = Duration::from_secs(3);
/// How long a detour is taken before the straight road is looked for again.
const DETOUR_LASTS: Duration = Duration::from_secs(600);

/// A way to carry files.
pub(super) enum Road {
    /// A program receives them at the far end: which, if that can be told.
    Push(Option<FarProgram>),
    /// A program sends them from the far end.
    Pull,
    /// Nothing serves there; files are written one by one.
    Sftp(Box<Sftp>),
}

/// The program that serves at the far end, as one worker has found it for all: each question costs a process there and
/// round trips.
#[derive(Debug, Clone, Default)]
pub(super) struct FoundProgram(Arc<(Mutex<AskedVersion>, Condvar)>);

#[derive(Debug, Default)]
struct AskedVersion {
    answer: Option<(FarProgram, Instant)>,
    /// Somebody is asking.
    asking: bool,
}

/// One who asks; whoever comes meanwhile waits for the answer.
struct VersionAsker(FoundProgram);

impl Drop for VersionAsker {
    fn drop(&mut self) {
        self.0.lock().asking = false;
        self.0.0.1.notify_all();
    }
}

impl FoundProgram {
    fn lock(&self) -> MutexGuard<'_, AskedVersion> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was found lately, and when; else who asks is to ask.
    fn known(&self) -> Result<(FarProgram, Instant), VersionAsker> {
        let known = |asked: &AskedVersion| asked.answer.filter(|(_, found)| found.elapsed() < VERSION_LASTS);
        let waits = |asked: &mut AskedVersion| asked.asking && known(asked).is_none();
        let waited = self.0.1.wait_timeout_while(self.lock(), ANSWER_MOST, waits);
        let mut asked = waited.unwrap_or_else(PoisonError::into_inner).0;
        known(&asked).ok_or_else(|| {
            asked.asking = true;
            VersionAsker(self.clone())
        })
    }

    fn learn(&self, answer: Option<(FarProgram, Instant)>) {
        self.lock().answer = answer;
    }
}

/// The road of one connection, as far as it is known.
pub(super) struct Roads {
    found: FoundProgram,
    /// The road, and when it was found.
    known: Option<(Road, Instant)>,
    /// Where our own program stands at the far end, if it was uploaded.
    uploaded: Option<PathBuf>,
}

impl Roads {
    pub(super) fn new(found: FoundProgram) -> Self {
        Self { found, known: None, uploaded: None }
    }

    /// The road, looked for where none is known or the far end's program may have been replaced since.
    pub(super) fn find(
        &mut self,
        connect: &mut dyn Connect,
        settings: &ArchiverSettings,
        progress: &Progress,
    ) -> Result<&mut Road, ConnectError> {
        let lasts = |road: &Road| match road {
            Road::Pull => Duration::MAX,
            Road::Push(_) if self.uploaded.is_none() => VERSION_LASTS,
            Road::Push(_) | Road::Sftp(_) => DETOUR_LASTS,
        };
        let known = match self.known.take_if(|(road, found)| found.elapsed() < lasts(road)) {
            Some(known) => known,
            None => {
                self.known = None;
                self.uploaded = None;
                match settings.direction {
                    Direction::Pull => (Road::Pull, Instant::now()),
                    Direction::Push => self.ask(connect, settings, progress)?,
                }
            }
        };
        Ok(&mut self.known.insert(known).0)
    }

    /// The road by which files are pushed, and when it was found.
    fn ask(
        &mut self,
        connect: &mut dyn Connect,
        settings: &ArchiverSettings,
        progress: &Progress,
    ) -> Result<(Road, Instant), ConnectError> {
        let _asker = match self.found.known() {
            Ok((program, found)) => {
                connect.serve_with(None);
                return Ok((Road::Push(Some(program)), found));
            }
            Err(asker) => asker,
        };
        let road = find(connect, settings, &mut self.uploaded, progress)?;
        let own = (self.uploaded.is_none(), &road);
        self.found.learn(match own {
            (true, Road::Push(Some(program))) => Some((*program, Instant::now())),
            _ => None,
        });
        Ok((road, Instant::now()))
    }

    /// The connection is left, with nothing wrong at the far end.
    pub(super) fn leave(&mut self) {
        self.known = None;
    }

    /// The connection is not what it was, nor perhaps the far end.
    pub(super) fn forget(&mut self) {
        self.known = None;
        self.found.learn(None);
    }

    /// The connection by which files are written, where nothing else serves.
    pub(super) fn sftp(&self) -> Option<&Sftp> {
        match &self.known {
            Some((Road::Sftp(sftp), _)) => Some(sftp),
            _ => None,
        }
    }

    /// Whether files are pushed to a program that serves there.
    pub(super) fn pushes(&self) -> bool {
        matches!(&self.known, Some((Road::Push(Some(_)), _)))
    }

    /// Leaves the far end; our own program there goes where it is to.
    pub(super) fn part(&self, connect: &mut dyn Connect, settings: &ArchiverSettings) {
        let remove = settings.bootstrap.as_ref().is_some_and(|bootstrap| bootstrap.remove);
        if let (true, Some(path)) = (remove, &self.uploaded)
            && let Err(error) = connect
                .sftp()
                .map_err(|error| error.to_string())
                .and_then(|sftp| sftp.remove(path).map_err(|error| error.to_string()))
        {
            tracing::warn!("The uploaded program {} could not be removed: {error}", path.display());
        }
        connect.disconnect();
    }
}

/// Finds the road where files are pushed. What serves there from now on is set in `connect`; `uploaded` is where an upload
/// stands then.
fn find(
    connect: &mut dyn Connect,
    settings: &ArchiverSettings,
    uploaded: &mut Option<PathBuf>,
    progress: &Progress,
) -> Result<Road, ConnectError> {
    connect.serve_with(None);
    let (why, unclear) = match probe(connect, &server_args(&settings.data_dir, Demands::default()))? {
        ServerProbe::Serves(found, _) => {
            progress.set_road(None);
            return Ok(Road::Push(found));
        }
        ServerProbe::Nothing(why) => (why, false),
        ServerProbe::Unclear(why) => (why, true),
    };
    let host = connect.describe();
    let mut sftp = match connect.sftp() {
        Ok(sftp) => sftp,
        // Its sessions say best what is wrong there.
        Err(_) if unclear => {
            progress.set_road(None);
            return Ok(Road::Push(None));
        }
        Err(error @ (ConnectError::Timeout { .. } | ConnectError::Unreachable { .. })) => return Err(error),
        Err(error) => {
            let why = format!(
                "{why}; nor can files be written by SFTP: {error}. Install rsync there, or name it with --rsync-path"
            );
            return Err(ConnectError::Lost { host, why });
        }
    };
    let mut remedy = "install rsync there, or let this program be uploaded with --bootstrap".to_owned();
    if let Some(bootstrap) = &settings.bootstrap {
        match upload(&mut sftp, bootstrap).and_then(|path| {
            connect.serve_with(Some(vec![path.clone().into()]));
            runs(connect, &path).map(|()| path)
        }) {
            Ok(path) => {
                tracing::info!(event = "road", host, program = %path.display(), "{why}; our own was uploaded and serves there");
                progress.set_road(Some(format!("uploaded program {}: {why}", path.display())));
                *uploaded = Some(path);
                return Ok(Road::Push(Some(FarProgram::Ours)));
            }
            Err(trouble) => {
                connect.serve_with(None);
                remedy = trouble;
            }
        }
    }
    // Not again after each loss of the connection.
    if progress.set_road(Some(format!("SFTP, slower: {why}; {remedy}"))) {
        tracing::info!(
            event = "road",
            host,
            "{why}; files are written by SFTP, which is slower and read back to be proven; {remedy}"
        );
    }
    Ok(Road::Sftp(Box::new(sftp)))
}
