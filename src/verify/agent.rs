//! One end of a proof: a process in the network namespace and in the cgroup of a container, which the kernel filters as it
//! filters the container. It answers whoever asks, and asks whom it is told to.
//!
//! Both are needed: the filter of a slice belongs to the cgroup, so that in the namespace alone nothing would be filtered
//! on the way out. `verify` starts these processes and talks to them over their standard input and output.

mod ipv6;

use crate::error::Error;
use crate::system::cgroups::{CGROUPS, cgroup_of_process};
use crate::system::netlink::{Neighbour, Netlink};
use futures_util::future::{BoxFuture, join_all};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use nix::sched::{CloneFlags, setns};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol as IpProtocol, Socket, Type};
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::{Instant, timeout, timeout_at};

/// How long an answer may take; long enough for a second SYN, which the kernel sends after a second (RFC 6298).
const ANSWER_TIMEOUT: Duration = Duration::from_millis(1500);

/// How long the other protocols may take once it is clear whether packets come through: an answer came by one of them, or the
/// kernel let nothing out that it says so of. A LAN answers within milliseconds.
const SETTLED_TIMEOUT: Duration = Duration::from_millis(400);

/// How often datagrams and echo requests are sent again until then.
const RESEND_AFTER: Duration = Duration::from_millis(300);

/// What is sent, and must come back.
const TOKEN: &[u8] = b"homelab verify";

/// Where this process answers.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Ports {
    /// For connections.
    pub tcp: u16,
    /// For datagrams.
    pub udp: u16,
}

/// What a process like this one says of itself first, a line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Place {
    /// Where it answers over IPv4.
    pub ports: Ports,
    /// Where it answers over IPv6; `None` where the container has no address of it.
    pub ipv6: Option<Ipv6Place>,
}

/// Where a process answers over IPv6.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ipv6Place {
    /// At any of its addresses, and at the multicast groups that it is in.
    pub ports: Ports,
    /// The addresses of the container, but for the loopback.
    pub addresses: Vec<Ipv6Addr>,
}

/// What a process like this one is told, a line each, and answers by a line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Order {
    /// To ask each of them; the line has an [`Answer`] for each.
    Ask(Vec<Target>),
    /// To take those of these neighbours out of the kernel's table that were not in it when this process began; the line
    /// says how many.
    Forget(BTreeSet<Ipv4Addr>),
}

/// Whom to ask.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Target {
    /// The address; one of multicast is asked by datagrams.
    pub address: IpAddr,
    /// Where a process like this one answers there; without one a refused connection is an answer too.
    pub ports: Option<Ports>,
    /// Whose answers count that are asked by multicast: others hear it too.
    pub answers: Vec<Ipv6Addr>,
}

/// By which protocols an answer came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "one for each protocol, each of which may answer alone"
)]
pub struct Answer {
    /// A connection was made.
    pub tcp: bool,
    /// A datagram came back.
    pub udp: bool,
    /// An echo reply came.
    pub ping: bool,
    /// The kernel said that it lets nothing out, so to ask again is no use.
    #[serde(default)]
    pub refused: bool,
}

impl Answer {
    /// Whether there was any.
    pub fn any(self) -> bool {
        let Self {
            tcp,
            udp,
            ping,
            refused: _,
        } = self;
        tcp || udp || ping
    }

    fn by(&mut self, protocol: Protocol) -> &mut bool {
        match protocol {
            Protocol::Tcp => &mut self.tcp,
            Protocol::Udp => &mut self.udp,
            Protocol::Ping => &mut self.ping,
        }
    }
}

/// By what is asked.
#[derive(Clone, Copy, Debug)]
enum Protocol {
    Tcp,
    Udp,
    Ping,
}

/// Ports that a machine without a process of ours may have open; a refusal is an answer as good.
const LIKELY_PORTS: [u16; 2] = [80, 53];

