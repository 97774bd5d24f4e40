//! A faulty way to the Engine: a proxy before a server's real one, which spoils chosen answers.

use crate::home::Server;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Where the proxy listens in the server.
pub const SOCKET: &str = "/run/faulty.sock";

/// A piece of an endless answer, in bytes.
const PIECE: usize = 64 << 10;

/// How many of them there are after all: 128 MB, so that this machine does not run out of memory.
const PIECES: usize = 2 << 10;

/// How long an answer that has no end is listened to before half of it is handed on.
const UNENDED: Duration = Duration::from_millis(300);

/// What becomes of a call.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The Engine never hears of it; this is the answer, then the connection is closed.
    Raw(String),
    /// The same for a call whose text has the first; others are done.
    RawWhere(&'static str, String),
    /// The same, but the last part is said again and again as long as somebody listens.
    Endless(String),
    /// The Engine does it, and half of its answer arrives.
    Half,
    /// The Engine does it, and nobody hears of it.
    Lost,
    /// It is done, a moment late.
    Late,
    /// The connection is closed at once.
    Closed,
    /// The connection is reset while the call is read.
    Reset,
}

impl Fault {
    /// An answer of that status with that text.
    pub fn says(status: u16, kind: &str, text: &str) -> Self {
        Self::Raw(format!(
            "HTTP/1.1 {status} Said\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
            text.len()
        ))
    }

    /// Whether anybody can see that it is one: a log may have any text and no end, that an act was done has no text, and what is
    /// gone need not be stopped or removed.
    pub fn can_be_seen(&self, call: &str) -> bool {
        let (Self::Raw(answer) | Self::Endless(answer)) = self else {
            return true;
        };
        let is_answered = call.starts_with("GET") && !call.ends_with("/logs")
            || call.ends_with("create")
            || call.ends_with("/wait");
        let may_be_gone = call.starts_with("DELETE") || call.ends_with("/stop");
        !(answer.starts_with("HTTP/1.1 200") && !is_answered
            || answer.starts_with("HTTP/1.1 404") && may_be_gone)
    }

    /// An answer of that status that begins like this and goes on for ever.
    pub fn endless(status: u16, begin: &str) -> Self {
        Self::Endless(format!(
            "HTTP/1.1 {status} Said\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n{begin}"
        ))
    }
}

/// Which call is spoilt, and how.
struct Armed {
    /// A method and a path without version and query; `*` is any one part of it.
    call: &'static str,
    fault: Fault,
    /// How many of these calls were spoilt.
    hits: usize,
}

#[derive(Default)]
struct Shared {
    armed: Option<Armed>,
    /// The most memory that whoever listened to an endless answer had resident, in KiB.
    peak: u64,
    is_over: bool,
}

/// The proxy; it is gone when this value is.
pub struct Proxy {
    shared: Arc<Mutex<Shared>>,
    socket: PathBuf,
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Proxy {
    /// Listens in a server.
    pub fn before(pi: &Server) -> Self {
        let socket = PathBuf::from(pi.path(SOCKET));
        let engine = PathBuf::from(pi.path("/run/docker.sock"));
        let listener = UnixListener::bind(&socket).expect("a socket");
        let shared: Arc<Mutex<Shared>> = Arc::default();
        let for_all = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if lock(&for_all).is_over {
                    return;
                }
                let (shared, engine) = (Arc::clone(&for_all), engine.clone());
                // Whoever goes away in the middle is no fault of the test.
                std::thread::spawn(move || serve(client, &engine, &shared));
            }
        });
        Self { shared, socket }
    }

    /// Spoils a kind of call from now on.
    pub fn spoil(&self, call: &'static str, fault: Fault) {
        let mut shared = lock(&self.shared);
        shared.peak = 0;
        shared.armed = Some(Armed {
            call,
            fault,
            hits: 0,
        });
    }

    /// Spoils nothing any more; how many calls were spoilt, and the most memory of who listened to an endless answer, in KiB.
    pub fn end(&self) -> (usize, u64) {
        let mut shared = lock(&self.shared);
        let hits = shared.armed.take().map_or(0, |armed| armed.hits);
        (hits, shared.peak)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        lock(&self.shared).is_over = true;
        let _ = UnixStream::connect(&self.socket);
        let _ = fs::remove_file(&self.socket);
    }
}

