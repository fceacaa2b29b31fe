//! `pause`, `resume` and `bwlimit`.

use super::super::SOME_FAILED;
use super::super::flags::console::{AimArgs, SteerOrder};
use super::super::output::{print, printable, say};
use crate::console::report::StatusReport;
use crate::service::runtime;
use crate::web::ask::{self, AskError, OrderBody, Running};
use anyhow::Result;
use std::collections::BTreeSet;

/// Tells the one archiver that is meant; of several targets of a file each has its aim.
pub(in crate::cli) fn steer(each: &[(SteerOrder, AimArgs)]) -> Result<u8> {
    let (road, rate) = match each.first() {
        Some((SteerOrder::Pause, _)) => ("/pause", None),
        Some((SteerOrder::Resume, _)) => ("/resume", None),
        Some((SteerOrder::Limit(rate), _)) => ("/bwlimit", rate.clone()),
        None => return Ok(SOME_FAILED),
    };
    let names: Vec<&str> =
        each.iter().flat_map(|(_, aim)| aim.target.iter().chain(&aim.archive_name)).map(String::as_str).collect();
    let control = each.iter().find_map(|(_, aim)| aim.control.clone()).unwrap_or_default();
    let told = runtime()?.block_on(async {
        let running = ask::running(&control).await?;
        let (running, archive) = choose(&running, &names)?;
        running.tell(road, &OrderBody { archive: Some(archive), rate, ..OrderBody::default() }).await
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

/// Has those that archive these look at their tables now; who is not there has nothing to look at.
pub(in crate::cli) fn have_looked(names: &[String]) {
    let variable = std::env::var("ARCHIVER_CONTROL").ok().filter(|path| !path.is_empty());
    let looking = async {
        let choice = variable.map(|path| path.parse().map_err(AskError::Refused)).transpose()?;
        let Ok(running) = ask::running(&choice.unwrap_or_default()).await else { return Ok(()) };
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

/// Which of those that run is meant, and the archive's name there.
fn choose<'a>(running: &'a [Running], names: &[&str]) -> Result<(&'a Running, String), AskError> {
    let all =
        || running.iter().flat_map(|process| process.report.archives.iter().map(move |archive| (process, archive)));
    let is_meant = |archive: &StatusReport| names.is_empty() || names.iter().any(|name| archive.is(name));
    let meant: Vec<_> = all().filter(|(_, archive)| is_meant(archive)).collect();
    let listed = |some: &[(&Running, &StatusReport)]| {
        let names: BTreeSet<_> = some.iter().map(|(_, archive)| archive.archive.as_str()).collect();
        (names.len(), names.into_iter().collect::<Vec<_>>().join(", "))
    };
    match (meant.as_slice(), listed(&meant)) {
        ([(process, archive)], _) => Ok((process, archive.archive.clone())),
        ([], _) if running.is_empty() => Err(AskError::Refused(
            "No archiver runs on this machine, as far as sockets tell; start it with `pysmurf-archiver run` or its service, or name the socket of one in another place by --control".to_owned(),
        )),
        ([], _) => {
            let there = listed(&all().collect::<Vec<_>>()).1;
            Err(AskError::Refused(format!("Nothing that runs here archives {}; there is {there}", names.join(", "))))
        }
        (_, (1, name)) => Err(AskError::Refused(format!("Several archive {name}; name the socket of one by --control: {}", sockets(running)))),
        (_, (_, names)) => Err(AskError::Refused(format!("Several archives are at work; name one by --target: {names}"))),
    }
}

fn sockets(running: &[Running]) -> String {
    running.iter().map(|process| process.socket.display().to_string()).collect::<Vec<_>>().join(", ")
}
