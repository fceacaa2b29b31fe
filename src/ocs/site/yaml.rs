//! A YAML document as a tree of which every node knows its place, within fixed bounds.
//!
//! Aliases share what they refer to, so that a bomb of them costs nothing until somebody walks it; merge keys (`<<`) are
//! carried out. Bounds: size of the file, nodes, entries made by merging, depth.

use super::error::{Mark, SiteError, SitePlace, cut};
use super::plain;
use granit_parser::{Event, Marker, Options, Parser, ScalarStyle};
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::rc::Rc;

/// Of a site file, in bytes; those of whole observatories take some tens of KiB.
pub(super) const SIZE_MOST: usize = 1 << 20;
const NODES_MOST: usize = 100_000;
/// Lists in lists; the walks over a tree are recursive.
const DEPTH_MOST: usize = 100;

#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) mark: Mark,
    depth: usize,
    pub(super) content: YamlContent,
}

#[derive(Debug, Clone)]
pub(super) enum YamlContent {
    /// Its text as it stands. A plain one, without quotes, may mean something else to Python.
    Scalar {
        text: Rc<str>,
        is_plain: bool,
    },
    List(Rc<Vec<Node>>),
    Map(Rc<Map>),
}

/// Keys and values, in their order; those that came by merging behind.
#[derive(Debug, Default)]
pub(super) struct Map {
    pairs: Vec<(Node, Node)>,
    /// How many of the pairs stand in the mapping itself.
    own: usize,
}

impl Node {
    pub(super) fn text(&self) -> Option<&str> {
        match &self.content {
            YamlContent::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(&self.content, YamlContent::Scalar { text, is_plain: true } if plain::is_null(text))
    }

    /// What the node is, for messages.
    pub(super) fn describe(&self) -> String {
        match &self.content {
            _ if self.is_null() => "nothing".into(),
            YamlContent::Scalar { text, .. } => format!("the text {:?}", cut(text)),
            YamlContent::List(_) => "a list".into(),
            YamlContent::Map(_) => "a mapping".into(),
        }
    }
}

impl Map {
    /// All values of a key; more than one where it is written twice.
    fn values(&self, key: &str) -> impl Iterator<Item = &(Node, Node)> {
        self.pairs.iter().filter(move |(name, _)| name.text() == Some(key))
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.values(key).next().map(|(_, value)| value)
    }

    /// The keys that are text, in their order.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.pairs.iter().filter_map(|(name, _)| name.text())
    }

    /// The first key that stands here twice: its name, its first place, its second. Merged ones may be overridden.
    pub(super) fn twice(&self) -> Option<(&str, Mark, Mark)> {
        let mut seen = HashMap::new();
        for (name, _) in &self.pairs[..self.own] {
            if let Some(text) = name.text()
                && let Some(first) = seen.insert(text, name.mark)
            {
                return Some((text, first, name.mark));
            }
        }
        None
    }
}

/// A collection whose end has not been seen.
struct Open {
    mark: Mark,
    anchor: usize,
    /// Of a mapping, keys and values in turn.
    items: Vec<Node>,
    is_map: bool,
}

