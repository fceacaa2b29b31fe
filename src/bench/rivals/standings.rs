//! What came of the races: a table for people, all that was measured for programs.

use super::super::report::{Medians, Trial, aligned, rounded, shown};
use serde_json::{Value, json};
use std::process::Command;

/// How one tool stood in one race.
#[derive(Debug)]
pub struct RaceResult {
    race: &'static str,
    tool: String,
    /// Its command line.
    line: String,
    trials: Vec<Trial>,
}

impl RaceResult {
    pub(super) fn new(race: &'static str, tool: &str, command: &Command, trials: Vec<Trial>) -> Self {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let words: Vec<_> = words.map(|word| word.to_string_lossy().into_owned()).collect();
        let line = shlex::try_join(words.iter().map(String::as_str)).unwrap_or_else(|_| words.join(" "));
        Self { race, tool: tool.to_owned(), line, trials }
    }

    fn json(&self) -> Value {
        let Medians { wall, cpu, far_cpu, peak, .. } = Medians::of(&self.trials);
        let number = |value: f64| json!(rounded(value));
        let rounds = self.trials.iter().map(|trial| {
            json!({
                "wall": number(trial.wall),
                "cpu": number(trial.cpu),
                "far_cpu": trial.far_cpu.map(number),
                "peak_rss_bytes": trial.peak,
                "others": trial.others.map(number),
            })
        });
        json!({
            "race": self.race,
            "tool": self.tool,
            "command": self.line,
            "wall": number(wall),
            "cpu": number(cpu),
            "far_cpu": far_cpu.map(number),
            "peak_rss_bytes": peak,
            "rounds": rounds.collect::<Vec<_>>(),
        })
    }

    /// Seconds, and CPU seconds of both ends.
    fn cell(&self) -> String {
        let Medians { wall, cpu, far_cpu, .. } = Medians::of(&self.trials);
        let both = far_cpu.map_or_else(|| "?".to_owned(), |far_cpu| shown(cpu + far_cpu));
        format!("{} ({both})", shown(wall))
    }
}

/// All that was found.
#[derive(Debug, Default)]
pub struct Standings {
    pub(super) rows: Vec<RaceResult>,
    /// What was not measured, and why.
    pub skipped: Vec<(String, String)>,
    /// What else is to be known of them.
    pub notes: Vec<String>,
}

impl Standings {
    /// Notes once that a tool was left out.
    pub(super) fn skip(&mut self, what: impl Into<String>, why: &dyn ToString) {
        let skipped = (what.into(), why.to_string());
        if !self.skipped.contains(&skipped) {
            self.skipped.push(skipped);
        }
    }

    /// One array, an object for each tool in each race, with all its rounds.
    pub fn json(&self) -> String {
        let rows: Vec<_> = self.rows.iter().map(|row| row.json().to_string()).collect();
        format!("[{}]", rows.join(",\n "))
    }

    /// Tools by races; how each was called; what is to be known of it.
    pub fn table(&self) -> String {
        let mut races: Vec<&str> = self.rows.iter().map(|row| row.race).collect();
        races.dedup();
        let mut tools: Vec<&str> = Vec::new();
        for row in &self.rows {
            if !tools.contains(&&*row.tool) {
                tools.push(&row.tool);
            }
        }
        let head = std::iter::once("s (CPU s of both ends)").chain(races.iter().copied());
        let mut lines = vec![head.map(str::to_owned).collect::<Vec<_>>()];
        for tool in &tools {
            let of = |race: &&str| self.rows.iter().find(|row| row.tool == *tool && row.race == *race);
            let cells = races.iter().map(|race| of(race).map_or_else(|| "-".to_owned(), RaceResult::cell));
            lines.push(std::iter::once((*tool).to_owned()).chain(cells).collect());
        }
        let mut text = aligned(&lines);
        text.push('\n');
        for row in &self.rows {
            text.push_str(&format!("{}, {}: {}\n", row.race, row.tool, row.line));
        }
        for note in &self.notes {
            text.push_str(&format!("\n{note}"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_tools_by_races_and_how_each_was_called() {
        let trial = |wall| Trial { wall, cpu: 0.5, far_cpu: Some(0.25), others: Some(0.1), ..Trial::default() };
        let command = |program: &str| {
            let mut command = Command::new(program);
            command.arg("a b");
            command
        };
        let mut standings = Standings::default();
        standings.rows.push(RaceResult::new(
            "new",
            "rsync",
            &command("rsync"),
            vec![trial(3.0), trial(1.0), trial(2.0)],
        ));
        standings.rows.push(RaceResult::new("new", "scp", &command("scp"), vec![trial(4.0)]));
        standings.rows.push(RaceResult::new("wan", "scp", &command("scp"), vec![trial(5.0)]));
        let table = standings.table();
        let lines: Vec<_> = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(lines[1..3], ["rsync 2.00 (0.750) -", "scp 4.00 (0.750) 5.00 (0.750)"], "{table}");
        assert!(lines.contains(&"new, rsync: rsync 'a b'".to_owned()), "{table}");
        let rows: Value = serde_json::from_str(&standings.json()).unwrap();
        assert_eq!((&rows[0]["wall"], rows[0]["rounds"].as_array().unwrap().len()), (&json!(2.0), 3));
        assert_eq!(rows[0]["rounds"][0]["others"], json!(0.1));
    }
}