/// Becomes filtered like the process `pid`, then answers at `address` and asks until standard input ends. Its lines go out by
/// `print`.
///
/// # Errors
/// When the process is gone, or homelab may not.
pub fn run(pid: Option<u32>, address: Ipv4Addr, print: impl Fn(&str)) -> Result<(), Error> {
    if let Some(pid) = pid {
        enter(pid).map_err(|error| {
            let (why, hint) = match error.kind() {
                io::ErrorKind::PermissionDenied => ("it is not permitted", "run homelab as root"),
                io::ErrorKind::NotFound => ("it ended", "run the command again"),
                _ => ("the kernel refused", "`journalctl -k` may tell why"),
            };
            Error::new(
                format!("cannot enter the container of process {pid}: {why}"),
                hint,
            )
        })?;
    }
    // After the namespace: threads of a runtime would stay in the old one.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime
        .and_then(|runtime| runtime.block_on(serve(address, print)))
        .map_err(|_| {
            Error::new(
                "a process in a container's network could not open its sockets",
                "`journalctl -k` may tell why; run the command again",
            )
        })
}

fn enter(pid: u32) -> io::Result<()> {
    let namespace = File::open(format!("/proc/{pid}/ns/net"))?;
    let cgroup = cgroup_of_process(pid)?;
    if let Some(path) = cgroup.filter(|_| File::open(format!("{CGROUPS}/cgroup.procs")).is_ok()) {
        let own = std::process::id().to_string();
        std::fs::write(format!("{CGROUPS}{path}/cgroup.procs"), own)?;
    }
    setns(namespace, CloneFlags::CLONE_NEWNET)?;
    Ok(())
}

async fn serve(address: Ipv4Addr, print: impl Fn(&str)) -> io::Result<()> {
    let any = (Ipv4Addr::UNSPECIFIED, 0);
    let listener = TcpListener::bind(any).await?;
    // On this address, or else a host's answer may come from its shim's. It may be missing, which is what is found out.
    let socket = match UdpSocket::bind((address, 0)).await {
        Ok(socket) => socket,
        Err(_) => UdpSocket::bind(any).await?,
    };
    let ports = Ports {
        tcp: listener.local_addr()?.port(),
        udp: socket.local_addr()?.port(),
    };
    tokio::spawn(answer_connections(listener));
    tokio::spawn(answer_datagrams(socket));
    let memory = Memory::new().await;
    let own = ipv6::Own::find(memory.netlink.as_ref(), address).await;
    let ipv6 = own.as_ref().and_then(|own| own.serve().ok());
    print(&serde_json::to_string(&Place { ports, ipv6 })?);
    let scope = own.map_or(0, |own| own.scope);
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        match serde_json::from_str(&line)? {
            Order::Ask(targets) => {
                let answers: Vec<Answer> =
                    join_all(targets.iter().map(|to| probe(to, scope))).await;
                print(&serde_json::to_string(&answers)?);
            }
            Order::Forget(addresses) => {
                let forgotten = memory.forget(&addresses).await;
                print(&serde_json::to_string(&forgotten)?);
            }
        }
    }
    Ok(())
}

/// The neighbours of this network namespace before anybody was asked.
struct Memory {
    /// Nothing is forgotten without it.
    netlink: Option<Netlink>,
    before: BTreeSet<Neighbour>,
}

impl Memory {
    async fn new() -> Self {
        let netlink = Netlink::connect().ok();
        let before = match &netlink {
            Some(netlink) => netlink.neighbours().await.ok(),
            None => None,
        };
        Self {
            netlink: netlink.filter(|_| before.is_some()),
            before: before.unwrap_or_default(),
        }
    }

    /// Takes what was added for these addresses out of the table, and says how many that were. What cannot be taken out
    /// the kernel collects some day.
    async fn forget(&self, addresses: &BTreeSet<Ipv4Addr>) -> usize {
        let Some(netlink) = &self.netlink else {
            return 0;
        };
        let mut now = netlink.neighbours().await.unwrap_or_default();
        now.retain(|one| addresses.contains(&one.address) && !self.before.contains(one));
        match netlink.forget_neighbours(&now).await {
            Ok(()) => now.len(),
            Err(_) => 0,
        }
    }
}

