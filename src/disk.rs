//! Files and names of this machine: what is opened, held, asked and said of them, whoever moves them.

pub(crate) mod acl;
pub(crate) mod beneath;
pub(crate) mod bound;
pub(crate) mod digest;
pub(crate) mod fake;
pub(crate) mod links;
pub(crate) mod modes;
pub(crate) mod names;
pub(crate) mod pinned;
pub(crate) mod wild;
pub(crate) mod xattr;

pub(crate) use beneath::{
    confine, open_operand, open_operator_file, open_operator_lock, open_source, readable, reason, shown,
    trust_all_links,
};
pub(crate) use bound::bound;
