//! The search: bytes against a table of block sums, giving tokens.
