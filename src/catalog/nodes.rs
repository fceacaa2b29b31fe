//! Several storage nodes for the rows of one target: which one a catalog works for, and when a row is done.
//!
//! Each node has a catalog of its own, with its own mover and lanes, so that none waits for another. They meet in a row's
//! proofs: whoever writes the one by which there are enough also makes the row a copied one.

use super::fleet::fnv;
use super::{FailedSide, Md5, Naming, Pending, Record, RecordId};
use std::path::{Path, PathBuf};

/// The tables beside those of a fleet, for targets with storage nodes.
pub(super) const NODE_TABLES: [&str; 3] = ["fleet_node", "fleet_owed", "fleet_trouble"];
/// Which of them are fed from another one. Younger than the others: only who feeds one needs it.
pub(super) const RELAY_TABLE: &str = "fleet_relay";

/// Longest name of a node.
const NAME_MOST: usize = 32;

/// The storage node that a catalog works for, among all that copies go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageNode {
    name: String,
    names: NodeNames,
    spread: Spread,
    feed: Option<RelayFeed>,
}

/// All storage nodes of a target.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeNames {
    /// Those that files go to from where they are, in the order of the configuration.
    pub direct: Vec<String>,
    /// Those that are fed from another one, each with that one's name.
    pub relayed: Vec<(String, String)>,
}

impl NodeNames {
    /// Those that the tables have, of which some are fed from others. No name comes out of here that SQL would have to escape.
    pub(super) fn of_tables(known: Vec<String>, relayed: Vec<(String, String)>) -> Self {
        let relayed: Vec<_> = relayed.into_iter().filter(|(node, from)| is_name(node) && is_name(from)).collect();
        let is_relayed = |node: &String| relayed.iter().any(|(name, _)| name == node);
        let direct = known.into_iter().filter(|node| is_name(node) && !is_relayed(node)).collect();
        Self { direct, relayed }
    }

    /// The name of each.
    pub(crate) fn all(&self) -> impl Iterator<Item = &String> {
        self.direct.iter().chain(self.relayed.iter().map(|(name, _)| name))
    }

    /// Whether they can be; the error says what is wrong with them.
    pub fn check(&self) -> Result<(), String> {
        for (at, node) in self.all().enumerate() {
            if !is_name(node) {
                return Err(format!(
                    "a storage node cannot be called {node:?}: give it up to {NAME_MOST} letters, digits, dots, dashes and underscores"
                ));
            }
            if self.all().take(at).any(|other| other.eq_ignore_ascii_case(node)) {
                return Err(format!("there are two storage nodes {node:?}; give each a name of its own"));
            }
        }
        for (node, from) in &self.relayed {
            if !self.all().any(|name| name == from) {
                return Err(format!("storage node {node} is fed from {from:?}, which is none; there are {self}"));
            }
            // As many steps as there are nodes lead to one that is filled from here, or around.
            let (mut from, mut steps) = (from, 0);
            while let Some((_, before)) = self.relayed.iter().find(|(name, _)| name == from) {
                steps += 1;
                if steps > self.relayed.len() {
                    return Err(format!(
                        "storage node {node} is fed from itself, by way of {from}; one must have the files from here"
                    ));
                }
                from = before;
            }
        }
        Ok(())
    }
}

/// Whether a node can be called so.
fn is_name(node: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !node.is_empty() && node.len() <= NAME_MOST && node.bytes().all(fits)
}

impl std::fmt::Display for NodeNames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.all().map(String::as_str).collect::<Vec<_>>().join(", "))
    }
}

/// Proofs of another node that are looked at by one statement, and such statements of one call.
pub(super) const FED_PAGE: usize = 1000;
pub(super) const FED_PAGES: usize = 100;

/// What another node has proven of late, and the one that it feeds lacks.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FedRows {
    /// Their rows, in order of the proofs' moments.
    pub ids: Vec<RecordId>,
    /// Until when proofs were seen, unix seconds.
    pub until: f64,
}

