//! What is to be done to a row.

use super::told::state_words;
use crate::catalog::files::{FileRow, FileState, FileStates, RowChange};
use crate::disk::summed::{SymlinkRule, sum};

/// What is to be done to a row; an error says why nothing.
pub(crate) type Decision = Result<RowChange, Unfit>;

/// Why a row is left as it is.
pub(crate) enum Unfit {
    /// It is none of those that are meant: of no interest unless it was named.
    NotMeant(String),
    /// Something is in the way.
    Trouble(String),
}

/// Has a row never copied, at somebody's word: one that failed, and one that waits where these are asked for.
pub(crate) fn ignored(row: &FileRow, who: &str, asked: &FileStates) -> Decision {
    match row.state {
        FileState::GivenUp => Ok(RowChange::Ignore(who.to_owned())),
        FileState::Waiting | FileState::Retrying if asked.pending => Ok(RowChange::Ignore(who.to_owned())),
        state => Err(Unfit::NotMeant(state_words(state).to_owned())),
    }
}

/// Has an ignored row copied after all.
pub(crate) fn unignored(row: &FileRow) -> Decision {
    match row.state {
        FileState::Ignored(_) if row.removed_at.is_none() => Ok(RowChange::Unignore),
        FileState::Ignored(why) => Err(Unfit::Trouble(why.to_owned())),
        state => Err(Unfit::NotMeant(state_words(state).to_owned())),
    }
}

/// Has the file of a failed row count as it is now. Reads it.
pub(crate) fn accepted(row: &FileRow) -> Decision {
    match row.state {
        FileState::Retrying | FileState::GivenUp => {}
        state => return Err(Unfit::NotMeant(format!("{}, and did not fail", state_words(state)))),
    }
    let Some(registered) = row.md5() else {
        return Err(Unfit::Trouble("the row cannot be used as it stands".to_owned()));
    };
    let summed = sum(row.path(), SymlinkRule::Followed, &|_| {}).map_err(|error| Unfit::Trouble(error.to_string()))?;
    match summed.md5 == registered {
        true => Err(Unfit::NotMeant("its file has not changed since it was registered".to_owned())),
        false => Ok(RowChange::Accept(summed.md5)),
    }
}
