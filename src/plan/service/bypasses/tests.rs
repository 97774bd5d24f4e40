//! Every setting that was tried: named, or harmless.

use super::*;
use crate::plan::service::Volume;
use crate::plan::tests::{HOME, PlanFiles};

/// The names of the ways out of a service with these keys of a Compose file.
fn of(keys: &str) -> Vec<&'static str> {
    let compose = format!("services:\n  web:\n    image: web:1\n    {keys}\n");
    let plan = PlanFiles::new(HOME).compose(&compose).plan();
    let mut services = plan.envs.iter().flat_map(|env| &env.services);
    let found = services.next().map(Service::bypasses).unwrap_or_default();
    found.into_iter().map(|bypass| bypass.name).collect()
}

/// Keys of a service, and the names of the ways out that they are.
const SETTINGS: [(&str, &[&str]); 57] = [
    ("privileged: true", &["privileged"]),
    ("cap_add: [ALL]", &["all-capabilities"]),
    ("cap_add: [SYS_ADMIN]", &["cap-sys-admin"]),
    ("cap_add: [CAP_SYS_ADMIN]", &["cap-sys-admin"]),
    ("cap_add: [sys_module]", &["cap-sys-module"]),
    ("cap_add: [SYS_RAWIO]", &["cap-sys-rawio"]),
    ("cap_add: [NET_ADMIN]", &["cap-net-admin"]),
    ("cap_add: [NET_RAW]", &["cap-net-raw"]),
    ("cap_add: [BPF]", &["cap-bpf"]),
    ("cap_add: [DAC_READ_SEARCH]", &["cap-dac-read-search"]),
    ("pid: host", &["pid-host"]),
    ("ipc: host", &["ipc-host"]),
    ("network_mode: host", &[]),
    (
        "network_mode: host\n    cap_add: [NET_RAW]",
        &["cap-net-raw", "host-network"],
    ),
    (
        "cap_add: [ALL]\n    cap_drop: [NET_RAW]",
        &["all-capabilities"],
    ),
    (
        "security_opt: [\"systempaths=unconfined\"]",
        &["systempaths"],
    ),
    ("devices: [/dev/sda]", &["host-disks"]),
    ("devices: [\"/dev/nvme0n1:/dev/x:r\"]", &["host-disks"]),
    ("devices: [/dev/mem]", &["host-memory"]),
    ("devices: [/dev/disk/by-id/x]", &["host-disks"]),
    ("devices: [\"/dev:/dev\"]", &["host-memory", "host-disks"]),
    ("volumes: [\"/run/user/1000/docker.sock:/s\"]", &["engine"]),
    ("device_cgroup_rules: [\"b 8:* rmw\"]", &["device-rules"]),
    ("device_cgroup_rules: [\"a *:* rwm\"]", &["device-rules"]),
    ("volumes: [\"/var/run/docker.sock:/s:ro\"]", &["engine"]),
    (
        "volumes: [\"/var/run/:/r:ro\"]",
        &["engine", "systemd", "dbus"],
    ),
    ("volumes: [\"/run/../run//docker.sock:/s\"]", &["engine"]),
    ("volumes: [/run/dbus:/run/dbus:ro]", &["dbus"]),
    ("volumes: [/run/dbus/system_bus_socket:/s]", &["dbus"]),
    ("volumes: [/run/systemd/private:/s]", &["systemd"]),
    ("volumes: [/run/containerd/containerd.sock:/s]", &["engine"]),
    ("volumes: [/run/podman/podman.sock:/s]", &["engine"]),
    ("volumes: [\"/proc:/host/proc:ro\"]", &["host-proc"]),
    (
        "volumes: [\"/var/lib/docker/volumes:/v:ro\"]",
        &["engine-data"],
    ),
    ("volumes: [\"/etc:/host/etc\"]", &["host-files"]),
    ("volumes: [/root/.ssh:/keys]", &["host-files"]),
    ("volumes: [/boot:/boot]", &["host-files"]),
    ("volumes: [/usr/local/bin:/x]", &["host-files"]),
    (
        "volumes: [/sys/fs/cgroup:/c]",
        &["host-cgroups", "host-sys"],
    ),
    ("volumes: [/sys/fs:/c]", &["host-cgroups", "host-sys"]),
    ("volumes: [/dev:/dev]", &["host-shm"]),
    // Nothing that Docker's defaults do not have.
    ("cap_add: [CHOWN, SYS_TIME, SYS_NICE, IPC_LOCK]", &[]),
    ("volumes: [\"/etc/localtime:/etc/localtime\"]", &[]),
    ("volumes: [\"/proc/stat:/stat:ro\"]", &[]),
    ("volumes: [\"/run/systemd/resolve/resolv.conf:/r:ro\"]", &[]),
    ("uts: host", &[]),
    ("cgroup: host", &[]),
    ("userns_mode: host", &[]),
    ("security_opt: [\"seccomp=unconfined\"]", &[]),
    ("security_opt: [\"apparmor=unconfined\"]", &[]),
    ("ipc: shareable", &[]),
    ("network_mode: none", &[]),
    ("devices: [/dev/dri, /dev/ttyUSB0, /dev/snd]", &[]),
    ("device_cgroup_rules: [\"c 188:* rmw\"]", &[]),
    ("volumes: [\"/etc/localtime:/etc/localtime:ro\"]", &[]),
    ("volumes: [\"/sys:/sys:ro\"]", &[]),
    (
        "volumes: [\"/srv/media:/media\", \"data:/data\"]\nvolumes: {data: }",
        &[],
    ),
];