impl FedRows {
    /// Enters a page of proofs in order of their moments: the row, the moment, and whether it is lacked. From which moment to go
    /// on; `None` where those were all.
    pub(super) fn enter(&mut self, from: f64, page: &[(i64, f64, bool)]) -> Option<f64> {
        self.ids.extend(page.iter().filter(|(.., lacked)| *lacked).map(|(id, ..)| RecordId(*id)));
        let (_, last, _) = page.last().filter(|_| page.len() >= FED_PAGE)?;
        // So many of one moment nobody proves; a look through all rows finds them.
        (*last > from).then_some(*last)
    }
}

/// Where the files of a relayed node come from: the copies that another one has proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayFeed {
    /// That node.
    pub node: String,
    /// What the paths of its proofs begin with; nothing where they are relative.
    pub base: Option<String>,
    /// Its archive, as this machine sees it.
    pub here: PathBuf,
}

impl RelayFeed {
    /// A row that has the path of that node's copy as its own: the copy as it is here, which goes to the same place.
    pub(super) fn row(&self, row: Pending) -> Pending {
        let Pending::Ready(record) = row else { return row };
        match self.place(&record.source) {
            Ok(place) => {
                Pending::Ready(Record { source: self.here.join(&place), naming: Naming::Given(place), ..record })
            }
            Err(why) => {
                let Record { id, attempts, hold, source, .. } = record;
                Pending::Unusable { id, attempts, source: Some(source.display().to_string()), why, hold }
            }
        }
    }

    /// The place of a copy beneath the archive's base.
    fn place(&self, path: &Path) -> Result<String, String> {
        let place = match &self.base {
            Some(base) => path.strip_prefix(base).ok(),
            None => Some(path),
        };
        let place = place.filter(|place| place.is_relative()).and_then(Path::to_str);
        place.map(str::to_owned).ok_or_else(|| {
            let base = self.base.as_deref().unwrap_or("its base");
            format!("the copy of {} is not beneath {base}; correct its data-dir, or --from-data-dir", self.node)
        })
    }
}

/// How copies are spread over storage nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// Each row goes to all of them, and is done once so many have proven it.
    Mirror {
        /// So many.
        copies: usize,
    },
    /// Each row goes to one of them, by the name of its file.
    Share,
}

impl StorageNode {
    /// One of these nodes; `feed` where it is one of the relayed ones. The error says what is wrong with them.
    pub fn new(name: String, names: NodeNames, spread: Spread, feed: Option<RelayFeed>) -> Result<Self, String> {
        names.check()?;
        let fed_from = names.relayed.iter().find(|(node, _)| *node == name).map(|(_, from)| from);
        if fed_from != feed.as_ref().map(|feed| &feed.node) || !names.all().any(|node| *node == name) {
            return Err(format!("there is no such storage node {name:?}; there are {names}"));
        }
        let most = names.all().count();
        match spread {
            Spread::Mirror { copies } if copies == 0 || copies > most => {
                Err(format!("{copies} copies cannot be on {most} storage nodes; give a number from 1 to that"))
            }
            _ => Ok(Self { name, names, spread, feed }),
        }
    }

