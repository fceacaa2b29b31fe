//! The story, step by step: what is made, what is cut, what is proven, and what to try next.

use anyhow::{Context, Result, ensure};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use crate::Road;
use crate::archiver::{Archiver, Ended, Running};
use crate::check::{self, ARCHIVE, Night, Report};
use crate::mega;
use crate::node::Node;
use crate::tree::{self, Registered};
use crate::voice::Voice;

/// Lines of the archiver's log that are shown, beside those of copies.
const LOG_SHOWN: usize = 12;

/// How its lines of copies begin.
const COPIED: &str = "Copied and proven";

/// What is asked for.
pub(crate) struct Wish {
    /// Bytes of all files together.
    pub(crate) bytes: u64,
    /// The way to a node without rsync; else it has one.
    pub(crate) road: Option<Road>,
}

/// Does it all and tells it; true when all is as it should be.
pub(crate) fn tell(folder: &Path, wish: &Wish, running: Arc<Running>) -> Result<bool> {
    let began = Instant::now();
    let archiver = Archiver::beside(folder, running)?;
    let mut voice = Voice::of_output();
    voice.title("pysmurf-archiver: files of a SMuRF server, copied to a storage node and proven");
    voice.say(&format!("Both are played on this machine, in {}.", folder.display()));
    let bytes = room_for(&voice, folder, wish.bytes)?;

    let catalog = folder.join("smurf-server/suprsync.db");
    let files = make(&mut voice, folder, &catalog, bytes)?;
    let (bad, good) = files.split_last().context("No files")?;
    let archive = folder.join("storage-node/data");
    let night = Night { catalog: &catalog, archive: &archive, good, bad };

    let total = size_of(&files);
    // What is uploaded first is not to be what the cut interrupts.
    let uploaded = if wish.road == Some(Road::Bootstrap) { archiver.binary().metadata()?.len() } else { 0 };
    let cut = uploaded + total / 2;
    let node = open_node(&mut voice, folder, &archiver, (wish.road, cut))?;
    configure(&archiver, &night, &node, wish.road)?;

    let ended = copy(&mut voice, &archiver, &node, uploaded + total / 10 * 7)?;
    let report = Report::read(&ended)?;
    tell_copy(&voice, &ended, &report);
    tell_cut(&mut voice, &node, &report, (cut, uploaded, size_of(good)));

    voice.step("What is proven");
    let judgement = check::judge(&night, &report, &node.told())?;
    for (claim, holds) in &judgement.claims {
        voice.claim(claim, *holds);
    }
    for line in &judgement.wrong {
        voice.claim(line, false);
    }
    ask(&mut voice, &archiver, bad)?;
    tell_next(&mut voice, archiver.binary());
    let all = judgement.claims.iter().all(|(_, holds)| *holds);
    let seconds = began.elapsed().as_secs_f64();
    let verdict = if all { "All of it agrees" } else { "NOT all of it agrees: see the lines with NO" };
    voice.verdict(&format!("{verdict} ({seconds:.0} s)."), all);
    Ok(all)
}

/// How much of the wished size fits twice, with something left over.
fn room_for(voice: &Voice, folder: &Path, wished: u64) -> Result<u64> {
    let space = rustix::fs::statvfs(folder).context("Cannot ask for free space")?;
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    let fits = (free / 5).saturating_mul(2);
    ensure!(fits >= 20_000_000, "Only {:.0} MB are free in {}; use --temp-dir", mega(free), folder.display());
    if fits < wished {
        voice.say(&format!(
            "Only {:.0} MB are free: {:.0} MB of files instead of {:.0}.",
            mega(free),
            mega(fits),
            mega(wished)
        ));
    }
    Ok(fits.min(wished))
}

/// Files and their rows; the last of them is spoiled.
fn make(voice: &mut Voice, folder: &Path, catalog: &Path, bytes: u64) -> Result<Vec<Registered>> {
    voice.step("A night of files");
    let began = Instant::now();
    let files = tree::write(&folder.join("smurf-server/data"), bytes)?;
    let total = size_of(&files);
    voice.say(&format!(
        "Wrote {} files, {:.0} MB, in {:.1} s, as a SMuRF server has them: long streams of detector samples, and many \
         small results with such names as \"1589517444_eta_scan_δf.png\" and \"1589517624_operator's $notes; draft.txt\".",
        files.len(),
        mega(total),
        began.elapsed().as_secs_f64()
    ));
    check::register(catalog, files.iter())?;
    voice.say(&format!(
        "Registered each with its MD5: {} rows in table supersync_v0 of a SQLite file, as SupRsync has it.",
        files.len()
    ));
    let bad = files.last().context("No files")?;
    let mut file = File::options().append(true).open(&bad.local)?;
    file.write_all(b"written on after it was registered\n")?;
    voice.say(&format!(
        "Then wrote on in one of them, {}: it is no longer what its row says, and must not be called copied.",
        name(bad)
    ));
    Ok(files)
}