/// Reads the one document of `text`.
pub(super) fn parse(file: &Path, text: &str) -> Result<Node, SiteError> {
    let wrong = |mark: Mark, what: String| SiteError::YamlContent { place: SitePlace::new(file, mark), what };
    let start = Mark { line: 1, column: 1 };
    if text.len() > SIZE_MOST {
        let what = format!("Found {} bytes; expected a site file of at most {SIZE_MOST}", text.len());
        return Err(wrong(start, what));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder = Builder::default();
    for event in Parser::new_from_str_with_options(text, Options::default()) {
        let (event, span) = event.map_err(|error| {
            let mark = mark(error.marker());
            match tab_near(text, mark) {
                Some(tab) => {
                    wrong(tab, format!("Found a tab that indents the line; expected blanks: {}", error.kind()))
                }
                None => wrong(mark, format!("Found no valid YAML: {}", error.kind())),
            }
        })?;
        builder.take(event, mark(&span.start)).map_err(|(mark, what)| wrong(mark, what))?;
    }
    builder.root.ok_or_else(|| wrong(start, "Found nothing; expected the keys hub and hosts".into()))
}

fn mark(marker: &Marker) -> Mark {
    Mark { line: marker.line().max(1), column: marker.col() + 1 }
}

/// A tab among the blanks that indent a line looks like blanks; the parser notices it there or at the end of the line
/// before, and its words for it vary.
fn tab_near(text: &str, mark: Mark) -> Option<Mark> {
    let near = text.lines().enumerate().skip(mark.line - 1).take(2);
    near.filter_map(|(at, line)| {
        let indent = &line[..line.len() - line.trim_start_matches([' ', '\t']).len()];
        indent.find('\t').map(|tab| Mark { line: at + 1, column: tab + 1 })
    })
    .next()
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    root: Option<Node>,
}

type Wrong = (Mark, String);

impl Builder {
    fn take(&mut self, event: Event<'_>, mark: Mark) -> Result<(), Wrong> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let is_plain = match tag.as_deref() {
                    None => style == ScalarStyle::Plain,
                    Some(tag) if tag.original() == "!" => false,
                    Some(tag) => match tag.core_suffix() {
                        Some(kind) => kind != "str",
                        // Python's agents cannot read such a file either.
                        None => return Err((mark, format!("Found the tag {}; expected none", cut(&tag.original())))),
                    },
                };
                self.add(Node { mark, depth: 0, content: YamlContent::Scalar { text: text.into(), is_plain } }, anchor)
            }
            Event::SequenceStart(_, anchor, _) => self.begin(mark, anchor, false),
            Event::MappingStart(_, anchor, _) => self.begin(mark, anchor, true),
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else { return Ok(()) };
                let depth = 1 + open.items.iter().map(|item| item.depth).max().unwrap_or(0);
                if depth > DEPTH_MOST {
                    return Err((open.mark, format!("Found more than {DEPTH_MOST} levels, one in the other")));
                }
                let content = match open.is_map {
                    true => YamlContent::Map(Rc::new(self.map(open.items)?)),
                    false => YamlContent::List(Rc::new(open.items)),
                };
                self.add(Node { mark: open.mark, depth, content }, open.anchor)
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor).cloned() {
                Some(node) => self.add(node, 0),
                None => Err((mark, "Found an alias to what it is itself a part of".into())),
            },
            Event::UnresolvedAlias(name) => Err((mark, format!("Found the alias *{} without its anchor", cut(&name)))),
            Event::DocumentStart(..) if self.root.is_some() => {
                Err((mark, "Found a second document; expected only one in a site file".into()))
            }
            _ => Ok(()),
        }
    }

    fn begin(&mut self, mark: Mark, anchor: usize, is_map: bool) -> Result<(), Wrong> {
        self.open.push(Open { mark, anchor, items: Vec::new(), is_map });
        self.count(mark, 1)
    }

    fn count(&mut self, mark: Mark, more: usize) -> Result<(), Wrong> {
        self.nodes += more;
        match self.nodes > NODES_MOST {
            true => Err((mark, format!("Found more than {NODES_MOST} values; is this a site file?"))),
            false => Ok(()),
        }
    }

    fn add(&mut self, node: Node, anchor: usize) -> Result<(), Wrong> {
        self.count(node.mark, 1)?;
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut() {
            Some(open) => open.items.push(node),
            None => self.root = Some(node),
        }
        Ok(())
    }

    /// Own keys win over merged ones, earlier merged ones over later ones, as in PyYAML.
    fn map(&mut self, items: Vec<Node>) -> Result<Map, Wrong> {
        let mut map = Map::default();
        let mut merges = Vec::new();
        let mut items = items.into_iter();
        while let (Some(key), Some(value)) = (items.next(), items.next()) {
            match key.text() {
                Some("<<") => merges.push(value),
                _ => map.pairs.push((key, value)),
            }
        }
        map.own = map.pairs.len();
        if merges.is_empty() {
            return Ok(map);
        }
        let mut known: HashSet<String> = map.keys().map(str::to_owned).collect();
        for merge in &merges {
            let sources = match &merge.content {
                YamlContent::List(list) => list.as_slice(),
                _ => std::slice::from_ref(merge),
            };
            self.count(merge.mark, sources.len())?;
            for source in sources {
                let YamlContent::Map(other) = &source.content else {
                    let what = format!("Found {} to merge with <<; expected a mapping", source.describe());
                    return Err((merge.mark, what));
                };
                self.count(merge.mark, other.pairs.len())?;
                let new = other.pairs.iter().filter(|(key, _)| key.text().is_some_and(|key| known.insert(key.into())));
                map.pairs.extend(new.cloned());
            }
        }
        Ok(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fmt::Write;
    use std::time::{Duration, Instant};

    fn message(text: &str) -> String {
        parse(Path::new("/config/default.yaml"), text).unwrap_err().to_string()
    }

    #[test]
    fn places_are_those_of_the_file() {
        let node = parse(Path::new("f"), "# a site\nhub:\n  wamp_server: ws://x\n  list: [a, 'b', yes]\n").unwrap();
        let YamlContent::Map(map) = &node.content else { panic!("{node:?}") };
        let YamlContent::Map(hub) = &map.get("hub").unwrap().content else { panic!("no map") };
        assert_eq!(hub.get("wamp_server").unwrap().mark, Mark { line: 3, column: 16 });
        let YamlContent::List(list) = &hub.get("list").unwrap().content else { panic!("no list") };
        assert_eq!(list[1].mark, Mark { line: 4, column: 13 });
        assert_eq!(list.iter().map(Node::text).collect::<Vec<_>>(), [Some("a"), Some("b"), Some("yes")]);
    }

    #[test]
    fn merge_keys_give_way_to_own_ones() {
        let node = parse(Path::new("f"), "base: &b {x: one, y: two}\nmine: {<<: *b, y: own}\n").unwrap();
        let YamlContent::Map(map) = &node.content else { panic!("{node:?}") };
        let YamlContent::Map(mine) = &map.get("mine").unwrap().content else { panic!("no map") };
        assert_eq!(mine.get("x").and_then(Node::text), Some("one"));
        assert_eq!(mine.get("y").and_then(Node::text), Some("own"));
        assert!(mine.twice().is_none());
    }

    #[test]
    fn broken_yaml_is_refused_with_its_place() {
        let tab = message("hub:\n  a: 1\n\tb: 2\n");
        let expected = "Site file /config/default.yaml:3:1: Found a tab that indents the line; expected blanks: ";
        assert!(tab.starts_with(expected), "{tab}");
        for (text, place) in [
            ("a: [1, 2\nb: 3\n", "2:2"),
            ("a: 'open\n", "1:4"),
            ("a: *nobody\n", "1:4"),
            ("a: 1\n b: 2\n", "2:3"),
            ("a: \"\\q\"\n", "1:4"),
        ] {
            let start = format!("Site file /config/default.yaml:{place}: Found no valid YAML: ");
            assert!(message(text).starts_with(&start), "{text:?}: {}", message(text));
        }
        assert!(message("").contains("default.yaml:1:1: Found nothing"));
        assert!(message("a: 1\n---\nb: 2\n").contains("default.yaml:2:1: Found a second document"));
        assert!(message("a: &a [*a]\n").contains("default.yaml:1:8: Found an alias to what it is itself a part of"));
    }

    #[test]
    fn bombs_are_refused_quickly() {
        let start = Instant::now();
        let mut deep = String::from("a0: &a0 [x]\n");
        let mut wide = String::from("a0: &a0 {k0: 1}\n");
        for n in 1..10_000 {
            let before = n - 1;
            writeln!(deep, "a{n}: &a{n} [*a{before}]").unwrap();
            writeln!(wide, "a{n}: &a{n} {{<<: [*a{before}, *a{before}], k{n}: 1}}").unwrap();
        }
        assert!(message(&deep).contains("more than 100 levels"), "{}", message(&deep));
        assert!(message(&wide).contains("more than 100"), "{}", message(&wide));
        assert!(message(&"[".repeat(100_000)).contains("Found"));
        assert!(message(&"- ".repeat(300_000)).contains("Found"));
        assert!(message(&format!("[{}]", "1,".repeat(200_000))).contains("more than 100000 values"));
        assert!(message(&" ".repeat(SIZE_MOST + 1)).contains("expected a site file of at most"));
        assert!(start.elapsed() < Duration::from_secs(120), "{:?}", start.elapsed());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1000, rng_seed: proptest::test_runner::RngSeed::Fixed(9), ..ProptestConfig::default() })]
        #[test]
        fn any_text_is_a_tree_or_an_error(text in "([-\\[\\]{}:,&*!<|>'\"%#? \t\nab0]{0,40})|(\\PC|\n){0,40}") {
            let _ = parse(Path::new("f"), &text);
        }
    }
}
