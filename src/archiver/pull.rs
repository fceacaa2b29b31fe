//! A batch pulled from where its files are, into a directory of this machine.
//!
//! What stands in the archive already is judged here, by its bytes, before anything is asked for; what comes is hashed as
//! it comes, and gets its name only with the registered MD5, never over another file. What a broken session has brought of a
//! larger one stays, and the next session goes on from there.

use super::BATCH_BYTES;
use super::arguments::{sender_args, sender_hello};
use super::flight::Job;
use super::shared_file::{Sharing, Staged};
use super::terms::SessionTerms;
use super::verdict::{CHANGED, Carried, LAST_WORDS, Verdict, explain, push_words};
use crate::disk::digest::sum_of;
use crate::link::Link;
use crate::status::Failure;
use crate::transfer::dest::{Dest, DestError};
use crate::transfer::{FetchObserver, Fetched, Sent, Summary, TransferError, WantedFile, fetch, greet};
use crate::transport::Connect;
use protocol::checksum::{Checksum, Sum};
use protocol::mux::Message;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Instant;

/// Pulls a batch into the archive's base directory.
pub(super) fn carry(
    jobs: &[Job],
    connect: &mut dyn Connect,
    sharing: &mut Sharing,
    terms: &SessionTerms,
) -> Result<Carried, String> {
    let began = Instant::now();
    let data_dir = &terms.settings.data_dir;
    let dest = Dest::open(data_dir.as_ref())
        .map_err(|error| format!("Directory {data_dir} on this machine cannot be entered: {error}"))?
        .keeping(&terms.aside(jobs));
    let (wishes, judged) = judge(jobs, &dest, terms);
    if wishes.is_empty() && !jobs.is_empty() {
        let Judged { verdicts, words, .. } = judged;
        return Ok(Carried { verdicts, words, ended: Ok(None), took: None });
    }
    let link = connect.open(&sender_args(terms.coding)).map_err(|error| terms.trouble(&error))?;
    let _guard = terms.guard(link.closer.clone());
    let link = terms.settings.rate.on_reading(link);
    let helpers = PullHelpers { sharing, connect };
    let Judged { verdicts, words, wishers } = judged;
    let staged = vec![Staged::Not; jobs.len()];
    let mut watch =
        PullWatch { jobs, wishers, verdicts, words, unsaid: Vec::new(), current: None, staged, helpers, terms };
    let ended = fetch_wishes(&wishes, &dest, link, &mut watch);
    let PullWatch { verdicts, words, staged, .. } = watch;
    let alone = staged.iter().all(|staged| *staged == Staged::Not);
    Ok(Carried { verdicts, words, ended: ended.map(Some), took: alone.then(|| began.elapsed()) })
}

/// What is known of a batch before anything is asked for.
struct Judged {
    verdicts: Vec<Verdict>,
    words: String,
    /// Whose each wish is.
    wishers: Vec<usize>,
}

/// Looks what of a batch is in place, and what is to be wished for.
fn judge(jobs: &[Job], dest: &Dest, terms: &SessionTerms) -> (Vec<WantedFile>, Judged) {
    let mut verdicts = vec![Verdict::Open; jobs.len()];
    let mut words = String::new();
    let mut wishes = Vec::new();
    let mut wishers = Vec::new();
    for (at, job) in jobs.iter().enumerate() {
        if terms.stopping() {
            break;
        }
        let place = job.place.variant(job.variant).into_bytes();
        let name = match remote_name(&job.source) {
            Ok(name) => name,
            Err(why) => {
                verdicts[at] = Verdict::Failed(Failure::Row, why);
                continue;
            }
        };
        let standing = in_place(dest, &place, &Sum::new(&job.md5));
        match standing {
            Ok(InPlace::Nothing) => {
                wishes.push(WantedFile { name, place, md5: Sum::new(&job.md5), replaces: false });
                wishers.push(at);
            }
            Ok(InPlace::Other) if job.replaces => {
                wishes.push(WantedFile { name, place, md5: Sum::new(&job.md5), replaces: true });
                wishers.push(at);
            }
            Ok(InPlace::Same(matched_bytes)) => {
                let sent = Sent { matched_bytes, ..Sent::default() };
                terms.found(&sent);
                verdicts[at] = Verdict::Proven(sent, None);
            }
            Ok(InPlace::Other) => verdicts[at] = Verdict::Taken,
            Err(error) => {
                words.push_str(&format!("{error}\n"));
                verdicts[at] = Verdict::Refused;
            }
        }
    }
    (wishes, Judged { verdicts, words, wishers })
}

