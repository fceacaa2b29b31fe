//! The scenarios of `bench transfer`, small and against a private sshd, followed over time by criterion. Ratios against
//! others are the command's own business.
#![allow(missing_docs, clippy::expect_used, clippy::panic)]

use criterion::{BenchmarkId, Criterion, SamplingMode, criterion_group, criterion_main};
use pysmurf_archiver::bench::transfer::SCENARIOS;
use serde_json::Value;
use std::process::Command;
use std::time::Duration;

/// Medians of so many rounds at once, with `--quick`, and files of this size.
const SIZE: &str = "16M";
/// Criterion wants at least so many.
const SAMPLES: usize = 10;

/// Our number of a scenario, in the row's own unit.
fn ours(scenario: &str, receiver: &str, rounds: u64) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_pysmurf-archiver"))
        .args(["bench", "transfer", "--quick", "--json", "--size", SIZE, "--rounds", &rounds.to_string()])
        .args(["--scenario", scenario, "--receiver", receiver])
        .output()
        .expect("our program starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "bench transfer of {scenario} failed: {said}");
    let rows: Value = serde_json::from_slice(&output.stdout).expect("rows in JSON");
    let row = rows.as_array().and_then(|rows| rows.iter().find(|row| row["id"] == scenario));
    row.unwrap_or_else(|| panic!("no row of {scenario}: {said}")).clone()
}

fn seconds(row: &Value) -> f64 {
    let number = row["ours"].as_f64().expect("a number of ours");
    if row["unit"] == "s" { number } else { number / 1000.0 }
}

fn transfers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("transfer");
    group.sample_size(SAMPLES).sampling_mode(SamplingMode::Flat);
    group.warm_up_time(Duration::from_millis(1)).measurement_time(Duration::from_millis(10));
    for scenario in SCENARIOS {
        for receiver in ["stock", "ours"] {
            group.bench_function(BenchmarkId::new(scenario, receiver), |bencher| {
                bencher.iter_custom(|rounds| {
                    let median = seconds(&ours(scenario, receiver, rounds));
                    Duration::from_secs_f64(median * rounds as f64)
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, transfers);
criterion_main!(benches);
