//! `files list` and `files show`.

use super::{Desk, Ended, lower_hex};

/// Three files: one that is copied, one that is missing, one that has changed.
fn with_troubles(desk: &Desk) -> [u8; 16] {
    let (_, md5) = desk.place.source("1_good.npy", 3000, 1);
    desk.place.source("2_gone.npy", 3000, 2);
    desk.place.source("3_other.npy", 3000, 3);
    desk.add_sources();
    std::fs::remove_file(desk.place.sources().join("2_gone.npy")).unwrap();
    desk.place.source("3_other.npy", 3000, 4);
    desk.run_here().expect(1);
    desk.place.source("4_new.npy", 3000, 5);
    desk.files(&["add", desk.place.sources().join("4_new.npy").to_str().unwrap()]).expect(0);
    md5
}

#[test]
fn rows_are_listed_by_state_with_their_reasons() {
    for desk in Desk::both("list") {
        let md5 = with_troubles(&desk);
        let states = |words: &[&str]| {
            let words = [&["list", "--json", "--max-copy-attempts", "1"], words].concat();
            let rows = desk.files(&words).expect(0).objects();
            rows.iter()
                .map(|row| (row["id"].as_i64().unwrap(), row["state"].as_str().unwrap().to_owned()))
                .collect::<Vec<_>>()
        };
        let row = |id: i64, state: &str| (id, state.to_owned());
        assert_eq!(states(&[]), [row(2, "given_up"), row(3, "given_up"), row(4, "waiting")]);
        assert_eq!(states(&["--pending"]), [row(4, "waiting")]);
        assert_eq!(states(&["--failed"]), [row(2, "given_up"), row(3, "given_up")]);
        assert_eq!(states(&["--copied"]), [row(1, "copied")]);
        assert_eq!(states(&["--ignored"]), []);
        assert_eq!(states(&["--copied", "--pending"]), [row(1, "copied"), row(4, "waiting")]);
        assert_eq!(states(&["--failed", "--path", "*/2_g?ne.npy"]), [row(2, "given_up")]);
        assert_eq!(states(&["--failed", "--limit", "1"]), [row(2, "given_up")]);
        assert_eq!(states(&["--failed", "--older-than", "1d"]), []);
        // As another limit has it, they will be tried again.
        let tried_on = desk.files(&["list", "--failed", "--json"]).expect(0).objects();
        assert_eq!(tried_on[0]["state"], "retrying");
        let reasons: Vec<_> = tried_on.iter().map(|row| row["reason"].as_str().unwrap()).collect();
        assert!(reasons[0].contains("missing") && reasons[1].contains("has changed"), "{reasons:?}");
        assert!(tried_on[0]["reason_at"].as_f64().unwrap() > 1e9);
        let copied = desk.files(&["list", "--copied", "--json"]).expect(0).object();
        assert_eq!(copied["md5"], lower_hex(md5));
        assert!(copied["copy"].as_str().unwrap().ends_with("1_good.npy"), "{copied}");

        let table = desk.files(&["list", "--failed", "--max-copy-attempts", "1"]).expect(0).out;
        let lines: Vec<_> = table.lines().collect();
        assert!(
            lines[0].contains("STATE") && lines[1].contains("given up") && lines[1].contains("2_gone.npy"),
            "{table}"
        );
        assert!(lines[2].contains("missing") && lines.last() == Some(&"2 rows"), "{table}");
        let csv = desk.files(&["list", "--failed", "--csv"]).expect(0).out;
        assert!(csv.starts_with("id,state,archive,source,") && csv.lines().count() == 3, "{csv}");
        assert!(desk.files(&["list", "--csv", "--json"]).expect(2).err.contains("cannot be used with"));
    }
}

#[test]
fn a_file_is_shown_by_any_of_its_names() {
    for desk in Desk::both("show") {
        with_troubles(&desk);
        let source = desk.place.sources().join("1_good.npy");
        let copy = desk.files(&["list", "--copied", "--json"]).object()["copy"].as_str().unwrap().to_owned();
        let full = desk.place.archive().join(&copy);
        // A copied row of MySQL no longer says where the file was.
        let names = [copy.as_str(), full.to_str().unwrap(), "1_good.npy"];
        for name in names.into_iter().chain(source.to_str().filter(|_| !desk.is_mysql())) {
            let shown = desk.files(&["show", name]).expect(0).out;
            assert!(shown.starts_with("Copied, and the copy is proven."), "{name}: {shown}");
            assert!(shown.contains("MD5 ") && shown.contains(&copy), "{shown}");
        }
        let given_up = desk.files(&["show", "--id", "2", "--max-copy-attempts", "1"]).expect(1).out;
        assert!(given_up.starts_with("Not copied, and given up: it failed once."), "{given_up}");
        assert!(given_up.contains("missing") && given_up.contains("files retry --id 2"), "{given_up}");
        let changed = desk.files(&["show", "3_other.npy"]).expect(1).out;
        assert!(changed.contains("will be tried again") && changed.contains("files accept --id 3"), "{changed}");
        let waiting = desk.files(&["show", "4_new.npy", "--json"]).expect(1).object();
        assert_eq!((&waiting["state"], &waiting["id"]), (&"waiting".into(), &4.into()));
        assert!(waiting["place"].as_str().unwrap().ends_with("4_new.npy"), "{waiting}");

        let absent = desk.files(&["show", "1_good.dat"]).expect(2).err;
        assert!(absent.contains("1_good.dat") && absent.contains("There is row 1: "), "{absent}");
        let absent = desk.files(&["show", "/no/such"]).expect(2).err;
        assert!(absent.contains("files add"), "{absent}");
        assert!(desk.files(&["show", "--id", "99"]).expect(2).err.contains("No row 99"));
    }
}