/// Fetches what is wished for over a link on which a server with [`sender_args`] runs.
fn fetch_wishes(
    wishes: &[WantedFile],
    dest: &Dest,
    link: Link,
    watch: &mut PullWatch<'_>,
) -> Result<Summary, TransferError> {
    let remote = link.remote.clone();
    let ended = greet(link, sender_hello(watch.terms.coding))
        .and_then(|session| fetch(session, wishes, dest, BATCH_BYTES, watch));
    let ended = ended.map_err(|error| explain(error, &remote));
    if ended.is_err() {
        remote.wait(LAST_WORDS);
    }
    watch.words.push_str(&remote.stderr());
    watch.say_the_unsaid(ended.is_ok());
    ended
}

/// A source's name as the far end is given it: its full path, which must be plain.
fn remote_name(source: &Path) -> Result<Vec<u8>, String> {
    let bytes = source.as_os_str().as_bytes();
    let shown = || format!("{:?}", String::from_utf8_lossy(bytes));
    let Some(path) = bytes.strip_prefix(b"/") else {
        return Err(format!("column path is not an absolute path: {}", shown()));
    };
    let components: Vec<_> = path.split(|&byte| byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    if components.is_empty() || components.contains(&&b".."[..]) || path.contains(&0) {
        return Err(format!("column path holds .., a NUL, or no name: {}", shown()));
    }
    Ok(components.join(&b'/'))
}

/// What stands at a place of the archive.
enum InPlace {
    Nothing,
    /// The registered bytes, so many.
    Same(u64),
    Other,
}

fn in_place(dest: &Dest, place: &[u8], md5: &Option<Sum>) -> Result<InPlace, DestError> {
    if dest.stat(place)?.is_none() {
        return Ok(InPlace::Nothing);
    }
    let Some(mut file) = dest.basis(place)? else { return Ok(InPlace::Other) };
    let during = |source: io::Error| DestError { action: "read", name: place.to_vec(), source };
    let (sum, bytes) = sum_of(&mut file, Checksum::Md5).map_err(during)?;
    if Some(sum) != *md5 {
        return Ok(InPlace::Other);
    }
    // Whoever put it there may have been killed before it was on the disk.
    file.sync_all().map_err(during)?;
    dest.sync_way(place)?;
    Ok(InPlace::Same(bytes))
}

struct PullWatch<'a> {
    jobs: &'a [Job],
    /// Whose each wish is.
    wishers: Vec<usize>,
    verdicts: Vec<Verdict>,
    words: String,
    /// Jobs whose file the far end did not give: why, it says in words that may come later.
    unsaid: Vec<usize>,
    /// The job whose bytes are coming in.
    current: Option<usize>,
    /// What was done of each before.
    staged: Vec<Staged>,
    helpers: PullHelpers<'a>,
    terms: &'a SessionTerms,
}

/// Those who may read a large file ahead of the session.
struct PullHelpers<'a> {
    sharing: &'a mut Sharing,
    connect: &'a mut dyn Connect,
}

impl PullWatch<'_> {
    fn say_the_unsaid(&mut self, whole: bool) {
        for at in std::mem::take(&mut self.unsaid) {
            // A session that broke may have broken over its list.
            if whole {
                let (kind, why) = not_given(&self.words, &self.jobs[at].source);
                self.verdicts[at] = Verdict::Failed(kind, why);
            }
        }
    }
}

