//! What stands in the columns of the pysmurf tables: values as the server would make them of what the Python monitor sends, and
//! said to be wrong where that loses the file or cuts a text.

use super::notice::FileWords;
use super::value::PyValue;
use crate::catalog::announced::PysmurfColumns;

/// Letters that most columns hold.
const COLUMN: usize = 32;

/// Whose rows they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MonitorAddress {
    pub(crate) site: String,
    pub(crate) instance: String,
}

/// Why the table cannot have the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ColumnError {
    #[error("Its {0} is no text")]
    NoText(&'static str),
    #[error("Its {0} has {1} letters, and the table's column holds {2}")]
    TooLong(&'static str, usize, usize),
    #[error("Its {0} is {1}, which the table's column cannot hold")]
    NoNumber(&'static str, String),
    #[error(
        "It is a file of the streamer, for which the pysmurf tables have no place; --db with a database of SupRsync has"
    )]
    OfStreamer,
}

/// The columns for a file of which this is said.
pub(crate) fn columns(
    words: &FileWords,
    path: (&str, usize),
    address: &MonitorAddress,
) -> Result<PysmurfColumns, ColumnError> {
    let (path, path_limit) = path;
    fits("path", path, path_limit)?;
    let timestamp = words.timestamp.unwrap_or(0.0);
    // What a TIMESTAMP holds everywhere: from the first second of 1970 on to 2038.
    let seconds = timestamp.floor();
    if !(1.0..=f64::from(i32::MAX)).contains(&seconds) {
        return Err(ColumnError::NoNumber("timestamp", timestamp.to_string()));
    }
    Ok(PysmurfColumns {
        action: text("action", words.action.as_ref())?,
        file_type: text("type", words.file_type.as_ref())?,
        timestamp: seconds as i64,
        action_timestamp: words.action_timestamp.as_ref().map_or(Ok(None), whole)?,
        format: text("format", words.format.as_ref())?,
        plot: words.plot.as_ref().map_or(Ok(0), plot)?,
        publisher: text("id", words.publisher.as_ref())?,
        site: address.site.clone(),
        instance: address.instance.clone(),
    })
}

fn fits(field: &'static str, text: &str, most: usize) -> Result<(), ColumnError> {
    let letters = text.chars().count();
    if letters > most { Err(ColumnError::TooLong(field, letters, most)) } else { Ok(()) }
}

/// NULL where nothing is said. A number is a text to the server.
fn text(field: &'static str, value: Option<&PyValue>) -> Result<Option<String>, ColumnError> {
    let text = match value {
        None | Some(PyValue::None) => return Ok(None),
        Some(PyValue::Bool(set)) => u8::from(*set).to_string(),
        Some(value) => {
            let text = value.str().and_then(|text| text.as_str().map(str::to_owned));
            text.ok_or(ColumnError::NoText(field))?
        }
    };
    fits(field, &text, COLUMN)?;
    Ok(Some(text))
}

/// A number of whole seconds, which the server rounds.
fn whole(value: &PyValue) -> Result<Option<i64>, ColumnError> {
    let number = match value {
        PyValue::None => return Ok(None),
        PyValue::Bool(set) => Some(f64::from(u8::from(*set))),
        PyValue::Text(text) => text.as_str().and_then(|text| text.trim().parse().ok()),
        value => value.as_number(),
    };
    let number = number.map(f64::round).filter(|number| (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(number));
    let shown = || value.str().map_or_else(|| "no number".to_owned(), |text| format!("{:?}", text.shown()));
    number.map(|number| Some(number as i64)).ok_or_else(|| ColumnError::NoNumber("action_ts", shown()))
}

/// As `int()` has it; of a text that is no number, whether it says anything.
fn plot(value: &PyValue) -> Result<i64, ColumnError> {
    let number = match value {
        PyValue::Text(text) => text.as_str().and_then(|text| text.trim().parse::<i64>().ok()),
        value => value.as_number().filter(|number| number.is_finite()).map(|number| number.trunc() as i64),
    };
    let number = number.unwrap_or_else(|| i64::from(value.is_truthy()));
    // What TINYINT holds.
    if (-128..=127).contains(&number) { Ok(number) } else { Err(ColumnError::NoNumber("plot", number.to_string())) }
}

#[cfg(test)]
mod tests {
    use super::super::message::PublisherMessage;
    use super::super::notice::FileNotice;
    use super::*;

    fn of(payload: &str) -> Result<PysmurfColumns, String> {
        let json = format!("{{\"id\":\"i\",\"type\":\"data_file\",\"payload\":{{\"path\":\"/a/b/c/d\",{payload}}}}}");
        let notice = FileNotice::of(&PublisherMessage::read(json.as_bytes()).unwrap(), 1_700_000_000.9).unwrap();
        let address = MonitorAddress { site: "site".into(), instance: "monitor".into() };
        columns(&notice.words, (&notice.path, 260), &address).map_err(|error| error.to_string())
    }

    /// As MariaDB 10.11 was seen to take them, part 4 of `pysmurf-monitor.md`.
    #[test]
    fn values_are_those_that_the_server_makes_of_them() {
        let of_time = |payload: &str| of(payload).unwrap().timestamp;
        assert_eq!(of_time("\"timestamp\": 1589517264.6"), 1589517264);
        assert_eq!(of_time("\"format\": \"npy\""), 1_700_000_000);
        let started = |payload: &str| of(&format!("\"action_ts\": {payload}")).map(|columns| columns.action_timestamp);
        assert_eq!(started("\"1589517264\""), Ok(Some(1589517264)));
        assert_eq!(started("\"1589517264.9\""), Ok(Some(1589517265)));
        assert_eq!(started("null"), Ok(None));
        let plot = |payload: &str| of(&format!("\"plot\": {payload}")).map(|columns| columns.plot);
        assert_eq!([plot("true"), plot("false"), plot("2.9"), plot("\"no\"")], [Ok(1), Ok(0), Ok(2), Ok(1)]);
    }

    #[test]
    fn what_a_column_does_not_hold_is_told() {
        let long = "x".repeat(33);
        for (payload, why) in [
            ("\"action_ts\": \"abc\"".to_owned(), "action_ts is \"abc\""),
            ("\"action_ts\": 3000000000".to_owned(), "action_ts is \"3000000000\""),
            (format!("\"action\": \"{long}\""), "action has 33 letters, and the table's column holds 32"),
            ("\"timestamp\": -5".to_owned(), "timestamp is -5"),
            ("\"timestamp\": NaN".to_owned(), "timestamp is NaN"),
        ] {
            let said = of(&payload).unwrap_err();
            assert!(said.contains(why), "{payload}: {said}");
        }
    }
}