async fn answer_connections(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(timeout(ANSWER_TIMEOUT, async move {
            let mut heard = [0; TOKEN.len()];
            if stream.read_exact(&mut heard).await.is_ok() {
                let _ = stream.write_all(&heard).await;
            }
        }));
    }
}

async fn answer_datagrams(socket: UdpSocket) {
    let mut heard = [0; TOKEN.len()];
    loop {
        // An error is about an answer that could not be sent, which is what is being found out.
        if let Ok((length, from)) = socket.recv_from(&mut heard).await {
            let _ = socket
                .send_to(heard.get(..length).unwrap_or_default(), from)
                .await;
        }
    }
}

/// Asks a target; one of IPv6 that is not the same everywhere on the link of the number `scope`.
async fn probe(target: &Target, scope: u32) -> Answer {
    let Target {
        address,
        ports,
        answers,
    } = target;
    let address = ipv6::scoped(*address, scope);
    if address.ip().is_multicast() {
        let heard = ipv6::exchange_by_multicast(address, *ports, answers);
        let udp = timeout(ANSWER_TIMEOUT, heard).await;
        return Answer {
            udp: udp.is_ok_and(|heard| heard.is_ok()),
            ..Answer::default()
        };
    }
    let tcp = async { (Protocol::Tcp, connect(address, *ports).await) };
    let udp = async { (Protocol::Udp, exchange(address, *ports).await) };
    let ping = async { (Protocol::Ping, ping(address).await) };
    let asked: [BoxFuture<_>; 3] = [tcp.boxed(), udp.boxed(), ping.boxed()];
    let mut asked = FuturesUnordered::from_iter(asked);
    let mut answer = Answer::default();
    let mut end = Instant::now() + ANSWER_TIMEOUT;
    // Of a datagram and an echo request that are not let out the kernel says so, of a connection it does not.
    let mut not_refused = if ports.is_some() { 2 } else { 1 };
    while let Ok(Some((protocol, outcome))) = timeout_at(end, asked.next()).await {
        match outcome {
            Ok(()) => *answer.by(protocol) = true,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => not_refused -= 1,
            Err(_) => {}
        }
        answer.refused = not_refused == 0;
        if answer.any() || answer.refused {
            end = end.min(Instant::now() + SETTLED_TIMEOUT);
        }
    }
    answer
}

fn no_answer() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

/// The same address with a port.
fn at(mut address: SocketAddr, port: u16) -> SocketAddr {
    address.set_port(port);
    address
}

async fn connect(address: SocketAddr, ports: Option<Ports>) -> io::Result<()> {
    let Some(ports) = ports else {
        let probes = LIKELY_PORTS.map(|port| Box::pin(probe_tcp(at(address, port))));
        return futures_util::future::select_ok(probes).await.map(|_| ());
    };
    let mut stream = TcpStream::connect(at(address, ports.tcp)).await?;
    stream.write_all(TOKEN).await?;
    let mut heard = [0; TOKEN.len()];
    stream.read_exact(&mut heard).await?;
    if heard == *TOKEN {
        Ok(())
    } else {
        Err(no_answer())
    }
}

/// Whether something answers at a port, if only by refusing.
async fn probe_tcp(address: SocketAddr) -> io::Result<()> {
    match TcpStream::connect(address).await {
        Err(error) if error.kind() != io::ErrorKind::ConnectionRefused => Err(error),
        _ => Ok(()),
    }
}

