//! The way of a call to the Engine and of its answer: a connection for each, on which nothing comes without a bound.

use super::EngineError;
use bollard::{API_DEFAULT_VERSION, BollardRequest, Docker};
use http::header::{HOST, HeaderValue};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// How long a list may be, in bytes: that of an Engine with thousands of containers. It is held in memory until it is understood.
const LONGEST_LIST: usize = 16 << 20;

/// The paths of lists.
const LISTS: [&str; 4] = ["/containers/json", "/images/json", "/networks", "/volumes"];

/// How long another answer may be, of which there may be many at once, and how much may come between two pieces of one that comes in
/// pieces and has no end of its own.
const LONGEST_ANSWER: usize = 1 << 20;

/// What a connection fails with on which more comes; nothing else on a socket does.
pub(super) const TOO_LONG: io::ErrorKind = io::ErrorKind::FileTooLarge;

/// Where an Engine listens.
#[derive(Clone, Debug)]
pub(super) enum Address {
    Unix(PathBuf),
    /// A host and a port.
    Tcp(String),
}

/// How much may still come of an answer.
#[derive(Clone, Debug)]
pub(super) struct Allowance(Arc<AtomicUsize>);

impl Allowance {
    /// Of an answer that comes in pieces; to be renewed with each.
    pub(super) fn of_pieces() -> Self {
        Self(Arc::new(AtomicUsize::new(LONGEST_ANSWER)))
    }

    pub(super) fn renew(&self) {
        self.0.store(LONGEST_ANSWER, Ordering::Relaxed);
    }

    fn of_answer(path: &str) -> Self {
        let is_list = LISTS.iter().any(|list| path.ends_with(list));
        let longest = if is_list {
            LONGEST_LIST
        } else {
            LONGEST_ANSWER
        };
        Self(Arc::new(AtomicUsize::new(longest)))
    }

    /// Whether more came than was allowed.
    pub(super) fn is_spent(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    fn take(&self, bytes: usize) -> io::Result<()> {
        let left = self.0.load(Ordering::Relaxed).saturating_sub(bytes);
        self.0.store(left, Ordering::Relaxed);
        if left == 0 {
            return Err(TOO_LONG.into());
        }
        Ok(())
    }
}

/// A client for the Engine at that address. It waits for answers as long as they take.
pub(super) fn client(address: Address) -> Result<Docker, EngineError> {
    let send = move |request: BollardRequest| {
        let address = address.clone();
        async move {
            match address {
                Address::Unix(path) => exchange(UnixStream::connect(path).await?, request).await,
                Address::Tcp(address) => {
                    exchange(TcpStream::connect(address).await?, request).await
                }
            }
        }
    };
    Docker::connect_with_custom_transport(
        send,
        Some("http://docker"),
        u64::from(u32::MAX),
        API_DEFAULT_VERSION,
    )
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + 'static,
    mut request: BollardRequest,
) -> Result<http::Response<Incoming>, EngineError> {
    // A server wants to hear the path, and separately for whom it is.
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.map(http::Uri::from).unwrap_or_default();
    request
        .headers_mut()
        .insert(HOST, HeaderValue::from_static("docker"));
    let given = request.extensions().get::<Allowance>().cloned();
    let allowance = given.unwrap_or_else(|| Allowance::of_answer(request.uri().path()));
    let (read, write) = tokio::io::split(stream);
    let read = Bounded { read, allowance };
    let stream = TokioIo::new(tokio::io::join(read, write));
    let (mut sender, connection) = http1::handshake(stream).await?;
    // Ends with the answer, or when nobody wants it any more; what went wrong is told to who reads it.
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}

/// Something to read from, with a bound.
struct Bounded<R> {
    read: R,
    allowance: Allowance,
}

impl<R: AsyncRead + Unpin> AsyncRead for Bounded<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.read).poll_read(context, buffer))?;
        let read = buffer.filled().len().saturating_sub(before);
        Poll::Ready(self.allowance.take(read))
    }
}
