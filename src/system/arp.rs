//! Who on a LAN has an address, and telling the LAN who has: ARP on a packet socket of its own (packet(7)).
//!
//! The kernel's table of neighbours is not asked and not changed: it knows who was there, is one for the whole machine, and may
//! be full.
//!
//! Who hears what is sent is the kernel's matter, and the same for both functions. What leaves by a parent link is heard by the
//! LAN alone: neither by this machine nor by macvlan links on that parent. What leaves by a macvlan link is heard by the LAN
//! and by the other macvlan links on its parent, containers included, but not by the parent itself, whose addresses this
//! machine knows.

mod frame;

use super::{NET_RAW, capabilities};
use crate::error::Error;
use crate::plan::Mac;
use crate::state::Answer;
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::libc;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::{LinkAddr, bind, recvfrom};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd as _;
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::time::{interval, sleep, timeout};

/// How often each address is asked for: a frame may be lost, above all by radio. `PROBE_NUM` of RFC 5227.
const PROBES: u32 = 3;

/// From one question to the next. RFC 5227 waits 1 to 2 s (`PROBE_MIN`, `PROBE_MAX`), and up to 1 s before the first, for
/// machines that get power together (`PROBE_WAIT`). A person waits for this one, and a home is a single hop: a wire answers
/// within a millisecond, a sleeping radio when it wakes for broadcasts, every 0.1 to 0.3 s.
const PROBE_INTERVAL: Duration = Duration::from_millis(300);

/// How long answers may take after the last question; RFC 5227 waits 2 s (`ANNOUNCE_WAIT`).
const ANSWER_TIMEOUT: Duration = Duration::from_millis(400);

/// How often an address is announced: one frame may be lost. `ANNOUNCE_NUM` of RFC 5227.
const ANNOUNCEMENTS: u32 = 2;

/// From one announcement to the next. RFC 5227 waits 2 s (`ANNOUNCE_INTERVAL`); a command ends only after the last one, and
/// this is enough for a radio that was busy or a port of a switch that hears the owner for the first time.
const ANNOUNCE_INTERVAL: Duration = Duration::from_millis(200);

/// How many frames go out in one go: hundreds of answers at once would overflow the buffer of the socket, which has room for
/// some 50 frames where the driver takes a page for each (`net.core.rmem_default` is 208 KiB).
const BURST: usize = 16;

/// How long answers are read until the next burst.
const BURST_PAUSE: Duration = Duration::from_millis(1);

/// How long a link may take for the frames of one round; it takes milliseconds.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// What is done, to stand behind `cannot` and `not permitted to`.
const ASK: &str = "ask the LAN who has an address";
const ANNOUNCE: &str = "tell the LAN who has an address";

/// Whether this process has `CAP_NET_RAW` (capabilities(7)), which root has.
pub fn is_permitted() -> bool {
    capabilities() & NET_RAW != 0
}

/// Asks the LAN of `link`, for about a second, who has each of `addresses`. The answers are in order, each once; whoever names
/// itself the owner of an address meanwhile, without being asked, is among them.
///
/// Several answers for one address need not be several machines: Linux answers a probe on each of its links to the LAN, and
/// `arp_filter` does not stop that (it is not looked at for a sender of 0.0.0.0; `arp_ignore` is).
///
/// # Errors
/// When the link is gone, down or no Ethernet, or homelab may not. A link without a carrier is none: nobody answers.
pub async fn probe(link: &str, addresses: &[Ipv4Addr]) -> Result<Vec<Answer>, Error> {
    let asked: BTreeSet<Ipv4Addr> = addresses.iter().copied().collect();
    if asked.is_empty() {
        return Ok(Vec::new());
    }
    let socket = ArpSocket::open(link, ASK)?;
    let probes: Vec<Vec<u8>> = asked
        .iter()
        .map(|address| frame::probe(socket.mac, *address))
        .collect();
    let asking = async {
        socket.send_rounds(&probes, PROBES, PROBE_INTERVAL).await?;
        sleep(ANSWER_TIMEOUT).await;
        Ok::<(), Error>(())
    };
    let mut answers = BTreeSet::new();
    let listening = socket.listen(|answer| {
        if asked.contains(&answer.address) {
            answers.insert(answer);
        }
    });
    tokio::select! {
        result = asking => result?,
        failure = listening => return Err(failure),
    }
    Ok(answers.into_iter().collect())
}

/// Tells the LAN of `link` that each address is that hardware address's from now on, which needs not be that of the link. Who
/// has the address in its table of neighbours takes it over; who does not, and has `arp_accept` off, does not remember it.
///
/// # Errors
/// When the link is gone, down or no Ethernet, or homelab may not.
pub async fn announce(link: &str, owners: &[(Ipv4Addr, Mac)]) -> Result<(), Error> {
    if owners.is_empty() {
        return Ok(());
    }
    let socket = ArpSocket::open(link, ANNOUNCE)?;
    let announcements: Vec<Vec<u8>> = owners
        .iter()
        .map(|(address, owner)| frame::announcement(*owner, *address))
        .collect();
    socket
        .send_rounds(&announcements, ANNOUNCEMENTS, ANNOUNCE_INTERVAL)
        .await
}

/// A packet socket for the ARP of one link, in the network namespace of the thread that opened it.
struct ArpSocket<'a> {
    socket: UdpSocket,
    link: &'a str,
    /// The number of the link.
    index: usize,
    /// The hardware address of the link.
    mac: Mac,
    /// [`ASK`] or [`ANNOUNCE`].
    what: &'static str,
}