#[test]
fn a_long_listing_comes_page_by_page_and_whole() {
    for desk in Desk::both("long") {
        let (one, more) = (12_000, 25_000);
        desk.execute(
            &format!(
                "INSERT INTO pysmurf_files_v1 (path, timestamp, instance_id, copied, failed_copy_attempts, md5sum) \
                 SELECT CONCAT('/d/', seq), FROM_UNIXTIME(1589517384), 'monitor', seq <= {one}, seq > {more} - 3, UNHEX(MD5(seq)) \
                 FROM seq_1_to_{more}"
            ),
            &format!(
                "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {more}) \
                 INSERT INTO supersync_v0 (local_path, local_md5sum, archive_name, remote_path, timestamp, remote_md5sum, \
                 failed_copy_attempts, deletable, \"ignore\") SELECT '/d/' || n, printf('%032d', n), 'monitor', 'd/' || n, 1.5, \
                 iif(n <= {one}, printf('%032d', n), NULL), n > {more} - 3, 1, 0 FROM n"
            ),
        );
        let check = || {
            let waiting = desk.files(&["list", "--json"]).expect(0).objects();
            let ids: Vec<_> = waiting.iter().map(|row| row["id"].as_i64().unwrap()).collect();
            assert_eq!(ids, (one + 1..=more).collect::<Vec<_>>());
            assert_eq!(desk.files(&["list", "--copied", "--csv"]).expect(0).out.lines().count() as i64, one + 1);
            let failed = desk.files(&["list", "--failed", "--json"]).expect(0).objects();
            assert_eq!(
                failed.iter().map(|row| row["id"].as_i64().unwrap()).collect::<Vec<_>>(),
                [more - 2, more - 1, more]
            );
            let table = desk.files(&["list"]).expect(0).out;
            assert!(table.ends_with("The first 1000 rows; --limit N for more, 0 for all\n"), "{}", table.len());
            let found = desk.files(&["show", "/d/24000", "--json"]).expect(1).object();
            assert_eq!(found["id"], 24_000);
            assert_eq!(desk.files(&["show", "24001", "--json"]).expect(1).object()["id"], 24_001);
            let mut status = desk.place.program();
            status.args(["status", "--exact", "--json", "--max-copy-attempts", "1"]);
            let status = Ended::of(desk.named(status));
            let backlog = &status.object()["archives"][0]["backlog"];
            let counts = ["files", "given_up", "copied"].map(|name| backlog[name].as_i64().unwrap());
            assert_eq!(counts, [more - one - 3, 3, one], "{}", status.out);
            assert!(backlog["oldest_seconds"].as_f64().unwrap() > 1e6, "{backlog}");
        };
        check();
        // Indexes of ours change nothing but how long it takes.
        let mut init = desk.place.program();
        init.args(["init-db", "--indexes", "--db", &desk.url]);
        let made = Ended::of(init).expect(0).out;
        assert!(made.contains("Index archiver_failed of ") && made.contains(": created"), "{made}");
        check();
        let mut again = desk.place.program();
        again.args(["init-db", "--indexes", "--db", &desk.url]);
        assert!(!Ended::of(again).expect(0).out.contains(": created"));
    }
}

#[test]
fn nothing_that_a_terminal_obeys_comes_out_of_a_name() {
    for desk in Desk::both("hostile") {
        let hostile = "/d/\u{1b}[2J\nline\u{9b}";
        let blob = hostile.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
        desk.execute(
            &format!(
                "INSERT INTO pysmurf_files_v1 (path, timestamp, instance_id, copied, failed_copy_attempts, md5sum, pub_id, action) \
                 VALUES (CONVERT(UNHEX('{blob}') USING utf8mb4), FROM_UNIXTIME(1589517384), 'monitor', 0, 1, UNHEX(MD5(1)), 'p', \
                 CONVERT(UNHEX('{blob}') USING utf8mb4))"
            ),
            &format!(
                "INSERT INTO supersync_v0 (local_path, local_md5sum, archive_name, remote_path, timestamp, failed_copy_attempts, \
                 deletable, \"ignore\") VALUES (CAST(x'{blob}' AS TEXT), CAST(x'{blob}' AS TEXT), 'monitor', CAST(x'{blob}' AS TEXT), \
                 1.5, 1, 1, 0)"
            ),
        );
        for words in
            [&["list"][..], &["list", "--json"], &["show", "--id", "1"], &["show", hostile], &["ignore", "--id", "1"]]
        {
            let ended = desk.files(words);
            let text = format!("{}{}", ended.out, ended.err);
            assert!(text.contains("[2J") || text.contains("row 1"), "{words:?}: {text}");
            assert!(!text.chars().any(|char| char.is_control() && char != '\n'), "{words:?}: {text:?}");
        }
    }
}
