//! Routers that do not keep to the protocol: nothing they send ends the agent.

use super::agent::{Running, config};
use futures_util::{SinkExt, StreamExt};
use pysmurf_archiver::ocs::agent::AgentEnd;
use pysmurf_archiver::ocs::session::OpStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

/// What is sent after the agent's REGISTER, or in place of WELCOME.
const SCRIPTS: &[(&str, &str)] = &[
    ("not json", ""),
    ("[2]", ""),
    ("[3,{},\"wamp.error.no_such_realm\"]", ""),
    ("[2,1,{}]", "[65,99,5]"),
    ("[2,1,{}]", "[8,64,1,{},\"wamp.error.canceled\"]"),
    ("[2,1,{}]", "[\"x\"]"),
    ("[2,1,{}]", "[6,{},\"wamp.close.normal\"]"),
];

#[test]
fn no_router_can_end_the_agent() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let tries = Arc::new(AtomicUsize::new(0));
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let port = listener.local_addr().unwrap().port();
    // Every script meets an agent of its own, so that none has to sit out the pauses of the others.
    let served = tries.clone();
    runtime.spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let turn = served.fetch_add(1, SeqCst);
            tokio::spawn(hostile(tcp, turn));
        }
    });
    let url = format!("ws://127.0.0.1:{port}/ws");
    let mut agents: Vec<_> =
        (0..=SCRIPTS.len() + 1).map(|i| Running::start(config(&format!("victim-{i}"), &url))).collect();
    super::until("every script", || tries.load(SeqCst) >= 2 * SCRIPTS.len());
    for agent in &mut agents {
        assert!(agent.lives() && !agent.handle.is_joined());
        assert_eq!(agent.handle.session("run").unwrap().status(), OpStatus::Running);
        agent.handle.shutdown();
    }
    for agent in &mut agents {
        assert_eq!(agent.end(), AgentEnd::Asked);
    }
}

async fn hostile(mut tcp: tokio::net::TcpStream, turn: usize) {
    let Some((first, second)) = SCRIPTS.get(turn % (SCRIPTS.len() + 1)) else {
        let _ = tcp.write_all(&[0xff; 4096]).await;
        return;
    };
    let Ok(mut socket) = tokio_tungstenite::accept_hdr_async(tcp, json_wamp).await else { return };
    for text in [first, second] {
        let heard = tokio::time::timeout(Duration::from_secs(5), socket.next()).await;
        if !matches!(heard, Ok(Some(Ok(_)))) || socket.send(Message::text(*text)).await.is_err() {
            return;
        }
    }
    // Neither answers nor closes.
    let _ =
        tokio::time::timeout(Duration::from_secs(30), async { while let Some(Ok(_)) = socket.next().await {} }).await;
}

#[test]
fn a_name_still_held_by_our_lost_session_is_asked_for_again() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let url = format!("ws://127.0.0.1:{}/ws", listener.local_addr().unwrap().port());
    let (lose, mut lost) = tokio::sync::mpsc::channel::<()>(1);
    runtime.spawn(async move {
        for turn in 0.. {
            let Ok((tcp, _)) = listener.accept().await else { return };
            let held = turn == 1;
            let Some(_socket) = welcome(tcp, held).await else { continue };
            if !held {
                lost.recv().await;
            }
        }
    });
    let agent = Running::join(config("patient", &url));
    runtime.block_on(lose.send(())).unwrap();
    agent.joined(false);
    agent.joined(true);
    assert!(agent.lives());
}

/// A router that registers whatever is asked for, or refuses because the name is held.
async fn welcome(
    tcp: tokio::net::TcpStream,
    held: bool,
) -> Option<tokio_tungstenite::WebSocketStream<tokio::net::TcpStream>> {
    let mut socket = tokio_tungstenite::accept_hdr_async(tcp, json_wamp).await.ok()?;
    let answers: &[&str] = if held {
        &["[2,1,{}]", "[8,64,1,{},\"wamp.error.procedure_already_exists\",[\"held\"]]"]
    } else {
        &["[2,1,{}]", "[65,1,10]", "[65,2,11]"]
    };
    for answer in answers {
        socket.next().await?.ok()?;
        socket.send(Message::text(*answer)).await.ok()?;
    }
    Some(socket)
}

#[allow(clippy::result_large_err, clippy::unnecessary_wraps)]
fn json_wamp(_: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    response.headers_mut().insert("Sec-WebSocket-Protocol", "wamp.2.json".parse().unwrap());
    Ok(response)
}
