//! Memory that holds a secret is left in no file.

use rustix::process::{DumpableBehavior, set_dumpable_behavior};

/// From now on this process leaves no core file, to no handler of cores either, and only root may look into it. What it
/// starts is free again.
pub(crate) fn leave_no_core() {
    // A kernel that refuses that leaves everything as it was.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}
