//! Floods on the media port.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// What there is to aim at.
pub struct Target {
    pub address: SocketAddr,
    /// Both ends' user fragments, as STUN names them.
    user: String,
}

impl Target {
    pub fn new(offer: &str, answer: &str) -> Self {
        let value = |sdp: &str, key| sdp.lines().find_map(|line| line.strip_prefix(key)).unwrap().to_owned();
        let candidate = value(answer, "a=candidate:");
        let words: Vec<&str> = candidate.split(' ').collect();
        let address = format!("{}:{}", words[4], words[5]).parse().unwrap();
        let ufrag = |sdp| value(sdp, "a=ice-ufrag:");
        Self { address, user: format!("{}:{}", ufrag(answer), ufrag(offer)) }
    }

    /// Datagrams that the kernel had no room for, so far.
    pub fn dropped(&self) -> u64 {
        let port = format!(":{:04X}", self.address.port());
        let sockets = std::fs::read_to_string("/proc/net/udp").unwrap();
        let own = sockets
            .lines()
            .find(|line| line.split_whitespace().nth(1).is_some_and(|local| local.ends_with(&port)));
        own.and_then(|line| line.split_whitespace().next_back()?.parse().ok()).expect("the media socket")
    }
}

type Datagrams = Vec<Vec<u8>>;

/// Each kind of flood, some hundred datagrams that are sent over and over.
pub fn all(target: &Target) -> [(&'static str, Datagrams); 3] {
    let many = |make: &dyn Fn() -> Vec<u8>| (0..256).map(|_| make()).collect::<Datagrams>();
    let stranger = || stun(&format!("{:08x}:{:08x}", rand::random::<u32>(), rand::random::<u32>()));
    let forged = || stun(&target.user);
    [
        ("STUN for nobody", many(&stranger)),
        ("STUN for the publisher with a forged signature", many(&forged)),
        ("rubbish, RTP and DTLS", many(&rubbish)),
    ]
}

fn random(length: usize) -> Vec<u8> {
    (0..length).map(|_| rand::random()).collect()
}

/// A binding request that is well formed but for its signature.
fn stun(user: &str) -> Vec<u8> {
    let mut request = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    request.extend(random(12));
    request.extend([0, 6, 0, user.len() as u8]);
    request.extend(user.as_bytes());
    request.resize(request.len().next_multiple_of(4), 0);
    request.extend([0, 8, 0, 20]);
    request.extend(random(20));
    request[3] = (request.len() - 20) as u8;
    request
}

fn rubbish() -> Vec<u8> {
    let head: &[u8] = match rand::random_range(0..4) {
        0 => &[0x80, 96],
        1 => &[0x80, 200],
        2 => &[22, 254, 253, 0, 0],
        _ => &[],
    };
    [head, &random(rand::random_range(1..1200))].concat()
}

/// Datagrams a second: fifty publishers' media, and what the loop of a loaded machine still takes out of
/// the kernel's buffer in time. Beyond that the kernel's losses would be measured, not the server.
const RATE: u32 = 20_000;

/// Sends for so long; gives how many.
pub async fn run(to: SocketAddr, datagrams: Datagrams, lasts: Duration) -> usize {
    let flood = move || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(to).unwrap();
        let began = Instant::now();
        let mut sent = 0;
        while began.elapsed() < lasts {
            sent += datagrams.iter().filter(|datagram| socket.send(datagram).is_ok()).count();
            let due = began + Duration::from_secs(1) * sent as u32 / RATE;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        sent
    };
    tokio::task::spawn_blocking(flood).await.unwrap()
}
