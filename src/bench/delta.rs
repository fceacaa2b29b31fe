//! The cores in memory: block sums, and the search over what matches everywhere and over what matches nowhere.

use super::measure::{self, clean};
use super::scene::{OldCopy, noise};
use super::{BenchError, BenchProgress, Findings, Row, find, median};
use fast_rsync::{Signature, SignatureOptions, diff};
use protocol::checksum::{BlockSeed, Checksum, weak};
use protocol::delta::{Search, Token};
use protocol::simd::Vectors;
use protocol::sums::{StrongSums, SumHead, SumTable};
use rustix::time::{ClockId, clock_gettime};
use std::convert::Infallible;
use std::fs;
use std::hint::black_box;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The search sees a source in pieces of this size, as the sender reads files, bytes.
const READ: usize = 256 * 1024;
/// The beginning of a file that matches nowhere, all that there is of a small one; later on the search leaps ever further.
const FIRST: usize = 8 << 20;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    /// Bytes in memory.
    pub size: usize,
    /// Rounds, of which the median counts.
    pub rounds: u32,
}

/// An old copy's sums as a peer would send them, with the session's seed.
pub struct Sums {
    /// The sums.
    pub table: SumTable,
    /// How the strong ones were made.
    pub seed: BlockSeed,
}

/// The seed of a session with xxh3-128, which two new rsyncs agree on.
pub const SEED: BlockSeed = BlockSeed { checksum: Checksum::Xxh128, seed: 0x2a_2a2a, seed_first: true };

/// The sums of an old copy's blocks, cut as stock cuts it.
pub fn sums(old: &[u8]) -> Sums {
    let head = SumHead::for_basis(old.len() as u64, SEED.checksum.size(), StrongSums::Short, None);
    let mut table = SumTable::new(head, SEED.checksum.size(), u32::MAX);
    for block in old.chunks(head.block_length.max(1) as usize) {
        table.push(weak(block), &SEED.sum(block).as_bytes()[..head.strong_length as usize]);
    }
    Sums { table, seed: SEED }
}

/// Makes weak and strong sums of all blocks, as the generator does, and keeps none.
pub fn make_sums(old: &[u8], block_length: usize) -> u64 {
    old.chunks(block_length).fold(0, |all, block| {
        let strong = SEED.sum(block);
        all.wrapping_add(u64::from(weak(block))).wrapping_add(u64::from(strong.as_bytes()[0]))
    })
}

/// Searches a source; gives how many of its bytes were new.
pub fn search(source: &[u8], sums: &Sums) -> u64 {
    let mut literal = 0;
    let mut search = Search::new(&sums.table, sums.seed);
    let mut emit = |token: Token<'_>| {
        if let Token::Literal(bytes) = token {
            literal += black_box(bytes).len() as u64;
        }
        Ok::<_, Infallible>(())
    };
    for piece in source.chunks(READ) {
        let Ok(()) = search.push(piece, &mut emit);
    }
    let Ok(()) = search.finish(&mut emit);
    literal
}

/// The cores of this machine, and of fast_rsync and stock's sender; `folder` is for the files of the latter.
///
/// # Errors
/// When stock rsync is here and cannot be measured.
pub fn run(extent: Extent, folder: &Path, progress: &BenchProgress) -> Result<Findings, BenchError> {
    let mut findings = Findings::default();
    let new = noise(extent.size, 1);
    let unrelated = OldCopy::Unrelated.old_copy(&new);
    let memory = median((0..extent.rounds.max(1)).map(|_| cpu(|| read_over(&new))));
    let memory = memory.map_or(0.0, |seconds| new.len() as f64 / 1e9 / seconds.max(1e-9));
    findings.rows.push(Row::of_rate("core-memory", memory, None, "GB per CPU second").by_itself());
    let kinds = [Vectors::Avx512, Vectors::Avx2, Vectors::Plain].into_iter().filter(|&kind| kind <= Vectors::here());
    let kinds: Vec<_> = kinds.collect();
    progress.expect(kinds.len() + 2);
    // First with those that are used, then with each kind.
    for kind in std::iter::once(None).chain(kinds.into_iter().map(Some)) {
        Vectors::limit(kind);
        let name = Vectors::for_search().name();
        progress.say(format!("The cores with {name}"));
        let rates = cores(&new, &unrelated, extent, kind.is_none());
        Vectors::limit(None);
        for (id, ours, theirs) in rates {
            let id = if kind.is_none() { id.to_owned() } else { format!("{id}-{name}") };
            let unit = format!("GB per CPU second, {name}, {:.0} % of memory's", 100.0 * ours / memory);
            let row = Row::of_rate(&id, ours, theirs, &unit);
            if let (Some(theirs), "core-miss") = (theirs, &*id) {
                findings.rows.push(Row::of_rate("core-miss-fast-rsync", ours, Some(theirs), unit));
            }
            findings.rows.push(row.by_itself());
        }
        progress.done();
    }
    drop((new, unrelated));
    match find("rsync") {
        Ok(rsync) => findings.rows.push(senders(&rsync, extent, folder, progress)?),
        Err(why) => findings.skip("core-miss-stock", why),
    }
    progress.done();
    findings.notes.push(format!(
        "Blocks of {} bytes with xxh3-128; theirs is fast_rsync, and for core-miss-stock stock's sender process beside ours. \
         core-memory reads the same bytes once, and the share is of that. core-miss-first is the first {} MiB of a file \
         that matches nowhere.",
        SumHead::for_basis(extent.size as u64, 16, StrongSums::Short, None).block_length,
        FIRST >> 20
    ));
    Ok(findings)
}

