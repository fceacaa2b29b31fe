//! Large and many files over a long link: the archiver and the rsync command with as many connections as they take, against
//! rsync.

use super::BenchError;
use super::far_end::SshReach;
use super::link::{Relay, Terms};
use super::queue::Queue;
use super::report::{ReceivingEnd, Row, Trial};
use super::runner::{Contender, Runner, content};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The files of `wan`: how many, and the length of each, bytes.
pub(super) const WAN: (usize, u64) = (64, 25_000_000);
/// All of them together, bytes.
pub const WAN_BYTES: u64 = WAN.0 as u64 * WAN.1;
/// The long link. Linux lets a connection have 4 MiB under way, unless somebody has tuned it (`net.ipv4.tcp_wmem`).
pub(super) const LONG: Terms =
    Terms { round_trip: Duration::from_millis(100), rate: 125_000_000, loss: 0.0, window: 4 << 20 };
/// Our connections over it.
const SESSIONS: &str = "auto";
/// The files of `wan-small`: how many, and the length of each, bytes.
const SMALL: (usize, u64) = (5000, 4096);

/// Who moves the files, and which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mover {
    Archiver,
    /// The rsync command, from here to there.
    Push,
    /// The rsync command, from there to here.
    Pull,
}

/// A scenario over a long link: how many files of which length, and the link.
struct Wan {
    id: &'static str,
    files: (usize, u64),
    link: Terms,
    mover: Mover,
}

/// Runs those that are wanted.
pub(super) fn run(runner: &mut Runner<'_>) -> Result<(), BenchError> {
    let one = (1, runner.plan.size);
    let quick = runner.plan.quick;
    let (many, one, small) = if quick { ((4, 500_000), (1, 2_000_000), (20, SMALL.1)) } else { (WAN, one, SMALL) };
    let lossy = Terms { loss: 0.001, ..LONG };
    let wan = |id, files, link, mover| Wan { id, files, link, mover };
    for wan in [
        wan("wan", many, LONG, Mover::Archiver),
        wan("wan-one", one, LONG, Mover::Archiver),
        wan("wan-lossy", one, lossy, Mover::Archiver),
        wan("wan-small", small, LONG, Mover::Archiver),
        wan("wan-push", one, LONG, Mover::Push),
        wan("wan-pull", one, LONG, Mover::Pull),
    ] {
        if !runner.plan.wants(wan.id) {
            continue;
        }
        match runner.far.port() {
            Some(port) => wan.run(runner, port)?,
            None => {
                let why = "the link simulator stands before a private sshd; leave HOST out";
                runner.findings.skip(wan.id, why);
            }
        }
    }
    Ok(())
}

impl Wan {
    fn run(&self, runner: &mut Runner<'_>, port: u16) -> Result<(), BenchError> {
        let Self { id, files: (many, len), link, .. } = *self;
        runner.say(format!("{id}: making files"));
        let queue = Queue::make(runner, many, len)?;
        let to_server = SocketAddr::from(([127, 0, 0, 1], port));
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let relay =
            Relay::start(any, to_server, link).map_err(BenchError::local("relay to", Path::new("the private sshd")))?;
        let reach = runner.far.via(&runner.local("home-wan"), relay.address().port())?;
        let receivers = runner.receivers(id);
        let trials = self.take_turns(runner, &reach, &queue, &receivers)?;
        let stock = usize::from(runner.rsync.is_some());
        let theirs = if stock == 1 { &trials[0][..] } else { &[] };
        for ((receiver, _), ours) in receivers.iter().zip(&trials[stock..]) {
            runner.findings.rows.push(Row::of_times(id, Some(*receiver), (ours, 1.0), (theirs, 1.0), "s"));
        }
        runner.findings.notes.push(format!(
            "{id}: {many} files of {len} bytes at {} ms, 1 Gbit/s and {} % loss, as many connections of ours as pay; the \
             relay's limit is {:.1} s.",
            link.round_trip.as_millis(),
            link.loss * 100.0,
            (many as u64 * len) as f64 / link.rate as f64
        ));
        drop(relay);
        runner.far.sh("rm -rf dst")?;
        runner.fresh("src").map(drop)
    }

    fn take_turns(
        &self,
        runner: &mut Runner<'_>,
        reach: &SshReach,
        queue: &Queue,
        receivers: &[(ReceivingEnd, Option<String>)],
    ) -> Result<Vec<Vec<Trial>>, BenchError> {
        let (fill, prove) = (|| queue.fill(), || queue.prove());
        let operands = self.operands(runner, reach, queue);
        let with = |mut command: Command, options: &[&str]| {
            command.args(options).args(&operands);
            command
        };
        let mut contenders = Vec::new();
        if let Some(rsync) = &runner.rsync {
            contenders.push(Contender::new("stock rsync", with(reach.stock(rsync, None), &["-rt", "--stats"])));
        }
        for (_, server) in receivers {
            contenders.push(match self.mover {
                Mover::Archiver => {
                    let command = queue.archiver(reach, server.as_deref(), &runner.far.path("dst"), SESSIONS)?;
                    let mut ours = Contender::new("the archiver", command);
                    ours.prepare = Some(&fill);
                    ours.prove = Some(&prove);
                    ours
                }
                Mover::Push | Mover::Pull => {
                    let parallel = format!("--parallel={SESSIONS}");
                    Contender::new("us", with(reach.ours(server.as_deref())?, &["-rt", "--stats", &parallel]))
                }
            });
        }
        let expected = content(&queue.folder)?;
        // Each run takes as long as the link wants, whoever else is at work here.
        let rounds = runner.plan.rounds.div_ceil(3);
        runner.take_turns(self.id, rounds, "rm -rf dst && mkdir dst", &contenders, Some(&expected))
    }

    /// What the rsync command is to copy, and to where. The private server's folder is one of this machine.
    fn operands(&self, runner: &Runner<'_>, reach: &SshReach, queue: &Queue) -> [String; 2] {
        let folder = match self.files.0 {
            1 => queue.folder.join("00000.g3").display().to_string(),
            _ => format!("{}/", queue.folder.display()),
        };
        match self.mover {
            Mover::Pull => [format!("{}:{folder}", reach.host()), format!("{}/", runner.far.path("dst"))],
            Mover::Archiver | Mover::Push => [folder, format!("{}/", runner.far.target(reach, "dst"))],
        }
    }
}
