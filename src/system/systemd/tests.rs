//! What `systemctl show` writes becomes a slice.

use super::slices::slice_of;
use super::{one_line, units_of};

const SHOWN: &str = "\
Id=homelab-none.slice
ActiveState=inactive
NeedDaemonReload=no
IPAddressAllow=
IPAddressDeny=
DropInPaths=
ControlGroup=

Id=homelab-some.slice
ActiveState=active
NeedDaemonReload=yes
IPAddressAllow=192.168.1.204/32 ::1/128
IPAddressDeny=192.168.1.192/27 ::/0 192.168.1.224/28
DropInPaths=/no/such/drop-in.conf
ControlGroup=/no/such.slice
";

#[test]
fn a_slice_has_what_systemd_says_of_it() {
    let units = units_of(SHOWN);
    assert_eq!(units.len(), 2);
    let slices: Vec<_> = units.iter().filter_map(slice_of).collect();
    let [slice] = slices.as_slice() else {
        unreachable!("one of the two is neither a file nor a cgroup: {slices:?}");
    };
    assert_eq!(slice.name, "homelab-some.slice");
    assert!(slice.active && slice.stale && !slice.populated && !slice.pending);
    let texts = |nets: &[ipnet::IpNet]| nets.iter().map(ToString::to_string).collect::<Vec<_>>();
    let denied = ["192.168.1.192/27", "::/0", "192.168.1.224/28"];
    assert_eq!(texts(&slice.deny), denied);
    assert_eq!(texts(&slice.allow), ["192.168.1.204/32", "::1/128"]);
    assert_eq!(slice.overrides, Vec::<String>::new());
    assert_eq!(slice.file, None);
}

#[test]
fn a_value_may_have_an_equals_sign() {
    let [unit] = units_of("Id=a.service\nDescription=b=c\n")
        .try_into()
        .unwrap_or_default();
    assert_eq!(unit.get("Description").map(String::as_str), Some("b=c"));
}

#[test]
fn systemd_is_told_one_setting_at_a_time() {
    let told = one_line("waiting: there is no link `a\nMAINPID=1`");
    assert_eq!(told, "waiting: there is no link `a");
    assert_eq!(one_line(""), "");
}
