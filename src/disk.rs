//! Files and names of this machine: what is opened, held, asked and said of them, whoever moves them.

pub(crate) mod acl;
pub(crate) mod beneath;
pub(crate) mod confine;
pub(crate) mod digest;
pub(crate) mod dumps;
pub(crate) mod fake;
pub(crate) mod landlock;
pub(crate) mod links;
pub(crate) mod modes;
pub(crate) mod names;
pub(crate) mod pinned;
pub(crate) mod room;
pub(crate) mod summed;
pub(crate) mod wild;
pub(crate) mod xattr;

pub(crate) use beneath::{open_operand, open_operator_file, open_operator_lock, open_source, readable};
pub(crate) use confine::{bound, confine, trust_all_links};
pub(crate) use names::{reason, shown};
