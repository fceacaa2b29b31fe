//! SECURITY.md and RELIABILITY.md: each line that promises something names a test, and each test that is named is one.

use super::ROOT;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const PAGES: [&str; 2] = ["SECURITY.md", "RELIABILITY.md"];

/// Rows of the tables whose last column is a test: what stands in their cells, and the tests, each with its file.
fn promises(page: &str) -> Vec<(String, Vec<(String, String)>)> {
    let mut proves = false;
    let mut rows = Vec::new();
    for line in page.lines() {
        let Some(cells) = line.strip_prefix("| ").and_then(|line| line.strip_suffix(" |")) else {
            proves &= line.starts_with("|---");
            continue;
        };
        if cells.ends_with("| test") {
            proves = true;
        } else if proves {
            let last = cells.rsplit(" | ").next().unwrap();
            let spans = last.split('`').skip(1).step_by(2);
            let tests = spans.map(|span| span.split_once("::").unwrap_or_else(|| panic!("{span} is no FILE::TEST")));
            rows.push((cells.to_owned(), tests.map(|(file, name)| (file.to_owned(), name.to_owned())).collect()));
        }
    }
    rows
}

/// Whether the text has a function of this name with an attribute that makes a test of it.
fn is_test(text: &str, name: &str) -> bool {
    let lines: Vec<_> = text.lines().map(str::trim_start).collect();
    lines.iter().enumerate().any(|(at, line)| {
        let line = line.strip_prefix("async ").unwrap_or(line);
        let named =
            line.strip_prefix("fn ").and_then(|rest| rest.strip_prefix(name)).is_some_and(|rest| rest.starts_with('('));
        let above = lines[..at].iter().rev().take_while(|line| line.starts_with("#[") || line.starts_with("//"));
        named && above.into_iter().any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"))
    })
}

#[test]
fn each_promise_names_a_test_that_is_there() {
    let mut read = BTreeMap::new();
    for name in PAGES {
        let page = fs::read_to_string(Path::new(ROOT).join(name)).unwrap();
        let rows = promises(&page);
        assert!(rows.len() > 30, "{name} has {} rows with tests", rows.len());
        for (row, tests) in rows {
            assert!(!tests.is_empty(), "{name}: no test proves {row}");
            for (file, test) in tests {
                let text = read.entry(file.clone()).or_insert_with(|| {
                    fs::read_to_string(Path::new(ROOT).join(&file))
                        .unwrap_or_else(|error| panic!("{name}: {file}: {error}"))
                });
                assert!(is_test(text, &test), "{name}: {file} has no test {test}");
            }
        }
    }
}

#[test]
fn what_is_no_test_proves_nothing() {
    let text = "#[test]\nfn one() {}\n\n    /// Words.\n    #[tokio::test(flavor = \"x\")]\n    async fn two() {}\n\nfn helper() {}\n";
    assert!(is_test(text, "one") && is_test(text, "two"));
    assert!(!is_test(text, "helper") && !is_test(text, "on") && !is_test(text, "three"));
    let page = "| who | what |\n|---|---|\n| a | b |\n\n| what | test |\n|---|---|\n| c | `a.rs::b` |\n| d | none |\n";
    let tests = vec![("a.rs".to_owned(), "b".to_owned())];
    assert_eq!(promises(page), [("c | `a.rs::b`".to_owned(), tests), ("d | none".to_owned(), Vec::new())]);
}
