//! The main job in a virtual home, with real systemd and real Docker Engines: 20.10 of bookworm, 26.1 of trixie and 28.5 of
//! sid. `tests/all.sh` makes what these tests need and runs them.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on fails"
)]

mod addresses;
mod calls;
mod changes;
mod compose;
mod compose_home;
mod engine_faults;
mod faults;
mod files;
mod filter;
mod ghosts;
mod growth;
mod home;
mod ipv6;
mod isolation;
mod kills;
mod main_job;
mod many;
mod net_raw;
mod network_managers;
mod own_lan;
mod pool;
mod power_cuts;
mod proxy;
mod refusals;
mod repairs;
mod room;
mod services;
mod shim;
mod strangers;
mod turns;
mod verify;
mod ways;
mod who_has;

use home::{Home, Server};
use std::net::Ipv4Addr;
use std::path::Path;

/// The plan of these tests.
const PLAN: &str = include_str!("homelab.toml");

/// Tests of functions that take a suite. What depends on the engine, its systemd or its Compose is tested with each, and the
/// rest with the engine of Debian's stable release.
macro_rules! tests {
    (every engine: $($every:ident)*; one engine: $($one:ident)*) => {
        mod engine_20_10 { $(crate::tests!("bookworm", $every);)* }
        mod engine_26_1 { $(crate::tests!("trixie", $every);)* $(crate::tests!("trixie", $one);)* }
        mod engine_28_5 { $(crate::tests!("sid", $every);)* }
    };
    ($suite:literal, $name:ident) => {
        #[test]
        #[ignore = "needs root and the lab: run tests/all.sh"]
        fn $name() {
            let _pool = crate::pool::open();
            super::$name($suite);
        }
    };
}
pub(crate) use tests;

/// A home and its Raspberry Pi, with the plan and the image `lab/web:1` on it.
fn home_and_pi(suite: &str) -> (Home, Server) {
    let home = home();
    let pi = home.server(suite, "pi", "192.168.1.204");
    prepare(&pi);
    (home, pi)
}

/// The same with a disk that can lose power.
fn home_and_pi_with_a_disk(suite: &str) -> (Home, Server) {
    let home = home();
    let pi = home.server_with_a_disk(suite, "pi", "192.168.1.204");
    prepare(&pi);
    (home, pi)
}

fn home() -> Home {
    Home::new(Path::new(env!("CARGO_BIN_EXE_homelab")))
}

fn prepare(pi: &Server) {
    pi.import_image("lab/web:1");
    pi.write("/etc/homelab/homelab.toml", PLAN);
}

/// The address on the LAN with that last byte.
fn lan(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 1, last)
}
