//! Where sent files come from: scanning arguments into a file list.
