//! The table of neighbours, which knows the hardware addresses of a LAN: one for the whole machine, each entry a network
//! namespace's.

use super::{Netlink, Refusal, dump, kernel_error, request};
use crate::error::Error;
use nix::errno::Errno;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};
use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;

/// The size of the table of all namespaces together; shown in the machine's first namespace alone (arp(7)).
const SIZE: &str = "/proc/sys/net/ipv4/neigh/default/gc_thresh3";

/// What that file says unless somebody changed it.
const DEFAULT_SIZE: usize = 1024;

/// How many entries there are in all namespaces, first number of the second line, hexadecimal; shown in the machine's first
/// namespace alone.
const STATISTICS: &str = "/proc/net/stat/arp_cache";

/// An entry of the table, of this namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Neighbour {
    /// The index of the link.
    pub link: u32,
    /// Its address.
    pub address: Ipv4Addr,
}

/// For how many more neighbours the table of this machine has room, as far as that is shown.
pub fn room_for_neighbours() -> usize {
    let size = fs::read_to_string(SIZE).ok();
    let size = size.and_then(|text| text.trim().parse().ok());
    let statistics = fs::read_to_string(STATISTICS).unwrap_or_default();
    size.unwrap_or(DEFAULT_SIZE)
        .saturating_sub(entries(&statistics))
}

fn entries(statistics: &str) -> usize {
    let line = statistics.lines().nth(1).unwrap_or_default();
    let first = line.split_whitespace().next().unwrap_or_default();
    usize::from_str_radix(first, 16).unwrap_or_default()
}

impl Netlink {
    /// The IPv4 neighbours of this namespace, in whatever state: an address that did not answer has an entry too.
    ///
    /// # Errors
    /// When the kernel refuses or does not answer.
    pub async fn neighbours(&self) -> Result<BTreeSet<Neighbour>, Error> {
        let get = self.handle.neighbours().get();
        let get = get.set_address_family(AddressFamily::Inet);
        let messages = dump(get.execute(), "list the neighbours").await?;
        let neighbour = |message: &NeighbourMessage| {
            let address = message.attributes.iter().find_map(|found| match found {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(*address),
                _ => None,
            })?;
            Some(Neighbour {
                link: message.header.ifindex,
                address,
            })
        };
        Ok(messages.iter().filter_map(neighbour).collect())
    }

    /// Takes entries out of the table, so that there is room again. Who needs one asks the LAN anew.
    ///
    /// # Errors
    /// When the kernel refuses, or homelab may not; that one is gone already is none.
    pub async fn forget_neighbours(&self, neighbours: &BTreeSet<Neighbour>) -> Result<(), Error> {
        for Neighbour { link, address } in neighbours {
            let mut message = NeighbourMessage::default();
            message.header.family = AddressFamily::Inet;
            message.header.ifindex = *link;
            let destination = NeighbourAddress::Inet(*address);
            message
                .attributes
                .push(NeighbourAttribute::Destination(destination));
            let deleted = request(self.handle.neighbours().del(message).execute()).await;
            match deleted {
                Ok(()) | Err(Refusal::Because(Errno::ENOENT)) => {}
                Err(refusal) => {
                    return Err(kernel_error(
                        &refusal,
                        &format!("forget neighbour {address}"),
                    ));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::netlink::tests::{in_a_namespace, words};
    use std::net::UdpSocket;

    #[test]
    fn the_number_of_entries_is_hexadecimal() {
        assert_eq!(entries("entries  allocs\n0000001f 00000001\n"), 31);
        assert_eq!(entries(""), 0);
    }

    #[test]
    fn an_entry_that_nobody_answered_for_is_forgotten() {
        let test =
            "system::netlink::neighbours::tests::an_entry_that_nobody_answered_for_is_forgotten";
        in_a_namespace(test, async |netlink| {
            let address = "10.0.0.1/24".parse().unwrap_or_default();
            assert_eq!(words(netlink.add_address("eth0", address).await), "");
            let socket = UdpSocket::bind("10.0.0.1:0");
            let sent = socket.and_then(|socket| socket.send_to(b"x", "10.0.0.2:9"));
            assert_eq!(sent.unwrap_or_default(), 1);
            let asked = Ipv4Addr::new(10, 0, 0, 2);
            let mut made = netlink.neighbours().await.unwrap_or_default();
            made.retain(|neighbour| neighbour.address == asked);
            assert_eq!(made.len(), 1);
            // The second time it is gone already.
            for _ in 0..2 {
                let forgotten = netlink.forget_neighbours(&made).await;
                assert_eq!(words(forgotten), "");
            }
            let left = netlink.neighbours().await.unwrap_or_default();
            assert!(left.is_disjoint(&made));
        });
    }
}
