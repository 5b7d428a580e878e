//! The long line: a TCP proxy whose bytes arrive later, over a line of a set width, with losses, and with a model of how
//! TCP opens its window.
//!
//! Threads with blocking sockets: a chunk arrives some tens of microseconds after it is due. Each direction of a
//! connection is a queue of chunks with their times of arrival, so a delay limits no throughput.
//!
//! What it is not: TCP over a long line. Both sides talk to a proxy beside them, whose acknowledgements come at once. What
//! that hides is put back by models, each of which can be switched off:
//!   - slow start: a connection begins with ten segments in flight, may have as much more as was acknowledged, and falls
//!     back after a pause of a second (RFC 6928, RFC 5681 section 4.1);
//!   - a lost segment: all behind it arrives one round trip later, as after a fast retransmit. The window does not shrink;
//!   - width: bytes of all connections of a direction leave one after the other.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::nap::{self, nap};
use crate::window::Window;

/// Bytes that are read at once.
const CHUNK_BYTES: usize = 32 * 1024;
/// Up to 64 MiB on their way in each direction of a connection: more than anything here sends in a round trip.
const CHUNKS_ON_THE_WAY: usize = 2_048;
/// What a segment carries on Ethernet.
pub const SEGMENT_BYTES: usize = 1_448;
const STACK_BYTES: usize = 128 * 1024;

/// What a line is like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    /// Half of it each way.
    pub round_trip: Duration,
    /// Bits per second, each way; 0: no limit.
    pub bits_per_second: u64,
    /// Share of segments that are lost.
    pub loss: f64,
    /// Whether connections open their window slowly.
    pub slow_start: bool,
}

impl Line {
    /// A delay and nothing else.
    #[must_use]
    pub fn of(round_trip: Duration) -> Self {
        Self { round_trip, bits_per_second: 0, loss: 0.0, slow_start: false }
    }

    fn one_way(&self) -> Duration {
        self.round_trip / 2
    }
}

/// A proxy in front of one address.
pub struct Link {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    to: SocketAddr,
    line: Mutex<Line>,
    /// Until when the line is busy with what was sent before, each way.
    busy: [Mutex<Instant>; 2],
    bytes: [AtomicU64; 2],
    down: AtomicBool,
    gone: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

impl Link {
    /// A line to `to`.
    ///
    /// # Errors
    /// No port.
    pub fn start(to: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared {
            to,
            line: Mutex::new(Line::of(Duration::ZERO)),
            busy: [Mutex::new(Instant::now()), Mutex::new(Instant::now())],
            bytes: [AtomicU64::new(0), AtomicU64::new(0)],
            down: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            open: Mutex::new(Vec::new()),
        });
        let accepting = shared.clone();
        thread::Builder::new().name("link".to_owned()).spawn(move || accept(&listener, &accepting))?;
        Ok(Self { addr, shared })
    }

    /// Where to connect.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What it is like from now on.
    pub fn set(&self, line: Line) {
        *locked(&self.shared.line) = line;
    }

    /// Bytes that were carried there, and back: what TCP carries, without its own headers.
    #[must_use]
    pub fn bytes(&self) -> [u64; 2] {
        [0, 1].map(|way| self.shared.bytes[way].load(Ordering::Relaxed))
    }

    /// Closes all connections, and each new one at once, until [`Link::restore`].
    pub fn break_off(&self) {
        self.shared.down.store(true, Ordering::Relaxed);
        self.close_all();
    }

    /// Carries again.
    pub fn restore(&self) {
        self.shared.down.store(false, Ordering::Relaxed);
    }

