//! Every name, label and hardware address that homelab gives to something on the machine. By these it knows again what it made, so
//! they change in no version.

use super::address::Mac;
use sha2::{Digest, Sha256};
use std::net::Ipv4Addr;

/// The name of the shim where the file gives none.
pub const SHIM_LINK: &str = "homelab-shim";

/// The unit that keeps the shim alive.
pub const SHIM_UNIT: &str = "homelab-shim.service";

/// The state directory of that unit, in /var/lib (`StateDirectory=`, systemd.exec(5)).
pub const SHIM_STATE: &str = "homelab-shim";

/// What the unit calls its copy of homelab.toml there.
pub const PLAN_COPY: &str = "homelab.toml";

/// The slice that all of ours are in: a `-` in the name of a slice is a level of the tree (systemd.slice(5)).
pub const PARENT_SLICE: &str = "homelab.slice";

/// The slice of containers that were made without one, where systemd makes the Engine's cgroups.
pub const ENGINES_SLICE: &str = "system.slice";

/// What the names of our slices begin with.
pub const SLICE_PREFIX: &str = "homelab-";

/// What goes before an environment's name in the name of its parent link on engines before 27.
pub const PARENT_LINK_PREFIX: &str = "hl-";

/// What goes before an environment's name in the name of its own shim, where it has a LAN of its own.
pub const OWN_SHIM_PREFIX: &str = "hs-";

/// The longest name of a link, in bytes: the kernel's `IFNAMSIZ` less the closing NUL.
pub const LINK_NAME_BYTES: usize = 15;

/// What the alias of a link of ours begins with (`ip link` shows it as `alias`).
pub const LINK_ALIAS_PREFIX: &str = "homelab: ";

/// What files of ours begin with.
pub const FILE_MARK: &str = "# Made by homelab ";

/// What the lines of ours in somebody else's file stand between.
pub const FILE_BLOCK: [&str; 2] = ["# homelab: begin\n", "# homelab: end\n"];

/// What the names of files end with that are being written. No name that systemd would take for a unit.
pub const UNFINISHED: &str = ".homelab-new";

/// The file by which systemd-networkd leaves our links alone.
pub const NETWORKD_FILE: &str = "/etc/systemd/network/00-homelab-shim.network";

/// The file by which `NetworkManager` leaves our links alone.
pub const NETWORK_MANAGER_FILE: &str = "/etc/NetworkManager/conf.d/90-homelab-shim.conf";

/// The label of networks, volumes and containers of ours; its value is the environment.
pub const LABEL_ENVIRONMENT: &str = "homelab.environment";
/// The label of containers of ours; its value is the service.
pub const LABEL_SERVICE: &str = "homelab.service";
/// The label of containers of ours that tells what they were made from.
pub const LABEL_FINGERPRINT: &str = "homelab.fingerprint";
/// The label of containers of ours that tells which one it is: its name. An image that is made of a container inherits all labels, and
/// a container of that image has them too, under another name.
pub const LABEL_CONTAINER: &str = "homelab.container";
/// The label of networks that Compose files ask for, beside the LAN; its value is the environment.
pub const LABEL_COMPOSE_NETWORK: &str = "homelab.extra-network";

/// The labels of `docker compose`, by which `docker compose ps`, Portainer and lazydocker find what belongs together.
pub mod compose_label {
    /// The project.
    pub const PROJECT: &str = "com.docker.compose.project";
    /// The files of the project.
    pub const FILES: &str = "com.docker.compose.project.config_files";
    /// The folder of the project.
    pub const FOLDER: &str = "com.docker.compose.project.working_dir";
    /// The service of a container.
    pub const SERVICE: &str = "com.docker.compose.service";
    /// Which of a service's containers it is, from 1.
    pub const REPLICA: &str = "com.docker.compose.container-number";
    /// Whether `docker compose run` made it.
    pub const ONE_OFF: &str = "com.docker.compose.oneoff";
    /// What the container was made from.
    pub const CONFIG_HASH: &str = "com.docker.compose.config-hash";
    /// The services that it depends on.
    pub const DEPENDS_ON: &str = "com.docker.compose.depends_on";
    /// The name of a network in the file.
    pub const NETWORK: &str = "com.docker.compose.network";
    /// The name of a volume in the file.
    pub const VOLUME: &str = "com.docker.compose.volume";
}

/// What the name of a container ends with that waits to take another one's place.
const SUCCESSOR: &str = ".new";

/// Whether a label is one of those that say what homelab made.
pub fn is_own_label(label: &str) -> bool {
    label.starts_with("homelab.") || label.starts_with("com.docker.compose.")
}

/// The name of an environment's Docker network and Compose project.
pub fn network_name(env: &str) -> String {
    format!("homelab-{env}")
}

