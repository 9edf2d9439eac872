//! Renewal over the network, by fleet provisioning and EST, with the device's key in a swtpm: `end_to_end`,
//! `editions` (also offline) and `cuts` by the program; `fleet` and `est` by firstboot's functions, in this process.

mod away;
mod cuts;
mod due;
mod editions;
mod end_to_end;
mod est;
mod fleet;

use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use firstboot::boot_partition::BootPartition;
use firstboot::identity::Identity;
use firstboot::layout::Layout;
use firstboot::settings::Settings;
use firstboot_formats::x509::Chain;
use image_tests::device::{Device, SERIAL};

/// tpm2-pkcs11 takes its settings from the process's environment: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A device that has a certificate, as firstboot sees it.
struct Renewing {
    settings: Settings,
    boot: BootPartition,
    identity: Identity,
    /// Its request, PEM.
    request: String,
    accepted: Chain,
}

impl Renewing {
    fn of(device: &Device) -> Result<Self> {
        let layout = Layout::new(device.root());
        let settings = Settings::read(&layout)?;
        let module = settings.platform.pkcs11_module.clone();
        let group = Some(device.group("ggcore"));
        let identity = Identity::new(&layout, module, &device.tpm.tcti(), group);
        let [request, _] = identity.request_files()?;
        Ok(Self {
            boot: BootPartition::new(&layout),
            request: String::from_utf8(request)?,
            accepted: identity.certificate()?.context("no certificate")?,
            settings,
            identity,
        })
    }
}

/// The device's thing by its settings.
fn thing() -> String {
    format!("gateway-{SERIAL}")
}