    fn close_all(&self) {
        for stream in locked(&self.shared.open).drain(..) {
            // An error means that it is closed already.
            let _closed = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.gone.store(true, Ordering::Relaxed);
        self.close_all();
        let _woken = TcpStream::connect(self.addr);
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while let Ok((client, _)) = listener.accept() {
        if shared.gone.load(Ordering::Relaxed) {
            return;
        }
        if shared.down.load(Ordering::Relaxed) {
            continue;
        }
        let shared = shared.clone();
        // No thread to be had, or nobody at the other end: the connection closes, and its client says so.
        let _carried = spawn(move || carry(client, &shared));
    }
}

fn spawn(work: impl FnOnce() -> std::io::Result<()> + Send + 'static) -> std::io::Result<()> {
    thread::Builder::new().stack_size(STACK_BYTES).spawn(work).map(drop)
}

fn carry(client: TcpStream, shared: &Arc<Shared>) -> std::io::Result<()> {
    // The handshake crosses as well: a client's first byte leaves one round trip after it asked to connect.
    let line = *locked(&shared.line);
    nap(line.round_trip);
    let server = TcpStream::connect(shared.to)?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
    }
    {
        let mut open = locked(&shared.open);
        // Under the lock: a line that broke off while this was being connected has closed only those that it knew.
        if shared.down.load(Ordering::Relaxed) || shared.gone.load(Ordering::Relaxed) {
            return Ok(());
        }
        open.push(client.try_clone()?);
        open.push(server.try_clone()?);
    }
    for (way, from, to) in [(0, client.try_clone()?, server.try_clone()?), (1, server, client)] {
        let (chunks, on_the_way) = sync_channel(CHUNKS_ON_THE_WAY);
        let departing = shared.clone();
        spawn(move || depart(from, &chunks, way, &departing))?;
        spawn(move || arrive(to, &on_the_way))?;
    }
    Ok(())
}

type Chunk = (Instant, Vec<u8>);

fn depart(mut from: TcpStream, chunks: &SyncSender<Chunk>, way: usize, shared: &Shared) -> std::io::Result<()> {
    let mut window = Window::default();
    let mut last_due = Instant::now();
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        // An error is an end like any other: it travels as an empty chunk.
        let read = from.read(&mut buffer).unwrap_or(0);
        let line = *locked(&shared.line);
        let mut rest = &buffer[..read];
        loop {
            let taken = if line.slow_start { window.wait_for_room(rest.len(), line.round_trip) } else { rest.len() };
            let (piece, after) = rest.split_at(taken);
            rest = after;
            let mut due = shared.send(way, piece.len(), &line) + line.one_way();
            if lost(piece.len(), line.loss) {
                due += line.round_trip;
            }
            // In order: what comes behind a late one is late as well.
            last_due = last_due.max(due);
            if chunks.send((last_due, piece.to_vec())).is_err() {
                return Ok(());
            }
            if rest.is_empty() {
                break;
            }
        }
        if read == 0 {
            return Ok(());
        }
    }
}

fn arrive(mut to: TcpStream, chunks: &Receiver<Chunk>) -> std::io::Result<()> {
    while let Ok((due, chunk)) = chunks.recv() {
        nap::until(due);
        if chunk.is_empty() {
            return to.shutdown(Shutdown::Write);
        }
        to.write_all(&chunk)?;
    }
    Ok(())
}

fn lost(bytes: usize, share: f64) -> bool {
    share > 0.0 && (0..bytes.div_ceil(SEGMENT_BYTES)).any(|_| fastrand::f64() < share)
}

impl Shared {
    /// When the last of these bytes has left.
    fn send(&self, way: usize, bytes: usize, line: &Line) -> Instant {
        self.bytes[way].fetch_add(bytes as u64, Ordering::Relaxed);
        let now = Instant::now();
        if line.bits_per_second == 0 {
            return now;
        }
        let mut busy = locked(&self.busy[way]);
        let takes = Duration::from_secs_f64(bytes as f64 * 8.0 / line.bits_per_second as f64);
        *busy = busy.max(now) + takes;
        *busy
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One connection through a link to one that listens.
    fn pair(line: Line) -> (Link, TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let link = Link::start(listener.local_addr().unwrap()).unwrap();
        link.set(line);
        let client = TcpStream::connect(link.addr()).unwrap();
        let (server, _) = listener.accept().unwrap();
        (link, client, server)
    }

    #[test]
    fn all_bytes_arrive_in_order_and_never_early() {
        let line =
            Line { loss: 0.05, slow_start: true, bits_per_second: 100_000_000, ..Line::of(Duration::from_millis(40)) };
        let (link, mut client, mut server) = pair(line);
        let sent: Vec<u8> = (0..400_000_u32).map(|n| (n % 251) as u8).collect();
        let begin = Instant::now();
        let writing = {
            let sent = sent.clone();
            thread::spawn(move || {
                client.write_all(&sent).unwrap();
                client.shutdown(Shutdown::Write).unwrap();
            })
        };
        let mut got = Vec::new();
        server.read_to_end(&mut got).unwrap();
        writing.join().unwrap();
        assert!(got == sent, "{} of {} bytes, or others", got.len(), sent.len());
        assert_eq!(link.bytes(), [400_000, 0]);
        // 400,000 bytes are five windows of 10, 20, 40 .. segments: four round trips and half of one.
        assert!(begin.elapsed() >= Duration::from_millis(4 * 40 + 20), "{:?}", begin.elapsed());
    }

    #[test]
    fn a_broken_line_ends_connections() {
        let (link, mut client, _server) = pair(Line::of(Duration::ZERO));
        link.break_off();
        // Its end, or a reset: both are an end.
        assert_eq!(client.read(&mut [0; 8]).unwrap_or(0), 0);
    }
}
