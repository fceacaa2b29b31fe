//! What was found: rows for programs and tables for people.

use super::median;
use serde_json::{Value, json};

/// Who writes the files at the far end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceivingEnd {
    /// Stock rsync.
    Stock,
    /// This program.
    Ours,
}

impl ReceivingEnd {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Stock => "stock",
            Self::Ours => "ours",
        }
    }
}

/// What one run of a program took.
#[derive(Debug, Clone, Copy, Default)]
pub struct Trial {
    /// Seconds from its start to its end.
    pub wall: f64,
    /// CPU seconds on this side, children included.
    pub cpu: f64,
    /// CPU seconds of the server's side, its SSH included; `None` where the server is not ours to look at.
    pub far_cpu: Option<f64>,
    /// The most memory that a process of this side had, bytes.
    pub peak: u64,
    /// Bytes of the rsync protocol in both directions; `None` of a program that does not say.
    pub wire: Option<u64>,
    /// The share of the machine that other work took meanwhile; `None` where that is not known.
    pub others: Option<f64>,
}

/// Medians of several trials.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Medians {
    pub(super) wall: f64,
    pub(super) cpu: f64,
    pub(super) far_cpu: Option<f64>,
    pub(super) peak: u64,
    wire: Option<u64>,
}

impl Medians {
    pub(super) fn of(trials: &[Trial]) -> Self {
        let of = |value: fn(&Trial) -> f64| median(trials.iter().map(value)).unwrap_or_default();
        Self {
            wall: of(|trial| trial.wall),
            cpu: of(|trial| trial.cpu),
            far_cpu: median(trials.iter().filter_map(|trial| trial.far_cpu)),
            peak: trials.iter().map(|trial| trial.peak).max().unwrap_or_default(),
            wire: median(trials.iter().filter_map(|trial| trial.wire.map(|bytes| bytes as f64)))
                .map(|bytes| bytes as u64),
        }
    }
}

/// One line of the result.
#[derive(Debug, Clone)]
pub struct Row {
    /// Which scenario.
    pub id: String,
    /// Who received; `None` where nothing was transferred.
    pub receiver: Option<ReceivingEnd>,
    /// Our number.
    pub ours: f64,
    /// The other's number; `None` where there is no other here.
    pub theirs: Option<f64>,
    /// What both are counted in.
    pub unit: String,
    /// How many times better we are, or our own number.
    pub ratio: Option<f64>,
    /// CPU seconds of our end over those of the other's same end.
    pub cpu_ratio: Option<f64>,
    /// The most memory of our end, bytes.
    pub peak: Option<u64>,
    details: Option<(Medians, Option<Medians>)>,
}

impl Row {
    /// A row of a rate, of which more is better, measured against itself or another's.
    pub fn of_rate(id: impl Into<String>, ours: f64, theirs: Option<f64>, unit: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            receiver: None,
            ours,
            theirs,
            unit: unit.into(),
            ratio: theirs.map(|theirs| ours / theirs),
            cpu_ratio: None,
            peak: None,
            details: None,
        }
    }

    /// A row of times, of which less is better; each of them is multiplied by its factor.
    pub fn of_times(
        id: &str,
        receiver: Option<ReceivingEnd>,
        (ours, our_factor): (&[Trial], f64),
        (theirs, their_factor): (&[Trial], f64),
        unit: &str,
    ) -> Self {
        let (mine, other) = (Medians::of(ours), Some(Medians::of(theirs)).filter(|_| !theirs.is_empty()));
        let our_time = mine.wall * our_factor;
        let their_time = other.map(|other| other.wall * their_factor);
        let their_cpu = other.map(|other| other.cpu * their_factor).filter(|&cpu| cpu > 0.0);
        Self {
            id: id.to_owned(),
            receiver,
            ours: our_time,
            theirs: their_time,
            unit: unit.to_owned(),
            ratio: their_time.map(|time| time / our_time),
            cpu_ratio: their_cpu.map(|cpu| mine.cpu * our_factor / cpu),
            peak: Some(mine.peak).filter(|&peak| peak > 0),
            details: Some((mine, other)),
        }
    }

    /// Times of moving so many bytes as a rate.
    #[must_use]
    pub fn as_rate(self, bytes: u64) -> Self {
        let rate = |seconds: f64| bytes as f64 / 1e6 / seconds;
        Self { ours: rate(self.ours), theirs: self.theirs.map(rate), unit: "MB/s".to_owned(), ..self }
    }

    /// Where our number itself is what counts.
    #[must_use]
    pub fn by_itself(self) -> Self {
        Self { ratio: Some(self.ours), ..self }
    }

    fn json(&self) -> String {
        let number = |value: Option<f64>| value.map_or(Value::Null, |value| json!(rounded(value)));
        let fields = [
            ("id", json!(self.id)),
            ("receiver", json!(self.receiver.map(ReceivingEnd::name))),
            ("ours", number(Some(self.ours))),
            ("theirs", number(self.theirs)),
            ("unit", json!(self.unit)),
            ("ratio", number(self.ratio)),
            ("cpu_ratio", number(self.cpu_ratio)),
            ("peak_rss_bytes", json!(self.peak)),
        ];
        let fields = fields.map(|(name, value)| format!("{}:{value}", json!(name)));
        format!("{{{}}}", fields.join(","))
    }
}

/// All that a command found.
#[derive(Debug, Default)]
pub struct Findings {
    /// The rows.
    pub rows: Vec<Row>,
    /// What was not measured, and why.
    pub skipped: Vec<(String, String)>,
    /// What else is worth saying.
    pub notes: Vec<String>,
}

