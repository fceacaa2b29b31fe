//! What systemd is told of us, where it has started us.

use crate::status::Snapshot;
use sd_notify::NotifyState;
use std::time::Duration;

/// How often it is told how it goes.
const STATUS_EVERY: Duration = Duration::from_secs(10);
/// Of the time that the watchdog waits, the share after which it is told that we live.
const WATCHDOG_SHARE: u32 = 3;

/// Tells it; that nobody listens is no reason to fail.
fn tell(state: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(state);
}

/// We are at work, though perhaps waiting for a database or a storage node.
pub(crate) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// We are about to end.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Tells how it goes, as `line` has it, and that we live, for as long as it is polled: a runtime that hangs tells nothing.
pub(crate) async fn attend(line: impl Fn() -> String) {
    let every = sd_notify::watchdog_enabled().map(|limit| limit / WATCHDOG_SHARE);
    let mut tick = tokio::time::interval(every.unwrap_or(STATUS_EVERY).min(STATUS_EVERY));
    loop {
        tick.tick().await;
        tell(&[NotifyState::Watchdog, NotifyState::Status(&line())]);
    }
}

/// How runs go, in one line for `systemctl status`.
pub(crate) fn line_of_runs(runs: &[Snapshot]) -> String {
    let sum = |count: fn(&Snapshot) -> u64| runs.iter().map(count).sum::<u64>();
    let mut line = format!("{} copied, {} on their way", sum(|now| now.copied), sum(|now| now.in_flight));
    let given_up = sum(|now| now.given_up);
    if given_up > 0 {
        line.push_str(&format!(", {given_up} given up"));
    }
    let trouble = |now: &Snapshot| {
        let link = now.link.as_ref().filter(|_| !now.flows());
        now.database.as_ref().or(link).or(now.source.as_ref()).map(|trouble| trouble.why.clone())
    };
    if let Some(why) = runs.iter().find_map(trouble) {
        let why: String = why.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
        line.push_str(&format!("; waiting: {why}"));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_all_runs_do_and_what_one_waits_for() {
        let one = Snapshot { copied: 3, in_flight: 1, given_up: 2, ..Snapshot::default() };
        let other = Snapshot { copied: 4, database: Some("out\nof reach".into()), ..Snapshot::default() };
        assert_eq!(line_of_runs(&[one, other]), "7 copied, 1 on their way, 2 given up; waiting: out of reach");
    }
}
