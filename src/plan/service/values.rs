//! Values as Compose and Docker write them: sizes, durations, signals, capabilities. Pure.

use crate::plan::is_dns_label;
use nix::sys::signal::Signal;
use std::time::Duration;

/// Bytes as Docker's command line takes them: a number, perhaps with a fraction, and `b`, `k`, `m`, `g` or `t` (powers of
/// 1024), `kb` and `kib` alike.
pub(in crate::plan) fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim().to_lowercase();
    let digits = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    let power = match unit.trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        _ => return None,
    };
    let unit = 1024_u64.pow(power);
    if number.is_empty() || number.ends_with('.') || number.starts_with('.') {
        return None;
    }
    multiplied(number, unit)
}

/// Nanoseconds of each unit of a duration: those of Go's `time.ParseDuration`, and the day and week of Compose.
const UNITS: [(&str, u64); 9] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
    ("w", 604_800_000_000_000),
];

/// A duration as Go writes it, like `1m30s`, `1.5s` or `500ms`; at most what 63 bits of nanoseconds hold, 292 years.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut sum: u64 = 0;
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    loop {
        let (number, tail) = rest.split_at_checked(rest.find(|c| !is_number(c))?)?;
        let end = tail.find(is_number).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at_checked(end)?;
        let (_, nanoseconds) = UNITS.iter().find(|(name, _)| *name == unit)?;
        sum = sum.checked_add(multiplied(number, *nanoseconds)?)?;
        rest = tail;
        if rest.is_empty() {
            i64::try_from(sum).ok()?;
            return Some(Duration::from_nanos(sum));
        }
    }
}

/// A decimal number of units, in whole parts of a unit; what is smaller is cut off.
fn multiplied(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| match text {
        "" => Some(0),
        text => text.parse::<u64>().ok(),
    };
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let places = u32::try_from(fraction.len())
        .ok()
        .filter(|places| *places <= 18)?;
    let parts = u128::from(digits(fraction)?) * u128::from(unit) / 10_u128.pow(places);
    let whole = digits(whole)?.checked_mul(unit)?;
    whole.checked_add(u64::try_from(parts).ok()?)
}

/// Billionths of processors from a number of them, like `1.5`.
pub(super) fn parse_cpus(text: &str) -> Option<i64> {
    let cpus: f64 = text.trim().parse().ok()?;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "it is between 0 and a million"
    )]
    (0.0..1e6)
        .contains(&cpus)
        .then(|| (cpus * 1e9).round() as i64)
}

/// Whether it is a host name: DNS labels with dots between them.
pub(super) fn is_host_name(name: &str) -> bool {
    name.len() <= 253
        && name
            .split('.')
            .all(|label| is_dns_label(&label.to_lowercase().replace('_', "-")))
}

/// The numbers of the signals that are left to programs, as Docker counts them: those of the kernel without the two of glibc.
const REAL_TIME_SIGNALS: [u8; 2] = [34, 64];

/// The number of a signal of signal(7), which stands there by number or by name, with or without `SIG`.
pub fn signal_number(text: &str) -> Option<u8> {
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let [first, last] = REAL_TIME_SIGNALS;
    let distance = |text: &str, sign| match text.strip_prefix(sign) {
        Some(distance) => distance.parse::<u8>().ok(),
        None => text.is_empty().then_some(0),
    };
    if let Some(above) = name.strip_prefix("RTMIN") {
        let number = first.checked_add(distance(above, '+')?)?;
        return (number <= last).then_some(number);
    }
    if let Some(below) = name.strip_prefix("RTMAX") {
        let number = last.checked_sub(distance(below, '-')?)?;
        return (number >= first).then_some(number);
    }
    match name.parse::<u8>() {
        Ok(number) => (1..=last).contains(&number).then_some(number),
        Err(_) => {
            let signal = format!("SIG{name}").parse::<Signal>().ok()?;
            u8::try_from(signal as i32).ok()
        }
    }
}

/// The name of a capability without its prefix, in capitals.
pub(super) fn capability(text: &str) -> Result<String, String> {
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if name == "ALL" || CAPABILITIES.contains(&name) {
        return Ok(name.to_owned());
    }
    Err(match crate::input::problem::nearest(name, CAPABILITIES) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "capabilities(7) lists them".to_owned(),
    })
}

/// What may stand behind the second colon of a volume: Docker's `parseVolumeSpec`.
pub(super) const VOLUME_OPTIONS: [&str; 14] = [
    "ro",
    "rw",
    "z",
    "Z",
    "nocopy",
    "shared",
    "rshared",
    "slave",
    "rslave",
    "private",
    "rprivate",
    "cached",
    "delegated",
    "consistent",
];

/// capabilities(7), without the prefix.
const CAPABILITIES: [&str; 41] = [
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_docker() {
        assert_eq!(parse_bytes("64m"), Some(64 << 20));
        assert_eq!(parse_bytes("1GB"), Some(1 << 30));
        assert_eq!(parse_bytes("1.5k"), Some(1536));
        assert_eq!(parse_bytes("512"), Some(512));
        assert_eq!(parse_bytes("x"), None);
        assert_eq!(parse_bytes("99999999999999t"), None);
        assert_eq!(parse_bytes("1.99999999999999999999g"), None);
    }

    #[test]
    fn durations_are_those_of_go() {
        let milliseconds = |text| parse_duration(text).map(|duration| duration.as_millis());
        assert_eq!(milliseconds("1m30s"), Some(90_000));
        assert_eq!(milliseconds("1.5s"), Some(1500));
        assert_eq!(milliseconds("500ms"), Some(500));
        assert_eq!(milliseconds("1h0.5m"), Some(3_630_000));
        assert_eq!(milliseconds("0s"), Some(0));
        assert_eq!(milliseconds("0"), Some(0));
        assert_eq!(milliseconds("1d"), Some(86_400_000));
        assert_eq!(milliseconds(".5s"), Some(500));
        assert_eq!(milliseconds("2min"), None);
        assert_eq!(milliseconds("30"), None);
        assert_eq!(milliseconds("."), None);
        assert_eq!(milliseconds("300y"), None);
        assert_eq!(milliseconds("9999999h"), None);
        let nanoseconds = |text| parse_duration(text).map(|duration| duration.as_nanos());
        assert_eq!(nanoseconds("1.000000001s"), Some(1_000_000_001));
        assert_eq!(nanoseconds("1.1us"), Some(1_100));
        assert_eq!(milliseconds("ten"), None);
        assert_eq!(milliseconds("9e99s"), None);
        assert_eq!(milliseconds(""), None);
    }

    #[test]
    fn processors_are_counted_in_billionths() {
        assert_eq!(parse_cpus("0.5"), Some(500_000_000));
        assert_eq!(parse_cpus("2"), Some(2_000_000_000));
        assert_eq!(parse_cpus("-1"), None);
    }

    #[test]
    fn signals_are_those_of_the_kernel() {
        for (signal, number) in [
            ("SIGTERM", 15),
            ("int", 2),
            ("9", 9),
            ("USR1", 10),
            ("SIGRTMIN+3", 37),
            ("rtmin", 34),
            ("RTMAX-14", 50),
            ("SIGRTMAX", 64),
            ("STKFLT", 16),
            ("WINCH", 28),
        ] {
            assert_eq!(signal_number(signal), Some(number), "{signal}");
        }
        for wrong in [
            "",
            "SIG",
            "0",
            "65",
            "STOPIT",
            "SIGSIGINT",
            "RTMIN+31",
            "RTMIN3",
            "RTMAX-31",
        ] {
            assert_eq!(signal_number(wrong), None, "{wrong}");
        }
    }
}
