//! What a SupRsync does beside copying: deleting what is proven, announcing what is complete, permissions and rates.

use crate::support::archiver::{Place, Run, hex};
use crate::support::sshd::Sshd;
use crate::support::tools::require;
use rusqlite::{Connection, params};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// A database of SupRsync in a place, and the archive `smurf` of it.
pub(crate) struct Sync<'a> {
    pub(crate) place: &'a Place,
    pub(crate) database: Connection,
    pub(crate) address: String,
}

impl<'a> Sync<'a> {
    pub(crate) fn new(place: &'a Place) -> Self {
        let file = place.path("suprsync.db");
        let address = format!("sqlite:{}", file.display());
        let mut init = place.program();
        init.args(["init-db", "--db", &address]);
        Run::to_end(init).expect(0);
        Self { place, database: Connection::open(file).unwrap(), address }
    }

    /// Registers a file, and gives its row.
    pub(crate) fn add(
        &self,
        (local, md5): &(std::path::PathBuf, [u8; 16]),
        archive: &str,
        remote: &str,
        deletable: bool,
    ) -> i64 {
        let sql = "INSERT INTO supersync_v0 (local_path, local_md5sum, archive_name, remote_path, timestamp, \
                   failed_copy_attempts, deletable, \"ignore\") VALUES (?, ?, ?, ?, ?, 0, ?, 0)";
        let values = params![local.to_str().unwrap(), hex(md5).to_lowercase(), archive, remote, now() - 5.0, deletable];
        self.database.execute(sql, values).unwrap();
        self.database.last_insert_rowid()
    }

    pub(crate) fn run(&self, sshd: Option<&Sshd>, more: &[&str], status: i32) -> crate::support::archiver::Over {
        let mut command = sshd.map_or_else(|| self.place.run(), |sshd| self.place.run_to(sshd));
        command.args(["--once", "--db", &self.address, "--archive-name", "smurf"]).args(more);
        Run::to_end(command).expect(status)
    }

    pub(crate) fn removed(&self, id: i64) -> Option<f64> {
        let query = "SELECT removed FROM supersync_v0 WHERE id = ?";
        self.database.query_row(query, [id], |row| row.get(0)).unwrap()
    }
}

pub(crate) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn only_what_is_proven_and_unchanged_is_deleted() {
    let place = Place::make();
    let sync = Sync::new(&place);
    let [plain, kept, changed, gone, shared, touched] =
        ["plain", "kept", "changed", "gone", "shared", "touched"].map(|name| place.source(name, 5000, 1));
    let plain_row = sync.add(&plain, "smurf", "17950/plain", true);
    let kept_row = sync.add(&kept, "smurf", "17950/kept", false);
    let changed_row = sync.add(&changed, "smurf", "17950/changed", true);
    let gone_row = sync.add(&gone, "smurf", "17950/gone", true);
    let shared_row = sync.add(&shared, "smurf", "17950/shared", true);
    sync.add(&shared, "timestreams", "17950/shared", true);
    let touched_row = sync.add(&touched, "smurf", "17950/touched", true);
    let wrong_row = sync.add(&(place.source("wrong", 10, 2).0, [7; 16]), "smurf", "17950/wrong", true);
    sync.run(None, &["--delete-local-after", "3600"], 1);
    assert!(plain.0.exists(), "too early");
    fs::write(&changed.0, "something else").unwrap();
    fs::remove_file(&gone.0).unwrap();
    // Its time alone proves nothing: its bytes do.
    fs::File::options().write(true).open(&touched.0).unwrap().set_modified(UNIX_EPOCH).unwrap();
    // The wrong one fails again, in a run that deletes.
    let over = sync.run(None, &["--delete-local-after", "0"], 1);
    for (path, row, deleted) in [(&plain.0, plain_row, true), (&touched.0, touched_row, true)]
        .into_iter()
        .chain([(&kept.0, kept_row, false), (&changed.0, changed_row, false), (&shared.0, shared_row, false)])
        .chain([(&place.sources().join("wrong"), wrong_row, false)])
    {
        assert_eq!((!path.exists(), sync.removed(row).is_some()), (deleted, deleted), "{path:?}: {}", over.log);
    }
    assert_eq!(sync.removed(gone_row), Some(0.0));
    assert!(sync.removed(plain_row).unwrap() > now() - 1000.0);
    assert!(over.log.contains("it has changed since its copy was proven"), "{}", over.log);
    assert_eq!(place.tree().files().count(), 6);
}

