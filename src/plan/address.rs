//! Address arithmetic: ranges, the prefixes that cover them, wider pools, hardware addresses. Pure.

use ipnet::{Ipv4Net, Ipv4Subnets};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// The addresses from `first` to `last`, both included; `first <= last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    first: Ipv4Addr,
    last: Ipv4Addr,
}

/// Why a text is not a [`Range`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RangeError {
    /// This part of it is no IPv4 address.
    NotAnAddress(String),
    /// It ends before it begins.
    Backward {
        /// The lower address, which stands behind.
        first: Ipv4Addr,
        /// The higher address, which stands in front.
        last: Ipv4Addr,
    },
    /// A CIDR with bits set behind its prefix.
    HostBits(Ipv4Net),
    /// A CIDR whose prefix length is no number from 0 to 32.
    NotAPrefix(String),
}

impl Range {
    /// The range of one address.
    pub fn single(address: Ipv4Addr) -> Self {
        Self {
            first: address,
            last: address,
        }
    }

    /// Reads `first-last`, a CIDR, or one address.
    ///
    /// # Errors
    /// When the text is none of these; see [`RangeError`].
    pub fn parse(text: &str) -> Result<Self, RangeError> {
        let address = |part: &str| {
            part.trim()
                .parse::<Ipv4Addr>()
                .map_err(|_| RangeError::NotAnAddress(part.trim().to_owned()))
        };
        if let Some((first, last)) = text.split_once('-') {
            let (first, last) = (address(first)?, address(last)?);
            if first > last {
                return Err(RangeError::Backward {
                    first: last,
                    last: first,
                });
            }
            return Ok(Self { first, last });
        }
        if let Some((net, _)) = text.split_once('/') {
            address(net)?;
            let net: Ipv4Net = text
                .trim()
                .parse()
                .map_err(|_| RangeError::NotAPrefix(text.trim().to_owned()))?;
            if net.trunc() != net {
                return Err(RangeError::HostBits(net));
            }
            return Ok(Self::of(net));
        }
        Ok(Self::single(address(text)?))
    }

    /// All addresses of a CIDR.
    pub fn of(net: Ipv4Net) -> Self {
        Self {
            first: net.network(),
            last: net.broadcast(),
        }
    }

    /// The lowest address.
    pub fn first(self) -> Ipv4Addr {
        self.first
    }

    /// The highest address.
    pub fn last(self) -> Ipv4Addr {
        self.last
    }

    /// How many addresses it has, 1 to 2^32.
    pub fn len(self) -> u64 {
        u64::from(u32::from(self.last)) - u64::from(u32::from(self.first)) + 1
    }

    /// Whether `address` is one of them.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        self.first <= address && address <= self.last
    }

    /// Whether an address is in both.
    pub fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// Whether all of it lies in `net`.
    pub fn is_inside(self, net: Ipv4Net) -> bool {
        net.contains(&self.first) && net.contains(&self.last)
    }

    /// The prefixes that together have exactly its addresses.
    pub fn subnets(self) -> impl Iterator<Item = Ipv4Net> {
        Ipv4Subnets::new(self.first, self.last, 0)
    }

    /// Its addresses from the lowest to the highest.
    pub fn addresses(self) -> impl Iterator<Item = Ipv4Addr> {
        (u32::from(self.first)..=u32::from(self.last)).map(Ipv4Addr::from)
    }

    /// The smallest CIDR that has all addresses of all `ranges`; `None` when there are none.
    pub fn cover(ranges: impl IntoIterator<Item = Self>) -> Option<Ipv4Net> {
        let (first, last) = ranges
            .into_iter()
            .map(|range| (u32::from(range.first), u32::from(range.last)))
            .reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))?;
        let length = u8::try_from((first ^ last).leading_zeros()).ok()?;
        Some(Ipv4Net::new(Ipv4Addr::from(first), length).ok()?.trunc())
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = if self.first == self.last {
            self.first.to_string()
        } else {
            format!("{}-{}", self.first, self.last)
        };
        f.pad(&text)
    }
}

