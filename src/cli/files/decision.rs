//! What is to be done to a row.

use crate::catalog::files::RowChange;

/// What is to be done to a row; an error says why nothing.
pub(super) type Decision = Result<RowChange, Unfit>;

/// Why a row is left as it is.
pub(super) enum Unfit {
    /// It is none of those that are meant: of no interest unless it was named.
    NotMeant(String),
    /// Something is in the way.
    Trouble(String),
}
