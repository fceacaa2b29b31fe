use super::*;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Barrier;

const QUERY: u8 = 3;
const PING: u8 = 14;

/// What passes for a node of a cluster, as far as connections go.
#[derive(Default)]
struct FakeNode {
    port: u16,
    /// Says nothing any more.
    silent: AtomicBool,
    /// Says that it is not in step.
    lagging: AtomicBool,
    logins: AtomicUsize,
    pings: AtomicUsize,
    /// Whom it waits for before it greets.
    greets_with: Option<Arc<Barrier>>,
}

impl FakeNode {
    async fn start(greets_with: Option<Arc<Barrier>>) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let node = Arc::new(Self { port: listener.local_addr().unwrap().port(), greets_with, ..Self::default() });
        let serving = node.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let node = serving.clone();
                tokio::spawn(async move { node.attend(stream).await });
            }
        });
        node
    }

    async fn attend(&self, mut stream: TcpStream) -> io::Result<()> {
        const FINE: &[u8] = &[0, 0, 0, 2, 0, 0, 0];
        if let Some(others) = &self.greets_with {
            others.wait().await;
        }
        let mut logged_in = false;
        if !self.silent.load(Ordering::SeqCst) {
            stream.write_all(&packet(0, &greeting())).await?;
        }
        loop {
            let mut head = [0; 4];
            stream.read_exact(&mut head).await?;
            let mut body = vec![0; u32::from_le_bytes([head[0], head[1], head[2], 0]) as usize];
            stream.read_exact(&mut body).await?;
            let command = if logged_in { body[0] } else { 0 };
            self.pings.fetch_add(usize::from(command == PING), Ordering::SeqCst);
            if self.silent.load(Ordering::SeqCst) {
                continue;
            }
            let answers = match command {
                QUERY if body[1..].starts_with(b"SHOW GLOBAL STATUS") => stand(),
                QUERY if self.lagging.load(Ordering::SeqCst) => vec![b"\xff\x17\x04#08S01not in step".to_vec()],
                _ => vec![FINE.to_vec()],
            };
            let number = head[3] + 1;
            for (at, answer) in answers.iter().enumerate() {
                stream.write_all(&packet(number + at as u8, answer)).await?;
            }
            self.logins.fetch_add(usize::from(!logged_in), Ordering::SeqCst);
            logged_in = true;
        }
    }
}

fn packet(number: u8, body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_le_bytes()[..3], &[number], body].concat()
}

/// Protocol 10, connection 1; all that a server of today can, but TLS.
fn greeting() -> Vec<u8> {
    let mut greeting = b"\x0a8.0.36\0\x01\0\0\0saltsalt\0\xff\xf7\xff\x02\0\xff\xc1\x15".to_vec();
    greeting.extend([0; 10]);
    greeting.extend(b"saltsaltsalt\0mysql_native_password\0");
    greeting
}

/// Two columns of text and their rows.
fn stand() -> Vec<Vec<u8>> {
    let words = |words: &[&str]| -> Vec<u8> {
        words.iter().flat_map(|word| [&[word.len() as u8], word.as_bytes()].concat()).collect()
    };
    let column = [&words(&["def", "", "", "", "c", ""])[..], &[0x0c, 45, 0, 0, 4, 0, 0, 0xfd, 0, 0, 0, 0, 0]].concat();
    let rows = [words(&["wsrep_ready", "ON"]), words(&["wsrep_cluster_state_uuid", "1-2-3"])];
    let end = vec![0xfe, 0, 0, 2, 0, 0, 0];
    [vec![2], column.clone(), column].into_iter().chain(rows).chain([end]).collect()
}

async fn two_nodes(greets_with: Option<Arc<Barrier>>) -> ([Arc<FakeNode>; 2], Connections) {
    let nodes = [FakeNode::start(greets_with.clone()).await, FakeNode::start(greets_with).await];
    let connections = Connections::new(&DatabaseServer {
        addresses: nodes.iter().map(|node| ServerAddress { host: "127.0.0.1".into(), port: node.port }).collect(),
        user: "u".into(),
        password: None,
        name: "files".into(),
        tls: Tls { mode: TlsMode::Disabled, ..Tls::default() },
    });
    (nodes, connections)
}

impl Connections {
    async fn taken(&self) -> TakenConnection<'_> {
        self.connect().await.unwrap()
    }

    async fn query_on(&self, taken: TakenConnection<'_>) -> Result<(), CatalogError> {
        self.run(taken, async |conn| conn.query_drop("DO 1").await).await
    }
}

#[tokio::test]
async fn one_idle_connection_speaks_for_all_to_a_silent_node() {
    let (nodes, connections) = two_nodes(None).await;
    for taken in [connections.taken().await, connections.taken().await, connections.taken().await] {
        connections.query_on(taken).await.unwrap();
    }
    nodes[0].silent.store(true, Ordering::SeqCst);
    let taken = connections.taken().await;
    assert_eq!((taken.made.at, connections.at()), (1, 1));
    connections.query_on(taken).await.unwrap();
    connections.query_on(connections.taken().await).await.unwrap();
    let asked = nodes.each_ref().map(|node| [&node.logins, &node.pings].map(|count| count.load(Ordering::SeqCst)));
    assert_eq!(asked, [[3, 1], [1, 1]]);
}

#[tokio::test]
async fn what_a_connection_meets_says_nothing_of_another_address() {
    let (nodes, connections) = two_nodes(None).await;
    let early = [connections.taken().await, connections.taken().await, connections.taken().await];
    let [first, second, third] = early;
    nodes[0].lagging.store(true, Ordering::SeqCst);
    assert!(connections.query_on(first).await.is_err());
    assert_eq!(connections.at(), 1);
    // One of the first node that comes back later, and is taken once more.
    connections.run(second, async |_| Ok(())).await.unwrap();
    let second = connections.taken().await;
    assert_eq!(second.made.at, 0);
    assert!(connections.query_on(second).await.is_err());
    assert_eq!(connections.at(), 1);
    // Nor does it end those of the other one.
    connections.query_on(connections.taken().await).await.unwrap();
    assert!(connections.query_on(third).await.is_err());
    connections.query_on(connections.taken().await).await.unwrap();
    assert_eq!((connections.at(), nodes[1].logins.load(Ordering::SeqCst)), (1, 1));
}

#[tokio::test]
async fn addresses_are_checked_at_once() {
    let (_nodes, connections) = two_nodes(Some(Arc::new(Barrier::new(2)))).await;
    assert_eq!(connections.unserved().await, Vec::<String>::new());
}