/// The Engine's name of a network or a volume that an environment has under a key of its files.
pub fn resource_name(env: &str, key: &str) -> String {
    format!("{}_{key}", network_name(env))
}

/// The name of a service's container, where the file gives none; replicas are counted from 1.
pub fn container_name(service: &str, env: &str, replica: u32) -> String {
    if replica > 1 {
        format!("{service}-{env}-{replica}")
    } else {
        format!("{service}-{env}")
    }
}

/// The name of a container that waits to take the place of another.
pub fn successor_name(container: &str) -> String {
    format!("{container}{SUCCESSOR}")
}

/// The name whose place a container waits to take, when it does.
pub fn succeeds(container: &str) -> Option<&str> {
    container.strip_suffix(SUCCESSOR)
}

/// The name of an environment's slice. A `-` of the environment is escaped, or else the slice of `pre-prod` would be inside
/// that of `pre` and inherit what that denies.
pub fn slice_name(env: &str) -> String {
    format!("{SLICE_PREFIX}{}.slice", env.replace('-', "\\x2d"))
}

/// The name of an environment's parent link as homelab made it at first: always the same.
pub fn parent_link(env: &str) -> String {
    format!("{PARENT_LINK_PREFIX}{env}")
}

/// The name of the shim of an environment that has a LAN of its own.
pub fn own_shim(env: &str) -> String {
    format!("{OWN_SHIM_PREFIX}{env}")
}

/// The name of a parent link for a new network: the environment, as far as there is room, and four letters of a seed.
///
/// A network that the driver of an engine before 27 lost, because its parent was missing when the engine started, leaves its
/// record in the engine's store when it is removed. At a later start it would take the parent of that name, before the network
/// made since. A name that no network had before is never taken.
pub fn fresh_parent_link(env: &str, seed: u64) -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    const SUFFIX: usize = 4;
    let mut rest = seed;
    let letters = std::iter::repeat_with(|| {
        let letter = usize::try_from(rest % 32)
            .ok()
            .and_then(|index| LETTERS.get(index));
        rest /= 32;
        letter.copied().map_or('a', char::from)
    });
    let letters: String = letters.take(SUFFIX).collect();
    let room = LINK_NAME_BYTES - PARENT_LINK_PREFIX.len() - 1 - SUFFIX;
    let env = env.get(..room.min(env.len())).unwrap_or_default();
    format!("{PARENT_LINK_PREFIX}{env}-{letters}")
}

/// The alias of the shim.
pub fn shim_alias() -> String {
    format!("{LINK_ALIAS_PREFIX}shim")
}

/// The alias of a parent link.
pub fn parent_link_alias() -> String {
    format!("{LINK_ALIAS_PREFIX}parent of a Docker network")
}

/// The hardware address that goes with an address: locally administered, the same at every start and on every engine.
///
/// It is the one that Docker up to 27 derives for a container by itself (`GenerateMACFromIP`: 02:42 and the four bytes of
/// the address); 28 and later draw one at random unless they are told.
pub fn mac_of(address: Ipv4Addr) -> Mac {
    let [a, b, c, d] = address.octets();
    Mac([0x02, 0x42, a, b, c, d])
}

/// A hardware address that stays, for a parent link, which is never up. It is also how one that was made but not yet marked when
/// homelab was killed is known again.
pub fn parent_link_mac(link: &str, host: Ipv4Addr) -> Mac {
    let name = link.strip_prefix(PARENT_LINK_PREFIX).unwrap_or(link);
    let hash = Sha256::digest(format!("{name}@{host}"));
    let [a, b, c, d] = [0, 1, 2, 3].map(|index| hash.get(index).copied().unwrap_or_default());
    Mac([0x02, 0x68, a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_is_nobodys_child_but_the_parents() {
        assert_eq!(slice_name("prod"), "homelab-prod.slice");
        assert_eq!(slice_name("pre-prod"), "homelab-pre\\x2dprod.slice");
    }

    #[test]
    fn the_mac_is_dockers_own_for_the_address() {
        let mac = mac_of(Ipv4Addr::new(192, 168, 1, 195)).to_string();
        assert_eq!(mac, "02:42:c0:a8:01:c3");
    }

    #[test]
    fn a_fresh_parent_link_fits_and_says_whose_it_is() {
        assert_eq!(fresh_parent_link("preprod", 0), "hl-preprod-aaaa");
        assert_eq!(fresh_parent_link("prod", u64::MAX), "hl-prod-7777");
        let long = fresh_parent_link("production-2", 33);
        assert_eq!(long, "hl-product-bbaa");
        assert!(long.len() <= LINK_NAME_BYTES);
    }

    #[test]
    fn a_successor_knows_whose_place_it_takes() {
        assert_eq!(succeeds(&successor_name("web-prod")), Some("web-prod"));
        assert_eq!(succeeds("web-prod"), None);
    }
}