/// Any address of the same family.
fn unspecified(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

async fn exchange(address: SocketAddr, ports: Option<Ports>) -> io::Result<()> {
    let ports = ports.ok_or_else(no_answer)?;
    let socket = UdpSocket::bind(unspecified(address)).await?;
    socket.connect(at(address, ports.udp)).await?;
    let mut heard = [0; TOKEN.len()];
    loop {
        // A datagram that is not let out is an error at once; one that nobody hears is sent again.
        socket.send(TOKEN).await?;
        if let Ok(length) = timeout(RESEND_AFTER, socket.recv(&mut heard)).await {
            return if heard.get(..length?) == Some(TOKEN) {
                Ok(())
            } else {
                Err(no_answer())
            };
        }
    }
}

/// An echo request and its reply (RFC 792, RFC 4443).
async fn ping(address: SocketAddr) -> io::Result<()> {
    let is_v6 = address.is_ipv6();
    let protocol = if is_v6 {
        IpProtocol::ICMPV6
    } else {
        IpProtocol::ICMPV4
    };
    let socket = Socket::new(Domain::for_address(address), Type::RAW, Some(protocol))?;
    socket.set_nonblocking(true)?;
    socket.connect(&address.into())?;
    // The kernel sends and receives on it as on any datagram socket.
    let socket = UdpSocket::from_std(socket.into())?;
    let own = std::process::id().to_be_bytes();
    let request = echo_request([own[2], own[3]], is_v6);
    let mut heard = [0; 256];
    loop {
        socket.send(&request).await?;
        let listen = async {
            loop {
                let length = socket.recv(&mut heard).await?;
                if is_reply(heard.get(..length).unwrap_or_default(), &request, is_v6) {
                    return io::Result::Ok(());
                }
            }
        };
        if let Ok(answer) = timeout(RESEND_AFTER, listen).await {
            return answer;
        }
    }
}

/// The sum of one for IPv6, over addresses too, is the kernel's business (RFC 3542, section 3.1).
fn echo_request(identifier: [u8; 2], is_v6: bool) -> Vec<u8> {
    let kind = if is_v6 { 128 } else { 8 };
    let mut packet = vec![kind, 0, 0, 0, identifier[0], identifier[1], 0, 1];
    packet.extend(TOKEN);
    let words = packet.chunks(2).map(|pair| {
        let high = u32::from(pair.first().copied().unwrap_or(0));
        let low = u32::from(pair.get(1).copied().unwrap_or(0));
        high << 8 | low
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = !u16::try_from(sum).unwrap_or(0);
    if let Some(place) = packet.get_mut(2..4) {
        place.copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

/// Whether what came is the reply to a request: everything behind the checksum is what was sent. Over IPv4 it comes with its header.
fn is_reply(packet: &[u8], request: &[u8], is_v6: bool) -> bool {
    let length = |first: &u8| usize::from(first & 0x0f) * 4;
    let (header, kind) = if is_v6 {
        (0, 129)
    } else {
        (packet.first().map_or(0, length), 0)
    };
    let Some(message) = packet.get(header..) else {
        return false;
    };
    message.first() == Some(&kind) && message.get(4..) == request.get(4..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_request_sums_up_to_nothing() {
        let packet = echo_request([0x12, 0x34], false);
        let mut sum: u32 = 0;
        for pair in packet.chunks(2) {
            let pair: [u8; 2] = pair.try_into().unwrap_or_default();
            sum += u32::from(u16::from_be_bytes(pair));
        }
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
    }

    #[test]
    fn a_reply_is_known_by_what_it_carries() {
        let request = echo_request([1, 2], false);
        let behind_the_type = request.get(1..).unwrap_or_default();
        let packet = |kind: u8| [&[0x45; 20], [kind].as_slice(), behind_the_type].concat();
        assert!(is_reply(&packet(0), &request, false));
        assert!(!is_reply(&packet(0), &echo_request([1, 3], false), false));
        assert!(!is_reply(&packet(8), &request, false));
        assert!(!is_reply(&[0x45], &request, false));
        let request = echo_request([1, 2], true);
        let behind_the_type = request.get(1..).unwrap_or_default();
        let message = |kind: u8| [[kind].as_slice(), behind_the_type].concat();
        assert!(is_reply(&message(129), &request, true));
        assert!(!is_reply(&message(128), &request, true));
    }
}
