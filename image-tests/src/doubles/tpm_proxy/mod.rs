//! A TPM proxy: between a program and a software TPM, on two ports of the loopback.
//!
//! `TPM2TOOLS_TCTI=swtpm:host=127.0.0.1,port=P` and the like reach it; P+1 is the control channel,
//! passed on unread. It can
//!
//! - keep a [`CommandLog`] of all commands, with names, handles and response codes;
//! - *cut the power* before or after the n-th command ([`Proxy::cut`]): a closure of the test kills
//!   the program and the software TPM, and the command is never answered;
//! - account for or spend the time that the chip would take ([`Latency`]);
//! - behave as an Infineon SLB 9670 ([`slb9670`]: what is modelled and what is not);
//! - stand between several programs as the kernel's resource manager does ([`Proxy::door`]).
//!
//! One command runs at a time, whoever sends it, as on the chip's bus.

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

/// What the proxy does beside passing commands on.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// behave as this chip
    pub chip: Option<Slb9670>,
    /// take, or account for, the chip's time
    pub latency: Option<Latency>,
}

/// The proxy; it and its connections end when it is dropped.
pub struct Proxy {
    dispatcher: Arc<Dispatcher>,
    /// of the bare TPM
    listener: Listener,
}

/// /dev/tpmrm0 as one program has it open; closed when it is dropped.
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

/// /dev/tpmrm0 for any number of programs: each connection opens it, and closes it at its end. For TCTIs that keep
/// one connection; `swtpm` makes a new one for each command, and needs a [`OpenFile`].
pub struct DeviceNode {
    listener: Listener,
}

impl DeviceNode {
    /// netcat as the connection, for each process of the TSS that uses this.
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

    /// The bare TPM: all who use it share its three objects and three sessions.
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

    /// What came since the start or the last [`Proxy::take_commands`].
    pub fn commands(&self) -> CommandLog {
        self.dispatcher.log().clone()
    }

    pub fn take_commands(&self) -> CommandLog {
        std::mem::take(&mut *self.dispatcher.log())
    }

    /// Cuts the power before or after the `n`-th command from now on, the first being 1: calls
    /// `kill`, which is to end the program and the software TPM, and answers nothing any more until
    /// [`Proxy::power_on`]. `kill` runs on a thread of the proxy that ends soon, so that it must not
    /// start what dies with its thread (as `software_tpm` does), and it must not call the proxy.
    pub fn cut(&self, when: When, n: usize, kill: impl FnOnce() + Send + 'static) {
        self.dispatcher.bus().cut = Some(Cut::new(when, n, Box::new(kill)));
    }

    /// Whether the power has been cut; returns only when no command and no `kill` is under way.
    /// To be asked before the software TPM is started again.
    pub fn was_cut(&self) -> bool {
        !self.dispatcher.bus().powered
    }

    /// To be called when the software TPM has been started again, after an orderly shutdown or a
    /// cut: takes back the cut, and lets the chip do what it does at start.
    pub fn power_on(&self) -> Result<()> {
        let mut bus = self.dispatcher.bus();
        bus.cut = None;
        bus.powered = true;
        bus.manager.power_on();
        bus.power_on()
    }

    /// Other options from the next command on.
    pub fn set_options(&self, options: Options) -> Result<()> {
        let mut bus = self.dispatcher.bus();
        bus.options = options;
        bus.power_on()
    }
}
