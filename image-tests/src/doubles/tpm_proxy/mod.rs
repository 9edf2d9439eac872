//! A TPM proxy: between a program and a software TPM, on two loopback ports.
//!
//! TCTIs such as `swtpm:host=127.0.0.1,port=P` reach it; P+1 is the control channel, which it passes on unread. It can
//!
//! - log all commands, with names, handles and response codes ([`CommandLog`]);
//! - *cut the power* before or after the n-th command ([`Proxy::cut`]): the test's closure kills the program and the
//!   software TPM, and the command gets no response;
//! - add up, or spend, the time that the chip would take ([`Latency`]);
//! - behave as an Infineon SLB 9670 ([`slb9670`]: what is modelled and what is not);
//! - serve several programs as the kernel's resource manager does ([`Proxy::open`]).
//!
//! As on the chip's bus, one command runs at a time, whoever sends it.

pub mod codes;
mod command_log;
mod cut;
mod dispatcher;
mod latency;
mod listener;
mod resource_manager;
pub mod slb9670;
mod terminal;
mod upstream;
pub mod wire;

use std::sync::{Arc, Mutex};

use anyhow::Result;

pub use command_log::{CommandLog, Exchange};
use cut::Cut;
pub use cut::When;
use dispatcher::{Bus, Dispatcher};
pub use latency::Latency;
use listener::{Caller, Listener};
use resource_manager::{FileId, Manager};
pub use slb9670::{Firmware, Slb9670};
pub use terminal::Terminal;
pub use upstream::Upstream;

/// What the proxy does besides passing commands on.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Behave as this chip.
    pub chip: Option<Slb9670>,
    /// Add up, or spend, the chip's time.
    pub latency: Option<Latency>,
}

/// The proxy. It closes its connections when it is dropped.
pub struct Proxy {
    dispatcher: Arc<Dispatcher>,
    /// For the bare TPM.
    listener: Listener,
}

/// /dev/tpmrm0, opened by one program; closed when dropped.
pub struct OpenFile {
    dispatcher: Arc<Dispatcher>,
    file: FileId,
    listener: Listener,
}

impl OpenFile {
    pub fn tcti(&self) -> String {
        self.listener.tcti()
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        self.dispatcher.close(self.file);
    }
}

/// /dev/tpmrm0 for any number of programs: each connection opens it, and closes it when it ends. For TCTIs that keep
/// one connection; the one for swtpm makes a connection for each command, and needs an [`OpenFile`].
pub struct DeviceNode {
    listener: Listener,
}

impl DeviceNode {
    /// A TCTI by which each process connects through netcat.
    pub fn tcti(&self) -> String {
        format!("cmd:nc -N 127.0.0.1 {}", self.listener.port())
    }
}

impl Proxy {
    /// Starts the proxy in front of a running software TPM.
    pub fn start(upstream: Upstream, options: Options) -> Result<Self> {
        let dispatcher = Arc::new(Dispatcher {
            bus: Mutex::new(Bus {
                upstream,
                powered: true,
                options,
                cut: None,
                manager: Manager::default(),
            }),
            log: Mutex::default(),
        });
        dispatcher.bus().power_on()?;
        let listener = Listener::start(Arc::clone(&dispatcher), Caller::Bare)?;
        Ok(Self {
            dispatcher,
            listener,
        })
    }

    /// The data port; the control port is the next one.
    pub fn port(&self) -> u16 {
        self.listener.port()
    }

    /// The bare TPM, whose three objects and three sessions all programs share.
    pub fn tcti(&self) -> String {
        self.listener.tcti()
    }

    /// The TPM through a resource manager, for one program.
    pub fn open(&self) -> Result<OpenFile> {
        let dispatcher = Arc::clone(&self.dispatcher);
        let file = dispatcher.bus().manager.open();
        let listener = Listener::start(Arc::clone(&dispatcher), Caller::File(file))?;
        Ok(OpenFile {
            dispatcher,
            file,
            listener,
        })
    }

    /// The TPM through a resource manager, for programs that start others.
    pub fn device_node(&self) -> Result<DeviceNode> {
        let listener = Listener::start(Arc::clone(&self.dispatcher), Caller::Connection)?;
        Ok(DeviceNode { listener })
    }

    /// The commands since the start or the last [`Proxy::take_commands`].
    pub fn commands(&self) -> CommandLog {
        self.dispatcher.log().clone()
    }

    pub fn take_commands(&self) -> CommandLog {
        std::mem::take(&mut *self.dispatcher.log())
    }

    /// Cuts the power before or after the `n`-th command from now on, counted from 1: calls `kill`, which has to end
    /// the program and the software TPM, and answers nothing until [`Proxy::power_on`]. `kill` runs on a short-lived
    /// thread of the proxy, so it must not start programs that die with their thread (as `software_tpm` does), nor call
    /// the proxy.
    pub fn cut(&self, when: When, n: usize, kill: impl FnOnce() + Send + 'static) {
        self.dispatcher.bus().cut = Some(Cut::new(when, n, Box::new(kill)));
    }

    /// Whether the power was cut. Returns when no command and no `kill` is running. Ask before starting the software
    /// TPM again.
    pub fn was_cut(&self) -> bool {
        !self.dispatcher.bus().powered
    }

    /// Call this when the software TPM runs again, after a shutdown or a cut: cancels the cut, and makes the chip do
    /// what it does at start.
    pub fn power_on(&self) -> Result<()> {
        let mut bus = self.dispatcher.bus();
        bus.cut = None;
        bus.powered = true;
        bus.manager.power_on();
        bus.power_on()
    }

    /// Changes the options, from the next command on.
    pub fn set_options(&self, options: Options) -> Result<()> {
        let mut bus = self.dispatcher.bus();
        bus.options = options;
        bus.power_on()
    }
}
