//! What recording is compared with: a loop that only receives. All sessions on one UDP socket, read in
//! batches, each an `rtc` peer connection that decrypts, reports and throws away; offers come in as WHIP.

use bytes::BytesMut;
use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use rtc::ice::mdns::MulticastDnsMode;
use rtc::interceptor::Registry;
use rtc::peer_connection::configuration::RTCConfigurationBuilder;
use rtc::peer_connection::configuration::interceptor_registry::{
    configure_rtcp_reports, configure_twcc_receiver_only,
};
use rtc::peer_connection::configuration::media_engine::MediaEngine;
use rtc::peer_connection::configuration::setting_engine::SettingEngineBuilder;
use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::peer_connection::transport::{CandidateConfig, CandidateHostConfig, RTCIceCandidate};
use rtc::peer_connection::{RTCPeerConnection, RTCPeerConnectionBuilder};
use rtc::sansio::Protocol;
use rtc::shared::{TaggedBytesMut, TransportContext, TransportProtocol};
use std::collections::{BTreeSet, HashMap};
use std::io::{BufRead, BufReader, IoSliceMut, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};

type Offer = (String, oneshot::Sender<String>);

/// Serves until it is killed; names its address on standard output.
pub fn serve() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("http://{}/", listener.local_addr().unwrap());
    let (offers, queue) = mpsc::channel(16);
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let _ = answer_http(connection, &offers);
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { Loop::bind().await.run(queue).await });
}

/// One request: an offer to POST, or anything else, which is fine.
fn answer_http(mut connection: TcpStream, offers: &mpsc::Sender<Offer>) -> std::io::Result<()> {
    let mut reader = BufReader::new(connection.try_clone()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head)? > 0 {}
    let length = head.to_ascii_lowercase().split_once("content-length:").map_or(0, |(_, rest)| {
        rest.split_whitespace().next().and_then(|length| length.parse().ok()).unwrap_or(0)
    });
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    if !head.starts_with("POST") {
        return connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    let (reply, answer) = oneshot::channel();
    offers.blocking_send((String::from_utf8_lossy(&body).into_owned(), reply)).expect("the loop runs");
    let sdp = answer.blocking_recv().expect("the loop answers");
    let head = "HTTP/1.1 201 Created\r\nLocation: /session\r\nETag: \"1\"\r\nConnection: close\r\n";
    write!(connection, "{head}Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}", sdp.len())
}

struct Loop {
    socket: UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
    sessions: Vec<Session>,
    by_fragment: HashMap<String, usize>,
    by_address: HashMap<SocketAddr, usize>,
}

struct Session {
    connection: RTCPeerConnection,
    deadline: Instant,
}

impl Loop {
    async fn bind() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let state = UdpSocketState::new(UdpSockRef::from(&socket)).unwrap();
        let _ = state.set_recv_buffer_size(UdpSockRef::from(&socket), 4 << 20);
        let local = socket.local_addr().unwrap();
        let (by_fragment, by_address) = (HashMap::new(), HashMap::new());
        Self { socket, state, local, sessions: Vec::new(), by_fragment, by_address }
    }

    async fn run(mut self, mut offers: mpsc::Receiver<Offer>) {
        let size = 1500 * self.state.gro_segments();
        let mut memory = vec![0u8; size * BATCH_SIZE];
        let mut meta = [RecvMeta::default(); BATCH_SIZE];
        loop {
            let next = self.sessions.iter().map(|session| session.deadline).min();
            let next = next.unwrap_or_else(|| Instant::now() + Duration::from_secs(1));
            let mut slices: Vec<_> = memory.chunks_mut(size).map(IoSliceMut::new).collect();
            let batch = self.socket.async_io(Interest::READABLE, || {
                self.state.recv(UdpSockRef::from(&self.socket), &mut slices, &mut meta)
            });
            tokio::select! {
                count = batch => {
                    let count = count.unwrap_or(0);
                    drop(slices);
                    self.take(&memory, size, &meta[..count]);
                }
                Some((offer, reply)) = offers.recv() => {
                    let _ = reply.send(self.accept(&offer));
                }
                () = tokio::time::sleep_until(next.into()) => {}
            }
            self.wake_due();
        }
    }

    fn accept(&mut self, offer: &str) -> String {
        let mut connection = connection();
        let now = Instant::now();
        let offer = RTCSessionDescription::offer(offer.to_owned()).unwrap();
        connection.set_remote_description(now, offer).unwrap();
        let candidate = CandidateHostConfig {
            base_config: CandidateConfig {
                network: "udp".to_owned(),
                address: self.local.ip().to_string(),
                port: self.local.port(),
                component: 1,
                ..CandidateConfig::default()
            },
            ..CandidateHostConfig::default()
        };
        let candidate = RTCIceCandidate::from(&candidate.new_candidate_host().unwrap());
        connection.add_local_candidate(candidate.to_json().unwrap()).unwrap();
        let answer = connection.create_answer(None).unwrap();
        connection.set_local_description(now, answer).unwrap();
        let sdp = connection.local_description().unwrap().sdp;
        let fragment = sdp.lines().find_map(|line| line.strip_prefix("a=ice-ufrag:")).unwrap();
        self.by_fragment.insert(fragment.to_owned(), self.sessions.len());
        self.sessions.push(Session { connection, deadline: now });
        sdp
    }

    fn take(&mut self, memory: &[u8], size: usize, meta: &[RecvMeta]) {
        let now = Instant::now();
        let mut touched = BTreeSet::new();
        for (buffer, meta) in memory.chunks(size).zip(meta) {
            for datagram in buffer[..meta.len].chunks(meta.stride.max(1)) {
                let Some(index) = self.route(datagram, meta.addr) else { continue };
                let transport = TransportContext {
                    local_addr: self.local,
                    peer_addr: meta.addr,
                    transport_protocol: TransportProtocol::UDP,
                    ecn: None,
                };
                let message = TaggedBytesMut { now, transport, message: BytesMut::from(datagram) };
                let _ = self.sessions[index].connection.handle_read(message);
                touched.insert(index);
            }
        }
        for index in touched {
            self.drain(index, now);
        }
    }

    /// STUN requests by user fragment, everything else by address.
    fn route(&mut self, datagram: &[u8], from: SocketAddr) -> Option<usize> {
        if let Some(fragment) = stun_fragment(datagram) {
            let index = *self.by_fragment.get(fragment)?;
            self.by_address.insert(from, index);
            return Some(index);
        }
        self.by_address.get(&from).copied()
    }

    fn wake_due(&mut self) {
        let now = Instant::now();
        for index in 0..self.sessions.len() {
            if self.sessions[index].deadline <= now {
                let _ = self.sessions[index].connection.handle_timeout(now);
                self.drain(index, now);
            }
        }
    }

    fn drain(&mut self, index: usize, now: Instant) {
        let Session { connection, deadline } = &mut self.sessions[index];
        while connection.poll_read().is_some() {}
        while connection.poll_event().is_some() {}
        while let Some(datagram) = connection.poll_write() {
            let transmit = Transmit {
                destination: datagram.transport.peer_addr,
                ecn: None,
                contents: &datagram.message,
                segment_size: None,
                src_ip: None,
            };
            let _ = self.state.try_send(UdpSockRef::from(&self.socket), &transmit);
        }
        *deadline = connection.poll_timeout().unwrap_or(now + Duration::from_secs(1));
    }
}

