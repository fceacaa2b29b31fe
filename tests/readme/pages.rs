//! What the pages for people say, held against what is there: files and headings they lead to, commands, options.

use super::{ROOT, pages};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The lines of a page with whether each stands in a block of code.
fn lines(text: &str) -> impl Iterator<Item = (&str, bool)> {
    let mut fenced = false;
    text.lines().map(move |line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (line, !fence && (fenced || line.starts_with("    ")))
    })
}

/// What follows each `](` up to the bracket.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

/// What a heading is called in a link, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

fn has_heading(text: &str, wanted: &str) -> bool {
    let headings = lines(text).filter(|(line, code)| !code && line.starts_with('#'));
    headings.into_iter().any(|(line, _)| anchor(line.trim_start_matches('#')) == wanted)
}

/// The commands of a page's code that begin with one of these programs, without comments and continued lines in one.
fn commands(text: &str, program: &str) -> Vec<Vec<String>> {
    let code: String = lines(text).filter(|(_, code)| *code).map(|(line, _)| format!("{}\n", line.trim())).collect();
    let code = code.replace("\\\n", "");
    let commands = code.lines().map(|line| line.split(" #").next().unwrap_or_default().trim_start_matches("$ "));
    let words = commands.map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
    words.filter(|words| words.first().is_some_and(|first| first == program)).collect()
}

/// The long options among words, without dashes and values.
fn options<'a>(words: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    let long = words.filter_map(|word| word.strip_prefix("--"));
    long.map(|word| word.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').next().unwrap_or_default().to_owned())
        .filter(|word| !word.is_empty())
        .collect()
}

fn help(words: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_pysmurf-archiver")).args(words).arg("--help").output().unwrap();
    assert!(output.status.success(), "{words:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn helped(words: &[&str]) -> BTreeSet<String> {
    options(help(words).split(|c: char| c.is_whitespace() || "[](),`".contains(c)))
}

#[test]
fn every_link_of_a_page_leads_to_what_is_there() {
    for (name, text) in pages() {
        for link in links(&text).filter(|link| !link.starts_with("http")) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { name.clone() } else { name.parent().unwrap().join(file) };
            let path = Path::new(ROOT).join(&target);
            assert!(path.exists(), "{} leads to {link}, which is not there", name.display());
            let there = || has_heading(&fs::read_to_string(&path).unwrap(), heading);
            assert!(heading.is_empty() || there(), "{} leads to {link}; there is no such heading", name.display());
        }
    }
}

#[test]
fn the_readme_is_a_door_to_every_page() {
    let readme = fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap();
    assert!(readme.lines().count() <= 120, "{} lines; what is more belongs to docs/", readme.lines().count());
    let linked: BTreeSet<_> = links(&readme).collect();
    for (name, _) in pages() {
        let name = name.to_str().unwrap();
        assert!(name == "README.md" || linked.contains(name), "README.md does not lead to {name}");
    }
}

#[test]
fn every_option_in_a_pages_commands_is_one_of_the_program() {
    let mut tried = 0;
    for (name, text) in pages() {
        for program in ["pysmurf-archiver", "rsync"] {
            for words in commands(&text, program) {
                let mut words: Vec<_> = words.iter().map(String::as_str).collect();
                if program == "pysmurf-archiver" {
                    words.remove(0);
                }
                let verb = if words.starts_with(&["rsync", "--daemon"])
                    || words.starts_with(&["monitor", "rejects"])
                    || matches!(words.first(), Some(&"batch" | &"bench" | &"config" | &"files"))
                {
                    2
                } else {
                    1
                };
                let known = helped(&words[..verb]);
                let unknown: Vec<_> = options(words[verb..].iter().copied()).difference(&known).cloned().collect();
                assert!(unknown.is_empty(), "{}: {words:?} has {unknown:?}, which it does not know", name.display());
                tried += 1;
            }
        }
    }
    assert!(tried >= 15, "{tried}");
}

