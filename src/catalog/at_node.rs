//! How a row stands at a storage node that has no proven copy of it, as people ask for it.

use super::RecordId;
use super::nodes::{NodeNames, Spread, StorageNode};

/// Which storage nodes rows are asked for at.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) enum AtNodes {
    /// At none: the rows themselves alone.
    #[default]
    Nowhere,
    /// The rows themselves, and beside them what failed at each of these alone.
    FailedAt(Vec<StorageNode>),
    /// Only what this one lacks.
    LackedBy(StorageNode),
}

impl AtNodes {
    /// What failed at any of these.
    pub(crate) fn failed_at(names: &NodeNames) -> Self {
        let copies = names.all().count();
        let nodes = names.all().filter_map(|name| StorageNode::known(name, names, Spread::Mirror { copies }));
        let nodes: Vec<_> = nodes.collect();
        if nodes.is_empty() { Self::Nowhere } else { Self::FailedAt(nodes) }
    }
}

/// What is to become of a row at a storage node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AtNodeState {
    /// It waits and never failed there.
    Waiting,
    /// Others have made it a copied row, and this one gets its copy yet.
    Owed,
    /// The same, and the file is here no more.
    Lacking,
    /// It failed there, and will be tried again.
    Retrying,
    /// It failed too often.
    GivenUp,
}

/// A row at a storage node.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AtNode {
    pub(crate) node: String,
    pub(crate) state: AtNodeState,
    /// Failures that count there.
    pub(crate) attempts: i64,
    /// Some of them count there alone, and not in the row.
    pub(crate) alone: bool,
    /// When it failed there last, unix time in seconds, and why.
    pub(crate) reason: Option<(f64, String)>,
}

/// What failed at a node.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct NodeTrouble {
    pub(super) of_source: i64,
    pub(super) of_node: i64,
    pub(super) reason: Option<(f64, String)>,
}

/// What the tables have of a row and a node that gets its files from here.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct NodeFacts {
    /// The row is no copied one.
    pub(super) waits: bool,
    /// The row goes to this node, where several share the rows.
    pub(super) takes: bool,
    /// Failures of the row itself.
    pub(super) counted: i64,
    /// The node has proven these very bytes.
    pub(super) proven: bool,
    /// So many nodes have whose proofs count.
    pub(super) proofs: usize,
    pub(super) owes: bool,
    /// The file of an owed copy is here no more.
    pub(super) lacking: bool,
    pub(super) trouble: NodeTrouble,
}

impl AtNode {
    /// How that is, where nothing is tried any more that failed `most` times; `None` where the node lacks nothing.
    pub(super) fn of(node: &StorageNode, most: i64, facts: NodeFacts) -> Option<Self> {
        let NodeFacts { waits, takes, counted, proven, proofs, owes, lacking, trouble } = facts;
        if !waits {
            let untried = if lacking { AtNodeState::Lacking } else { AtNodeState::Owed };
            // Failures of the source were of the row, and are over.
            let trouble = NodeTrouble { of_source: 0, ..trouble };
            return owes.then(|| Self::tried(node, untried, most, trouble));
        }
        // Of a row that was put back all proofs are void. What failed there it was to have, and has not.
        let has = proven && proofs < node.copies();
        if trouble.of_node == 0 && (has || !takes) {
            return None;
        }
        // What somebody put back has no failures of its source any more.
        let trouble = NodeTrouble { of_source: trouble.of_source.min(counted), ..trouble };
        let at = Self::tried(node, AtNodeState::Waiting, most, trouble);
        Some(match counted >= most {
            // A row that was given up for its file is tried at no node.
            true => Self { state: AtNodeState::GivenUp, attempts: at.attempts.max(counted), ..at },
            false => at,
        })
    }

    /// The same of what is as `untried` says unless it failed.
    pub(super) fn tried(node: &StorageNode, untried: AtNodeState, most: i64, trouble: NodeTrouble) -> Self {
        let NodeTrouble { of_source, of_node, reason } = trouble;
        let attempts = of_source.saturating_add(of_node);
        let state = match attempts {
            attempts if attempts >= most => AtNodeState::GivenUp,
            attempts if attempts > 0 => AtNodeState::Retrying,
            _ => untried,
        };
        let reason = reason.filter(|_| attempts > 0);
        Self { node: node.name().to_owned(), state, attempts, alone: of_node > 0, reason }
    }