/// As SupRsync's own test has it: six timecodes of ten files, of which the last goes on.
#[test]
fn complete_timecodes_are_announced_once() {
    let (Some(sshd), true) = (Sshd::start(""), require("rsync")) else { return };
    let place = Place::make();
    let sync = Sync::new(&place);
    let today = (now() / 1e5) as i64;
    for timecode in today..today + 6 {
        for n in 0..10 {
            let name = format!("{timecode:05}/{}/{n}.g3", if n % 2 == 0 { "crate1slot2" } else { "no" });
            sync.add(&place.source(&name, 100 + n, n), "smurf", &name, true);
        }
    }
    // Another archive's file holds up nothing.
    sync.add(&(place.sources().join("absent"), [0; 16]), "timestreams", &format!("{today}/absent"), true);
    let root = place.path("root");
    let options = ["--suprsync-file-root", root.to_str().unwrap()];
    let over = sync.run(Some(&sshd), &options, 0);
    let names: Vec<_> = place.tree().names().into_iter().filter(|name| name.ends_with("_finalized.yaml")).collect();
    assert_eq!(names.len(), 5, "{}", over.log);
    for (n, name) in names.iter().enumerate() {
        let timecode = today + n as i64;
        // It was made in this run, which may have gone over into the next timecode.
        let made = name.strip_suffix(&format!("/{}", Path::new(name).file_name().unwrap().to_str().unwrap())).unwrap();
        let made = made.strip_suffix("/suprsync/smurf").unwrap();
        assert!([today, today + 1].contains(&made.parse().unwrap()), "{name}");
        assert!(name.ends_with(&format!("_smurf_{timecode}_finalized.yaml")), "{name}");
        let text = fs::read_to_string(place.archive().join(name)).unwrap();
        let local = root.join(made).join("smurf").join(Path::new(name).file_name().unwrap());
        assert_eq!(fs::read_to_string(local).unwrap(), text);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "archive_name: smurf");
        assert!(lines[1].strip_prefix("finalized_at: ").unwrap().parse::<f64>().unwrap() > now() - 1000.0);
        assert!(lines[2].strip_prefix("finalized_until: ").unwrap().parse::<f64>().unwrap() > now() - 1000.0);
        let rest = ["instance_id: smurf", "num_files: 10", "subdirs:", "- crate1slot2", "- \"no\""];
        assert_eq!(lines[3..8], rest);
        assert_eq!(lines[8], format!("timecode: {timecode}"));
    }
    let tree = place.tree();
    sync.run(Some(&sshd), &options, 0);
    assert_eq!(place.tree(), tree);
}

#[test]
fn what_announces_goes_through_no_symlink_below_its_folder() {
    let place = Place::make();
    let sync = Sync::new(&place);
    let today = (now() / 1e5) as i64;
    for timecode in [today - 3, today] {
        let name = format!("{timecode:05}/a");
        sync.add(&place.source(&name, 100, 1), "smurf", &name, true);
    }
    let (root, elsewhere) = (place.path("root"), place.path("elsewhere"));
    fs::create_dir(&elsewhere).unwrap();
    fs::create_dir(&root).unwrap();
    for day in [today, today + 1] {
        std::os::unix::fs::symlink(&elsewhere, root.join(day.to_string())).unwrap();
    }
    let options = ["--suprsync-file-root", root.to_str().unwrap()];
    let over = sync.run(None, &options, 0);
    assert!(over.log.contains("Cannot write") && over.log.contains("--suprsync-file-root"), "{}", over.log);
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    // In a folder of its own it is announced.
    for day in [today, today + 1] {
        fs::remove_file(root.join(day.to_string())).unwrap();
    }
    sync.run(None, &options, 0);
    assert!(place.tree().names().iter().any(|name| name.ends_with("_finalized.yaml")), "{:?}", place.tree().names());
    let made = fs::read_dir(&root).unwrap().next().unwrap().unwrap().path().join("smurf");
    let made = fs::read_dir(made).unwrap().map(|entry| entry.unwrap()).collect::<Vec<_>>();
    assert_eq!(made.len(), 1, "{made:?}");
    assert_eq!(mode(&made[0].path()) & 0o600, 0o600);
}

#[test]
fn permissions_are_changed_as_told() {
    let (Some(sshd), true) = (Sshd::start(""), require("rsync")) else { return };
    let place = Place::make();
    let sync = Sync::new(&place);
    for far_end in [None, Some(&sshd)] {
        let name = format!("17950/{}/file", if far_end.is_some() { "far" } else { "near" });
        let source = place.source(&name, 100, 1);
        fs::set_permissions(&source.0, fs::Permissions::from_mode(0o604)).unwrap();
        sync.add(&source, "smurf", &name, true);
        sync.run(far_end, &["--chmod", "ug+w,g+r,Dg+s,D+X"], 0);
        let copy = place.archive().join(&name);
        assert_eq!((mode(&copy), mode(copy.parent().unwrap())), (0o664, 0o2775), "{name}");
    }
}

#[test]
fn a_rate_is_kept() {
    let (Some(sshd), true) = (Sshd::start(""), require("rsync")) else { return };
    let place = Place::make();
    let sync = Sync::new(&place);
    sync.add(&place.source("push", 1_500_000, 1), "smurf", "17950/push", true);
    let over = sync.run(Some(&sshd), &["--bwlimit", "1000"], 0);
    assert!((1.2..20.0).contains(&over.seconds), "{}", over.seconds);
    sync.add(&place.source("pull", 1_500_000, 2), "smurf", "17950/pull", true);
    let mut pull = place.from(&sshd).command();
    pull.args(["--once", "--db", &sync.address, "--archive-name", "smurf", "--bwlimit", "1m"]);
    let over = Run::to_end(pull).expect(0);
    assert!((1.2..20.0).contains(&over.seconds), "{}", over.seconds);
    assert_eq!(place.tree().files().count(), 2);
}

#[test]
fn duties_of_suprsync_need_its_table() {
    let place = Place::make();
    for option in [["--delete-local-after", "5"], ["--suprsync-file-root", "/x"]] {
        let mut command = place.run();
        command.args(["--once", "--db", "mysql://u@127.0.0.1:1/files", "--target", "m"]).args(option);
        assert!(Run::to_end(command).expect(2).log.contains(option[0]));
    }
}