#[test]
fn the_tables_of_options_are_those_of_the_help() {
    // Of the pages for who operates it, the first column; an agent's options stand in a table of their own.
    let columns = ["operating.md", "ocs.md"].map(|page| {
        let text = fs::read_to_string(Path::new(ROOT).join("docs").join(page)).unwrap();
        let cells = text.lines().filter_map(|line| line.strip_prefix("| `-")?.split(" |").next());
        cells.map(|cell| format!("-{cell} ")).collect::<String>()
    });
    let said = options(columns.concat().split(|c: char| c.is_whitespace() || c == '`'));
    // The options begin their lines, but for aliases; what the text of one says of another stands further in.
    let text = help(&["run"]);
    let (first, aliases): (Vec<_>, Vec<_>) = text.lines().map(str::trim_start).partition(|line| line.starts_with('-'));
    let begin = first.iter().flat_map(|line| line.split_whitespace().take_while(|word| word.starts_with('-')));
    let alias = aliases.iter().filter_map(|line| line.split_once("[alias")).map(|(_, names)| names);
    let mut known = options(begin.chain(alias.flat_map(|names| names.split([' ', ',', ']']))));
    for general in ["help", "quiet", "verbose"] {
        assert!(known.remove(general), "{general}");
    }
    let missing: Vec<_> = known.difference(&said).collect();
    assert!(missing.is_empty(), "No page tells of {missing:?}");
    let extra: Vec<_> = said.difference(&known).collect();
    assert!(extra.is_empty(), "The pages tell of {extra:?}, which `run --help` does not know");
}

#[test]
fn the_events_of_the_page_are_those_of_the_log() {
    let page = fs::read_to_string(Path::new(ROOT).join("docs/operating.md")).unwrap();
    let table = page.split("| `event` |").nth(1).unwrap().split("\n\n").next().unwrap();
    let cells = table.lines().filter_map(|line| line.strip_prefix("| `")?.split(" |").next());
    let told: BTreeSet<_> =
        cells.flat_map(|cell| cell.split(['`', ',', ' '])).filter(|word| !word.is_empty()).collect();
    let mut said = BTreeSet::new();
    let mut waiting = vec![Path::new(ROOT).join("src")];
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            let text = fs::read_to_string(&path).unwrap();
            let codes = text.split("event = \"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned());
            said.extend(codes);
        }
    }
    assert_eq!(told, said.iter().map(String::as_str).collect());
}

/// The levels of a line that begins with one of the macros at the end of this text.
fn levels(before: &str) -> &'static [&'static str] {
    let macros: [(&str, &[&str]); 5] = [
        ("told!(", &["INFO", "WARN"]),
        ("tracing::debug!(", &["DEBUG"]),
        ("tracing::info!(", &["INFO"]),
        ("tracing::warn!(", &["WARN"]),
        ("tracing::error!(", &["ERROR"]),
    ];
    let nearest = macros.into_iter().max_by_key(|(name, _)| before.rfind(name).map_or(0, |at| at + 1));
    nearest.unwrap().1
}

#[test]
fn the_levels_of_the_page_are_those_of_the_log() {
    let page = fs::read_to_string(Path::new(ROOT).join("docs/operating.md")).unwrap();
    let table = page.split("| `event` |").nth(1).unwrap().split("\n\n").next().unwrap();
    let mut said: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for (_, code) in code() {
        let parts: Vec<_> = code.split("event = \"").collect();
        for pair in parts.windows(2).filter(|pair| !pair[0].ends_with("`told!(lasts, ")) {
            said.entry(pair[1].split('"').next().unwrap().to_owned()).or_default().extend(levels(pair[0]));
        }
    }
    let mut seen = 0;
    for row in table.lines().filter_map(|line| line.strip_prefix("| ")).filter(|row| row.starts_with('`')) {
        let cells: Vec<_> = row.split(" | ").collect();
        let told: BTreeSet<_> = cells[1].split(", ").collect();
        let events = cells[0].split(['`', ',', ' ']).filter(|word| !word.is_empty());
        let found: BTreeSet<_> = events.flat_map(|event| said.get(event).into_iter().flatten().copied()).collect();
        assert_eq!(told, found, "{}", cells[0]);
        seen += 1;
    }
    assert!(seen > 15, "{seen}");
}

