//! The instance: takes one lane's requests one at a time, needs a set time for each, and keeps all it got.
//!
//! A thread for each connection with blocking reads, so that an answer leaves some 60 µs after the service time
//! is over (an asynchronous timer of the usual kind is a millisecond late). Nothing is verified while the clock
//! runs: digest, signature, order and bytes are looked at afterwards, by the harness's checker.

use std::collections::HashMap;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::http::{self, Incoming};
use crate::nap::nap;

const ACCEPTED: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// A thread that reads, sleeps and writes needs no more.
const STACK_BYTES: usize = 128 * 1024;

/// One request as it came.
pub struct Record {
    /// Head and body.
    pub wire: Vec<u8>,
    /// Length of the head.
    pub head: usize,
    /// When its last byte had come.
    pub arrived: Instant,
    /// When it was done with.
    pub ended: Instant,
    /// Whether another one of its lane was in progress.
    pub overlaps: bool,
}

/// A listening instance.
pub struct Instance {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    service_micros: AtomicU64,
    taken: AtomicUsize,
    lanes: Mutex<HashMap<Vec<u8>, Arc<Lane>>>,
    gone: AtomicBool,
}

#[derive(Default)]
struct Lane {
    in_progress: AtomicUsize,
    /// Held while a request is worked on: the next one of the lane waits.
    records: Mutex<Vec<Record>>,
}

impl Instance {
    /// On a free port.
    ///
    /// # Errors
    /// No port.
    pub fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let accepting = shared.clone();
        thread::Builder::new().name("instance".to_owned()).spawn(move || accept(&listener, &accepting))?;
        Ok(Self { addr, shared })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How long it works on each request.
    pub fn set_service_time(&self, time: Duration) {
        self.shared.service_micros.store(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How many requests it has taken, since the last [`Instance::take`].
    #[must_use]
    pub fn taken(&self) -> usize {
        self.shared.taken.load(Ordering::Relaxed)
    }

    /// Gives out all records, lane by lane in the order of their ends, and forgets them. Call it when nothing is under way.
    #[must_use]
    pub fn take(&self) -> Vec<Record> {
        self.shared.taken.store(0, Ordering::Relaxed);
        let lanes: Vec<Arc<Lane>> = locked(&self.shared.lanes).values().cloned().collect();
        lanes.iter().flat_map(|lane| std::mem::take(&mut *locked(&lane.records))).collect()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.shared.gone.store(true, Ordering::Relaxed);
        // Wakes the listener, which then sees that it is over. Connections end with their other sides.
        let _woken = TcpStream::connect(self.addr);
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept() {
        if shared.gone.load(Ordering::Relaxed) {
            return;
        }
        let shared = shared.clone();
        // A connection's error is its end. No thread to be had: the connection closes, and the other side says so.
        let _served = thread::Builder::new().stack_size(STACK_BYTES).spawn(move || serve(stream, &shared));
    }
}

fn serve(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut incoming = Incoming::new(stream.try_clone()?);
    let mut known: Option<(Vec<u8>, Arc<Lane>)> = None;
    while let Some(request) = incoming.next()? {
        let arrived = Instant::now();
        let name = lane_name(&request.bytes[..request.head]);
        let lane = match &known {
            Some((last, lane)) if last == name => lane.clone(),
            _ => shared.lane(name),
        };
        known = Some((name.to_vec(), lane.clone()));
        let overlaps = lane.in_progress.fetch_add(1, Ordering::AcqRel) > 0;
        let mut records = locked(&lane.records);
        let service = Duration::from_micros(shared.service_micros.load(Ordering::Relaxed));
        nap(service);
        records.push(Record { wire: request.bytes, head: request.head, arrived, ended: Instant::now(), overlaps });
        drop(records);
        lane.in_progress.fetch_sub(1, Ordering::AcqRel);
        shared.taken.fetch_add(1, Ordering::Relaxed);
        stream.write_all(ACCEPTED)?;
    }
    Ok(())
}

impl Shared {
    fn lane(&self, name: &[u8]) -> Arc<Lane> {
        locked(&self.lanes).entry(name.to_vec()).or_default().clone()
    }
}

/// The signing key's id: one destination, so a lane is its source.
fn lane_name(head: &[u8]) -> &[u8] {
    let signature = http::field(head, b"signature").unwrap_or_default();
    let end = signature.iter().position(|byte| *byte == b',').unwrap_or(signature.len());
    &signature[..end]
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
