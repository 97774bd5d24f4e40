//! Who made a machine, by its hardware address: a word that helps to find the machine at home. Pure.

use super::address::Mac;

/// What hardware addresses begin with, by vendor: three bytes that IEEE has assigned to it (the OUI, in the registration
/// authority's public listing). Many vendors have hundreds; of these are here a few that homes often have.
///
/// Of the virtual ones, `52:54:00` is QEMU's habit and `02:42` that of Docker up to 27 and of homelab, also for shims; nobody has
/// assigned these.
const VENDORS: [(&str, &str); 19] = [
    ("Amazon", "44:65:0d 74:c2:46 f0:27:2d fc:a6:67"),
    ("Apple", "14:7d:da 3c:22:fb a4:83:e7 ac:bc:32 f0:18:98"),
    (
        "AVM (FRITZ!Box)",
        "2c:3a:fd 34:31:c4 3c:a6:2f 7c:ff:4d bc:05:43 c0:25:06 cc:ce:1e",
    ),
    (
        "Espressif (ESP32, ESP8266)",
        "18:fe:34 24:0a:c4 30:ae:a4 5c:cf:7f 84:f3:eb a4:cf:12 ec:fa:bc",
    ),
    ("Google", "18:b4:30 3c:5a:b4 54:60:09 64:16:66 f4:f5:d8"),
    ("Intel", "3c:a9:f4 8c:8d:28 94:e6:f7 a0:a4:c5"),
    ("Philips Hue", "00:17:88 ec:b5:fa"),
    (
        "Raspberry Pi",
        "28:cd:c1 2c:cf:67 b8:27:eb d8:3a:dd dc:a6:32 e4:5f:01",
    ),
    ("Samsung", "5c:f6:dc 78:bd:bc 8c:77:12 f8:d0:bd"),
    (
        "Sonos",
        "00:0e:58 34:7e:5c 48:a6:b8 5c:aa:fd 78:28:ca 94:9f:3e b8:e9:37",
    ),
    ("Synology", "00:11:32 90:09:d0"),
    ("TP-Link", "14:cc:20 1c:61:b4 50:c7:bf 98:da:c4 b0:be:76"),
    ("Ubiquiti", "24:5a:4c 74:83:c2 78:8a:20 80:2a:a8 f0:9f:c2"),
    ("a Hyper-V machine", "00:15:5d"),
    ("a Proxmox machine", "bc:24:11"),
    ("a QEMU machine", "52:54:00"),
    ("a VirtualBox machine", "08:00:27"),
    ("a VMware machine", "00:05:69 00:0c:29 00:50:56"),
    ("a container or a shim", "02:42"),
];

/// Who made a machine, or what it is, when that is known; to stand behind its hardware address.
pub fn vendor(mac: Mac) -> Option<&'static str> {
    let mac = mac.to_string();
    let found = VENDORS.iter().find(|(_, prefixes)| {
        let mut prefixes = prefixes.split(' ');
        prefixes.any(|prefix| mac.starts_with(prefix))
    });
    found.map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn who_made_it_is_known_by_the_first_bytes() {
        let known = |text: &str| text.parse().ok().and_then(vendor);
        assert_eq!(known("dc:a6:32:01:02:03"), Some("Raspberry Pi"));
        assert_eq!(known("3C-A6-2F-00-00-00"), Some("AVM (FRITZ!Box)"));
        assert_eq!(known("02:42:c0:a8:01:c8"), Some("a container or a shim"));
        assert_eq!(known("02:43:c0:a8:01:c8"), None);
        assert_eq!(known("a6:32:dc:a6:32:02"), None);
    }

    #[test]
    fn every_prefix_is_as_addresses_are_written_and_stands_once() {
        let mut seen = BTreeSet::new();
        for prefix in VENDORS.iter().flat_map(|(_, prefixes)| prefixes.split(' ')) {
            let is_short = prefix == "02:42";
            let whole = format!(
                "{prefix}{}",
                if is_short {
                    ":00:00:00:00"
                } else {
                    ":00:00:00"
                }
            );
            assert_eq!(whole.parse::<Mac>().map(|mac| mac.to_string()), Ok(whole));
            assert!(seen.insert(prefix), "{prefix}");
        }
    }
}
