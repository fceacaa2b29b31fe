//! Where received files go: everything beneath one held directory.