type CoreRate = (&'static str, f64, Option<f64>);

/// Our rates and, with `peer`, those of fast_rsync.
fn cores(new: &[u8], unrelated: &[u8], extent: Extent, peer: bool) -> Vec<CoreRate> {
    let (same, other) = (sums(new), sums(unrelated));
    let block_length = same.table.head().block_length as usize;
    let options = SignatureOptions { block_size: block_length as u32, crypto_hash_size: 16 };
    let signatures = peer.then(|| [new, unrelated].map(|old| Signature::calculate(old, options)));
    let first = &new[..new.len().min(FIRST)];
    let mut spent: [Vec<f64>; 7] = Default::default();
    for _ in 0..extent.rounds.max(1) {
        spent[0].push(cpu(|| make_sums(new, block_length)));
        spent[1].push(cpu(|| search(new, &same)));
        spent[2].push(cpu(|| search(new, &other)));
        spent[3].push(cpu(|| search(first, &other)));
        if let Some([same, other]) = &signatures {
            spent[4].push(cpu(|| Signature::calculate(new, options)));
            spent[5].push(cpu(|| diff(&same.index(), new, io::sink())));
            spent[6].push(cpu(|| diff(&other.index(), new, io::sink())));
        }
    }
    let rate = |which: usize, len: usize| {
        median(spent[which].iter().copied()).map(|seconds| len as f64 / 1e9 / seconds.max(1e-9))
    };
    let ours = |which, len| rate(which, len).unwrap_or_default();
    vec![
        ("core-sums", ours(0, new.len()), rate(4, new.len())),
        ("core-identical", ours(1, new.len()), rate(5, new.len())),
        ("core-miss", ours(2, new.len()), rate(6, new.len())),
        ("core-miss-first", ours(3, first.len()), None),
    ]
}

/// Reads each byte once and does next to nothing with it.
fn read_over(bytes: &[u8]) -> u64 {
    let (words, _) = bytes.as_chunks::<8>();
    words.iter().fold(0, |all, word| all ^ u64::from_le_bytes(*word))
}

/// CPU seconds of this process that the work takes.
fn cpu<T>(work: impl FnOnce() -> T) -> f64 {
    let now = || {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
    };
    let began = now();
    black_box(work());
    now() - began
}

/// Stock's sender and ours as processes, each sending the same unrelated file to stock's receiver through a pipe; what
/// they spend beside the search (reading, the file's sum, writing) counts for both.
fn senders(rsync: &Path, extent: Extent, folder: &Path, progress: &BenchProgress) -> Result<Row, BenchError> {
    let work = tempfile::Builder::new().prefix("archiver-bench").tempdir_in(folder);
    let work = work.map_err(BenchError::local("make a folder in", folder))?;
    let at = |name: &str| work.path().join(name);
    let write = |name: &str, bytes: &[u8]| fs::write(at(name), bytes).map_err(BenchError::local("write", &at(name)));
    let new = noise(extent.size, 1);
    write("new", &new)?;
    write("old", &OldCopy::Unrelated.old_copy(&new))?;
    drop(new);
    let ourselves = std::env::current_exe().map_err(BenchError::local("find", Path::new("this program's file")))?;
    let ourselves = ourselves.to_string_lossy();
    let ourselves = shlex::try_quote(&ourselves).map_err(|error| BenchError::Setup(error.to_string()))?;
    let script = |name: &str, text: &str| {
        write(name, format!("#!/bin/sh\n{text}\n").as_bytes())?;
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(at(name), mode).map_err(BenchError::local("make executable", &at(name)))
    };
    // In place of a remote shell: measures the one process that it starts.
    script("shell", &format!("shift\nexec {ourselves} bench measure --to \"$USED\" -- \"$@\""))?;
    script("ours", &format!("exec {ourselves} rsync \"$@\""))?;
    let mut spent = [Vec::new(), Vec::new()];
    for round in 0..extent.rounds.max(1) {
        for (side, program) in [rsync.to_owned(), at("ours")].into_iter().enumerate() {
            progress.say(format!("Senders where nothing matches, round {}", round + 1));
            fs::copy(at("old"), at("copy")).map_err(BenchError::local("write", &at("copy")))?;
            let mut command = clean(rsync);
            command.arg("-e").arg(at("shell")).arg("--rsync-path").arg(program).args(["-I", "--no-whole-file"]);
            command.arg(format!("here:{}", at("new").display())).arg(at("copy")).env("USED", at("used"));
            measure::run(&command, work.path())?;
            spent[side].push(measure::read(&at("used"))?.cpu);
        }
    }
    let rate = |spent: &Vec<f64>| median(spent.iter().copied()).map(|cpu| extent.size as f64 / 1e9 / cpu.max(1e-6));
    let [theirs, ours] = [rate(&spent[0]), rate(&spent[1])];
    Ok(Row::of_rate("core-miss-stock", ours.unwrap_or_default(), theirs, "GB per CPU second of the sender"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cores_do_what_they_are_timed_for() {
        let new = noise(1 << 20, 1);
        let same = sums(&new);
        assert_eq!(search(&new, &same), 0);
        let other = sums(&OldCopy::Unrelated.old_copy(&new));
        assert_eq!(search(&new, &other), 1 << 20);
        assert!(cpu(|| make_sums(&new, 4096)) > 0.0);
    }
}
