//! `status`: once, or again and again.

use super::super::flags::console::StatusArgs;
use super::super::output::{json_object, print, print_coloured, say};
use super::super::{SOME_FAILED, USAGE};
use super::fleet;
use super::glance::glance;
use super::view::View;
use crate::console::fleet::FleetReport;
use crate::console::report::{ProcessReport, StatusReport};
use crate::service::runtime;
use anyhow::Result;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

/// How often it is shown anew.
const AGAIN: Duration = Duration::from_secs(1);

/// Says how archives stand; of several targets of a file each.
pub(in crate::cli) fn status(each: &[StatusArgs]) -> Result<u8> {
    let Some(args) = each.first() else { return Ok(USAGE) };
    let runtime = runtime()?;
    let code = runtime.block_on(async {
        if args.health {
            return health(args).await;
        }
        let look = async || match args.fleet {
            true => fleet::glance(each).await.map(Glance::Fleets),
            false => glance(each).await.map(Glance::Processes),
        };
        if !args.watch {
            return Ok(look().await?.show(args));
        }
        watch(args, look).await
    });
    // A database that hangs is not waited for.
    runtime.shutdown_timeout(Duration::from_millis(50));
    code
}

/// Says whether what runs lives and moves.
async fn health(args: &StatusArgs) -> Result<u8> {
    let running = crate::web::ask::running(&args.control.clone().unwrap_or_default()).await?;
    if running.is_empty() {
        say("pysmurf-archiver: No archiver runs here");
        return Ok(SOME_FAILED);
    }
    let mut code = 0;
    for one in &running {
        match one.illness().await {
            Ok(None) => print(&format!("{}: ok", one.socket.display())),
            Ok(Some(why)) => {
                say(&format!("pysmurf-archiver: {}: {why}", one.socket.display()));
                code = SOME_FAILED;
            }
            Err(error) => {
                say(&format!("pysmurf-archiver: {error}"));
                code = SOME_FAILED;
            }
        }
    }
    Ok(code)
}

/// What is shown.
enum Glance {
    Processes(Vec<ProcessReport>),
    Fleets(Vec<FleetReport>),
}

impl Glance {
    fn page(&self) -> String {
        match self {
            Self::Processes(reports) => View::of_output().page(reports),
            Self::Fleets(fleets) => fleet::page(View::of_output(), fleets),
        }
    }

    /// All in one object.
    fn json(&self) -> String {
        match self {
            Self::Processes(reports) => {
                let archives: Vec<_> = reports.iter().flat_map(|report| &report.archives).collect();
                json_object([("archives", serde_json::to_value(archives).unwrap_or_default())])
            }
            Self::Fleets(fleets) => json_object([("fleets", serde_json::to_value(fleets).unwrap_or_default())]),
        }
    }

    fn is_troubled(&self) -> bool {
        match self {
            Self::Processes(reports) => {
                reports.iter().flat_map(|report| &report.archives).any(StatusReport::is_troubled)
            }
            Self::Fleets(fleets) => fleets.iter().any(|fleet| !fleet.troubles.is_empty()),
        }
    }

    /// Prints it once; the exit code that goes with it.
    fn show(&self, args: &StatusArgs) -> u8 {
        match args.json {
            true => print(&self.json()),
            false => print_coloured(&self.page()),
        }
        if self.is_troubled() { SOME_FAILED } else { 0 }
    }
}

/// Shows it in the place of what was shown before, until told to end.
async fn watch(args: &StatusArgs, look: impl AsyncFn() -> Result<Glance>) -> Result<u8> {
    let mut code;
    let in_place = !args.json && io::stdout().is_terminal();
    loop {
        match look().await {
            Ok(seen) => {
                if in_place {
                    redraw(&seen.page());
                    code = 0;
                } else {
                    code = seen.show(args);
                }
            }
            Err(error) if in_place => {
                redraw(&super::super::output::harmless(&format!("{error:#}")));
                code = USAGE;
            }
            Err(error) => return Err(error),
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            _ = tokio::signal::ctrl_c() => return Ok(code),
        }
    }
}

/// Puts the text where the last one was. Lines are overwritten and not cleared before: nothing flickers.
fn redraw(text: &str) {
    let size = ::console::Term::stdout().size_checked().map(|(height, width)| (height.into(), width.into()));
    let mut out = String::from("\x1b[H");
    out.push_str(&fitted(text, size).join("\x1b[K\n"));
    out.push_str("\x1b[K\x1b[J");
    let mut stdout = io::stdout();
    let _ = stdout.write_all(out.as_bytes()).and_then(|()| stdout.flush());
}

/// The lines of it that a terminal of this height and width shows: a longer one would scroll, and what is wrong stands first.
fn fitted(text: &str, size: Option<(usize, usize)>) -> Vec<String> {
    let lines: Vec<_> = text.lines().collect();
    let Some((height, width)) = size.filter(|(height, width)| *height > 0 && *width > 0) else {
        return lines.into_iter().map(str::to_owned).collect();
    };
    let cut = |line: &str| ::console::truncate_str(line, width, "…").into_owned();
    if lines.len() <= height {
        return lines.into_iter().map(cut).collect();
    }
    let mut shown: Vec<_> = lines[..height - 1].iter().map(|line| cut(line)).collect();
    shown.push(cut(&format!("… {} more lines; a taller window shows them", lines.len() + 1 - height)));
    shown
}

#[cfg(test)]
mod tests {
    use super::fitted;

    #[test]
    fn what_is_watched_fits_into_the_window() {
        let text = "one\n\u{1b}[31mtwo two\u{1b}[0m\nthree\nfour";
        assert_eq!(fitted(text, None).len(), 4);
        assert_eq!(fitted(text, Some((4, 80))).len(), 4);
        let shown = fitted(text, Some((3, 5)));
        assert_eq!(shown.len(), 3);
        assert_eq!(shown[0], "one");
        assert!(shown[1].contains("two …") && shown[1].ends_with("\u{1b}[0m"), "{:?}", shown[1]);
        assert!(shown[2].starts_with("… 2"), "{:?}", shown[2]);
    }
}
