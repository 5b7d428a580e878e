//! Ports that stay the same while what listens on them is killed and started again.
//!
//! Port 0 would hand out a port of the range that the kernel also uses for outgoing connections: while a killed
//! service is away, one of the many connections of a test could take its port. So these come from below that range.
//!
//! Nobody listens on a port between its choice and its use, nor while its service is away. So that no other process
//! that tests at the same time chooses it too, the UDP port of the same number, which nothing here needs, is held for
//! as long as this process lives.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

/// Linux gives outgoing connections 32768 and up.
const FIRST: u32 = 20_000;
const COUNT: u32 = 12_000;

static NEXT: AtomicU32 = AtomicU32::new(0);
static HELD: Mutex<Vec<UdpSocket>> = Mutex::new(Vec::new());

/// A loopback address nobody listens on now and that is given out to nobody else, here or in another process.
///
/// # Panics
/// When all of them are taken.
#[must_use]
pub fn free() -> SocketAddr {
    // Processes that test at the same time start at different places.
    let start = std::process::id().wrapping_mul(97);
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + start.wrapping_add(step) % COUNT;
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, u16::try_from(port).expect("below 32768")));
        if hold(addr) && TcpListener::bind(addr).is_ok() {
            return addr;
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT)
}

/// This loopback port if nobody listens there, else a free one.
#[must_use]
pub fn preferred(port: u16) -> SocketAddr {
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    if TcpListener::bind(addr).is_ok() { addr } else { free() }
}

fn hold(addr: SocketAddr) -> bool {
    let Ok(socket) = UdpSocket::bind(addr) else { return false };
    HELD.lock().unwrap_or_else(PoisonError::into_inner).push(socket);
    true
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_port_is_given_out_twice() {
        assert_ne!(super::free(), super::free());
    }
}