impl<'a> ArpSocket<'a> {
    fn open(link: &'a str, what: &'static str) -> Result<Self, Error> {
        let refused = |error: io::Error| refusal(&error, link, what);
        let address = find(link, what)?;
        // The number of the protocol is in the byte order of the network (packet(7)). With it, the kernel's own ARP and that of
        // other programs on this machine is not seen on its way out.
        let protocol = u16::try_from(libc::ETH_P_ARP).unwrap_or_default().to_be();
        let protocol = Protocol::from(i32::from(protocol));
        let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking(), Some(protocol));
        let socket = socket.map_err(refused)?;
        // The address has no protocol, which leaves the socket's as it is. `SO_BINDTODEVICE` does nothing here (socket(7)).
        bind(socket.as_raw_fd(), &address).map_err(|errno| refused(errno.into()))?;
        Ok(Self {
            // The kernel sends and receives on it as on any datagram socket.
            socket: UdpSocket::from_std(socket.into()).map_err(refused)?,
            link,
            index: address.ifindex(),
            mac: Mac(address.addr().unwrap_or_default()),
            what,
        })
    }

    /// Sends all frames a number of times; from the begin of one round to the next it takes `apart`.
    async fn send_rounds(
        &self,
        frames: &[Vec<u8>],
        rounds: u32,
        apart: Duration,
    ) -> Result<(), Error> {
        let mut begin = interval(apart);
        for _ in 0..rounds {
            begin.tick().await;
            let sent = timeout(SEND_TIMEOUT, self.send_all(frames)).await;
            sent.map_err(|_| stuck(self.link, self.what))??;
        }
        Ok(())
    }

    async fn send_all(&self, frames: &[Vec<u8>]) -> Result<(), Error> {
        for burst in frames.chunks(BURST) {
            for frame in burst {
                match self.socket.send(frame).await {
                    Ok(_) => {}
                    // The link's queue is full: lost, as it may be on the wire. The next round sends it again.
                    Err(error) if is_errno(&error, Errno::ENOBUFS) => {}
                    Err(error) => return Err(refusal(&error, self.link, self.what)),
                }
            }
            sleep(BURST_PAUSE).await;
        }
        Ok(())
    }

    /// Hands on who names itself the owner of an address, until the socket fails; returns why.
    async fn listen(&self, mut heard: impl FnMut(Answer)) -> Error {
        // Longer than any frame of ARP; what does not fit is cut off.
        let mut buffer = [0; 128];
        loop {
            let receiving = self.socket.async_io(Interest::READABLE, || {
                Ok(recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut buffer)?)
            });
            match receiving.await {
                Ok((length, from)) if from.is_none_or(|from| self.is_own_lan(&from)) => {
                    let frame = buffer.get(..length).unwrap_or_default();
                    frame::sender(frame).into_iter().for_each(&mut heard);
                }
                Ok(_) => {}
                Err(error) => return refusal(&error, self.link, self.what),
            }
        }
    }

    /// Whether a frame is from the LAN of this link. It is not when the socket got it before it was bound to the link, nor when
    /// it is of a VLAN, whose tag the kernel has taken off: then it is a VLAN link's, or for another host when there is no such
    /// link.
    fn is_own_lan(&self, from: &LinkAddr) -> bool {
        from.ifindex() == self.index && from.pkttype() != libc::PACKET_OTHERHOST
    }
}

/// The address of a link that is up, as packet(7) has it.
fn find(link: &str, what: &str) -> Result<LinkAddr, Error> {
    let mut all = getifaddrs().map_err(|errno| refusal(&errno.into(), link, what))?;
    // Of each link, one entry has its hardware address (getifaddrs(3)).
    let found = all.find_map(|entry| {
        let address = *entry.address?.as_link_addr()?;
        (entry.interface_name == link).then_some((address, entry.flags))
    });
    let (address, flags) = found.ok_or_else(|| gone(link))?;
    if address.hatype() != libc::ARPHRD_ETHER {
        return Err(Error::new(
            format!("cannot {what}: link `{link}` is no Ethernet"),
            "use an Ethernet interface, a VLAN, a bond or a bridge as the parent",
        ));
    }
    if !flags.contains(InterfaceFlags::IFF_UP) {
        return Err(down(link, what));
    }
    Ok(address)
}

fn gone(link: &str) -> Error {
    Error::new(
        format!("there is no link `{link}`"),
        "`ip link` lists the links; something else may have removed it meanwhile",
    )
}

fn down(link: &str, what: &str) -> Error {
    Error::new(
        format!("cannot {what}: link `{link}` is down"),
        format!("set it up with `ip link set {link} up`"),
    )
}

fn stuck(link: &str, what: &str) -> Error {
    Error::new(
        format!("cannot {what}: link `{link}` sends nothing"),
        format!("`ip -s link show {link}` and `journalctl -k` may tell why"),
    )
}

fn is_errno(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno as i32)
}

fn refusal(error: &io::Error, link: &str, what: &str) -> Error {
    let errno = error
        .raw_os_error()
        .map_or(Errno::UnknownErrno, Errno::from_raw);
    match errno {
        Errno::EPERM | Errno::EACCES => {
            Error::new(format!("not permitted to {what}"), "run homelab as root")
        }
        Errno::ENODEV | Errno::ENXIO => gone(link),
        Errno::ENETDOWN => down(link, what),
        Errno::EAFNOSUPPORT => Error::new(
            format!("cannot {what}: the kernel gives no packet socket"),
            "homelab needs a Linux kernel with packet sockets (`modprobe af_packet`), and AF_PACKET when it runs under systemd's restrictions",
        ),
        errno => Error::new(
            // The name of a number, as in errno(3).
            format!("the kernel refused to {what} by link `{link}` ({errno:?})"),
            "`man 3 errno` tells what that means; `journalctl -k` may tell more",
        ),
    }
}

#[cfg(test)]
mod tests;