#[test]
fn every_metric_is_on_the_page() {
    let page = fs::read_to_string(Path::new(ROOT).join("docs/operating.md")).unwrap();
    let code = fs::read_to_string(Path::new(ROOT).join("src/web/metrics.rs")).unwrap();
    let code = code.split("#[cfg(test)]").next().unwrap();
    let counters = code.split("registry.register(").skip(1).filter_map(|rest| rest.split('"').nth(1));
    let gauges = code.split("    (\"").skip(1).filter_map(|rest| rest.split('"').next());
    let names: BTreeSet<_> = counters.chain(gauges).collect();
    assert!(names.len() > 15, "{names:?}");
    for name in names {
        let told = ["", "_total", "_info"].iter().any(|end| page.contains(&format!("`archiver_{name}{end}`")));
        assert!(told, "docs/operating.md does not tell of archiver_{name}");
    }
}

#[test]
fn every_target_of_make_that_a_page_names_is_there() {
    let makefile = fs::read_to_string(Path::new(ROOT).join("Makefile")).unwrap();
    let rules = makefile.lines().filter_map(|line| line.split_once(": ##"));
    let targets: BTreeSet<_> = rules.map(|(name, _)| name).collect();
    let all = makefile.lines().find_map(|line| line.strip_prefix(".PHONY: ")).unwrap();
    let untold: Vec<_> = all.split(' ').filter(|name| !targets.contains(name)).collect();
    assert!(untold.is_empty(), "`make help` does not tell of {untold:?}");
    let mut named = BTreeSet::new();
    for (name, text) in pages() {
        let spans = lines(&text).filter(|(_, code)| !code).flat_map(|(line, _)| line.split('`').skip(1).step_by(2));
        let spans = spans.filter_map(|span| span.strip_prefix("make ")?.split_whitespace().next().map(str::to_owned));
        let code = commands(&text, "make").into_iter().filter_map(|words| words.get(1).cloned());
        for target in spans.chain(code) {
            assert!(targets.contains(&*target), "{}: there is no `make {target}`", name.display());
            named.insert(target);
        }
    }
    assert!(named.len() >= 8, "{named:?}");
}

#[test]
fn the_commands_of_the_page_on_rdiff_make_the_new_file_of_the_old_one() {
    let page = fs::read_to_string(Path::new(ROOT).join("docs/rdiff.md")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let old: Vec<u8> = (0..40_000_u32).flat_map(|n| n.wrapping_mul(n).to_le_bytes()).collect();
    fs::write(folder.path().join("old"), &old).unwrap();
    // The page's second command takes the new file and its third writes it: they run at different places.
    let new = [b"begins otherwise", &old[1000..]].concat();
    fs::write(folder.path().join("new"), &new).unwrap();
    let lines = commands(&page, "pysmurf-archiver");
    assert_eq!(lines.len(), 3, "{lines:?}");
    for (step, words) in lines.iter().enumerate() {
        if step == 2 {
            fs::rename(folder.path().join("new"), folder.path().join("kept")).unwrap();
        }
        let mut program = Command::new(env!("CARGO_BIN_EXE_pysmurf-archiver"));
        assert!(program.args(&words[1..]).current_dir(folder.path()).status().unwrap().success(), "{words:?}");
    }
    assert_eq!(fs::read(folder.path().join("new")).unwrap(), new);
    let changes = fs::metadata(folder.path().join("changes")).unwrap().len();
    assert!(changes < 5_000, "{changes}");
}

#[test]
fn a_local_copy_of_the_page_on_rsync_copies() {
    let page = fs::read_to_string(Path::new(ROOT).join("docs/rsync.md")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("src")).unwrap();
    fs::write(folder.path().join("src/file"), "words").unwrap();
    let lines = commands(&page, "rsync");
    let words = lines.iter().find(|words| words.ends_with(&["src/".into(), "dst/".into()])).expect("a local copy");
    let mut program = Command::new(env!("CARGO_BIN_EXE_pysmurf-archiver"));
    assert!(program.args(words).current_dir(folder.path()).status().unwrap().success());
    assert_eq!(fs::read_to_string(folder.path().join("dst/file")).unwrap(), "words");
}

/// What stands in backticks on a page for those who change the program.
fn spans(page: &str) -> Vec<String> {
    let text = fs::read_to_string(Path::new(ROOT).join(page)).unwrap();
    let lines = lines(&text).filter(|(_, code)| !code).map(|(line, _)| line);
    lines.flat_map(|line| line.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

/// All source files beneath a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let found = entries.flat_map(|path| match path.is_dir() {
        true => sources(&path),
        false => vec![path],
    });
    found.filter(|path| path.extension().is_some_and(|end| end == "rs")).collect()
}

