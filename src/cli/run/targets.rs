//! All targets of one process: begun, told to stop, and begun anew where a configuration that was read again says other
//! things of them.

use super::take_relayed;
use super::target::RunTarget;
use crate::archiver::control::Control;
use crate::backoff::Backoff;
use crate::cli::USAGE;
use crate::cli::layers::NamedRun;
use crate::cli::output::Screen;
use crate::console::{Consoles, Limit};
use crate::service::{listen_for_hangups, listen_for_signals, systemd};
use crate::status::Progress;
use anyhow::Result;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// The ways to stop all that is at work.
#[derive(Clone, Default)]
struct Controls(Arc<Mutex<ControlsState>>);

#[derive(Default)]
struct ControlsState {
    stopping: bool,
    all: HashMap<String, Control>,
}

impl Controls {
    fn state(&self) -> MutexGuard<'_, ControlsState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more, which is stopped at once if all are.
    fn add(&self, name: &str, control: &Control) {
        let mut state = self.state();
        if state.stopping {
            control.stop().stop();
        }
        state.all.insert(name.to_owned(), control.clone());
    }

    fn remove(&self, name: &str) {
        self.state().all.remove(name);
    }

    fn stop(&self) {
        let mut state = self.state();
        state.stopping = true;
        state.all.values().for_each(|control| control.stop().stop());
    }

    fn progress(&self) -> Vec<Arc<Progress>> {
        self.state().all.values().map(|control| control.progress().clone()).collect()
    }

    fn close_links(&self) {
        self.state().all.values().for_each(|control| control.stop().close_links());
    }

    fn is_stopping(&self) -> bool {
        self.state().stopping
    }
}

/// The targets at work, by name.
struct AtWork {
    controls: Controls,
    screen: Screen,
    /// One limit for all that have none of their own.
    limit: Limit,
    /// What operators see of them.
    consoles: Consoles,
    begun: HashMap<String, (Arc<RunTarget>, Control)>,
    /// What is to begin once those of the same name have ended.
    next: HashMap<String, RunTarget>,
    /// Pauses before those that failed are begun again.
    backoffs: HashMap<String, Backoff>,
    ends: JoinSet<(String, Result<u8>)>,
}

/// Runs them all until they end or the process is told to; the worst exit code. Each SIGHUP reads `again` what is to be run.
pub(super) async fn run(
    targets: Vec<RunTarget>,
    consoles: Consoles,
    screen: &Screen,
    again: &dyn Fn() -> Result<Vec<NamedRun>>,
) -> Result<u8> {
    let controls = Controls::default();
    let (stopping, closing) = (controls.clone(), controls.clone());
    listen_for_signals(move || stopping.stop(), move || closing.close_links())?;
    let (hangup, mut hangups) = mpsc::channel(1);
    // One that waits to be heard stands for all that come meanwhile.
    listen_for_hangups(move || {
        let _ = hangup.try_send(());
    })?;
    let common = targets.iter().find(|one| !one.own_limit).and_then(|one| one.args.bwlimit.clone());
    let alone = targets.len() == 1;
    let mut at_work = AtWork {
        controls,
        screen: if alone { screen.clone() } else { Screen::default() },
        limit: Limit::new(common.unwrap_or_default()),
        consoles,
        begun: HashMap::new(),
        next: HashMap::new(),
        backoffs: HashMap::new(),
        ends: JoinSet::new(),
    };
    targets.into_iter().for_each(|target| at_work.begin(target, None));
    systemd::ready();
    let watched = at_work.controls.clone();
    let attending = systemd::attend(move || {
        let now: Vec<_> = watched.progress().iter().map(|progress| progress.snapshot()).collect();
        systemd::line_of_runs(&now)
    });
    let mut attending = std::pin::pin!(attending);
    let mut worst = 0;
    loop {
        tokio::select! {
            ended = at_work.ends.join_next() => match ended {
                None => return Ok(worst),
                Some(Err(error)) => {
                    // Nobody ends a task but by ending the process.
                    if let Ok(panic) = error.try_into_panic() {
                        std::panic::resume_unwind(panic);
                    }
                }
                Some(Ok((_, Err(error)))) if at_work.is_alone() => return Err(error),
                Some(Ok((name, result))) => worst = worst.max(at_work.over(&name, result)),
            },
            Some(()) = hangups.recv() => at_work.read_again(again),
            () = attending.as_mut() => {}
        }
    }
}

fn key(name: Option<&String>) -> String {
    name.cloned().unwrap_or_default()
}

impl AtWork {
    /// Whether what ends now is all there is.
    fn is_alone(&self) -> bool {
        self.begun.len() == 1 && self.next.is_empty()
    }

