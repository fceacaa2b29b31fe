//! A server's own log (`-M--log-file`), beside stock's.

use crate::support::both::{Both, STOCK, words};
use crate::support::stock::{Bench, OURS, Run};
use std::fs;
use std::path::Path;

#[test]
fn a_server_keeps_the_log_it_is_told_to() {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
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
        let look = |_: &Run, work: &Path| {
            let log = String::from_utf8_lossy(&fs::read(work.join("log")).unwrap_or_default()).into_owned();
            let text = |line: &str| {
                let (_, text) = line.split_once("] ").unwrap_or_else(|| panic!("{line}"));
                if text.starts_with("sent ") { "sent".into() } else { text.to_owned() }
            };
            log.lines().map(text).collect::<Vec<String>>()
        };
        let both = Both { folders: &[], look: &look, ..Both::new(&bench, &super::prepare) };
        let client = if line.contains("host:") { STOCK } else { OURS };
        let (stock, ours) = (both.run((STOCK, STOCK), &words(line)), both.run((client, OURS), &words(line)));
        let (said, our) = (&stock.run.stderr, &ours.run.stderr);
        assert_eq!(stock.run.code, ours.run.code, "{line} {said} {our}");
        let about_log = |text: &str| text.contains("failed to open log-file nowhere/log");
        assert_eq!(about_log(said), about_log(our), "{line} {said} {our}");
        if same {
            assert_eq!(stock.lines, ours.lines, "{line}");
        } else {
            assert!(ours.lines.len() >= 2 && ours.lines.last().unwrap() == "sent", "{line} {:?}", ours.lines);
        }
    }
}
