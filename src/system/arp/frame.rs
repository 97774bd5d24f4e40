//! Ethernet frames of ARP for IPv4, as bytes (RFC 826). No socket is used here.

use super::Answer;
use crate::plan::Mac;
use std::net::Ipv4Addr;

/// Who hears a question or an announcement: everybody.
const BROADCAST: [u8; 6] = [0xff; 6];

/// What the header of Ethernet says of what follows: ARP (IEEE 802 numbers, 0x0806).
const ETHERTYPE: [u8; 2] = [0x08, 0x06];

/// For which addresses this ARP is: hardware type 1 (Ethernet), protocol type 0x0800 (IPv4), six bytes and four.
const ADDRESS_TYPES: [u8; 6] = [0x00, 0x01, 0x08, 0x00, 6, 4];

/// The operations of RFC 826.
const REQUEST: [u8; 2] = [0, 1];
const REPLY: [u8; 2] = [0, 2];

/// Asks who has an address, as somebody who has none yet (RFC 5227, 2.1.1): a sender of 0.0.0.0 gets into nobody's table of
/// neighbours.
pub(super) fn probe(own: Mac, address: Ipv4Addr) -> Vec<u8> {
    request(own, Ipv4Addr::UNSPECIFIED, address)
}

/// Tells that an address is the owner's (RFC 5227, 2.3): whoever has it in the table of neighbours replaces the hardware
/// address. The frame comes from the owner too, so that switches learn at which port the owner is.
pub(super) fn announcement(owner: Mac, address: Ipv4Addr) -> Vec<u8> {
    request(owner, address, address)
}

fn request(sender_mac: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    // What is asked for is not known yet (RFC 5227: SHOULD be set to all zeroes).
    let target_mac = [0; 6];
    [
        BROADCAST.as_slice(),
        &sender_mac.0,
        &ETHERTYPE,
        &ADDRESS_TYPES,
        &REQUEST,
        &sender_mac.0,
        &sender.octets(),
        &target_mac,
        &target.octets(),
    ]
    .concat()
}

/// Who sent a frame, by the frame's own words: the sender of a request has its address as much as that of a reply. `None`
/// when it is no ARP for IPv4 on Ethernet, has a VLAN tag, or is cut off.
pub(super) fn sender(frame: &[u8]) -> Option<Answer> {
    // Behind the destination and the source of the frame, which a bridge may have changed.
    let packet = frame.get(12..)?;
    let (ethertype, packet) = packet.split_first_chunk::<2>()?;
    let (address_types, packet) = packet.split_first_chunk::<6>()?;
    let (operation, packet) = packet.split_first_chunk::<2>()?;
    let (mac, packet) = packet.split_first_chunk::<6>()?;
    let (address, target) = packet.split_first_chunk::<4>()?;
    let is_arp = *ethertype == ETHERTYPE && *address_types == ADDRESS_TYPES;
    let is_whole = [REQUEST, REPLY].contains(operation) && target.len() >= 10;
    (is_arp && is_whole).then(|| Answer {
        address: Ipv4Addr::from(*address),
        mac: Mac(*mac),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Mac = Mac([0x02, 0x42, 0xc0, 0xa8, 0x01, 0xfe]);
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 200);

    /// The reply of a Raspberry Pi to a probe of ours, with the zeroes that fill a frame up to the 60 bytes of Ethernet.
    const ANSWERED: [u8; 60] = *b"\
        \x02\x42\xc0\xa8\x01\xfe\xdc\xa6\x32\x01\x02\x03\x08\x06\
        \x00\x01\x08\x00\x06\x04\x00\x02\
        \xdc\xa6\x32\x01\x02\x03\xc0\xa8\x01\xc8\
        \x02\x42\xc0\xa8\x01\xfe\x00\x00\x00\x00\
        \0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

    fn changed(at: usize, byte: u8) -> Vec<u8> {
        let mut frame = ANSWERED.to_vec();
        frame
            .get_mut(at)
            .into_iter()
            .for_each(|place| *place = byte);
        frame
    }

    #[test]
    fn a_probe_has_no_sender_address() {
        let expected = b"\
            \xff\xff\xff\xff\xff\xff\x02\x42\xc0\xa8\x01\xfe\x08\x06\
            \x00\x01\x08\x00\x06\x04\x00\x01\
            \x02\x42\xc0\xa8\x01\xfe\x00\x00\x00\x00\
            \x00\x00\x00\x00\x00\x00\xc0\xa8\x01\xc8";
        assert_eq!(probe(OWN, ADDRESS), expected);
    }

    #[test]
    fn an_announcement_is_from_the_owner_about_the_owner() {
        let expected = b"\
            \xff\xff\xff\xff\xff\xff\x02\x42\xc0\xa8\x01\xc8\x08\x06\
            \x00\x01\x08\x00\x06\x04\x00\x01\
            \x02\x42\xc0\xa8\x01\xc8\xc0\xa8\x01\xc8\
            \x00\x00\x00\x00\x00\x00\xc0\xa8\x01\xc8";
        let owner = Mac([0x02, 0x42, 0xc0, 0xa8, 0x01, 0xc8]);
        assert_eq!(announcement(owner, ADDRESS), expected);
    }

    #[test]
    fn whoever_sends_has_the_address() {
        let answer = Some(Answer {
            address: ADDRESS,
            mac: Mac([0xdc, 0xa6, 0x32, 0x01, 0x02, 0x03]),
        });
        assert_eq!(sender(&ANSWERED), answer);
        // Without the zeroes at its end, and as a request.
        assert_eq!(sender(ANSWERED.get(..42).unwrap_or_default()), answer);
        assert_eq!(sender(&changed(21, 1)), answer);
        // A probe of somebody else comes from nobody's address.
        let address = sender(&probe(OWN, ADDRESS)).map(|answer| answer.address);
        assert_eq!(address, Some(Ipv4Addr::UNSPECIFIED));
    }

    #[test]
    fn what_is_no_arp_for_ipv4_on_ethernet_says_nothing() {
        for length in 0..42 {
            let cut = ANSWERED.get(..length).unwrap_or_default();
            assert_eq!(sender(cut), None, "{length} bytes");
        }
        let wrong = [
            (12, 0x86, "another protocol"),
            (15, 6, "another hardware"),
            (16, 0x86, "for another protocol"),
            (18, 8, "longer hardware addresses"),
            (19, 16, "longer addresses"),
            (20, 1, "operation 258"),
            (21, 0, "operation 0"),
            (21, 3, "a question of RARP"),
        ];
        for (at, byte, what) in wrong {
            assert_eq!(sender(&changed(at, byte)), None, "{what}");
        }
        let (head, tail) = ANSWERED.split_at(12);
        let tagged = [head, &[0x81, 0x00, 0x00, 0x0a], tail].concat();
        assert_eq!(sender(&tagged), None, "a tag of VLAN 10");
    }
}
