//! What homelab writes for systemd, as text. Pure.

use crate::plan::Slice;
use crate::state::FILE_MARK;
use std::fmt::Write as _;

/// Where units of the administrator are (systemd.unit(5)).
pub const FOLDER: &str = "/etc/systemd/system";

/// Denied where there is nothing to deny: TEST-NET-1, which no packet has (RFC 5737). systemd 252 and 262 leave the old
/// filter on a running slice when its list becomes empty.
const NOTHING: &str = "192.0.2.0/24";

/// The path of a unit's file.
pub fn path(unit: &str) -> String {
    format!("{FOLDER}/{unit}")
}

/// The file of a slice.
pub fn slice(slice: &Slice) -> String {
    let Slice {
        name: _,
        env,
        deny,
        allow,
        limits,
    } = slice;
    let mut text = format!(
        "{FILE_MARK}from its address plan. `homelab network-up` writes it, `homelab network-down` removes it.\n\
         [Unit]\nDescription=homelab environment {env}\n\n[Slice]\n"
    );
    let joined = |items: Vec<String>| items.join(" ");
    let denied = match deny.as_slice() {
        [] => NOTHING.to_owned(),
        nets => joined(nets.iter().map(ToString::to_string).collect()),
    };
    let _ = writeln!(text, "IPAddressDeny={denied}");
    if !allow.is_empty() {
        let allowed = joined(allow.iter().map(ToString::to_string).collect());
        let _ = writeln!(text, "IPAddressAllow={allowed}");
    }
    if let Some(bytes) = limits.memory {
        let _ = writeln!(text, "MemoryMax={bytes}");
    }
    if let Some(cpus) = limits.cpus {
        let _ = writeln!(text, "CPUQuota={}", cpus.quota());
    }
    text
}
