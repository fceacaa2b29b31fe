//! Of a row, what says where its copy belongs.

use std::path::PathBuf;

pub(crate) struct Record {
    pub(crate) source: PathBuf,
    pub(crate) naming: Naming,
}

pub(crate) enum Naming {
    Action {
        timestamp: Option<i64>,
        pub_id: Option<String>,
        action: Option<String>,
        action_timestamp: Option<i64>,
        plot: bool,
    },
    Type {
        timestamp: Option<i64>,
        file_type: Option<String>,
    },
    Given(String),
}