#[test]
fn each_setting_is_named_or_harmless() {
    for (keys, names) in SETTINGS {
        assert_eq!(of(keys), names, "{keys}");
    }
}

#[test]
fn the_root_of_the_host_has_all_of_it() {
    let bind = |path: &str, target: &str| Volume::Bind {
        source: path.into(),
        target: target.to_owned(),
    };
    let service = Service {
        volumes: vec![bind("/", "/host:ro")],
        ..Service::default()
    };
    let read_only: Vec<&str> = service.bypasses().iter().map(|found| found.name).collect();
    assert_eq!(
        read_only,
        ["engine", "systemd", "dbus", "host-proc", "engine-data"]
    );
    let service = Service {
        volumes: vec![bind("/", "/host")],
        accepted_bypasses: ["engine", "systemd"].map(str::to_owned).into(),
        ..Service::default()
    };
    let unmeant = service.unmeant_bypasses().map(|found| found.name);
    assert_eq!(
        unmeant.collect::<Vec<_>>(),
        [
            "dbus",
            "host-proc",
            "engine-data",
            "host-cgroups",
            "host-sys",
            "host-shm",
            "host-files"
        ]
    );
}

#[test]
fn each_way_out_has_a_name_to_say_that_it_is_meant() {
    let known = names();
    for name in [
        "privileged",
        "pid-host",
        "dbus",
        "cap-net-raw",
        "host-network",
    ] {
        assert!(known.contains(name), "{name}");
    }
}

#[test]
fn net_raw_is_taken_away_from_who_does_not_ask_for_it() {
    let dropped = |is_isolated: bool, added: &[&str], dropped: &[&str]| {
        let list = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let service = Service {
            is_isolated,
            cap_add: list(added),
            cap_drop: list(dropped),
            ..Service::default()
        };
        (
            service.dropped_capabilities().join(" "),
            service.has_net_raw(),
        )
    };
    let (taken, kept) = (
        |list: &str| (list.to_owned(), false),
        |list: &str| (list.to_owned(), true),
    );
    assert_eq!(dropped(true, &[], &[]), taken("NET_RAW"));
    assert_eq!(
        dropped(true, &["CHOWN"], &["MKNOD"]),
        taken("MKNOD NET_RAW")
    );
    assert_eq!(dropped(true, &[], &["NET_RAW"]), taken("NET_RAW"));
    assert_eq!(dropped(true, &[], &["ALL"]), taken("ALL"));
    assert_eq!(dropped(true, &["NET_RAW"], &[]), kept(""));
    assert_eq!(dropped(true, &["NET_RAW"], &["ALL"]), kept("ALL"));
    assert_eq!(dropped(true, &["ALL"], &[]), kept(""));
    assert_eq!(dropped(false, &[], &[]), kept(""));
}
