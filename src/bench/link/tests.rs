use super::*;
use crate::bench::scene::noise;
use std::net::Ipv4Addr;

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn server() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(ANY).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn terms(milliseconds: u64, rate: u64, loss: f64) -> Terms {
    Terms { round_trip: Duration::from_millis(milliseconds), rate, loss, window: 0 }
}

fn read_all(mut socket: &TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn bytes_come_in_order_and_an_end_leaves_the_other_half_open() {
    for terms in [terms(0, 0, 0.0), terms(20, 50_000_000, 0.0), terms(4, 20_000_000, 0.02)] {
        let (listener, address) = server();
        let relay = Relay::start(ANY, address, terms).unwrap();
        let answering = thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let asked = read_all(&socket);
            // The client's half has ended; ours still speaks.
            let answer: Vec<u8> = asked.iter().rev().copied().collect();
            socket.write_all(&answer).unwrap();
            asked
        });
        let mut client = TcpStream::connect(relay.address()).unwrap();
        let asked = noise(3_000_000, 5);
        client.write_all(&asked).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let answer = read_all(&client);
        assert!(answering.join().unwrap() == asked, "{terms:?}");
        assert!(answer.iter().rev().eq(&asked), "{terms:?}");
        assert_eq!(relay.carried(), 6_000_000);
    }
}

#[test]
fn a_side_that_does_not_read_stops_the_other() {
    let terms = terms(0, 100_000_000, 0.0);
    let (listener, address) = server();
    let relay = Relay::start(ANY, address, terms).unwrap();
    let mut client = TcpStream::connect(relay.address()).unwrap();
    client.set_write_timeout(Some(Duration::from_millis(400))).unwrap();
    let (far, _) = listener.accept().unwrap();
    let all = noise(64 << 20, 6);
    let mut written = 0;
    while written < all.len() {
        match client.write(&all[written..]) {
            Ok(count) => written += count,
            Err(_) => break,
        }
    }
    assert!(written < all.len(), "the link took all of it");
    assert!(relay.held_peak() > 0 && relay.held_peak() <= terms.held_most(), "{} bytes held", relay.held_peak());
    client.shutdown(Shutdown::Write).unwrap();
    assert!(read_all(&far) == all[..written]);
    assert!(relay.held_peak() <= terms.held_most());
}

#[test]
fn connections_share_a_link_and_end_with_it() {
    let (listener, address) = server();
    let relay = Relay::start(ANY, address, terms(2, 200_000_000, 0.0)).unwrap();
    let clients: Vec<TcpStream> = (0..5).map(|_| TcpStream::connect(relay.address()).unwrap()).collect();
    let servers: Vec<TcpStream> = clients
        .iter()
        .enumerate()
        .map(|(number, mut client)| {
            client.write_all(&[number as u8]).unwrap();
            listener.accept().unwrap().0
        })
        .collect();
    drop(relay);
    for socket in clients.iter().chain(&servers) {
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut rest = Vec::new();
        let mut socket = socket;
        let read = socket.read_to_end(&mut rest);
        assert!(!read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock), "still open");
    }
}

#[test]
fn what_a_link_holds_follows_from_its_terms() {
    assert_eq!(terms(100, 125_000_000, 0.0).held_most(), 6_250_000 + BUFFER);
    assert_eq!(terms(10_000, u64::MAX, 0.0).held_most(), HELD_MOST);
    assert!(terms(100, 0, 0.0).held_most() <= HELD_MOST);
}