impl Serialize for Range {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The `step`-th pool for a subnet: 0 is the subnet, each further one is a bit wider and contains those before it.
/// `None` when there are not that many bits.
///
/// Docker's IPAM hands out a gateway's address once in a pool, so each network with the same gateway needs a pool of its
/// own; it accepts pools that contain each other when they have an `ip_range`.
pub fn pool(subnet: Ipv4Net, step: u8) -> Option<Ipv4Net> {
    let length = subnet
        .prefix_len()
        .checked_sub(step)
        .filter(|length| *length > 0)?;
    Some(Ipv4Net::new(subnet.network(), length).ok()?.trunc())
}

/// What leads to all `ranges`: one prefix when it has none of the addresses to be `kept_out`, else their exact cover.
pub fn routes(ranges: &[Range], kept_out: &[Range]) -> Vec<Ipv4Net> {
    let fits = |net: &Ipv4Net| !kept_out.iter().any(|range| range.overlaps(Range::of(*net)));
    match Range::cover(ranges.iter().copied()).filter(fits) {
        Some(cover) => vec![cover],
        None => {
            let subnets: Vec<Ipv4Net> = ranges.iter().flat_map(|range| range.subnets()).collect();
            Ipv4Net::aggregate(&subnets)
        }
    }
}

/// Where the Engine takes addresses for an environment's network from: the gateway's own alone, which it never gives to a
/// container. So it has none left, every address is given by homelab, and nothing that is planned for services, hosts or ranges is
/// part of a network.
pub fn ip_range(gateway: Ipv4Addr) -> Ipv4Net {
    Ipv4Net::from(gateway)
}

/// A hardware address of Ethernet, six bytes (IEEE 802 MAC address); written in lower-case hexadecimal with colons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs = self.0.map(|byte| format!("{byte:02x}"));
        f.pad(&pairs.join(":"))
    }
}

impl FromStr for Mac {
    type Err = NotAMac;

    /// Reads six pairs of hexadecimal digits with colons or hyphens between them, as `ip` and Docker write them.
    fn from_str(text: &str) -> Result<Self, NotAMac> {
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts
                .next()
                .filter(|part| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit()))
                .ok_or(NotAMac)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| NotAMac)?;
        }
        match parts.next() {
            None => Ok(Self(bytes)),
            Some(_) => Err(NotAMac),
        }
    }
}

impl TryFrom<String> for Mac {
    type Error = NotAMac;

    fn try_from(text: String) -> Result<Self, NotAMac> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

/// A value that was checked, and the text that it was read from: the Engine is told the text, and fingerprints have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written<T> {
    /// The value; `None` for the empty text, which is what a variable that is not set leaves, and which the Engine takes for none.
    pub value: Option<T>,
    text: String,
}

impl<T: FromStr> Written<T> {
    /// Reads a value.
    ///
    /// # Errors
    /// When the text is none.
    pub fn parse(text: &str) -> Result<Self, T::Err> {
        let value = if text.is_empty() {
            None
        } else {
            Some(text.parse()?)
        };
        let text = text.to_owned();
        Ok(Self { value, text })
    }
}

impl<T> fmt::Display for Written<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

/// Items, one behind the other.
pub fn joined<T: ToString>(items: &[T], separator: &str) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    items.join(separator)
}

/// A text that is no [`Mac`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAMac;

