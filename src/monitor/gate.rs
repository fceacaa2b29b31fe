//! Whether anything is registered: what comes meanwhile waits in the spool.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Open or closed. Clones are the same gate.
#[derive(Debug, Clone)]
pub(crate) struct RegistrarGate(Arc<AtomicBool>);

impl RegistrarGate {
    /// One that is open.
    pub(crate) fn opened() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }

    /// One that is not.
    pub(crate) fn closed() -> Self {
        Self(Arc::new(AtomicBool::new(false)))
    }

    /// Has what there is, and what comes, registered.
    pub(crate) fn open(&self) {
        self.0.store(true, Relaxed);
    }

    /// Nothing more is registered.
    pub(crate) fn close(&self) {
        self.0.store(false, Relaxed);
    }

    pub(super) fn is_open(&self) -> bool {
        self.0.load(Relaxed)
    }
}
