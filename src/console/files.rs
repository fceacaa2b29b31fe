//! Rows as operators ask for them and change them, whatever they speak through.

pub(crate) mod adding;
pub(crate) mod decision;
mod pages;
pub(crate) mod replaced;
pub(crate) mod sources;
pub(crate) mod told;
pub(crate) mod tree;

pub(crate) use pages::Pages;