/// The code of our two crates, without the modules of tests that end the files.
fn code() -> BTreeMap<PathBuf, String> {
    let files = ["src", "protocol/src"].into_iter().flat_map(|folder| sources(&Path::new(ROOT).join(folder)));
    let read = files.map(|path| {
        let text = fs::read_to_string(&path).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned();
        (path.strip_prefix(ROOT).unwrap().to_owned(), text)
    });
    read.filter(|(path, _)| !path.ends_with("tests.rs")).collect()
}

#[test]
fn files_and_names_that_the_pages_for_developers_give_are_there() {
    let code: String = code().into_values().collect();
    let words: BTreeSet<_> = code.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    let mut seen = 0;
    for page in ["ARCHITECTURE.md", "CONTRIBUTING.md"] {
        for span in spans(page) {
            // Of a pattern or a placeholder nothing is known.
            let is_path =
                !span.contains(' ') && span.contains('/') && !span.contains(['*', '<', '=']) && span != "foo/";
            let is_name = span.chars().all(|c| c.is_alphanumeric() || c == ':' || c == '_')
                && span.starts_with(|c: char| c.is_uppercase())
                && span.chars().any(char::is_lowercase);
            if is_path && span.starts_with(|c: char| c.is_alphanumeric() || c == '.') {
                assert!(Path::new(ROOT).join(&span).exists(), "{page} names {span}, which is not there");
                seen += 1;
            } else if is_name && !Path::new(ROOT).join(&span).exists() {
                let unknown = span.split("::").find(|name| !words.contains(name));
                assert!(unknown.is_none(), "{page} speaks of {span}, which no code has");
                seen += 1;
            }
        }
    }
    assert!(seen > 100, "{seen}");
}

#[test]
fn no_module_imports_what_the_architecture_does_not_say() {
    let text = fs::read_to_string(Path::new(ROOT).join("ARCHITECTURE.md")).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `src/")?.split_once(".rs` | "));
    let rows = rows.filter(|(module, _)| !module.contains('/'));
    let allowed: BTreeMap<_, BTreeSet<_>> = rows
        .map(|(module, rest)| {
            (module, rest.trim_end_matches(" |").rsplit('|').next().unwrap().split_whitespace().collect())
        })
        .collect();
    for (path, code) in code() {
        let Ok(inner) = path.strip_prefix("src") else { continue };
        let module = inner.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        if ["lib", "main"].contains(&module) {
            continue;
        }
        let known = allowed.get(module).unwrap_or_else(|| panic!("ARCHITECTURE.md has no row for src/{module}.rs"));
        let named = code
            .split("crate::")
            .skip(1)
            .filter_map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next());
        let of_others = |before: &str| before.ends_with(|c: char| c == ':' || c == '_' || c.is_alphanumeric());
        let ours = code.match_indices("protocol::").any(|(at, _)| !of_others(&code[..at]));
        let protocol = ours.then_some("protocol");
        for name in named.chain(protocol).filter(|name| *name != module && !name.is_empty()) {
            assert!(
                known.contains(name),
                "{} imports {name}, which ARCHITECTURE.md does not say of {module}",
                path.display()
            );
        }
    }
}
