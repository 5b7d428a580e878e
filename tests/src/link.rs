//! An ocean: a TCP proxy whose bytes arrive later, and that can be cut, stalled or closed.
//!
//! Each direction is a queue of chunks with their times of arrival, so a long delay limits no throughput: many chunks
//! are on their way at once, as on a real link. The queue is bounded; beyond that the sender of the bytes waits.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::door::Door;

/// 64 KiB each: 16 MiB on their way, more than a test sends in one round trip.
const CHUNKS_ON_THE_WAY: usize = 256;
const CHUNK_BYTES: usize = 64 * 1024;

/// The side that a chunk comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client that connected.
    Forward,
    /// From the server behind the link.
    Back,
}

/// A proxy in front of one address. Closed on drop.
pub struct Link {
    door: Door,
    shared: Arc<Shared>,
}

struct Shared {
    to: SocketAddr,
    delay_micros: AtomicU64,
    /// Bytes that still pass before a cut, each way; below zero: no cut is set.
    budget: [AtomicI64; 2],
    stalled: watch::Sender<bool>,
    /// Counts the cuts: a connection ends when it changes.
    cuts: watch::Sender<u64>,
    /// Whether a connection that is cut ends with a TCP reset on both sides, and new ones are reset at once.
    resetting: AtomicBool,
}

impl Link {
    /// A link to `to` where each byte is on its way for `delay`, in both directions.
    ///
    /// # Errors
    /// The listener can't be bound.
    pub async fn start(to: SocketAddr, delay: Duration) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            to,
            delay_micros: AtomicU64::new(0),
            budget: [AtomicI64::new(-1), AtomicI64::new(-1)],
            stalled: watch::Sender::new(false),
            cuts: watch::Sender::new(0),
            resetting: AtomicBool::new(false),
        });
        let mut link = Self { door: Door::closed(), shared };
        link.set_delay(delay);
        link.open().await?;
        Ok(link)
    }

    /// Where to connect.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.door.addr()
    }

    /// The delay from now on, one way.
    pub fn set_delay(&self, one_way: Duration) {
        self.shared.delay_micros.store(u64::try_from(one_way.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Closes all connections; new ones are taken.
    pub fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Closes all connections when this many more bytes have passed in a direction: in the middle of whatever goes by.
    pub fn cut_after(&self, direction: Direction, bytes: u32) {
        self.shared.budget[direction as usize].store(i64::from(bytes), Ordering::Relaxed);
    }

    /// Whether a cut set by [`Link::cut_after`] is still to come.
    #[must_use]
    pub fn cut_pending(&self) -> bool {
        self.shared.budget.iter().any(|budget| budget.load(Ordering::Relaxed) >= 0)
    }

    /// Nothing arrives any more, and nothing says so: a dead route.
    pub fn stall(&self) {
        self.shared.stalled.send_replace(true);
    }

    /// What was held back by [`Link::stall`] arrives.
    pub fn flow(&self) {
        self.shared.stalled.send_replace(false);
    }

    /// From now on every connection, those that are open and those to come, is reset on both sides: what was on its way
    /// is gone, and each side's next read or write says so. Until [`Link::end_reset`].
    pub fn reset(&self) {
        self.shared.resetting.store(true, Ordering::SeqCst);
        self.cut();
    }

    /// New connections are carried again.
    pub fn end_reset(&self) {
        self.shared.resetting.store(false, Ordering::SeqCst);
    }

    /// Closes all connections and refuses new ones, until [`Link::open`].
    pub async fn refuse(&mut self) {
        self.door.close().await;
    }

    /// Takes connections, on the same port as before.
    ///
    /// # Errors
    /// The listener can't be bound.
    pub async fn open(&mut self) -> std::io::Result<()> {
        let shared = self.shared.clone();
        self.door.open(|listener| accept(listener, shared)).await
    }
}

/// Connections belong to the accepting task: they end with it.
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((client, _)) = accepted {
                connections.spawn(carry(client, shared.clone()));
            },
            Some(_ended) = connections.join_next() => {}
        }
    }
}

async fn carry(mut client: TcpStream, shared: Arc<Shared>) {
    let mut cuts = shared.cuts.subscribe();
    if shared.is_resetting() {
        let _closed_at_once = client.set_zero_linger();
        return;
    }
    // The handshake crosses as well: a client's first byte leaves one round trip after it asked to connect.
    tokio::time::sleep(shared.delay() * 2).await;
    let Ok(mut server) = TcpStream::connect(shared.to).await else { return };
    if client.set_nodelay(true).is_err() || server.set_nodelay(true).is_err() {
        return;
    }
    let (client_read, client_write) = client.split();
    let (server_read, server_write) = server.split();
    let both = async {
        tokio::join!(
            pump(client_read, server_write, Direction::Forward, &shared),
            pump(server_read, client_write, Direction::Back, &shared),
        )
    };
    tokio::select! {
        _ended = both => {}
        _cut = cuts.changed() => {}
    }
    if shared.is_resetting() {
        for side in [&client, &server] {
            // An error means that it is closed already.
            let _closed = side.set_zero_linger();
        }
    }
}

/// One direction, until its end has arrived or a side is gone.
async fn pump(from: impl AsyncRead + Unpin, to: impl AsyncWrite + Unpin, direction: Direction, shared: &Shared) {
    let (chunks, on_the_way) = mpsc::channel(CHUNKS_ON_THE_WAY);
    tokio::join!(depart(from, chunks, shared), arrive(to, on_the_way, direction, shared));
}

async fn depart(mut from: impl AsyncRead + Unpin, chunks: mpsc::Sender<(Instant, Bytes)>, shared: &Shared) {
    loop {
        let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
        let read = from.read_buf(&mut chunk).await.unwrap_or(0);
        let chunk = chunk.freeze();
        // An empty chunk is the end, and is on its way as long as the rest.
        if chunks.send((Instant::now() + shared.delay(), chunk)).await.is_err() || read == 0 {
            return;
        }
    }
}

async fn arrive(
    mut to: impl AsyncWrite + Unpin,
    mut chunks: mpsc::Receiver<(Instant, Bytes)>,
    direction: Direction,
    shared: &Shared,
) {
    let mut stalled = shared.stalled.subscribe();
    while let Some((at, mut chunk)) = chunks.recv().await {
        tokio::time::sleep_until(at).await;
        if stalled.wait_for(|stalled| !stalled).await.is_err() {
            return;
        }
        let cut = shared.spend(direction, &mut chunk);
        let written = if chunk.is_empty() && !cut { to.shutdown().await } else { to.write_all(&chunk).await };
        if cut {
            shared.cuts.send_modify(|cuts| *cuts += 1);
        }
        if cut || written.is_err() {
            return;
        }
    }
}

impl Shared {
    fn is_resetting(&self) -> bool {
        self.resetting.load(Ordering::SeqCst)
    }

    fn delay(&self) -> Duration {
        Duration::from_micros(self.delay_micros.load(Ordering::Relaxed))
    }

    /// Takes a chunk off the budget, shortens it to what is left of it, and says whether this is the cut.
    fn spend(&self, direction: Direction, chunk: &mut Bytes) -> bool {
        let budget = &self.budget[direction as usize];
        let size = i64::try_from(chunk.len()).unwrap_or(i64::MAX);
        let left = budget.load(Ordering::Relaxed);
        if left < 0 || size == 0 {
            return false;
        }
        if size < left {
            budget.store(left - size, Ordering::Relaxed);
            return false;
        }
        chunk.truncate(usize::try_from(left).unwrap_or(0));
        budget.store(-1, Ordering::Relaxed);
        true
    }
}
