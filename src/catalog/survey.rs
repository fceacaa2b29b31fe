//! What a glance at the table shows: its newest rows first, for as long as there is time.

use super::{AnyCatalog, Catalog, CatalogError, RecordId, Totals};
use std::time::{Duration, Instant};

/// Ids of one look: some milliseconds.
pub(super) const LOOK: i64 = 10_000;

/// What was seen of a table.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Survey {
    /// Rows in each state, of those seen.
    pub totals: Totals,
    /// When the oldest waiting row of these was registered, or its file written: unix time in seconds.
    pub oldest: Option<f64>,
    /// All rows were seen.
    pub complete: bool,
}

/// What a look at some rows showed.
#[derive(Debug, Clone, Default)]
pub(super) struct SurveyLook {
    pub(super) totals: Totals,
    pub(super) oldest: Option<f64>,
    /// No row below this one was seen; `None` where there was none at all.
    pub(super) lowest: Option<RecordId>,
}

impl AnyCatalog {
    /// Looks at rows from the newest on down for about so long, and at least once.
    pub async fn survey(&self, limit: Duration) -> Result<Survey, CatalogError> {
        let began = Instant::now();
        if let Some(survey) = self.survey_by_indexes(limit).await? {
            return Ok(survey);
        }
        let mut survey = Survey::default();
        let mut below = RecordId(i64::MAX);
        loop {
            let look = match self {
                Self::Mysql(catalog) => catalog.survey_below(below).await?,
                Self::Sqlite(catalog) => catalog.survey_below(below).await?,
            };
            survey.totals.pending += look.totals.pending;
            survey.totals.given_up += look.totals.given_up;
            survey.totals.copied += look.totals.copied;
            survey.oldest = survey.oldest.into_iter().chain(look.oldest).reduce(f64::min);
            match look.lowest {
                // Ids begin at 1: below there is nothing that anybody would copy.
                Some(lowest) if lowest.0 > 1 => below = lowest,
                _ => return Ok(Survey { complete: true, ..survey }),
            }
            if began.elapsed() >= limit {
                return Ok(survey);
            }
        }
    }

    /// The whole table, by indexes of ours; `None` where there are none, or too much waits for that.
    async fn survey_by_indexes(&self, limit: Duration) -> Result<Option<Survey>, CatalogError> {
        let indexed = match self {
            Self::Mysql(catalog) => catalog.is_indexed().await?,
            Self::Sqlite(catalog) => catalog.is_indexed().await?,
        };
        if !indexed {
            return Ok(None);
        }
        let whole = async { Ok((self.totals().await?, self.oldest().await?)) };
        match tokio::time::timeout(limit, whole).await {
            Ok(whole) => whole.map(|(totals, oldest)| Some(Survey { totals, oldest, complete: true })),
            Err(_) => Ok(None),
        }
    }
}
