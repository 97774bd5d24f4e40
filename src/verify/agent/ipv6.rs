//! The IPv6 of a process in a container: which addresses the container has, where the process answers, and how it asks a link's
//! multicast groups.

use super::{
    Ipv6Place, Ports, RESEND_AFTER, TOKEN, answer_connections, answer_datagrams, at, no_answer,
};
use crate::system::netlink::Netlink;
use socket2::{Domain, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use tokio::net::{TcpListener, UdpSocket};
use tokio::time::timeout;

/// How many addresses of a container are asked at most: a link-local one, and a few that routers advertised.
const MOST_ADDRESSES: usize = 4;

/// What a container has of IPv6.
pub(super) struct Own {
    /// The number of the link that has the container's address on the LAN.
    pub scope: u32,
    addresses: Vec<Ipv6Addr>,
}

impl Own {
    /// What this network namespace has, where its address on the LAN is that one; `None` where that is nothing.
    pub(super) async fn find(netlink: Option<&Netlink>, address: Ipv4Addr) -> Option<Self> {
        let (links, _) = netlink?.links_and_routes().await.ok()?;
        let link = links.iter().find(|link| link.has(address))?;
        let table = std::fs::read_to_string("/proc/self/net/if_inet6").ok()?;
        Self::parse(&table, &link.name)
    }

    /// Reads the table `/proc/net/if_inet6`: an address, the number of its link, three more numbers in hexadecimal, and the link's name
    /// (`proc_net(5)`).
    fn parse(table: &str, link: &str) -> Option<Self> {
        let rows = table.lines().filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [address, number, _, _, _, name] = words.as_slice() else {
                return None;
            };
            let address = Ipv6Addr::from(u128::from_str_radix(address, 16).ok()?);
            let number = u32::from_str_radix(number, 16).ok()?;
            // Link-local ones of other links are nobody's on the LAN.
            let is_asked =
                !address.is_loopback() && (*name == link || !address.is_unicast_link_local());
            is_asked.then_some((address, number, *name))
        });
        let mut rows: Vec<_> = rows.collect();
        rows.sort_by_key(|(address, ..)| (!address.is_unicast_link_local(), *address));
        let (_, scope, _) = *rows.iter().find(|(.., name)| *name == link)?;
        let addresses = rows.iter().map(|(address, ..)| *address);
        Some(Self {
            scope,
            addresses: addresses.take(MOST_ADDRESSES).collect(),
        })
    }

    /// Answers at any address.
    pub(super) fn serve(&self) -> io::Result<Ipv6Place> {
        let listener = TcpListener::from_std({
            let socket = open(Type::STREAM)?;
            socket.listen(64)?;
            socket.into()
        })?;
        let socket = UdpSocket::from_std(open(Type::DGRAM)?.into())?;
        let ports = Ports {
            tcp: listener.local_addr()?.port(),
            udp: socket.local_addr()?.port(),
        };
        tokio::spawn(answer_connections(listener));
        tokio::spawn(answer_datagrams(socket));
        Ok(Ipv6Place {
            ports,
            addresses: self.addresses.clone(),
        })
    }
}

/// A socket of IPv6 alone, whatever the container's `bindv6only` is.
fn open(kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, kind, None)?;
    socket.set_only_v6(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)).into())?;
    Ok(socket)
}

/// An address, with the link that it is asked on where that is part of it (RFC 4007).
pub(super) fn scoped(address: IpAddr, scope: u32) -> SocketAddr {
    match address {
        IpAddr::V4(_) => (address, 0).into(),
        IpAddr::V6(address) => {
            let is_everywhere = !address.is_unicast_link_local() && !address.is_multicast();
            let scope = if is_everywhere { 0 } else { scope };
            SocketAddrV6::new(address, 0, 0, scope).into()
        }
    }
}

/// Asks a multicast group, until one of those answers.
pub(super) async fn exchange_by_multicast(
    group: SocketAddr,
    ports: Option<Ports>,
    from: &[Ipv6Addr],
) -> io::Result<()> {
    let ports = ports.ok_or_else(no_answer)?;
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).await?;
    let mut heard = [0; TOKEN.len()];
    loop {
        socket.send_to(TOKEN, at(group, ports.udp)).await?;
        let listen = async {
            loop {
                let (length, sender) = socket.recv_from(&mut heard).await?;
                let is_theirs = matches!(sender.ip(), IpAddr::V6(sender) if from.contains(&sender));
                if is_theirs && heard.get(..length) == Some(TOKEN) {
                    return io::Result::Ok(());
                }
            }
        };
        if let Ok(answer) = timeout(RESEND_AFTER, listen).await {
            return answer;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
00000000000000000000000000000001 01 80 10 80       lo
fd0000aa000000000000000000000010 07 40 00 80     eth1
fe80000000000000004200fffe120002 07 40 20 80     eth1
fd00000100010001004200fffea801c8 05 40 00 00     eth0
fe80000000000000004200fffea801c8 05 40 20 80     eth0
";

    #[test]
    fn a_container_is_asked_at_its_addresses_and_on_its_link_of_the_lan() {
        let own = Own::parse(TABLE, "eth0");
        let own = own.map(|own| (own.scope, own.addresses));
        let addresses = [
            "fe80::42:ff:fea8:1c8",
            "fd00:1:1:1:42:ff:fea8:1c8",
            "fd00:aa::10",
        ];
        let mut addresses: Vec<Ipv6Addr> =
            addresses.iter().filter_map(|a| a.parse().ok()).collect();
        addresses.sort_by_key(|address| (!address.is_unicast_link_local(), *address));
        assert_eq!(own, Some((5, addresses)));
        assert!(Own::parse(TABLE, "eth2").is_none());
        assert!(Own::parse("", "eth0").is_none());
    }

    #[test]
    fn what_is_the_same_everywhere_has_no_scope() {
        let scoped = |address: &str| {
            address
                .parse()
                .map(|address| scoped(address, 5).to_string())
        };
        for (address, expected) in [
            ("192.168.1.200", "192.168.1.200:0"),
            ("fe80::1", "[fe80::1%5]:0"),
            ("ff02::1", "[ff02::1%5]:0"),
            ("fd00::1", "[fd00::1]:0"),
        ] {
            assert_eq!(scoped(address).as_deref(), Ok(expected));
        }
    }
}
