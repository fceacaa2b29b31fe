//! The archiver itself on a queue of files: many middling ones as they trickle in.

use super::BenchError;
use super::far_end::{SshReach, ourselves};
use super::report::Row;
use super::runner::{Contender, Runner};
use super::scene::write_noise;
use crate::catalog::{self, Database};
use protocol::checksum::{Checksum, FileHasher};
use rusqlite::{Connection, params};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Length of a file that trickles in, bytes.
const TRICKLE: u64 = 200 * 1024;
/// Files of which SupRsync makes one batch here; it takes what came since it looked last.
const BATCH: usize = 50;
/// A folder of files, each with its row in a database of SupRsync.
pub(super) struct Queue {
    pub(super) folder: PathBuf,
    files: Vec<(String, String)>,
    database: PathBuf,
}

impl Queue {
    /// Makes the files, in a new folder.
    pub(super) fn make(runner: &Runner<'_>, many: usize, len: u64) -> Result<Self, BenchError> {
        let folder = runner.fresh("src")?;
        let mut files = Vec::with_capacity(many);
        for number in 0..many {
            let name = format!("{number:05}.g3");
            let path = folder.join(&name);
            write_noise(&path, len, number as u64)?;
            let mut hasher = FileHasher::new(Checksum::Md5);
            hasher.update(&fs::read(&path).map_err(BenchError::local("read", &path))?);
            let md5 = hasher.finish().as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
            files.push((name, md5));
        }
        Ok(Self { folder, files, database: runner.local("queue.db") })
    }

    /// The file, where it is the only one.
    pub(super) fn lone(&self) -> Option<PathBuf> {
        let [(name, _)] = &self.files[..] else { return None };
        Some(self.folder.join(name))
    }

    /// A new database with all of them waiting.
    pub(super) fn fill(&self) -> Result<(), BenchError> {
        for end in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(format!("{}{end}", self.database.display()));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(BenchError::local("start a runtime for", &self.database))?;
        let database = Database::Sqlite(self.database.clone());
        runtime.block_on(catalog::init_db(&database)).map_err(|error| BenchError::Setup(error.to_string()))?;
        self.insert().map_err(|error| BenchError::Setup(format!("Cannot fill {}: {error}", self.database.display())))
    }

    fn insert(&self) -> rusqlite::Result<()> {
        let mut database = Connection::open(&self.database)?;
        let filling = database.transaction()?;
        for (name, md5) in &self.files {
            filling.execute(
                "INSERT INTO supersync_v0 (local_path, local_md5sum, archive_name, remote_path, timestamp, \
                 failed_copy_attempts, deletable, \"ignore\") VALUES (?, ?, 'bench', ?, 1795350012.25, 0, 1, 0)",
                params![self.folder.join(name).to_string_lossy(), md5, name],
            )?;
        }
        filling.commit()
    }

    /// Whether every row says that its copy is proven.
    pub(super) fn prove(&self) -> Result<(), BenchError> {
        let count = |database: Connection| -> rusqlite::Result<i64> {
            let text = "SELECT count(*) FROM supersync_v0 WHERE lower(remote_md5sum) = lower(local_md5sum)";
            database.query_row(text, [], |row| row.get(0))
        };
        let proven = Connection::open(&self.database).and_then(count);
        let proven =
            proven.map_err(|error| BenchError::Setup(format!("Cannot read {}: {error}", self.database.display())))?;
        if proven == self.files.len() as i64 {
            return Ok(());
        }
        Err(BenchError::Setup(format!(
            "The archiver proved {proven} of {} files; this is a bug, please report it",
            self.files.len()
        )))
    }

    /// The archiver, until nothing is left in the queue.
    pub(super) fn archiver(
        &self,
        reach: &SshReach,
        server: Option<&str>,
        to: &str,
        sessions: &str,
    ) -> Result<Command, BenchError> {
        let mut command = reach.command(&ourselves()?);
        command.args(["run", "--once", "--quiet", "--json", "--site", "none", "--archive-name", "bench"]);
        command.arg("--db").arg(format!("sqlite:{}", self.database.display()));
        command.args(["--storage-host", reach.host(), "--data-dir", to, "--workers", sessions]);
        if let Some(server) = server {
            command.args(["--rsync-path", server]);
        }
        Ok(command)
    }
}

