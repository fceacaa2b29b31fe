//! A server's own log (`-M--log-file`), beside stock's.

use crate::support;
use crate::support::stock::{Bench, OURS};
use std::fs;

#[test]
fn a_server_keeps_the_log_it_is_told_to() {
    if !support::require("rsync") {
        return;
    }
    let bench = Bench::start();
    for (line, same) in [
        ("-a -M--log-file=WORK/log src/ host:dst/", true),
        ("-ai --delete -M--log-file=WORK/log src/ host:old/", true),
        ("-a -M--log-file=WORK/log -M--log-file-format=%o_%f_%l_%n_%a_%m src/ host:old/", true),
        ("-a -M--log-file=WORK/log -M--log-file-format=%o_%f_%l_%c host:src/ dst/", true),
        ("-a -M--log-file=WORK/log -M--log-file-format= src/ host:dst/", true),
        ("-a -M--log-file=WORK/log nosuch host:dst/", true),
        ("-an -M--log-file=WORK/log src/ host:dst/", false),
        ("-a -M--log-file=nowhere/log src/ host:dst/", true),
        // Stock's sending server says nothing of single files in its default format.
        ("-a -M--log-file=WORK/log host:src/ dst/", false),
        ("-a -M--log-file=WORK/log src/ dst/", false),
    ] {
        let ends = ["rsync", OURS].map(|server| {
            let work = bench.fresh("work");
            let work = work.path();
            super::prepare(work);
            let shell = bench.script("there", &format!("shift\ncd {}\nexec sh -c \"$*\"\n", work.display()));
            let mut words: Vec<_> = line.split(' ').map(|word| word.replace("WORK", work.to_str().unwrap())).collect();
            words.extend(["-e".into(), shell.to_str().unwrap().into(), format!("--rsync-path={server}")]);
            let program = if line.contains("host:") || server == "rsync" { &["rsync"][..] } else { &[OURS, "rsync"] };
            let run = super::run(program, work, &words);
            let log = String::from_utf8_lossy(&fs::read(work.join("log")).unwrap_or_default()).into_owned();
            let text = |line: &str| {
                let (_, text) = line.split_once("] ").unwrap_or_else(|| panic!("{line}"));
                if text.starts_with("sent ") { "sent".into() } else { text.to_owned() }
            };
            (run.code, log.lines().map(text).collect::<Vec<String>>(), run.stderr)
        });
        let [stock, ours] = ends;
        assert_eq!(stock.0, ours.0, "{line} {} {}", stock.2, ours.2);
        let about_log = |text: &str| text.contains("failed to open log-file nowhere/log");
        assert_eq!(about_log(&stock.2), about_log(&ours.2), "{line} {} {}", stock.2, ours.2);
        if same {
            assert_eq!(stock.1, ours.1, "{line}");
        } else {
            assert!(ours.1.len() >= 2 && ours.1.last().unwrap() == "sent", "{line} {:?}", ours.1);
        }
    }
}