    /// One that the tables know, to be asked about: nobody works for it. `None` where there is none of this name.
    pub(crate) fn known(name: &str, names: &NodeNames, spread: Spread) -> Option<Self> {
        let fed_from = names.relayed.iter().find(|(node, _)| node == name).map(|(_, from)| from.clone());
        let feed = fed_from.map(|node| RelayFeed { node, base: None, here: PathBuf::new() });
        let is_one = names.all().any(|node| node == name);
        is_one.then(|| Self { name: name.to_owned(), names: names.clone(), spread, feed })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All of them.
    pub fn names(&self) -> &NodeNames {
        &self.names
    }

    /// Where its files come from, if not from the rows' own places.
    pub fn feed(&self) -> Option<&RelayFeed> {
        self.feed.as_ref()
    }

    /// How rows are spread over them.
    pub fn spread(&self) -> Spread {
        self.spread
    }

    /// Whether it is the one beside whose copying the rest is done: deleting local files, announcing.
    pub fn is_first(&self) -> bool {
        self.names.direct.first() == Some(&self.name)
    }

    /// So many proofs make a row a copied one.
    pub(super) fn copies(&self) -> usize {
        match self.spread {
            Spread::Mirror { copies } => copies,
            Spread::Share => 1,
        }
    }

    /// The nodes whose proofs make a row a copied one: relayed ones are among them only if it takes more than the others are.
    pub(super) fn counted(&self) -> impl Iterator<Item = &String> {
        let most = if self.copies() > self.names.direct.len() { usize::MAX } else { self.names.direct.len() };
        self.names.all().take(most)
    }

    /// Whether its own proofs do.
    pub(super) fn counts(&self) -> bool {
        self.counted().any(|node| *node == self.name)
    }

    /// Whose trouble it is where a copy was not made, as far as it counts: that of the copy it is made from is none of the
    /// row's own file.
    pub(super) fn side(&self, side: FailedSide) -> FailedSide {
        if self.feed.is_some() { FailedSide::Destination } else { side }
    }

    /// By what its lanes are known beside those of the other nodes.
    pub(super) fn rows_of(&self, table: &str) -> String {
        format!("{table}@{}", self.name)
    }

    /// The names of those that count as SQL has a list of texts; no name needs an escape.
    pub(super) fn list(&self) -> String {
        listed(self.counted())
    }

    /// Those of all.
    pub(super) fn list_of_all(&self) -> String {
        listed(self.names.all())
    }

    /// Whether a row goes to this node, by the name of its file. The highest of the nodes' hashes wins: another node more
    /// takes from each its part, and moves nothing else.
    pub(super) fn takes(&self, file: &str) -> bool {
        let weight = |node: &String| {
            let hash = fnv(file.bytes().chain([b'@']).chain(node.bytes()));
            // FNV's high bits hardly change with the last letters: mixed, as SplitMix64 ends.
            let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (hash ^ (hash >> 31), node.clone())
        };
        match self.spread {
            Spread::Share if self.feed.is_none() => {
                self.names.direct.iter().max_by_key(|node| weight(node)) == Some(&self.name)
            }
            _ => true,
        }
    }
}

fn listed<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ")
}

/// A row of which a node owes a copy whose file is here no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LackingCopy {
    pub(crate) id: RecordId,
    pub(crate) md5: Md5,
    /// Where its file was, as far as that is known: its name counts.
    pub(crate) file: PathBuf,
    /// Other nodes with the places of their copies.
    pub(crate) elsewhere: Vec<(String, String)>,
}

/// How a node stands to a row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NodeStand {
    pub(crate) node: String,
    /// Where its copy is, and since when that is proven, unix time in seconds.
    pub(crate) proof: Option<(String, f64)>,
    /// It owes its copy, although the row is done.
    pub(crate) owes: bool,
    /// The node that it is fed from, if it is a relayed one.
    pub(crate) from: Option<String>,
    /// How often it failed there, and why the last time.
    pub(crate) failed: Option<(i64, String)>,
}

/// What is said where the tables are not there.
pub(super) const NO_TABLES: &str = "has no tables for several storage nodes; run `pysmurf-archiver init-db --nodes`";
pub(super) const NO_RELAY_TABLE: &str = "has no table fleet_relay, since it is older than relayed storage nodes; run `pysmurf-archiver init-db --nodes` once more";