/// Whether a call is meant by a pattern.
fn is_meant(pattern: &str, call: &str) -> bool {
    let (mut meant, mut parts) = (pattern.split('/'), call.split('/'));
    loop {
        match (meant.next(), parts.next()) {
            (None, None) => return true,
            (Some("*"), Some(_)) => {}
            (one, other) if one == other => {}
            _ => return false,
        }
    }
}

/// The method and the path of a call, without version and query.
fn call_of(head: &str) -> String {
    let mut words = head.split(' ');
    let method = words.next().unwrap_or_default();
    let path = words.next().unwrap_or_default();
    let path = path.split('?').next().unwrap_or_default();
    let path = match path
        .strip_prefix("/v1.")
        .and_then(|rest| rest.split_once('/'))
    {
        Some((_, rest)) => format!("/{rest}"),
        None => path.to_owned(),
    };
    format!("{method} {path}")
}

fn serve(mut client: UnixStream, engine: &PathBuf, shared: &Mutex<Shared>) -> io::Result<()> {
    // The last byte of the head is left where it is: who closes before it is read resets the connection.
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r") {
        client.read_exact(&mut byte)?;
        head.extend(byte);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let call = call_of(&text);
    let fault = {
        let mut shared = lock(shared);
        let armed = shared
            .armed
            .as_mut()
            .filter(|armed| is_meant(armed.call, &call));
        armed.map(|armed| {
            armed.hits += 1;
            armed.fault.clone()
        })
    };
    if matches!(fault, Some(Fault::Reset)) {
        return Ok(());
    }
    client.read_exact(&mut byte)?;
    head.extend(byte);
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    let length = lines.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|(_, length)| length.trim().parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    client.read_exact(&mut body)?;
    let forward = || -> io::Result<UnixStream> {
        let mut engine = UnixStream::connect(engine)?;
        // One call on each connection.
        let head = text.replacen("\r\n", "\r\nConnection: close\r\n", 1);
        engine.write_all(head.as_bytes())?;
        engine.write_all(b"\n")?;
        engine.write_all(&body)?;
        Ok(engine)
    };
    match fault {
        None => hand_on(forward()?, client),
        Some(Fault::Late) => {
            std::thread::sleep(Duration::from_millis(700));
            hand_on(forward()?, client)
        }
        Some(Fault::RawWhere(text, _)) if !String::from_utf8_lossy(&body).contains(text) => {
            hand_on(forward()?, client)
        }
        Some(Fault::Raw(answer) | Fault::RawWhere(_, answer)) => {
            client.write_all(answer.as_bytes())
        }
        Some(Fault::Endless(begin)) => endless(&begin, client, shared),
        Some(Fault::Lost) => forward()?.read_to_end(&mut Vec::new()).map(|_| ()),
        Some(Fault::Half) => {
            let mut engine = forward()?;
            engine.set_read_timeout(Some(UNENDED))?;
            let mut answer = Vec::new();
            // What has no end is cut where it is.
            let _ = engine.read_to_end(&mut answer);
            let head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
            let head = head.map_or(0, |place| place + 4);
            // Where there is nothing behind the head, half of that.
            let half = match answer.len() - head {
                0 => head / 2,
                body => head + body / 2,
            };
            client.write_all(answer.get(..half).unwrap_or_default())
        }
        Some(Fault::Closed | Fault::Reset) => Ok(()),
    }
}

/// Hands an answer on as it comes.
fn hand_on(mut engine: UnixStream, mut client: UnixStream) -> io::Result<()> {
    io::copy(&mut engine, &mut client).map(|_| ())
}

/// Says the begin, and then its last byte until nobody listens.
fn endless(begin: &str, mut client: UnixStream, shared: &Mutex<Shared>) -> io::Result<()> {
    let listener = getsockopt(&client, PeerCredentials)?.pid();
    client.write_all(begin.as_bytes())?;
    let more = vec![*begin.as_bytes().last().unwrap_or(&b' '); PIECE];
    for _ in 0..PIECES {
        let status = fs::read_to_string(format!("/proc/{listener}/status")).unwrap_or_default();
        let mut lines = status.lines();
        let peak = lines.find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|peak| peak.trim().trim_end_matches(" kB").parse().ok());
        let mut shared = lock(shared);
        shared.peak = shared.peak.max(peak.unwrap_or(0));
        drop(shared);
        client.write_all(&more)?;
    }
    Ok(())
}
