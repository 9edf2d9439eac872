//! Pairs of neighbouring loopback TCP ports for this process alone: swtpm's TCTI expects the control channel on the
//! next port.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Result, bail};
use socket2::{Domain, Socket, Type};

/// A port at which nobody listens: tcpmux's, which nothing here serves.
pub const NOBODY: u16 = 1;

/// Two ports, held by sockets that are bound and never listen: nobody else gets them, a server that sets SO_REUSEADDR
/// (as swtpm does) can listen there, and while none does, connections are refused.
#[derive(Debug)]
pub struct PortPair {
    first: u16,
    _held: [Socket; 2],
}

impl PortPair {
    pub fn reserve() -> Result<Self> {
        // Below the range from which Linux takes ports for outgoing connections.
        const RANGE: std::ops::Range<u16> = 12_000..32_000;
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let pairs = (RANGE.end - RANGE.start) / 2;
        // Test programs that run in parallel start in different places.
        let origin = u16::try_from(std::process::id() % u32::from(pairs))?.wrapping_mul(37) % pairs;
        for _ in 0..pairs {
            let offset = (origin + NEXT.fetch_add(1, Ordering::Relaxed) % pairs) % pairs;
            let first = RANGE.start + 2 * offset;
            if let (Ok(lower), Ok(upper)) = (hold(first), hold(first + 1)) {
                return Ok(Self {
                    first,
                    _held: [lower, upper],
                });
            }
        }
        bail!("there are no two neighbouring free ports on the loopback")
    }

    pub fn first(&self) -> u16 {
        self.first
    }
}

fn hold(port: u16) -> std::io::Result<Socket> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    // Without SO_REUSEADDR, bind fails if anybody holds the port, including other test programs: they set it only
    // afterwards.
    socket.bind(&address)?;
    socket.set_reuse_address(true)?;
    Ok(socket)
}