    /// Begins a target, in the place of the one of the same name that was at work `before`.
    fn begin(&mut self, mut target: RunTarget, before: Option<&RunTarget>) {
        if !target.own_limit {
            target.run.share_limit(&self.limit);
        }
        if let Some(before) = before {
            target.run.console.take_over(&before.run.console);
            if target.own_limit && before.own_limit {
                target.run.console.limit_of().take_over(&before.run.console.limit_of());
            }
        }
        self.consoles.add(&target.run.console);
        self.start(Arc::new(target), Duration::ZERO);
    }

    fn start(&mut self, target: Arc<RunTarget>, pause: Duration) {
        let (name, control) = (key(target.name.as_ref()), Control::new());
        self.controls.add(&name, &control);
        self.begun.insert(name.clone(), (target.clone(), control.clone()));
        let screen = self.screen.clone();
        self.ends.spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = control.stop().stopped() => return (name, Ok(0)),
            }
            let result = target.work(control, &screen).await;
            (name, result)
        });
    }

    /// One has ended; the exit code that it leaves. Of several that go on, one that fails is begun again after a while.
    fn over(&mut self, name: &str, result: Result<u8>) -> u8 {
        let was_alone = self.is_alone();
        let Some((target, _)) = self.begun.remove(name) else { return 0 };
        self.controls.remove(name);
        let code = match &result {
            Ok(code) => *code,
            Err(_) => USAGE,
        };
        if let Some(next) = self.next.remove(name).filter(|_| !self.controls.is_stopping()) {
            self.consoles.remove(&target.run.console);
            self.backoffs.remove(name);
            self.begin(next, Some(&target));
            return 0;
        }
        if let Err(error) = &result {
            tracing::error!(event = "target_failed", "Target {name} cannot be run: {error:#}; the others go on");
        }
        if code == 0 || was_alone || target.args.once || self.controls.is_stopping() {
            self.consoles.remove(&target.run.console);
            return code;
        }
        let pause = self.backoffs.entry(name.to_owned()).or_default().pause();
        self.start(target, pause);
        0
    }

    /// Has everything looked at anew, and what is no longer as it was begun anew.
    fn read_again(&mut self, again: &dyn Fn() -> Result<Vec<NamedRun>>) {
        let plan = |one| RunTarget::plan(one, None);
        let targets = again().and_then(|mut targets| {
            let elsewhere = take_relayed(&mut targets);
            let mut targets = targets.into_iter().map(plan).collect::<Result<Vec<_>>>()?;
            RunTarget::introduce(&mut targets, &elsewhere)?;
            Ok(targets)
        });
        let targets = match targets {
            Ok(targets) => targets,
            Err(error) => {
                tracing::error!(event = "reload", "SIGHUP: {error:#}; going on as before");
                return self.begun.values().for_each(|(_, control)| control.look_again());
            }
        };
        let mut gone: Vec<String> = self.begun.keys().cloned().collect();
        self.next.clear();
        for target in targets {
            let name = key(target.name.as_ref());
            gone.retain(|other| *other != name);
            if !target.own_limit {
                self.limit.follow(target.args.bwlimit.clone().unwrap_or_default());
            }
            match self.begun.get(&name) {
                None => {
                    tracing::info!(event = "reload", "SIGHUP: {} is new", named(&name));
                    self.begin(target, None);
                }
                Some((before, control)) if is_same(before, &target) => {
                    before.run.console.limit_of().follow(target.args.bwlimit.clone().unwrap_or_default());
                    control.look_again();
                    tracing::info!(
                        event = "reload",
                        "SIGHUP: {} stays as it is; looking at the whole table",
                        named(&name)
                    );
                }
                Some((_, control)) => {
                    tracing::info!(
                        event = "reload",
                        "SIGHUP: {} has changed; beginning anew once what is under way is finished",
                        named(&name)
                    );
                    control.stop().stop();
                    self.next.insert(name, target);
                }
            }
        }
        for name in gone {
            tracing::info!(
                event = "reload",
                "SIGHUP: {} is no longer there; finishing what is under way",
                named(&name)
            );
            if let Some((_, control)) = self.begun.get(&name) {
                control.stop().stop();
            }
        }
    }
}

fn named(name: &str) -> String {
    if name.is_empty() { "the target".to_owned() } else { format!("target {name}") }
}

/// Whether nothing differs but the rate, which may change while files are under way.
fn is_same(before: &RunTarget, now: &RunTarget) -> bool {
    let mut args = now.args.clone();
    args.bwlimit.clone_from(&before.args.bwlimit);
    args == before.args && now.own_limit == before.own_limit
}