impl FetchObserver for PullWatch<'_> {
    fn stopping(&self) -> bool {
        self.terms.stopping()
    }

    fn has_helpers(&self, len: u64) -> bool {
        let PullHelpers { sharing, connect } = &self.helpers;
        sharing.may_read(len, &**connect, self.terms)
    }

    fn stage(&mut self, wish: usize, len: u64, here: File) {
        let Some(&at) = self.wishers.get(wish) else { return };
        let (job, PullHelpers { sharing, connect }) = (&self.jobs[at], &mut self.helpers);
        self.terms.begins(&job.source, len);
        self.staged[at] = sharing.read(job, (len, here), &mut **connect, self.terms);
    }

    fn resumes(&mut self, wish: usize, bytes: u64, len: u64) {
        self.current = self.wishers.get(wish).copied();
        let Some(at) = self.current else { return };
        let (job, staged) = (&self.jobs[at], self.staged[at] != Staged::Not);
        self.terms.begins(&job.source, len);
        if staged {
            self.terms.counted_before();
            let _ = job.headway.found(bytes);
        } else {
            self.terms.not_counted_before();
            job.resumes(bytes, len);
        }
    }

    fn progress(&mut self, bytes: u64) {
        if let Some(job) = self.current.and_then(|at| self.jobs.get(at)) {
            job.headway.pass(bytes);
        }
        self.terms.count(bytes);
    }

    fn mode(&self, mode: u32) -> u32 {
        self.terms.file_mode(mode)
    }

    fn fetched(&mut self, wish: usize, fetched: Fetched) {
        let Some(&at) = self.wishers.get(wish) else { return };
        self.verdicts[at] = match fetched {
            Fetched::Kept(sent) => {
                self.terms.confirmed(&sent);
                Verdict::Proven(sent, None)
            }
            Fetched::Taken => Verdict::Taken,
            Fetched::Changed(_) => Verdict::Failed(Failure::Changed, CHANGED.into()),
            Fetched::NotAFile => Verdict::Failed(Failure::Missing, "it is not a regular file".into()),
            Fetched::Misbuilt => Verdict::Open,
            Fetched::Garbled => Verdict::Failed(Failure::Unreadable, "it did not come whole from the far end".into()),
            Fetched::NotListed | Fetched::NotSent => {
                self.unsaid.push(at);
                return;
            }
            Fetched::NotStored(why) => {
                self.words.push_str(&format!("{}: {why}\n", self.jobs[at].place.variant(self.jobs[at].variant)));
                Verdict::Refused
            }
        };
    }

    fn message(&mut self, message: &Message) {
        push_words(&mut self.words, message);
    }
}

/// Why the far end did not give a file, by what it said.
fn not_given(words: &str, source: &Path) -> (Failure, String) {
    let path = crate::disk::shown(source.as_os_str().as_bytes());
    let about: Vec<_> = words.lines().filter(|line| line.contains(&path)).collect();
    let missing = about.iter().any(|line| line.contains("No such file") || line.contains("vanished"));
    match (missing, about.is_empty()) {
        (true, _) => (Failure::Missing, "it is missing".into()),
        (false, true) => (Failure::Missing, "the far end does not give it, and did not say why".into()),
        (false, false) => (Failure::Unreadable, format!("it cannot be read: {}", about.join(" / "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_absolute_paths_are_asked_for() {
        for (path, name) in [("/a/b", "a/b"), ("//a/./b c", "a/b c"), ("/-x", "-x"), ("/a/$(x)\n", "a/$(x)\n")] {
            assert_eq!(remote_name(Path::new(path)).as_deref(), Ok(name.as_bytes()), "{path}");
        }
        for path in ["a/b", "", "/", "/a/../b", "/..", "/a\0b"] {
            assert!(remote_name(Path::new(path)).is_err(), "{path:?}");
        }
    }

    #[test]
    fn the_far_ends_words_say_why() {
        let path = Path::new("/data/a b.npy");
        let said = "rsync: [sender] link_stat \"/data/a b.npy\" failed: No such file or directory (2)\n";
        assert_eq!(not_given(said, path).0, Failure::Missing);
        let said = "rsync: [sender] send_files failed to open \"/data/a b.npy\": Permission denied (13)\n";
        assert_eq!(not_given(said, path).0, Failure::Unreadable);
        assert_eq!(not_given("", path).0, Failure::Missing);
    }
}