fn name(file: &Registered) -> String {
    file.local.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The node, which will cut the line after so many bytes.
fn open_node(voice: &mut Voice, folder: &Path, archiver: &Archiver, (road, cut): (Option<Road>, u64)) -> Result<Node> {
    voice.step("A storage node");
    fs::create_dir_all(folder.join("storage-node/data"))?;
    let rsync = if road.is_some() { None } else { Some(archiver.binary().to_owned()) };
    let node = Node::start(&folder.join("keys"), rsync, folder.join("storage-node"), Some(cut))?;
    let whose = match road {
        None => "whose rsync is this same program",
        Some(Road::Bootstrap) => "which has no rsync; the archiver uploads itself and is the rsync there",
        Some(Road::Sftp) => "which has no rsync; the archiver writes by SFTP and reads back what it wrote",
    };
    voice.say(&format!(
        "An SSH server on 127.0.0.1, port {}, with keys of its own, {whose}. It will hang up once, in the middle of \
         files, when it has received {:.0} MB.",
        node.port(),
        mega(cut)
    ));
    Ok(node)
}

fn configure(archiver: &Archiver, night: &Night<'_>, node: &Node, road: Option<Road>) -> Result<()> {
    let quoted = |path: &Path| -> Result<String> {
        // Words of Rust and of TOML differ only in letters that no folder of ours has.
        Ok(format!("{:?}", path.to_str().context("The temporary folder's name is no UTF-8 text")?))
    };
    let mut settings = vec![
        ("db", "\"sqlite:smurf-server/suprsync.db\"".to_owned()),
        ("archive-name", format!("{ARCHIVE:?}")),
        ("data-dir", quoted(night.archive)?),
        ("storage-host", "\"ocs@127.0.0.1\"".to_owned()),
        ("ssh-port", node.port().to_string()),
        ("ssh-key", quoted(&node.client_key())?),
        ("known-hosts", quoted(&node.known_hosts())?),
        ("ssh-config", "\"/dev/null\"".to_owned()),
        ("control", "\"archiver.sock\"".to_owned()),
    ];
    if road == Some(Road::Bootstrap) {
        // The node is this machine: a program that needs its libraries will do.
        settings.push(("bootstrap", quoted(archiver.binary())?));
        // The line is cut once so much has come; a second session would bring the program a second time.
        settings.push(("workers", "1".to_owned()));
    }
    archiver.configure(&settings)
}

/// Has all copied; asks how it stands when the node has received so much.
fn copy(voice: &mut Voice, archiver: &Archiver, node: &Node, at: u64) -> Result<Ended> {
    voice.step("The copy");
    voice.command(&Archiver::typed("run --once"));
    let mut asked = false;
    archiver.run(|| {
        if asked || node.told().received < at {
            return;
        }
        asked = true;
        // When it cannot be asked, the run itself will tell why.
        if let Ok(text) = archiver.ask("status") {
            voice.say("While it is at work, on another terminal:");
            voice.command(&Archiver::typed("status"));
            voice.quote(&text);
        }
    })
}

fn tell_copy(voice: &Voice, ended: &Ended, report: &Report) {
    // A line begins with its time and its level.
    let words = ended.log.lines().map(|line| line.split_once("Z ").map_or(line, |(_, words)| words.trim_start()));
    let mut copies = 0;
    let mut told = Vec::new();
    for words in words {
        let copy = words.contains(COPIED);
        if !copy || copies == 0 {
            told.push(words);
        }
        copies += usize::from(copy);
    }
    voice.say(&format!("Its log, {copies} lines of files copied left out but for one:"));
    for line in told.iter().take(LOG_SHOWN) {
        voice.quote(line);
    }
    if told.len() > LOG_SHOWN {
        voice.quote(&format!("and more lines: {}", told.len() - LOG_SHOWN));
    }
    let megabytes = report.bytes as f64 / 1e6;
    voice.say(&format!(
        "It ended after {:.1} s: copied {} files, {megabytes:.0} MB, {:.0} MB/s, with the cut and the way back.",
        ended.seconds,
        report.copied,
        megabytes / ended.seconds
    ));
}

fn tell_cut(voice: &mut Voice, node: &Node, report: &Report, (cut, uploaded, total): (u64, u64, u64)) {
    voice.step("What was cut");
    let told = node.told();
    let crossed = told.received.saturating_sub(uploaded);
    let more = match crossed.checked_sub(total) {
        Some(more) => format!("{:.1} MB more, what had to be sent again and what SSH and rsync say beside", mega(more)),
        None => "no more than they have".to_owned(),
    };
    let kept = match report.kept {
        0 => "Nothing of what was under way was there to go on from.".to_owned(),
        kept => format!("{:.1} MB were found there already and were not sent again.", kept as f64 / 1e6),
    };
    voice.say(&format!(
        "The node hung up when it had received {:.0} MB, with files half sent and others not yet acknowledged. The \
         archiver logged in anew and went on from what had arrived. {kept} In all {:.1} MB came in for {:.1} MB of \
         files: {more}.",
        mega(cut),
        mega(crossed),
        mega(total)
    ));
}

fn size_of(files: &[Registered]) -> u64 {
    files.iter().map(|file| file.size).sum()
}

/// Questions to the table, as an operator asks them.
fn ask(voice: &mut Voice, archiver: &Archiver, bad: &Registered) -> Result<()> {
    voice.step("Ask the table");
    let show = format!("files show {}", shlex::try_quote(&name(bad))?);
    for words in ["files list --copied --limit 3", "files list --failed", &show] {
        voice.command(&Archiver::typed(words));
        voice.quote(&archiver.ask(words)?);
    }
    Ok(())
}

fn tell_next(voice: &mut Voice, binary: &Path) {
    voice.step("With your own files");
    voice.say(
        "With a folder `data` here, and a machine `storage` that lets your key in and has a folder \
         /home/you/archive:",
    );
    let path = binary.to_string_lossy();
    let program = shlex::try_quote(&path).unwrap_or_default();
    let table = "--db sqlite:files.db --archive-name mine";
    voice.command(&format!("{program} init-db --db sqlite:files.db"));
    voice.command(&format!("{program} files add {table} data"));
    voice.command(&format!("{program} run --once {table} --storage-host storage --data-dir /home/you/archive"));
    voice.say("docs/first-steps.md goes on from there: a running archiver, its page, and what to do when it fails.");
}
