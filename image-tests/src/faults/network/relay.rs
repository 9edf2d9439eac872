//! A TCP relay before the double, which passes TLS records on and counts them: after the handshake each of
//! them is an MQTT packet. It cuts the connection, or the device's power, before or after any of them.

use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::connection;
use super::hello::Hello;
use crate::doubles::tpm_proxy::When;

/// The way of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    ToCloud,
    ToDevice,
}

impl Direction {
    pub const BOTH: [Self; 2] = [Self::ToCloud, Self::ToDevice];
}

/// Where it is cut: before or after the n-th record of a direction, the first being 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    pub direction: Direction,
    pub n: usize,
    pub when: When,
}

/// What ends at the cut: with a closure the device's power, which stays off until [`Relay::power_on`]; without
/// one the connection only.
type Kill = Option<Box<dyn FnOnce() + Send>>;

/// The relay; it and its connections end when it is dropped.
pub struct Relay {
    port: u16,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

pub(super) struct Shared {
    pub upstream: u16,
    ended: AtomicBool,
    state: Mutex<State>,
    pub changed: Condvar,
}

pub(super) struct State {
    pub powered: bool,
    /// Records since the start or the last [`Relay::reset`], by direction.
    pub counts: [usize; 2],
    cut: Option<(Cut, Kill)>,
    was_cut: bool,
    /// The device's ends of connections.
    pub streams: Vec<TcpStream>,
    pub open: usize,
    pub hellos: Vec<Hello>,
}

impl Relay {
    /// Starts it before a port of the loopback.
    pub fn start(upstream: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            upstream,
            ended: AtomicBool::new(false),
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
        });
        let serving = Arc::clone(&shared);
        let acceptor = std::thread::spawn(move || {
            std::thread::scope(|scope| {
                for stream in listener.incoming().flatten() {
                    if serving.ended.load(Ordering::SeqCst) {
                        break;
                    }
                    let serving = &serving;
                    // A connection that breaks is the ends' to notice.
                    scope.spawn(move || drop(connection::serve(serving, stream)));
                }
            });
        });
        Ok(Self {
            port,
            shared,
            acceptor: Some(acceptor),
        })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends the connection there.
    pub fn cut_connection(&self, cut: Cut) {
        self.shared.state().cut = Some((cut, None));
    }

    /// Ends the device there: `kill` is to end its program and its TPM. It runs on a thread of the relay, and
    /// must neither start what dies with its thread nor call the relay.
    pub fn cut_power(&self, cut: Cut, kill: impl FnOnce() + Send + 'static) {
        self.shared.state().cut = Some((cut, Some(Box::new(kill))));
    }

    /// Whether it came to the cut since it was ordered.
    pub fn was_cut(&self) -> bool {
        self.shared.state().was_cut
    }

    /// Takes back the cut, lets connections through again, and counts from the beginning.
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

    /// How the clients introduced themselves.
    pub fn hellos(&self) -> Vec<Hello> {
        self.shared.state().hellos.clone()
    }

    /// Returns when no connection is left: the broker has then dealt with all that it was sent.
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
        self.shared.ended.store(true, Ordering::SeqCst);
        self.shared.state().drop_connections();
        // Wakes the acceptor, which then sees the end.
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

    /// Cuts if it is to be cut here. Whether it was.
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
