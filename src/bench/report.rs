//! What was found: rows for programs and tables for people.

use super::median;
use serde_json::{Value, json};

/// The most memory our end may take, bytes.
const MEMORY_MOST: u64 = 64 << 20;

/// Who writes the files at the far end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receiver {
    /// Stock rsync.
    Stock,
    /// This program.
    Ours,
}

impl Receiver {
    fn name(self) -> &'static str {
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
}

/// Medians of several trials.
#[derive(Debug, Clone, Copy, Default)]
struct Medians {
    wall: f64,
    cpu: f64,
    far_cpu: Option<f64>,
    peak: u64,
    wire: Option<u64>,
}

impl Medians {
    fn of(trials: &[Trial]) -> Self {
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
    pub receiver: Option<Receiver>,
    /// Our number.
    pub ours: f64,
    /// The other's number; `None` where there is no other here.
    pub theirs: Option<f64>,
    /// What both are counted in.
    pub unit: String,
    /// How many times better we are, or our number where the goal is one.
    pub ratio: Option<f64>,
    /// CPU seconds of our end over those of the other's same end.
    pub cpu_ratio: Option<f64>,
    /// The most memory of our end, bytes.
    pub peak: Option<u64>,
    /// What `ratio` should be at least.
    pub goal: Option<f64>,
    /// What `cpu_ratio` may be at most.
    cpu_goal: Option<f64>,
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
            goal: None,
            cpu_goal: None,
            details: None,
        }
    }

    /// A row of times, of which less is better; each of them is multiplied by its factor.
    pub fn of_times(
        id: &str,
        receiver: Option<Receiver>,
        (ours, our_factor): (&[Trial], f64),
        (theirs, their_factor): (&[Trial], f64),
        unit: &str,
    ) -> Self {
        let (mine, other) = (Medians::of(ours), Some(Medians::of(theirs)).filter(|_| !theirs.is_empty()));
        let our_time = mine.wall * our_factor;
        let their_time = other.map(|other| other.wall * their_factor);
        let their_cpu = other.map(|other| other.cpu * their_factor).filter(|&cpu| cpu > 0.0);
        let (goal, cpu_goal) = goals(id, receiver);
        Self {
            id: id.to_owned(),
            receiver,
            ours: our_time,
            theirs: their_time,
            unit: unit.to_owned(),
            ratio: their_time.map(|time| time / our_time),
            cpu_ratio: their_cpu.map(|cpu| mine.cpu * our_factor / cpu),
            peak: Some(mine.peak).filter(|&peak| peak > 0),
            goal,
            cpu_goal,
            details: Some((mine, other)),
        }
    }

    /// With this to be reached.
    #[must_use]
    pub fn with_goal(self, goal: Option<f64>) -> Self {
        Self { goal, ..self }
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

    /// Whether the goal is reached, with CPU and memory within their limits; `None` without one.
    pub fn met(&self) -> Option<bool> {
        let reached = self.ratio? >= self.goal?;
        let cpu = self.cpu_goal.is_none_or(|most| self.cpu_ratio.is_some_and(|cpu| cpu <= most));
        Some(reached && cpu && self.peak.is_none_or(|peak| peak <= MEMORY_MOST))
    }

    fn json(&self, judged: bool) -> String {
        let number = |value: Option<f64>| value.map_or(Value::Null, |value| json!(rounded(value)));
        let fields = [
            ("id", json!(self.id)),
            ("receiver", json!(self.receiver.map(Receiver::name))),
            ("ours", number(Some(self.ours))),
            ("theirs", number(self.theirs)),
            ("unit", json!(self.unit)),
            ("ratio", number(self.ratio)),
            ("cpu_ratio", number(self.cpu_ratio)),
            ("peak_rss_bytes", json!(self.peak)),
            ("goal", number(self.goal)),
            ("met", json!(self.met().filter(|_| judged))),
        ];
        let fields = fields.map(|(name, value)| format!("{}:{value}", json!(name)));
        format!("{{{}}}", fields.join(","))
    }
}

/// What is to be reached against stock, in time and in CPU of our end.
fn goals(id: &str, receiver: Option<Receiver>) -> (Option<f64>, Option<f64>) {
    use Receiver::{Ours, Stock};
    let time = match (id, receiver) {
        ("new-default", Some(Stock)) => 1.5,
        ("new-gcm", Some(Stock)) => 1.1,
        ("unrelated", Some(Stock)) => 4.0,
        ("appended", Some(Stock)) => 1.7,
        ("changed" | "identical", Some(Stock)) => 1.2,
        ("changed", Some(Ours)) => 2.5,
        ("identical", Some(Ours)) => 5.0,
        ("small", Some(Stock)) => 1.1,
        ("small", Some(Ours)) => 1.6,
        ("trickle-agent", Some(Stock)) => 100.0,
        ("trickle-suprsync", Some(Stock)) => 8.0,
        ("wan", Some(Stock)) => 5.0,
        _ => return (None, None),
    };
    let cpu = match id {
        "new-default" | "new-gcm" => Some(0.5),
        "unrelated" => Some(0.2),
        _ => None,
    };
    (Some(time), cpu)
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
    /// Whether so little was measured that no goal is judged by it.
    pub quick: bool,
}

impl Findings {
    /// Notes that a scenario was left out.
    pub fn skip(&mut self, what: impl Into<String>, why: impl ToString) {
        self.skipped.push((what.into(), why.to_string()));
    }

