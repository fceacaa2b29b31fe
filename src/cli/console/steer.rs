//! `pause`, `resume` and `bwlimit`.

use super::super::SOME_FAILED;
use super::super::flags::console::{AimArgs, LimitArgs};
use super::super::output::{print, printable, say};
use crate::service::runtime;
use crate::web::ask::{self, AskError, OrderBody, Running};
use crate::web::places::ControlChoice;
use anyhow::Result;

pub(in crate::cli) fn pause(args: &AimArgs) -> Result<u8> {
    tell(args, "/pause", OrderBody::default())
}

pub(in crate::cli) fn resume(args: &AimArgs) -> Result<u8> {
    tell(args, "/resume", OrderBody::default())
}

pub(in crate::cli) fn bwlimit(args: &LimitArgs) -> Result<u8> {
    tell(&args.aim, "/bwlimit", OrderBody { rate: args.rate.clone(), ..OrderBody::default() })
}

/// Has those that archive these look at their tables now; who is not there has nothing to look at.
pub(in crate::cli) fn have_looked(names: &[String]) {
    let aim = AimArgs { target: None, control: None };
    let looking = async {
        let Ok(running) = ask::running(&choice(&aim)?).await else { return Ok(()) };
        for process in &running {
            for archive in process.report.archives.iter().filter(|archive| names.iter().any(|name| archive.is(name))) {
                let order = OrderBody { archive: Some(archive.archive.clone()), ..OrderBody::default() };
                process.tell("/look", &order).await?;
            }
        }
        Ok::<(), AskError>(())
    };
    // Without it the rows are found in some minutes.
    if let Ok(Err(error)) = runtime().map(|runtime| runtime.block_on(looking)) {
        tracing::debug!("{error}");
    }
}

/// Tells the one archiver that is meant.
fn tell(aim: &AimArgs, road: &str, order: OrderBody) -> Result<u8> {
    let told = runtime()?.block_on(async {
        let running = ask::running(&choice(aim)?).await?;
        let (running, archive) = choose(&running, aim.target.as_deref())?;
        running.tell(road, &OrderBody { archive: Some(archive), ..order }).await
    });
    match told {
        Ok(reply) => {
            let part = |name: &str| printable(reply[name].as_str().unwrap_or_default());
            print(&format!("{}: {}", part("archive"), part("said")));
            Ok(0)
        }
        Err(error) => {
            say(&format!("pysmurf-archiver: {error}"));
            Ok(SOME_FAILED)
        }
    }
}

/// Where it is looked for.
fn choice(aim: &AimArgs) -> Result<ControlChoice, AskError> {
    let variable = || std::env::var("ARCHIVER_CONTROL").ok().filter(|path| !path.is_empty());
    match (&aim.control, variable()) {
        (Some(choice), _) => Ok(choice.clone()),
        (None, Some(path)) => path.parse().map_err(AskError::Refused),
        (None, None) => Ok(ControlChoice::default()),
    }
}

/// Which of those that run is meant, and the archive's name there.
fn choose<'a>(running: &'a [Running], name: Option<&str>) -> Result<(&'a Running, String), AskError> {
    let all =
        || running.iter().flat_map(|process| process.report.archives.iter().map(move |archive| (process, archive)));
    let meant: Vec<_> = all().filter(|(_, archive)| name.is_none_or(|name| archive.is(name))).collect();
    let names = || all().map(|(_, archive)| archive.archive.as_str()).collect::<Vec<_>>().join(", ");
    match (meant.as_slice(), name) {
        ([(process, archive)], _) => Ok((process, archive.archive.clone())),
        ([], _) if running.is_empty() => Err(AskError::Refused(
            "No archiver runs on this machine, as far as sockets tell; start it with `pysmurf-archiver run` or its service, or name the socket of one in another place by --control".to_owned(),
        )),
        ([], Some(name)) => Err(AskError::Refused(format!("Nothing that runs here archives {name:?}; there is {}", names()))),
        (_, Some(name)) => Err(AskError::Refused(format!("Several archive {name:?}; name the socket of one by --control: {}", sockets(running)))),
        (_, None) => Err(AskError::Refused(format!("Several archives are at work; name one by --target: {}", names()))),
    }
}

fn sockets(running: &[Running]) -> String {
    running.iter().map(|process| process.socket.display().to_string()).collect::<Vec<_>>().join(", ")
}
