//! One command at a time: whoever changes this machine holds a socket of a fixed name while it does.
//!
//! An abstract address (`unix(7)`) is no file: it belongs to a network namespace, as what homelab makes does, one process
//! at a time can bind it, and it is free again when that process ends, however it ends. The kernel tells who has it, and
//! whoever waits sees the connection break when its turn comes.

use crate::error::Error;
use std::fs;
use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream as Connection};
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;

/// The abstract address.
const ADDRESS: &[u8] = b"homelab";

/// How long to wait before looking again, when nothing tells when it is time.
const PAUSE: Duration = Duration::from_millis(100);

/// The right to change this machine, until it is dropped.
pub struct Turn {
    _socket: UnixListener,
}

/// Somebody else's turn.
pub struct Holder {
    /// Its command line and process, in words.
    pub words: String,
    connection: Option<UnixStream>,
}

/// Takes the turn when nobody has it.
///
/// # Errors
/// When the kernel gives no socket; in the second place, who has it.
pub fn take() -> Result<Result<Turn, Holder>, Error> {
    let address = SocketAddr::from_abstract_name(ADDRESS).map_err(|_| no_socket())?;
    match UnixListener::bind_addr(&address) {
        Ok(socket) => Ok(Ok(Turn { _socket: socket })),
        Err(error) if error.kind() == ErrorKind::AddrInUse => Ok(Err(Holder::at(&address))),
        Err(_) => Err(no_socket()),
    }
}

impl Holder {
    fn at(address: &SocketAddr) -> Self {
        let connection = Connection::connect_addr(address).ok();
        let connection = connection.filter(|one| one.set_nonblocking(true).is_ok());
        let connection = connection.and_then(|one| UnixStream::from_std(one).ok());
        let process = connection
            .as_ref()
            .and_then(|one| one.peer_cred().ok()?.pid());
        let words = process.map_or_else(|| "another homelab".to_owned(), command);
        Self { words, connection }
    }

    /// Over when it may have ended.
    pub async fn ends(self) {
        match self.connection {
            // It sends nothing; the connection breaks when it ends.
            Some(mut connection) => {
                let _ = connection.read(&mut [0]).await;
            }
            None => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// A process by its command line.
fn command(process: i32) -> String {
    let line = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line).into_owned();
    let mut words = line.trim_end_matches('\0').split('\0');
    let program = words.next().and_then(|path| path.rsplit('/').next());
    let words: Vec<&str> = program.into_iter().chain(words).collect();
    format!("`{}` (process {process})", words.join(" "))
}

fn no_socket() -> Error {
    Error::new(
        "the kernel gives no socket, by which only one homelab at a time changes this machine",
        "homelab needs AF_UNIX, also when it runs under systemd's restrictions",
    )
}
