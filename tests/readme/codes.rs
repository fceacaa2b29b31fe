//! The exit codes that the pages give.

use super::ROOT;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// What a script sees of the program in a folder.
fn code(folder: &Path, line: &str) -> i32 {
    let line = line.replace("DB", "--db sqlite:files.db --archive-name mine").replace("TO", "--data-dir archive");
    let mut program = Command::new(env!("CARGO_BIN_EXE_pysmurf-archiver"));
    program.args(line.split_whitespace()).current_dir(folder).stdin(Stdio::null()).env("ARCHIVER_CONFIG", "none");
    let output = program.output().unwrap();
    // Shown should the test fail.
    eprintln!("{line}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    output.status.code().unwrap()
}

/// Of each verb of the table of docs/files.md the codes it has.
fn of_the_page() -> BTreeMap<String, BTreeSet<i32>> {
    let page = fs::read_to_string(Path::new(ROOT).join("docs/files.md")).unwrap();
    let rows =
        page.lines().skip_while(|line| !line.starts_with("| verb |")).skip(2).take_while(|line| line.starts_with('|'));
    let mut codes = BTreeMap::new();
    for row in rows {
        let [_, verbs, _, said, _] = row.split('|').collect::<Vec<_>>()[..] else { panic!("{row}") };
        let said: BTreeSet<i32> =
            said.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect();
        for verb in verbs.split('`').skip(1).step_by(2) {
            codes.insert(verb.split(' ').next().unwrap().to_owned(), said.clone());
        }
    }
    codes
}

#[test]
fn each_code_of_the_page_on_files_is_met() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir_all(at("data")).unwrap();
    fs::create_dir(at("archive")).unwrap();
    for name in ["right", "damaged", "late", "gone"] {
        fs::write(at("data").join(name), name).unwrap();
    }
    let run = |line: &str| code(folder.path(), line);
    assert_eq!(run("init-db --db sqlite:files.db"), 0);
    let mut met = BTreeMap::<String, BTreeSet<i32>>::new();
    let mut files = |line: &str, expected: i32| {
        assert_eq!(run(&format!("files {line} DB")), expected, "files {line}");
        met.entry(line.split(' ').next().unwrap().to_owned()).or_default().insert(expected);
    };
    // Rows 1 and 2 are copied, 3 waits, 4 has failed. Of one command the order is that in which files were summed.
    files("add data/right --remote-prefix 17000", 0);
    files("add data/damaged --remote-prefix 17000", 0);
    assert_eq!(run("run --once DB TO"), 0);
    files("add data/late --remote-prefix 17000", 0);
    files("add data/gone --remote-prefix 17000", 0);
    fs::remove_file(at("data/gone")).unwrap();
    fs::write(at("data/right"), "otherwise").unwrap();
    files("add data/right --remote-prefix 17000", 1);
    files("list", 0);
    files("show right", 0);
    files("show late", 1);
    files("show nobody", 2);
    files("prunable", 0);
    files("timecodes", 0);
    files("timecodes --rebuild 99999", 2);
    files("recopy --id 1", 0);
    files("recopy --id 3", 1);
    fs::write(at("data/right"), "right").unwrap();
    assert_eq!(run("run --once DB TO"), 1, "one file is missing");
    assert_eq!(run("run --once DB --data-dir nowhere"), 1, "the archive is not there, and a file waits");
    files("accept --id 4 --yes", 1);
    files("accept --all --yes", 1);
    files("retry --all", 0);
    files("ignore --id 1", 1);
    files("ignore --id 4", 0);
    files("unignore --id 1", 1);
    files("unignore --id 4", 0);
    files("verify --all TO", 0);
    fs::write(at("archive/17000/damaged"), "damageD").unwrap();
    files("verify --all TO", 1);
    fs::write(at("data/gone"), "again").unwrap();
    assert_eq!(run("run --once DB TO"), 1, "one file is not what was registered");
    files("accept --all --yes", 0);
    // One of several storage nodes, for a while.
    assert_eq!(run("init-db --nodes --db sqlite:files.db"), 0);
    assert_eq!(run("run --once DB TO --node a --nodes a"), 0);
    files("owe --node a --all", 0);
    files("owe --node a --id 99", 1);
    let database = rusqlite::Connection::open(at("files.db")).unwrap();
    database.execute_batch("DELETE FROM fleet_node; DELETE FROM fleet_owed").unwrap();
    drop(database);
    for wrong in ["list --no-such-option", "list --db sqlite:nowhere.db --archive-name mine", "show"] {
        assert_eq!(run(&format!("files {wrong}")), 2, "files {wrong}");
    }
    assert_eq!(of_the_page(), met);
    assert_eq!(run("run --once DB TO --no-such-option"), 2);
    assert_eq!(run("run --once --db sqlite:nowhere.db --archive-name mine TO"), 2);
    assert_eq!(run("status --db sqlite:files.db --archive-name mine --control none"), 1, "nothing runs");
    assert_eq!(run("run --once DB TO"), 0);
}
