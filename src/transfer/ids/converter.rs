//! A program of the operator that knows the names of owners and groups (`name converter` of rsyncd.conf): where the root
//! of a daemon's process is changed, the system's own list lies outside. It is asked in lines: `uid`, `gid`, `usr` or `grp`
//! and what is to be converted; it answers with a line, an empty one for what it does not know.

use crate::transfer::TransferError;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::io::{self, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest answer, bytes.
const ANSWER_MOST: usize = 1024;

/// The one of this process, if there is any. Each connection of a daemon has a process of its own.
static CONVERTER: OnceLock<Mutex<Converter>> = OnceLock::new();

struct Converter {
    input: ChildStdin,
    output: ChildStdout,
    /// Why it cannot be asked any more.
    failed: Option<io::Error>,
}

/// Has this process ask a program, whose standard input and output are pipes of ours.
pub(crate) fn convert_by(child: &mut Child) -> io::Result<()> {
    let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(io::Error::other("no pipes to the name converter"));
    };
    let _ = CONVERTER.set(Mutex::new(Converter { input, output, failed: None }));
    Ok(())
}

fn converter() -> Option<MutexGuard<'static, Converter>> {
    Some(CONVERTER.get()?.lock().unwrap_or_else(PoisonError::into_inner))
}

/// What the program makes of something; `None` where there is no program, and then the system is to be asked. An empty
/// answer is none.
pub(super) fn ask(what: &str, of: &[u8]) -> Option<Vec<u8>> {
    let mut converter = converter()?;
    // More than a line would be another question.
    if converter.failed.is_some() || of.iter().any(u8::is_ascii_control) {
        return Some(Vec::new());
    }
    let answer = converter.answer(&[what.as_bytes(), b" ", of, b"\n"].concat());
    Some(answer.unwrap_or_else(|error| {
        converter.failed = Some(error);
        Vec::new()
    }))
}

/// Whether all that was asked has been answered: without the names files would go to the wrong owners.
pub(in crate::transfer) fn answered() -> Result<(), TransferError> {
    match converter().and_then(|mut converter| converter.failed.take()) {
        Some(source) => Err(TransferError::Local { what: "Connection to name-converter failed".into(), source }),
        None => Ok(()),
    }
}

impl Converter {
    fn answer(&mut self, question: &[u8]) -> io::Result<Vec<u8>> {
        self.input.write_all(question)?;
        let deadline = Instant::now() + PATIENCE;
        let mut answer = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            match poll(&mut [PollFd::new(&self.output, PollFlags::IN)], Some(&left)) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            let mut buffer = [0; ANSWER_MOST];
            match self.output.read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => answer.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            if answer.last() == Some(&b'\n') {
                answer.truncate(answer.iter().position(|&byte| byte == b'\n').unwrap_or_default());
                return Ok(answer);
            }
            if answer.len() >= ANSWER_MOST {
                return Err(io::Error::other("its answer is too long"));
            }
        }
    }
}