impl fmt::Display for NotAMac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a hardware address")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Range {
        Range::parse(text).unwrap_or_else(|error| unreachable!("{text}: {error:?}"))
    }

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap_or_default()
    }

    #[test]
    fn a_range_is_first_to_last_or_a_cidr_or_an_address() {
        assert_eq!(range("10.0.0.0/30"), range("10.0.0.0-10.0.0.3"));
        assert_eq!(range("10.0.0.7"), range("10.0.0.7-10.0.0.7"));
        assert_eq!(range("192.168.1.224-192.168.1.249").len(), 26);
        assert_eq!(range("0.0.0.0/0").len(), 1 << 32);
    }

    #[test]
    fn wrong_ranges_say_why() {
        let error = |text| Range::parse(text).err();
        assert_eq!(
            error("10.0.0.9-10.0.0.1"),
            Some(RangeError::Backward {
                first: Ipv4Addr::new(10, 0, 0, 1),
                last: Ipv4Addr::new(10, 0, 0, 9)
            })
        );
        assert_eq!(
            error("10.0.0.1-10.0.0.300"),
            Some(RangeError::NotAnAddress("10.0.0.300".into()))
        );
        assert_eq!(
            error("10.0.0.1/24"),
            Some(RangeError::HostBits(net("10.0.0.1/24")))
        );
        assert_eq!(
            error("10.0.0.0/33"),
            Some(RangeError::NotAPrefix("10.0.0.0/33".into()))
        );
    }

    #[test]
    fn the_cover_is_the_smallest_cidr() {
        let prod = range("192.168.1.192-192.168.1.223");
        let preprod = range("192.168.1.224-192.168.1.249");
        assert_eq!(Range::cover([prod]), Some(net("192.168.1.192/27")));
        assert_eq!(Range::cover([preprod]), Some(net("192.168.1.224/27")));
        assert_eq!(Range::cover([prod, preprod]), Some(net("192.168.1.192/26")));
        assert_eq!(
            Range::cover([range("10.0.0.127-10.0.0.128")]),
            Some(net("10.0.0.0/24"))
        );
        assert_eq!(Range::cover([range("10.0.0.5")]), Some(net("10.0.0.5/32")));
        assert_eq!(Range::cover([]), None);
    }

    #[test]
    fn one_prefix_leads_to_ranges_where_one_fits() {
        let home = [
            range("192.168.1.192-192.168.1.223"),
            range("192.168.1.224-192.168.1.249"),
        ];
        let gateway = range("192.168.1.1");
        assert_eq!(routes(&home, &[gateway]), [net("192.168.1.192/26")]);
        let beside = [
            range("192.168.1.100-192.168.1.149"),
            range("192.168.1.150-192.168.1.199"),
        ];
        let exact = [
            "192.168.1.100/30",
            "192.168.1.104/29",
            "192.168.1.112/28",
            "192.168.1.128/26",
            "192.168.1.192/29",
        ];
        assert_eq!(routes(&beside, &[gateway]), exact.map(net));
        let wide = [range("10.0.10.0/24"), range("10.0.20.0/24")];
        assert_eq!(routes(&wide, &[range("10.0.0.1")]), wide.map(cover_of));
        assert_eq!(routes(&wide, &[]), [net("10.0.0.0/19")]);
        assert_eq!(routes(&[], &[]), []);
    }

    fn cover_of(range: Range) -> Ipv4Net {
        Range::cover([range]).unwrap_or_default()
    }

    #[test]
    fn every_pool_is_a_bit_wider_than_the_one_before() {
        let lan = net("192.168.1.0/24");
        assert_eq!(pool(lan, 0), Some(lan));
        assert_eq!(pool(lan, 1), Some(net("192.168.0.0/23")));
        assert_eq!(pool(lan, 2), Some(net("192.168.0.0/22")));
        assert_eq!(pool(lan, 24), None);
    }

    #[test]
    fn a_mac_is_six_pairs_of_digits() {
        let mac = Mac([0x02, 0x42, 0xc0, 0xa8, 0x01, 0xfe]);
        assert_eq!("02:42:c0:a8:01:fe".parse(), Ok(mac));
        assert_eq!("02-42-C0-A8-01-FE".parse(), Ok(mac));
        assert_eq!(mac.to_string(), "02:42:c0:a8:01:fe");
        for wrong in [
            "nonsense",
            "",
            "02:42:c0:a8:01",
            "02:42:c0:a8:01:fe:00",
            "2:42:c0:a8:01:fe",
            "+2:42:c0:a8:01:fe",
        ] {
            assert_eq!(wrong.parse::<Mac>(), Err(NotAMac), "{wrong}");
        }
    }
}
