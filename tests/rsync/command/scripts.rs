//! Shell scripts that read the same whoever is at the two ends: `$R` is the client, `$S` the server that `$RSH` starts at
//! `lh:`, `$W` the folder they run in.

use super::comparable;
use crate::support;
use crate::support::daemon::Daemon;
use crate::support::stock::{Bench, OURS, ended, limited};
use std::os::unix::fs::symlink;
use std::path::Path;

/// A remote shell that stays here and reads its command as a shell over there would.
const SHELL: &str = "while :; do case $1 in -l) shift 2;; -*) shift;; *) shift; break;; esac; done\neval \"$@\"";

/// Who plays; stock with stock is what the others are held against.
const PAIRS: [(bool, bool); 4] = [(false, false), (true, true), (true, false), (false, true)];

/// Asserts that the script prints with each of our ends what it prints with stock at both.
pub(crate) fn reads_like_stock(script: &str) {
    play("", script);
}

/// The same beside a daemon of this configuration, the server's program; its address is `$URL`.
pub(super) fn reads_like_stock_with_daemon(config: &str, script: &str) {
    play(config, script);
}

fn play(config: &str, script: &str) {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    let ours = bench.path().join("rsync");
    symlink(OURS, &ours).unwrap();
    let stock = support::tools::find("rsync").unwrap();
    let shell = bench.script("there", SHELL);
    let bench = &bench;
    let said = std::thread::scope(|scope| {
        let running = PAIRS.map(|(client, server)| {
            let end = |is_ours: bool| if is_ours { ours.as_path() } else { stock.as_path() };
            let (client, server, shell) = (end(client), end(server), shell.as_path());
            scope.spawn(move || output(bench, [client, server, shell], config, script))
        });
        running.map(|thread| thread.join().unwrap())
    });
    for ((client, server), text) in PAIRS.into_iter().zip(&said).skip(1) {
        let who = |ours: bool| if ours { "ours" } else { "stock" };
        let lines = differing(&said[0], text);
        assert!(lines.is_empty(), "client {}, server {}; stock | here:\n{lines}", who(client), who(server));
    }
}

/// The first lines that are not the same.
fn differing(stock: &str, here: &str) -> String {
    if stock == here {
        return String::new();
    }
    let (mut left, mut right) = (stock.lines(), here.lines());
    let mut context = "";
    let mut shown = String::new();
    while shown.lines().count() < 12 {
        match (left.next(), right.next()) {
            (None, None) => break,
            (left, right) if left == right => context = left.unwrap_or_default(),
            (left, right) => shown += &format!("  (behind {context})\n  {left:?}\n  {right:?}\n"),
        }
    }
    shown
}

fn output(bench: &Bench, [client, server, shell]: [&Path; 3], config: &str, script: &str) -> String {
    let work = bench.fresh("work");
    let work = work.path();
    let daemon = (!config.is_empty()).then(|| Daemon::start(server.to_str().unwrap(), work, config));
    let mut command = limited(&["bash", "-c", script]);
    command.env("W", work).env("R", client).env("S", server).env("RSH", shell).env("LC_ALL", "C.UTF-8");
    command.env("URL", daemon.as_ref().map_or(String::new(), |daemon| daemon.url("")));
    let run = ended(command.env_remove("RSYNC_PROTECT_ARGS").current_dir(work));
    let (said, errors) = (comparable(&run.stdout, work), comparable(run.stderr.as_bytes(), work));
    let errors = errors.replace(shell.to_str().unwrap(), "RSH").replace(client.to_str().unwrap(), "PROG");
    format!("{said}\n-- errors, code {}\n{errors}", run.code).replace(server.to_str().unwrap(), "PROG")
}
