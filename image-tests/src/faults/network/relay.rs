//! A TCP relay in front of a double. It passes TLS records on and counts them: after the handshake, each is an MQTT
//! packet. It cuts the connection, or the device's power, before or after any of them.

use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::connection;
use super::hello::Hello;
use crate::doubles::tpm_proxy::When;

/// A record's direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    ToCloud,
    ToDevice,
}

impl Direction {
    pub const BOTH: [Self; 2] = [Self::ToCloud, Self::ToDevice];
}

/// Where to cut: before or after the n-th record of a direction, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    pub direction: Direction,
    pub n: usize,
    pub when: When,
}

/// What the cut ends: with a closure, the device's power, which stays off until [`Relay::reset`]; without one, only the
/// connection.
type Kill = Option<Box<dyn FnOnce() + Send>>;

/// The relay. It closes its connections, and those of the relays beside it, when it is dropped.
pub struct Relay {
    port: u16,
    ended: Arc<AtomicBool>,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

/// What the relays of one network share.
pub(super) struct Shared {
    state: Mutex<State>,
    pub changed: Condvar,
}

pub(super) struct State {
    pub powered: bool,
    /// Records since the start or the last [`Relay::reset`], by direction.
    pub counts: [usize; 2],
    cut: Option<(Cut, Kill)>,
    was_cut: bool,
    /// The device's ends of the connections.
    pub streams: Vec<TcpStream>,
    pub open: usize,
    pub hellos: Vec<Hello>,
}

/// Any free port of the loopback.
const FREE: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

impl Relay {
    /// Starts it in front of a loopback port.
    pub fn start(upstream: u16) -> Result<Self> {
        Self::at(FREE, upstream)
    }

    /// The same at this address and port, where its own loopback can reach it, too.
    pub fn at(address: (Ipv4Addr, u16), upstream: u16) -> Result<Self> {
        let shared = Shared {
            state: Mutex::new(State {
                powered: true,
                counts: [0; 2],
                cut: None,
                was_cut: false,
                streams: Vec::new(),
                open: 0,
                hellos: Vec::new(),
            }),
            changed: Condvar::new(),
        };
        Self::serve(address, upstream, Arc::new(shared))
    }

    /// One in front of another port. Records through both are counted, and cut, together: one network, one power.
    pub fn beside(&self, upstream: u16) -> Result<Self> {
        Self::serve(FREE, upstream, Arc::clone(&self.shared))
    }

    fn serve(address: (Ipv4Addr, u16), upstream: u16, shared: Arc<Shared>) -> Result<Self> {
        let listener = TcpListener::bind(address)?;
        let port = listener.local_addr()?.port();
        let ended = Arc::new(AtomicBool::new(false));
        let (serving, ending) = (Arc::clone(&shared), Arc::clone(&ended));
        let acceptor = std::thread::spawn(move || {
            std::thread::scope(|scope| {
                for stream in listener.incoming().flatten() {
                    if ending.load(Ordering::SeqCst) {
                        break;
                    }
                    let serving = &serving;
                    // If a connection breaks, its ends notice.
                    scope.spawn(move || drop(connection::serve(serving, upstream, stream)));
                }
            });
        });
        Ok(Self {
            port,
            ended,
            shared,
            acceptor: Some(acceptor),
        })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Cuts the connection there.
    pub fn cut_connection(&self, cut: Cut) {
        self.shared.state().cut = Some((cut, None));
    }

    /// Cuts the device's power there: `kill` has to end its program and its TPM. It runs on a thread of the relay, so
    /// it must not start programs that die with their thread, nor call the relay.
    pub fn cut_power(&self, cut: Cut, kill: impl FnOnce() + Send + 'static) {
        self.shared.state().cut = Some((cut, Some(Box::new(kill))));
    }

    /// Whether the cut has happened.
    pub fn was_cut(&self) -> bool {
        self.shared.state().was_cut
    }

    /// Cancels the cut, lets connections through again, and restarts the counts.
    pub fn reset(&self) {
        let mut state = self.shared.state();
        state.cut = None;
        state.was_cut = false;
        state.powered = true;
        state.counts = [0; 2];
    }

    /// Records since the start or the last reset.
    pub fn count(&self, direction: Direction) -> usize {
        self.shared.state().counts[direction as usize]
    }

    /// The clients' first messages.
    pub fn hellos(&self) -> Vec<Hello> {
        self.shared.state().hellos.clone()
    }

    /// Blocks until no connection is left: by then, the broker has handled everything that it was sent.
    pub fn settle(&self) -> Result<()> {
        let state = self.shared.state();
        let (state, _) = self
            .shared
            .changed
            .wait_timeout_while(state, Duration::from_secs(60), |state| state.open > 0)
            .unwrap_or_else(PoisonError::into_inner);
        ensure!(state.open == 0, "{} connections have not ended", state.open);
        Ok(())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        self.shared.state().drop_connections();
        // Wakes the acceptor, so that it ends.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Shared {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn drop_connections(&mut self) {
        for stream in self.streams.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Cuts if this is the moment. Returns whether it was.
    pub fn cut_at(&mut self, direction: Direction, moment: When) -> bool {
        let n = self.counts[direction as usize];
        let due = |(cut, _): &mut (Cut, Kill)| {
            cut.direction == direction && cut.n == n && cut.when == moment
        };
        let Some((_, kill)) = self.cut.take_if(due) else {
            return false;
        };
        self.was_cut = true;
        if let Some(kill) = kill {
            self.powered = false;
            kill();
        }
        self.drop_connections();
        true
    }
}