    /// One array of rows.
    pub fn json(&self) -> String {
        let rows: Vec<String> = self.rows.iter().map(|row| row.json(!self.quick)).collect();
        format!("[{}]", rows.join(",\n "))
    }

    /// A table for people.
    pub fn table(&self) -> String {
        let head = ["scenario", "receiver", "ours", "theirs", "unit", "ratio", "goal", "met", "CPU ratio", "memory"];
        let mut lines = vec![head.map(str::to_owned).to_vec()];
        for row in &self.rows {
            lines.push(vec![
                row.id.clone(),
                row.receiver.map_or("", Receiver::name).to_owned(),
                shown(row.ours),
                row.theirs.map_or_else(String::new, shown),
                row.unit.clone(),
                row.ratio.map_or_else(String::new, shown),
                row.goal.map_or_else(String::new, |goal| format!(">= {}", shown(goal))),
                match row.met() {
                    None => "",
                    Some(_) if self.quick => "-",
                    Some(true) => "yes",
                    Some(false) => "NO",
                }
                .to_owned(),
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
        if self.quick && self.rows.iter().any(|row| row.goal.is_some()) {
            text.push_str("\nThe goals are for full runs: --quick measures too little to tell whether they are met.");
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
        row.receiver.map_or("", Receiver::name).to_owned(),
        both(&|medians| shown(medians.wall)),
        both(&|medians| shown(medians.cpu)),
        both(&|medians| or_unknown(medians.far_cpu.map(shown))),
        both(&|medians| mib(medians.peak)),
        both(&|medians| or_unknown(medians.wire.map(|bytes| bytes.to_string()))),
    ])
}

/// Columns as wide as their widest word, two blanks between.
fn aligned(lines: &[Vec<String>]) -> String {
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
fn shown(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// More digits than any clock here is good for are noise.
fn rounded(value: f64) -> f64 {
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
        let row = Row::of_times("unrelated", Some(Receiver::Stock), (&ours, 1.0), (&theirs, 1.0), "s");
        assert_eq!(
            row.json(true),
            "{\"id\":\"unrelated\",\"receiver\":\"stock\",\"ours\":2.0,\"theirs\":8.0,\"unit\":\"s\",\"ratio\":4.0,\
             \"cpu_ratio\":0.1,\"peak_rss_bytes\":10485760,\"goal\":4.0,\"met\":true}"
        );
        let row = Row::of_rate("core-sums", 10.0, None, "GB").by_itself().with_goal(Some(14.0));
        assert_eq!(
            row.json(true),
            "{\"id\":\"core-sums\",\"receiver\":null,\"ours\":10.0,\"theirs\":null,\"unit\":\"GB\",\"ratio\":10.0,\
             \"cpu_ratio\":null,\"peak_rss_bytes\":null,\"goal\":14.0,\"met\":false}"
        );
    }

    #[test]
    fn a_goal_is_met_within_cpu_and_memory_only() {
        let row = |ours: Trial| {
            Row::of_times("unrelated", Some(Receiver::Stock), (&[ours], 1.0), (&[trial(8.0, 2.0)], 1.0), "s")
        };
        assert_eq!(row(trial(2.0, 0.4)).met(), Some(true));
        assert_eq!(row(trial(2.1, 0.4)).met(), Some(false));
        assert_eq!(row(trial(1.0, 0.5)).met(), Some(false));
        assert_eq!(row(Trial { peak: 65 << 20, ..trial(1.0, 0.1) }).met(), Some(false));
        let inserted = Row::of_times("inserted", Some(Receiver::Stock), (&[trial(1.0, 1.0)], 1.0), (&[], 1.0), "s");
        assert_eq!((inserted.met(), inserted.ratio), (None, None));
    }

    #[test]
    fn times_count_for_one_of_many() {
        let row = Row::of_times(
            "trickle-agent",
            Some(Receiver::Stock),
            (&[trial(2.0, 1.0)], 1.0),
            (&[trial(3.0, 0.5)], 100.0),
            "ms",
        );
        assert_eq!((row.ratio, row.cpu_ratio), (Some(150.0), Some(0.02)));
    }

    #[test]
    fn the_table_says_what_was_missed() {
        let findings = Findings {
            rows: vec![Row::of_rate("core-miss", 0.5, Some(0.1), "GB per CPU second").by_itself().with_goal(Some(1.0))],
            ..Findings::default()
        };
        let table = findings.table();
        let line = table.lines().nth(1).unwrap();
        assert!(line.contains("core-miss") && line.contains("NO"), "{table}");
        assert!(!table.contains("full runs") && findings.json().contains("\"met\":false"), "{table}");
    }

    #[test]
    fn little_data_judges_no_goal() {
        let missed = Row::of_rate("core-miss", 0.5, Some(0.1), "GB per CPU second").by_itself().with_goal(Some(1.0));
        let met = Row::of_rate("core-sums", 20.0, None, "GB").by_itself().with_goal(Some(14.0));
        let findings = Findings { rows: vec![missed, met], quick: true, ..Findings::default() };
        let table = findings.table();
        for line in table.lines().skip(1).take(2) {
            let words: Vec<_> = line.split_whitespace().collect();
            assert_eq!(words.last(), Some(&"-"), "{table}");
        }
        assert!(table.contains("The goals are for full runs"), "{table}");
        let json: Value = serde_json::from_str(&findings.json()).unwrap();
        for row in json.as_array().unwrap() {
            assert!(row["met"].is_null() && row["goal"].is_f64(), "{row}");
        }
    }
}
