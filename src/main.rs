//! Parse, wire, run, exit.

fn main() {}
