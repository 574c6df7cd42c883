use super::*;
use std::net::Ipv4Addr;
use tokio::net::TcpSocket;

/// For what is due at once, on however slow a machine.
const SOON: Duration = Duration::from_secs(30);

/// What a loop has of connections.
struct Tcp {
    connections: Connections,
    arrivals: mpsc::Receiver<Arrival>,
}

impl Tcp {
    fn start(listener: std::net::TcpListener, addresses: Addresses, alive: impl Send + 'static) -> Self {
        let (sender, arrivals) = arrivals();
        let (loops, directory) = (Arc::new([sender]), Directory::new(1));
        Self { connections: super::start(listener, addresses, loops, directory, alive).unwrap(), arrivals }
    }
}

/// A listener on every loopback address, and the port that it has.
fn start() -> (Tcp, u16) {
    let listener = listen((Ipv4Addr::UNSPECIFIED, 0).into()).unwrap();
    let bound = listener.local_addr().unwrap();
    let advertise = ["127.0.0.1".to_owned(), "127.0.0.2".to_owned()];
    (Tcp::start(listener, Addresses::new(bound, &advertise).unwrap(), ()), bound.port())
}

fn framed(data: &[u8]) -> Vec<u8> {
    [&(data.len() as u16).to_be_bytes()[..], data].concat()
}

async fn next(tcp: &mut Tcp) -> Arrival {
    tokio::time::timeout(SOON, tcp.arrivals.recv()).await.expect("something comes").unwrap()
}

async fn next_frame(tcp: &mut Tcp) -> Frame {
    match next(tcp).await {
        Arrival::Frame(frame) => frame,
        Arrival::Closed(from) => panic!("{from} is closed"),
    }
}

/// A connection that its peer has said something on; the server knows it by the address.
async fn connected(tcp: &mut Tcp, port: u16) -> (TcpStream, SocketAddr) {
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    client.write_all(&framed(b"first")).await.unwrap();
    let frame = next_frame(tcp).await;
    assert_eq!((&frame.data[..], frame.is_first, frame.to.port()), (&b"first"[..], true, port));
    assert_eq!(frame.from, TransportAddress::tcp(client.local_addr().unwrap()));
    (client, frame.from.address)
}

#[tokio::test]
async fn a_peer_that_takes_nothing_is_cut_and_so_much_is_kept_of_it() {
    let (mut tcp, port) = start();
    let (client, from) = connected(&mut tcp, port).await;
    tcp.connections.authenticated(from);
    let mut sent = 0;
    let began = Instant::now();
    while !matches!(tcp.arrivals.try_recv(), Ok(Arrival::Closed(closed)) if closed == from) {
        tcp.connections.send(from, &[0; 1200]);
        sent += 1;
        assert!(began.elapsed() < SOON, "{sent} frames sent");
        tokio::task::yield_now().await;
        if sent % OUTGOING == 0 {
            // The writer has a thread of its own; it is the kernel's buffers that are to be filled.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    assert!(tcp.connections.open.lock().is_empty(), "it is still there after {sent} frames");
    drop(client);
}

#[tokio::test]
async fn a_peer_that_shows_nothing_is_not_listened_to_without_end() {
    let (mut tcp, port) = start();
    let (mut client, from) = connected(&mut tcp, port).await;
    client.write_all(&framed(b"more").repeat(1000)).await.unwrap();
    let mut frames = 1;
    loop {
        match next(&mut tcp).await {
            Arrival::Frame(frame) => assert!(!frame.is_first),
            Arrival::Closed(closed) => break assert_eq!(closed, from),
        }
        frames += 1;
    }
    assert_eq!(frames, UNAUTHENTICATED_FRAMES);
}

#[tokio::test]
async fn what_a_session_says_at_its_end_is_sent_before_its_connection_closes() {
    let (mut tcp, port) = start();
    let (mut client, from) = connected(&mut tcp, port).await;
    tcp.connections.authenticated(from);
    for goodbye in [&b"one"[..], b"two"] {
        tcp.connections.send(from, goodbye);
    }
    tcp.connections.close(from);
    tcp.connections.send(from, b"too late");
    let mut said = Vec::new();
    tokio::time::timeout(SOON, client.read_to_end(&mut said)).await.expect("the end").unwrap();
    assert_eq!(said, [framed(b"one"), framed(b"two")].concat());
    assert!(matches!(next(&mut tcp).await, Arrival::Closed(closed) if closed == from));
}

#[tokio::test]
async fn a_second_connection_from_an_address_takes_the_place_of_the_first_once_that_is_over() {
    let (mut tcp, port) = start();
    let connect = async |local: SocketAddr, to: Ipv4Addr| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(local).unwrap();
        let mut client = socket.connect((to, port).into()).await.unwrap();
        client.write_all(&framed(to.to_string().as_bytes())).await.unwrap();
        client
    };
    let first = connect((Ipv4Addr::LOCALHOST, 0).into(), Ipv4Addr::LOCALHOST).await;
    let from = first.local_addr().unwrap();
    assert_eq!(next_frame(&mut tcp).await.data, b"127.0.0.1"[..]);
    let mut second = connect(from, [127, 0, 0, 2].into()).await;
    assert!(matches!(next(&mut tcp).await, Arrival::Closed(closed) if closed == from));
    let frame = next_frame(&mut tcp).await;
    assert_eq!((frame.from.address, frame.to), (from, ([127, 0, 0, 2], port).into()));
    assert!(frame.is_first, "it is another connection");
    tcp.connections.send(from, b"to the second");
    let mut said = vec![0; 15];
    tokio::time::timeout(SOON, second.read_exact(&mut said)).await.expect("something").unwrap();
    assert_eq!(said, framed(b"to the second"));
}

#[tokio::test]
async fn the_thread_ends_with_the_engine() {
    let listener = listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let addresses = Addresses::new(listener.local_addr().unwrap(), &[]).unwrap();
    let (alive, ended) = tokio::sync::oneshot::channel::<()>();
    let tcp = Tcp::start(listener, addresses, alive);
    drop(tcp);
    assert!(tokio::time::timeout(SOON, ended).await.expect("it ends").is_err());
}
