//! Servers that may not do what an unprivileged container may not.

use super::Server;
use std::fs;

impl Server {
    /// From the next boot on, systemd in there can load no filter of addresses.
    #[allow(dead_code, reason = "the demonstration and the benchmark need it not")]
    pub fn forbid_filters(&self) {
        let script = include_str!("forbid.pl");
        fs::write(self.folder.path().join("forbid.pl"), script).expect("a file");
    }
}
