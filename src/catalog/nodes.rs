//! Several storage nodes for the rows of one target: which one a catalog works for, and when a row is done.
//!
//! Each node has a catalog of its own, with its own mover and lanes, so that none waits for another. They meet in a row's
//! proofs: whoever writes the one by which there are enough also makes the row a copied one.

use super::{Md5, RecordId};
use std::path::PathBuf;

/// The tables beside those of a fleet, for targets with storage nodes.
pub(super) const NODE_TABLES: [&str; 3] = ["fleet_node", "fleet_owed", "fleet_trouble"];

/// Longest name of a node.
const NAME_MOST: usize = 32;

/// The storage node that a catalog works for, among all that copies go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageNode {
    name: String,
    all: Vec<String>,
    spread: Spread,
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
    /// One of these nodes. The error says what is wrong with them.
    pub fn new(name: String, all: Vec<String>, spread: Spread) -> Result<Self, String> {
        for (at, node) in all.iter().enumerate() {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
            if node.is_empty() || node.len() > NAME_MOST || !node.bytes().all(fits) {
                return Err(format!(
                    "a storage node cannot be called {node:?}: give it up to {NAME_MOST} letters, digits, dots, dashes and underscores"
                ));
            }
            if all.iter().take(at).any(|other| other.eq_ignore_ascii_case(node)) {
                return Err(format!("there are two storage nodes {node:?}; give each a name of its own"));
            }
        }
        if !all.contains(&name) {
            return Err(format!("there is no storage node {name:?}; there are {}", all.join(", ")));
        }
        match spread {
            Spread::Mirror { copies } if copies == 0 || copies > all.len() => {
                Err(format!("{copies} copies cannot be on {} storage nodes; give a number from 1 to that", all.len()))
            }
            _ => Ok(Self { name, all, spread }),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All of them, in the order of the configuration.
    pub fn all(&self) -> &[String] {
        &self.all
    }

    /// How rows are spread over them.
    pub fn spread(&self) -> Spread {
        self.spread
    }

    /// Whether it is the one beside whose copying the rest is done: deleting local files, announcing.
    pub fn is_first(&self) -> bool {
        self.all.first() == Some(&self.name)
    }

    /// So many proofs make a row a copied one.
    pub(super) fn copies(&self) -> usize {
        match self.spread {
            Spread::Mirror { copies } => copies,
            Spread::Share => 1,
        }
    }

    /// By what its lanes are known beside those of the other nodes.
    pub(super) fn rows_of(&self, table: &str) -> String {
        format!("{table}@{}", self.name)
    }

    /// All names as SQL has a list of texts; no name needs an escape.
    pub(super) fn list(&self) -> String {
        let quoted: Vec<String> = self.all.iter().map(|name| format!("'{name}'")).collect();
        quoted.join(", ")
    }

    /// Whether a row goes to this node, by the name of its file. The highest of the nodes' hashes wins: another node more
    /// takes from each its part, and moves nothing else.
    pub(super) fn takes(&self, file: &str) -> bool {
        let weight = |node: &String| {
            let bytes = file.bytes().chain([b'@']).chain(node.bytes());
            let hash = bytes
                .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
            // FNV's high bits hardly change with the last letters: mixed, as SplitMix64 ends.
            let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (hash ^ (hash >> 31), node.clone())
        };
        match self.spread {
            Spread::Mirror { .. } => true,
            Spread::Share => self.all.iter().max_by_key(|node| weight(node)) == Some(&self.name),
        }
    }
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
    /// How often it failed there, and why the last time.
    pub(crate) failed: Option<(i64, String)>,
}

/// What is said where the tables are not there.
pub(super) const NO_TABLES: &str = "has no tables for several storage nodes; run `pysmurf-archiver init-db --nodes`";

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
        StorageNode::new(name.to_owned(), all.iter().map(|&name| name.to_owned()).collect(), spread)
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
