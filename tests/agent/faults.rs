//! What befalls the link to a router: archiving does not notice, the agent is back by itself, and keeps its name.
//!
//! The short form is each kind once each way, all at once. With `ARCHIVER_FAULTS=MINUTES` it goes on from a drawn seed.

use super::archiver::Site;
use crate::support::crossbar::Crossbar;
use crate::support::cutter::{Action, Cutter, Fault};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Within that an agent must be back: a ping in ten seconds, five for its answer, pauses that grow, and a router that may keep
/// the name of a connection for as long as it pings.
const HANG: Duration = Duration::from_secs(150);

/// Asks the agent how it stands, by way of the router: whether it answers.
fn is_served(router: &Crossbar, instance: &str) -> bool {
    let body = json!({"procedure": format!("observatory.{instance}.ops"), "args": ["status", "run", {}], "kwargs": {}});
    let body = body.to_string();
    let ask = || -> std::io::Result<String> {
        let mut tcp = TcpStream::connect(("127.0.0.1", router.port))?;
        tcp.set_read_timeout(Some(Duration::from_secs(10)))?;
        let head = "POST /call HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length:";
        write!(tcp, "{head} {}\r\n\r\n{body}", body.len())?;
        let mut answer = String::new();
        tcp.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().unwrap_or_default();
    let said = answer.split_once("\r\n\r\n").and_then(|(_, said)| serde_json::from_str::<Value>(said).ok());
    said.is_some_and(|said| said["args"][0][2]["op_name"] == "run")
}

/// Whether it is so within [`HANG`].
fn within(mut reached: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + HANG;
    while !reached() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    true
}

/// How often what was tried, what hung, what was wrong; and the longest until it was back.
type Scores = Mutex<BTreeMap<(Action, bool), ([u64; 3], Duration)>>;

/// One agent whose first connection something befalls.
fn befalls(router: &Crossbar, instance: &str, fault: Fault, scores: &Scores) {
    let cutter = Cutter::faulty(router.port, move |number| (number == 0).then_some(fault));
    let site = Site::at_router(&format!("ws://127.0.0.1:{}/ws", cutter.port), instance, "");
    site.add("first", 0);
    let mut agent = site.agent(instance, "log");
    let (befell, mut hung) = (within(|| cutter.cuts() > 0), None);
    let since = Instant::now();
    site.add("meanwhile", 0);
    if !within(|| site.copied() == 2) {
        hung = Some("archiving");
    }
    // Nothing guards what a router is told without TLS: a name that was changed on its way is another's.
    let guarded = !matches!(fault.action, Action::Flip | Action::Duplicate);
    let served = within(|| is_served(router, instance) || !guarded || agent.0.try_wait().unwrap().is_some());
    if !served {
        hung = Some("the agent");
    }
    let took = since.elapsed();
    let ended = agent.0.try_wait().unwrap();
    let ended = ended.unwrap_or_else(|| agent.terminate());
    let log = fs::read_to_string(site.at("log")).unwrap();
    let copies = ["first", "meanwhile"].map(|name| fs::read_to_string(site.at("archive/17950").join(name)).ok());
    let blamed: i64 =
        site.table().query_row("SELECT sum(failed_copy_attempts) FROM supersync_v0", [], |row| row.get(0)).unwrap();
    let right = copies == ["first", "meanwhile"].map(|name| Some(name.to_owned())) && blamed == 0;
    let wrong = !right || !ended.success() || log.contains("panicked");
    if hung.is_some() || wrong {
        println!("{fault:?}: hung {hung:?}, {ended}, blamed {blamed}, {copies:?}\n{log}");
    }
    let (connections, passed) = (cutter.connections(), cutter.each());
    println!("{fault:?}, befell {befell}: {:.1} s, {connections} connections, {passed:?}", took.as_secs_f64());
    let mut scores = scores.lock().unwrap();
    let ([runs, hangs, wrongs], longest) = scores.entry((fault.action, fault.up)).or_default();
    (*runs, *hangs, *wrongs) = (*runs + 1, *hangs + u64::from(hung.is_some()), *wrongs + u64::from(wrong));
    *longest = took.max(*longest);
}

/// Bytes of an agent that joins and is asked, to the router and from it.
fn bytes_of_joining(router: &Crossbar) -> [u64; 2] {
    let relay = Cutter::start(router.port, u64::MAX);
    let site = Site::at_router(&format!("ws://127.0.0.1:{}/ws", relay.port), "befallen-by-nothing", "");
    let agent = site.agent("befallen-by-nothing", "log");
    assert!(within(|| is_served(router, "befallen-by-nothing")) && relay.connections() == 1);
    let bytes = [relay.up(), relay.down()];
    assert!(agent.terminate().success());
    bytes
}

#[test]
fn whatever_befalls_the_link_to_a_router_archiving_goes_on_and_the_agent_is_back() {
    let Some(router) = Crossbar::shared() else { return };
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<f64>().ok());
    let until = number("ARCHIVER_FAULTS").map(|minutes| Instant::now() + Duration::from_secs_f64(minutes * 60.0));
    let drawn = if until.is_some() { fastrand::u64(..1 << 32) } else { 18 };
    let seed = number("ARCHIVER_SEED").map_or(drawn, |seed| seed as u64);
    println!("seed {seed}");
    let [most_up, most_down] = bytes_of_joining(router);
    println!("{most_up} bytes to the router, {most_down} from it");
    let (mut random, scores, mut count) = (fastrand::Rng::with_seed(seed), Scores::default(), 0);
    loop {
        let ways = Action::ALL.iter().flat_map(|&action| [(action, true), (action, false)]);
        let faults: Vec<_> = ways
            .map(|(action, up)| Fault { action, up, at: random.u64(..if up { most_up } else { most_down }) })
            .collect();
        std::thread::scope(|scope| {
            for fault in faults {
                count += 1;
                let (instance, scores) = (format!("befallen-{count}"), &scores);
                scope.spawn(move || befalls(router, &instance, fault, scores));
            }
        });
        if until.is_none_or(|until| Instant::now() > until) {
            break;
        }
    }
    println!("{:12} {:10} {:>5} {:>5} {:>5} {:>8}", "action", "way", "runs", "hangs", "wrong", "longest");
    let scores = scores.into_inner().unwrap();
    for ((action, up), ([runs, hangs, wrong], longest)) in &scores {
        let way = if *up { "to router" } else { "from router" };
        println!("{:12} {way:11} {runs:4} {hangs:5} {wrong:5} {:6.1} s", format!("{action:?}"), longest.as_secs_f64());
    }
    let bad: u64 = scores.values().map(|([_, hangs, wrong], _)| hangs + wrong).sum();
    assert_eq!(bad, 0, "hangs, and what was wrong");
}