/// What an archiver without nodes is told of a target that has some.
pub(super) fn has_nodes(nodes: &[String]) -> String {
    format!(
        "The copies of these rows go to the storage nodes {}, and this archiver has none; give it the same [[node]]s, or \
         delete their rows of table fleet_node",
        nodes.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, all: &[&str], spread: Spread) -> Result<StorageNode, String> {
        let direct = all.iter().map(|&name| name.to_owned()).collect();
        StorageNode::new(name.to_owned(), NodeNames { direct, relayed: Vec::new() }, spread, None)
    }

    fn relayed(name: &str, pairs: &[(&str, &str)], copies: usize) -> Result<StorageNode, String> {
        let pairs = pairs.iter().map(|&(name, from)| (name.to_owned(), from.to_owned()));
        let names = NodeNames { direct: vec!["a".to_owned(), "b".to_owned()], relayed: pairs.collect() };
        let from = names.relayed.iter().find(|(node, _)| node == name).map(|(_, from)| from.clone());
        let feed = from.map(|node| RelayFeed { node, base: Some("/archive".to_owned()), here: "/mnt".into() });
        StorageNode::new(name.to_owned(), names, Spread::Mirror { copies }, feed)
    }

    #[test]
    fn relayed_nodes_count_only_where_it_takes_more_than_the_others_are() {
        let pairs = [("c", "a"), ("d", "c")];
        let counted = |copies| {
            let node = relayed("c", &pairs, copies).unwrap();
            (node.list(), node.counts(), node.is_first())
        };
        assert_eq!(counted(2), ("'a', 'b'".to_owned(), false, false));
        assert_eq!(counted(3), ("'a', 'b', 'c', 'd'".to_owned(), true, false));
        assert_eq!(relayed("d", &pairs, 1).unwrap().list_of_all(), "'a', 'b', 'c', 'd'");
        for (name, pairs, wrong) in [
            ("c", &[("c", "c")][..], "fed from itself"),
            ("c", &[("c", "d"), ("d", "c")], "fed from itself"),
            ("c", &[("c", "x")], "which is none; there are a, b, c"),
            ("a", &[("a", "b")], "two storage nodes"),
        ] {
            let told = relayed(name, pairs, 1).unwrap_err();
            assert!(told.contains(wrong), "{told}");
        }
    }

    #[test]
    fn a_relayed_copy_goes_to_the_place_that_it_has() {
        let feed = relayed("c", &[("c", "a")], 1).unwrap().feed().unwrap().clone();
        assert_eq!(feed.place(Path::new("/archive/1/x.dat")).unwrap(), "1/x.dat");
        assert!(feed.place(Path::new("/elsewhere/x.dat")).unwrap_err().contains("not beneath /archive"));
        let relative = RelayFeed { base: None, ..feed };
        assert_eq!(relative.place(Path::new("1/x.dat")).unwrap(), "1/x.dat");
        assert!(relative.place(Path::new("/1/x.dat")).is_err());
    }

    #[test]
    fn nodes_are_named_and_counted() {
        assert!(node("a", &["a", "b"], Spread::Mirror { copies: 2 }).is_ok());
        for (name, all, copies) in [
            ("a", &["a", "b"], 0),
            ("a", &["a", "b"], 3),
            ("c", &["a", "b"], 1),
            ("a", &["a", "A"], 1),
            ("a'", &["a'", "b"], 1),
        ] {
            assert!(node(name, all, Spread::Mirror { copies }).is_err(), "{name} {all:?} {copies}");
        }
    }

    #[test]
    fn each_file_goes_to_one_node_and_most_stay_when_one_is_added() {
        let of = |names: &[&str], file: &str| -> Vec<String> {
            let takes = |name: &&&str| node(name, names, Spread::Share).unwrap().takes(file);
            names.iter().filter(takes).map(|&name| name.to_owned()).collect()
        };
        let (mut counts, mut moved) = ([0; 3], 0);
        for number in 0..3000 {
            let file = format!("{number:010}_stream.dat");
            let (two, three) = (of(&["a", "b"], &file), of(&["a", "b", "c"], &file));
            assert_eq!((two.len(), three.len()), (1, 1), "{file}");
            counts[usize::from(three[0].as_bytes()[0] - b'a')] += 1;
            moved += usize::from(two != three && three != ["c"]);
        }
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
        assert_eq!(moved, 0);
    }
}
