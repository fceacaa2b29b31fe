//! What the matrix runs: option sets, and the trees they need.

use super::Way;
use super::roads::Road;

/// One command.
pub struct Row {
    /// Its options, words without spaces; `WORK` stands for the folder of this run.
    pub options: &'static str,
    /// Worth a run with every release: its bytes on the wire differ from plain `-a`'s.
    pub wire: bool,
    /// Only pushes, or only pulls, mean something.
    pub only: Option<Way>,
    /// What is copied.
    pub source: &'static str,
    /// A daemon would answer otherwise, for instance since it never makes devices of a module's users.
    pub no_daemon: bool,
}

impl Row {
    pub fn goes(&self, road: Road, way: Way) -> bool {
        self.only.is_none_or(|only| only == way) && !(self.no_daemon && road == Road::Daemon)
    }
}

const fn row(options: &'static str) -> Row {
    Row { options, wire: false, only: None, source: "src/", no_daemon: false }
}

const fn wire(options: &'static str) -> Row {
    Row { wire: true, ..row(options) }
}

/// Each is added to `-i --stats`.
pub const ROWS: &[Row] = &[
    wire("-a"),
    wire("-a --no-inc-recursive"),
    wire("-a --protocol=30"),
    wire("-a --protocol=31"),
    wire("-aH"),
    wire("-aHAX"),
    wire("-aH --no-inc-recursive"),
    wire("-aHAX --no-inc-recursive"),
    wire("-aAX --numeric-ids"),
    wire("-az"),
    wire("-az --compress-choice=zlib"),
    wire("-az --compress-choice=zlibx"),
    wire("-az --compress-choice=lz4"),
    wire("-az --compress-choice=zstd --compress-level=1"),
    wire("-az --no-W --skip-compress=big"),
    wire("-ac"),
    wire("-a --checksum-choice=md5"),
    wire("-a --checksum-choice=xxh64"),
    wire("-a --checksum-choice=none"),
    wire("-aI --no-W -B700"),
    wire("-a --delete"),
    wire("-a --delete-before"),
    wire("-a --delete-delay"),
    wire("-a --delete-after"),
    wire("-a --delete-excluded --exclude=dir/"),
    // In a pull the names of the far folder would come along, which differ with every run.
    Row { only: Some(Way::Push), ..wire("-aR") },
    Row { source: "src/./dir/sub/", ..wire("-aR") },
    Row { source: "src/./dir/sub/", ..row("-aR --no-implied-dirs") },
    wire("-a --inplace --no-W"),
    wire("-a --append"),
    wire("-a --append-verify"),
    wire("-aU"),
    wire("-a --remove-source-files"),
    wire("-an --delete"),
    wire("-a -s"),
    wire("-a --partial-dir=.rsync-partial"),
    wire("-a --delay-updates"),
    row("-aS"),
    row("-aS --inplace"),
    row("-ab"),
    row("-ab --suffix=.old"),
    row("-ab --backup-dir=WORK/dst/kept --delete"),
    row("-a --temp-dir=WORK"),
    row("-a --preallocate"),
    row("-a --copy-dest=WORK/alt"),
    row("-a --compare-dest=WORK/alt"),
    row("-a --link-dest=WORK/alt"),
    row("-aE --no-p"),
    row("-a --no-p"),
    row("-a --fake-super"),
    row("-r"),
    row("-rlt"),
    row("-rlptD"),
    row("-d"),
    row("-aL"),
    row("-ak"),
    row("-aK"),
    row("-aW"),
    row("-au"),
    row("-aO"),
    row("-aJ"),
    row("-a --existing"),
    row("-a --ignore-existing"),
    row("-a --existing --delete"),
    row("-a --size-only"),
    row("-a --modify-window=6000"),
    row("-a --max-size=1000"),
    row("-a --min-size=100k"),
    row("-a --max-delete=1 --delete"),
    row("-am --include=*/ --include=one --exclude=*"),
    row("-a --exclude=/dir --exclude=*.txt --include=plain"),
    row("-a --filter=-_dir/ --filter=P_extra --delete"),
    row("-aC"),
    row("-aF"),
    row("-a --chmod=Dg+s,F640"),
    row("-a --chown=7:8"),
    row("-a --usermap=*:9 --groupmap=0:10"),
    row("-a --safe-links"),
    row("-a --copy-unsafe-links"),
    row("-a --fsync"),
    row("-a --no-D"),
    row("-a --no-specials"),
    row("-a --bwlimit=100m"),
    row("-a --timeout=30"),
    row("-a --ignore-errors --delete --force"),
    row("-a --stats -vv"),
    row("-aii"),
    row("-ax"),
    row("-a --trust-sender"),
    row("-a --mkpath"),
    row("-a --open-noatime"),
    Row { only: Some(Way::Push), ..row("-a --files-from=WORK/list") },
    // Stock's own daemon finds none of the listed files again once it has sent its list.
    Row { only: Some(Way::Pull), no_daemon: true, ..wire("-a --files-from=WORK/list") },
    Row { only: Some(Way::Push), ..row("-a --out-format=%i_%n_%l_%L") },
];

/// What differs between the versions before 30 and those behind it, at one of them.
pub fn before_30(version: u8) -> Vec<Row> {
    let with = |options: &str| -> &'static str { format!("--protocol={version} {options}").leak() };
    let mut rows: Vec<_> = [
        "-a",
        "-aH",
        "-ac",
        "-az",
        "-a --numeric-ids",
        "-aI --no-W -B700",
        "-a --checksum-choice=md5",
        "-a --delete",
        "-a --delete-after",
        "-a --delete --exclude=dir --filter=+r_x",
        "-aC --delete",
        "-a --inplace --no-W",
        "-a --append",
        "-a --remove-source-files",
        "-a --delay-updates --partial-dir=.part --delete",
        "-ab --backup-dir=WORK/dst/kept --delete",
        "-a --copy-dest=WORK/alt",
        "-rlt --no-p",
        "-d --delete",
    ]
    .map(|options| {
        let wire = ["-a", "-ac", "-az", "-a --delete", "-a --append", "-a --checksum-choice=md5"].contains(&options);
        Row { wire, ..row(with(options)) }
    })
    .into();
    rows.push(Row { source: "src/./dir/sub/", ..row(with("-aR")) });
    rows.push(Row { source: "src/dir", ..row(with("-a --delete")) });
    if version == 29 {
        rows.extend(["-am", "-aF --delete", "-aU", "-an --delete"].map(|options| row(with(options))));
    }
    rows
}