    /// Whether it failed there.
    pub(super) fn failed(&self) -> bool {
        matches!(self.state, AtNodeState::Retrying | AtNodeState::GivenUp)
    }

    /// Whether it is tried, for the first time or again.
    pub(super) fn is_tried(&self) -> bool {
        self.state != AtNodeState::GivenUp
    }
}

/// By what the rows of a node are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NodeKeys {
    /// What it owes.
    Owed,
    /// What failed there, at the source or the node.
    Troubled,
    /// What the node that feeds it has proven, and it has not.
    Fed,
}

/// Keys from a bounded part of such a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FoundKeys {
    /// In order.
    pub(super) ids: Vec<RecordId>,
    /// Up to which id that is all.
    pub(super) until: i64,
}

impl FoundKeys {
    /// These, `limit` at most, of those up to `last`.
    pub(super) fn new(ids: Vec<RecordId>, limit: usize, last: i64) -> Self {
        let full = ids.last().filter(|_| ids.len() >= limit).map(|id| id.0);
        Self { until: full.unwrap_or(last), ids }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(facts: NodeFacts) -> Option<(AtNodeState, i64, bool)> {
        let names = NodeNames::of_tables(vec!["a".to_owned(), "b".to_owned()], Vec::new());
        let node = StorageNode::known("b", &names, Spread::Mirror { copies: 2 }).unwrap();
        AtNode::of(&node, 2, facts).map(|at| (at.state, at.attempts, at.alone))
    }

    fn trouble(of_source: i64, of_node: i64) -> NodeTrouble {
        NodeTrouble { of_source, of_node, reason: Some((1.0, "why".to_owned())) }
    }

    #[test]
    fn what_a_storage_node_lacks_of_a_row_that_waits_it_has_not_proven() {
        let waits = NodeFacts { waits: true, takes: true, ..NodeFacts::default() };
        let of = |trouble| at(NodeFacts { trouble, ..waits.clone() });
        assert_eq!(of(trouble(0, 0)), Some((AtNodeState::Waiting, 0, false)));
        assert_eq!(of(trouble(0, 1)), Some((AtNodeState::Retrying, 1, true)));
        assert_eq!(of(trouble(0, 2)), Some((AtNodeState::GivenUp, 2, true)));
        // Somebody has put the row back since.
        assert_eq!(of(trouble(1, 0)), Some((AtNodeState::Waiting, 0, false)));
        let counted = |counted, trouble| at(NodeFacts { counted, trouble, ..waits.clone() });
        assert_eq!(counted(1, trouble(1, 1)), Some((AtNodeState::GivenUp, 2, true)));
        assert_eq!(counted(1, trouble(0, 0)), Some((AtNodeState::Waiting, 0, false)));
        assert_eq!(counted(2, trouble(1, 0)), Some((AtNodeState::GivenUp, 2, false)));
        let proven = |proofs, trouble| at(NodeFacts { proven: true, proofs, trouble, ..waits.clone() });
        assert_eq!(proven(1, trouble(0, 0)), None);
        assert_eq!(proven(2, trouble(0, 0)), Some((AtNodeState::Waiting, 0, false)));
        assert_eq!(proven(1, trouble(0, 1)), Some((AtNodeState::Retrying, 1, true)));
        assert_eq!(at(NodeFacts { takes: false, ..waits.clone() }), None);
    }

    #[test]
    fn of_a_row_that_is_done_a_storage_node_lacks_what_it_owes() {
        assert_eq!(at(NodeFacts { trouble: trouble(0, 2), ..NodeFacts::default() }), None);
        let owes = NodeFacts { owes: true, ..NodeFacts::default() };
        assert_eq!(at(owes.clone()), Some((AtNodeState::Owed, 0, false)));
        assert_eq!(at(NodeFacts { lacking: true, ..owes.clone() }), Some((AtNodeState::Lacking, 0, false)));
        assert_eq!(at(NodeFacts { trouble: trouble(2, 1), ..owes }), Some((AtNodeState::Retrying, 1, true)));
    }

    #[test]
    fn keys_are_all_up_to_where_they_were_cut() {
        let ids = |ids: &[i64]| ids.iter().copied().map(RecordId).collect::<Vec<_>>();
        assert_eq!(FoundKeys::new(ids(&[3, 5]), 3, 9).until, 9);
        assert_eq!(FoundKeys::new(ids(&[3, 5, 7]), 3, 9).until, 7);
    }
}