/// Files of 200 KiB: the archiver, against one rsync for each and against batches with md5sum behind them.
pub(super) fn trickle(runner: &mut Runner<'_>) -> Result<(), BenchError> {
    let ids = ["trickle-agent", "trickle-suprsync"];
    if !ids.iter().any(|id| runner.plan.wants(id)) {
        return Ok(());
    }
    runner.say("trickle: making files");
    let quick = runner.plan.quick;
    let (many, single, batched) = if quick { (40, 3, 10) } else { (2000, 10, 2 * BATCH) };
    let queue = Queue::make(runner, many, TRICKLE)?;
    let reach = runner.far.reach.clone();
    let (to, target) = (runner.far.path("dst"), runner.far.target(&reach, "dst"));
    let (fill, prove) = (|| queue.fill(), || queue.prove());
    let mut others = Vec::new();
    if let Some(rsync) = &runner.rsync {
        let by_agent = agent_script(runner, &queue.files[..single], &target, rsync)?;
        let by_suprsync = suprsync_script(runner, &queue.files[..batched], (&target, &to), rsync)?;
        for (id, script, count) in [(ids[0], by_agent, single), (ids[1], by_suprsync, batched)] {
            if runner.plan.wants(id) {
                let mut command = reach.command(Path::new("sh"));
                command.arg(script);
                others.push((id, Contender::new(id, command), count));
            }
        }
    }
    let receivers = runner.receivers("trickle");
    let counts: Vec<(&'static str, usize)> = others.iter().map(|(id, _, count)| (*id, *count)).collect();
    let mut contenders: Vec<Contender<'_>> = others.into_iter().map(|(_, contender, _)| contender).collect();
    for (_, server) in &receivers {
        let mut ours = Contender::new("the archiver", queue.archiver(&reach, server.as_deref(), &to, "1")?);
        ours.prepare = Some(&fill);
        ours.prove = Some(&prove);
        contenders.push(ours);
    }
    let trials = runner.take_turns("trickle", runner.plan.rounds, "rm -rf dst && mkdir dst", &contenders, None)?;
    let each = |count: usize| 1000.0 / count as f64;
    for ((receiver, _), ours) in receivers.iter().zip(&trials[counts.len()..]) {
        let ours = (&ours[..], each(many));
        for (number, &(id, count)) in counts.iter().enumerate() {
            let theirs = (&trials[number][..], each(count));
            runner.findings.rows.push(Row::of_times(id, Some(*receiver), ours, theirs, "ms per file"));
        }
        for id in ids.iter().filter(|id| counts.is_empty() && runner.plan.wants(id)) {
            runner.findings.rows.push(Row::of_times(id, Some(*receiver), ours, (&[], 1.0), "ms per file"));
        }
    }
    runner.findings.notes.push(format!(
        "trickle: {many} files of ours in one run, start and login included, proven and recorded in SQLite; {single} runs of \
         rsync in place of the agent; {batched} files in batches of {} in place of SupRsync. The second table has each \
         run as a whole.",
        BATCH.min(batched)
    ));
    runner.far.sh("rm -rf dst")?;
    runner.fresh("src").map(drop)
}

/// One rsync for each file, one after the other.
fn agent_script(
    runner: &Runner<'_>,
    files: &[(String, String)],
    target: &str,
    rsync: &Path,
) -> Result<PathBuf, BenchError> {
    let shell = shell(&runner.far.reach);
    let mut text = "set -e\n".to_owned();
    for (name, _) in files {
        let path = runner.local("src").join(name);
        text.push_str(&format!("{} -e '{shell}' {} {target}/{name}\n", rsync.display(), path.display()));
    }
    script(runner, "agent.sh", &text)
}

/// As SupRsync does: a tree of links for each batch, and md5sum over there behind it.
fn suprsync_script(
    runner: &Runner<'_>,
    files: &[(String, String)],
    (target, to): (&str, &str),
    rsync: &Path,
) -> Result<PathBuf, BenchError> {
    let shell = shell(&runner.far.reach);
    let mut text = "set -e\n".to_owned();
    for (number, batch) in files.chunks(BATCH).enumerate() {
        let folder = runner.fresh(&format!("batch{number}"))?;
        let mut sums = format!("{shell} {} md5sum", runner.far.reach.host());
        for (name, _) in batch {
            let (link, path) = (folder.join(name), runner.local("src").join(name));
            symlink(&path, &link).map_err(BenchError::local("link", &link))?;
            sums.push_str(&format!(" {to}/{name}"));
        }
        text.push_str(&format!("{} -Lrt -e '{shell}' {}/ {target}\n", rsync.display(), folder.display()));
        text.push_str(&format!("{sums} >/dev/null\n"));
    }
    script(runner, "suprsync.sh", &text)
}

fn shell(reach: &SshReach) -> String {
    format!("ssh {}", reach.words().join(" "))
}

fn script(runner: &Runner<'_>, name: &str, text: &str) -> Result<PathBuf, BenchError> {
    let path = runner.local(name);
    fs::write(&path, text).map_err(BenchError::local("write", &path))?;
    Ok(path)
}