impl Findings {
    /// Notes that a scenario was left out.
    pub fn skip(&mut self, what: impl Into<String>, why: impl ToString) {
        self.skipped.push((what.into(), why.to_string()));
    }

    /// One array of rows.
    pub fn json(&self) -> String {
        let rows: Vec<String> = self.rows.iter().map(Row::json).collect();
        format!("[{}]", rows.join(",\n "))
    }

    /// A table for people.
    pub fn table(&self) -> String {
        let head = ["scenario", "receiver", "ours", "theirs", "unit", "ratio", "CPU ratio", "memory"];
        let mut lines = vec![head.map(str::to_owned).to_vec()];
        for row in &self.rows {
            lines.push(vec![
                row.id.clone(),
                row.receiver.map_or("", ReceivingEnd::name).to_owned(),
                shown(row.ours),
                row.theirs.map_or_else(String::new, shown),
                row.unit.clone(),
                row.ratio.map_or_else(String::new, shown),
                row.cpu_ratio.map_or_else(String::new, shown),
                row.peak.map_or_else(String::new, mib),
            ]);
        }
        let mut text = aligned(&lines);
        let details: Vec<Vec<String>> = self.rows.iter().filter_map(detail).collect();
        if !details.is_empty() {
            let head = [
                "each (ours | theirs)",
                "receiver",
                "wall s",
                "CPU s here",
                "CPU s there",
                "memory",
                "bytes on the wire",
            ];
            let mut lines = vec![head.map(str::to_owned).to_vec()];
            lines.extend(details);
            text.push('\n');
            text.push_str(&aligned(&lines));
        }
        for note in &self.notes {
            text.push_str(&format!("\n{note}"));
        }
        text
    }
}

fn detail(row: &Row) -> Option<Vec<String>> {
    let (ours, theirs) = row.details?;
    let both = |shown: &dyn Fn(&Medians) -> String| match &theirs {
        Some(theirs) => format!("{} | {}", shown(&ours), shown(theirs)),
        None => shown(&ours),
    };
    let or_unknown = |value: Option<String>| value.unwrap_or_else(|| "?".to_owned());
    Some(vec![
        row.id.clone(),
        row.receiver.map_or("", ReceivingEnd::name).to_owned(),
        both(&|medians| shown(medians.wall)),
        both(&|medians| shown(medians.cpu)),
        both(&|medians| or_unknown(medians.far_cpu.map(shown))),
        both(&|medians| mib(medians.peak)),
        both(&|medians| or_unknown(medians.wire.map(|bytes| bytes.to_string()))),
    ])
}

/// Columns as wide as their widest word, two blanks between.
pub(super) fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or_default();
    let widths: Vec<usize> = (0..columns)
        .map(|column| lines.iter().filter_map(|line| line.get(column)).map(String::len).max().unwrap_or_default())
        .collect();
    let mut text = String::new();
    for line in lines {
        let padded: Vec<String> = line.iter().zip(&widths).map(|(word, &width)| format!("{word:width$}")).collect();
        text.push_str(padded.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// Three digits that count.
pub(super) fn shown(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// More digits than any clock here is good for are noise.
pub(super) fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(wall: f64, cpu: f64) -> Trial {
        Trial { wall, cpu, peak: 10 << 20, wire: Some(1000), ..Trial::default() }
    }

    #[test]
    fn a_row_as_json_has_exactly_its_keys() {
        let ours = [trial(1.0, 0.1), trial(3.0, 0.3), trial(2.0, 0.2)];
        let theirs = [trial(8.0, 2.0)];
        let row = Row::of_times("unrelated", Some(ReceivingEnd::Stock), (&ours, 1.0), (&theirs, 1.0), "s");
        assert_eq!(
            row.json(),
            "{\"id\":\"unrelated\",\"receiver\":\"stock\",\"ours\":2.0,\"theirs\":8.0,\"unit\":\"s\",\"ratio\":4.0,\
             \"cpu_ratio\":0.1,\"peak_rss_bytes\":10485760}"
        );
        let row = Row::of_rate("core-sums", 10.0, None, "GB").by_itself();
        assert_eq!(
            row.json(),
            "{\"id\":\"core-sums\",\"receiver\":null,\"ours\":10.0,\"theirs\":null,\"unit\":\"GB\",\"ratio\":10.0,\
             \"cpu_ratio\":null,\"peak_rss_bytes\":null}"
        );
    }

    #[test]
    fn times_count_for_one_of_many() {
        let row = Row::of_times(
            "trickle-agent",
            Some(ReceivingEnd::Stock),
            (&[trial(2.0, 1.0)], 1.0),
            (&[trial(3.0, 0.5)], 100.0),
            "ms",
        );
        assert_eq!((row.ratio, row.cpu_ratio), (Some(150.0), Some(0.02)));
    }

    #[test]
    fn nothing_is_compared_with_what_is_not_there() {
        let inserted = Row::of_times("inserted", Some(ReceivingEnd::Stock), (&[trial(1.0, 1.0)], 1.0), (&[], 1.0), "s");
        assert_eq!((inserted.theirs, inserted.ratio), (None, None));
        let findings = Findings { rows: vec![inserted], ..Findings::default() };
        assert!(
            findings.table().lines().nth(1).unwrap().starts_with("inserted  stock     1.00"),
            "{}",
            findings.table()
        );
    }
}
