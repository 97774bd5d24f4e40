//! Somebody on the LAN who asks for pages ten times a second, and for how long nobody answered.

use super::Host;
use nix::sched::{CloneFlags, setns};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long an answer may take until it counts as none.
const ANSWER: Duration = Duration::from_secs(1);

/// The pause between two questions.
const PAUSE: Duration = Duration::from_millis(100);

/// What is known of one address.
struct Seen {
    last: Instant,
    longest: Duration,
}

/// The watch over some addresses; it ends with this value.
pub struct Watch {
    seen: Arc<Mutex<BTreeMap<Ipv4Addr, Seen>>>,
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Host {
    /// Asks addresses that answer now for their pages until the watch is dropped.
    pub fn watch(&self, addresses: &[Ipv4Addr]) -> Watch {
        let namespace = format!("/proc/{}/ns/net", self.holder.pid());
        let seen: Arc<Mutex<BTreeMap<Ipv4Addr, Seen>>> = Arc::default();
        let ended = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for address in addresses.iter().copied() {
            let (namespace, seen) = (namespace.clone(), Arc::clone(&seen));
            let now = Seen {
                last: Instant::now(),
                longest: Duration::ZERO,
            };
            lock(&seen).insert(address, now);
            let ended = Arc::clone(&ended);
            threads.push(std::thread::spawn(move || {
                let namespace = File::open(namespace).expect("the machine is there");
                setns(namespace, CloneFlags::CLONE_NEWNET).expect("a thread may change its own");
                while !ended.load(Ordering::Relaxed) {
                    if answers(address).is_ok() {
                        note(&seen, address);
                    }
                    std::thread::sleep(PAUSE);
                }
            }));
        }
        Watch {
            seen,
            ended,
            threads,
        }
    }
}

impl Watch {
    /// For how long at most an address did not answer since this was last asked, until now.
    pub fn silence(&self, address: Ipv4Addr) -> Duration {
        let mut seen = lock(&self.seen);
        let seen = seen.get_mut(&address).expect("it is watched");
        let longest = seen.longest.max(seen.last.elapsed());
        seen.longest = Duration::ZERO;
        longest
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn lock(
    seen: &Mutex<BTreeMap<Ipv4Addr, Seen>>,
) -> std::sync::MutexGuard<'_, BTreeMap<Ipv4Addr, Seen>> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn note(seen: &Mutex<BTreeMap<Ipv4Addr, Seen>>, address: Ipv4Addr) {
    if let Some(seen) = lock(seen).get_mut(&address) {
        seen.longest = seen.longest.max(seen.last.elapsed());
        seen.last = Instant::now();
    }
}

fn answers(address: Ipv4Addr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((address, 80)), ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    if page.contains(" 200 ") {
        return Ok(());
    }
    Err(std::io::ErrorKind::InvalidData.into())
}