fn connection() -> RTCPeerConnection {
    let mut engine = MediaEngine::default();
    engine.register_default_codecs().unwrap();
    let registry =
        configure_twcc_receiver_only(configure_rtcp_reports(Registry::new()), &mut engine).unwrap();
    let settings = SettingEngineBuilder::new()
        .with_multicast_dns_mode(MulticastDnsMode::Disabled)
        .with_srtp_replay_protection_window(1024)
        .build();
    RTCPeerConnectionBuilder::new()
        .with_configuration(RTCConfigurationBuilder::new().build())
        .with_setting_engine(settings)
        .with_media_engine(engine)
        .with_interceptor_registry(registry)
        .build(Instant::now())
        .unwrap()
}

/// The receiver's part of a STUN request's USERNAME (RFC 8489 section 14.3, RFC 8445 section 7.2.2).
fn stun_fragment(datagram: &[u8]) -> Option<&str> {
    if datagram.len() < 20 || datagram[..2] != [0, 1] {
        return None;
    }
    let mut at = 20;
    while at + 4 <= datagram.len() {
        let kind = u16::from_be_bytes([datagram[at], datagram[at + 1]]);
        let length = usize::from(u16::from_be_bytes([datagram[at + 2], datagram[at + 3]]));
        let value = datagram.get(at + 4..at + 4 + length)?;
        if kind == 6 {
            return std::str::from_utf8(value).ok()?.split(':').next();
        }
        at += 4 + length.next_multiple_of(4);
    }
    None
}