/// Relays to a router; of the first connection nothing passes any more, either way, from where the answer to a REGISTER would, not
/// even its end: as where packets are lost.
fn loses_an_answer(router: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for (number, near) in listener.incoming().flatten().enumerate() {
            let far = TcpStream::connect(("127.0.0.1", router)).unwrap();
            let lost = Arc::new(AtomicBool::new(false));
            for (from, to) in [(&near, &far), (&far, &near)] {
                let (from, to, lost) = (from.try_clone().unwrap(), to.try_clone().unwrap(), lost.clone());
                std::thread::spawn(move || pass(from, to, (number == 0).then_some(&lost)));
            }
        }
    });
    port
}

/// One way of a connection. With `lost` it passes nothing from where the answer to a REGISTER would pass.
fn pass(mut from: TcpStream, mut to: TcpStream, lost: Option<&AtomicBool>) {
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        if let Some(lost) = lost {
            lost.fetch_or(buffer[..n].windows(4).any(|bytes| bytes == b"[65,"), Relaxed);
            if lost.load(Relaxed) {
                continue;
            }
        }
        let _ = to.write_all(&buffer[..n]);
    }
    match lost {
        // Nobody is told that it is over.
        Some(_) => loop {
            std::thread::park();
        },
        None => drop(to.shutdown(Shutdown::Both)),
    }
}

/// The router has heard the name, its answer was lost, and it takes the connection for alive: the name is waited for.
#[test]
fn a_name_whose_answer_was_lost_is_waited_for() {
    let Some(router) = Crossbar::shared() else { return };
    let port = loses_an_answer(router.port);
    let site = Site::at_router(&format!("ws://127.0.0.1:{port}/ws"), "asked-before", "");
    let mut agent = site.agent("asked-before", "log");
    let ended = || fs::read_to_string(site.at("log")).unwrap();
    assert!(within(|| is_served(router, "asked-before") || agent.0.try_wait().unwrap().is_some()));
    assert!(agent.0.try_wait().unwrap().is_none(), "{}", ended());
    assert!(agent.terminate().success());
}
