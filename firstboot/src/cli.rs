//! The command line: what can be asked for, and how each command is carried out.

use std::fs::File;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use log::info;

use crate::device::Device;
use crate::error::{Doing, Error, Exit, Result};
use crate::identity::Contents;
use crate::layout::{Layout, RUN};
use crate::provision::{self, Goal, State};
use crate::settings::Edition;
use crate::tpm::Tpm;
use crate::{files, greengrass, report};

/// Turns an unprovisioned TPM into an AWS IoT Greengrass identity, on a device's first boot.
#[derive(Debug, Parser)]
#[command(
    version,
    propagate_version = true,
    after_help = "\
Exit status: 0 done; 64 usage; 69 no TPM; 70 any other failure; 73 cannot write;
75 waiting (certificate, network, lockout); 78 settings missing or invalid.

Examples:
  firstboot provision && firstboot enroll       what the two systemd units do at each boot
  firstboot status                              what is there, and what is next
  firstboot --root /mnt/card status --json      the same of a card in a reader"
)]
pub struct Arguments {
    /// The device's file tree: a prefix for every path
    #[arg(long, global = true, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
    /// How the TPM is reached; without --root, device:/dev/tpmrm0 where nothing else is said
    #[arg(long, global = true, value_name = "TCTI", env = "TPM2_PKCS11_TCTI")]
    pub tcti: Option<String>,
    /// Say more
    #[arg(long, short, global = true)]
    pub verbose: bool,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum Command {
    /// Make token, key and certificate request, as far as they are missing. Needs no network
    #[command(after_help = "\
Puts the request to firstboot/requests/<thing>.csr.pem on the boot partition.

Example:
  firstboot provision")]
    Provision,
    /// Provision, then get the certificate and write Greengrass's configuration
    #[command(after_help = "\
Exits with 75 as long as there is no certificate.

Example:
  cp gateway-1.pem /boot/firstboot/certificates/ && firstboot enroll")]
    Enroll,
    /// Say what is there and what is next. Changes nothing
    #[command(after_help = status_help())]
    Status {
        /// JSON, with stable names
        #[arg(long)]
        json: bool,
    },
    /// Describe the TPM: vendor, firmware, limits, lockout, persistent objects
    #[command(after_help = "\
Examples:
  firstboot tpm
  firstboot --tcti swtpm:host=127.0.0.1,port=2321 tpm --json")]
    Tpm {
        /// JSON, with stable names
        #[arg(long)]
        json: bool,
    },
    /// Back to unprovisioned: give the identity up, remove the configuration that it wrote
    #[command(after_help = "\
Destroys the identity's PIN, and with it every use of its key. What is left of the identity is kept
for root as /var/lib/tpm2_pkcs11.orphan-N, the latest two of them. The TPM keeps its storage root key.
The next `firstboot provision` makes another key. What Greengrass has made of the
configuration, such as its record of deployments, is removed with it.

Example:
  systemctl stop greengrass-lite.target && firstboot reset && systemctl restart firstboot")]
    Reset {
        /// Keep the PIN: root can go on using the key that is set aside
        #[arg(long)]
        keep: bool,
    },
}

fn status_help() -> String {
    let states: String = State::ALL
        .iter()
        .map(|state| format!("  {state}\n      {}\n", state.meaning()))
        .collect();
    format!(
        "\
Also says what keeps the calling user from using the token, which files were refused or set aside, and how many
failed tries the TPM counts. status.json on the boot partition has the same names.

States, and what to do:
{states}
With --root and without --tcti, a card in a reader is looked at, and no TPM.

Examples:
  firstboot status
  sudo -u ggcore firstboot status
  firstboot status --json | jq -r .state
  firstboot --root /mnt/card status"
    )
}

/// The device's own TPM, behind the kernel's resource manager.
const TPM: &str = "device:/dev/tpmrm0";

impl Arguments {
    /// How the TPM is reached. Another root than this machine's is a card in a reader, to which this machine's TPM
    /// does not belong: then only who names a TPM means one.
    fn tcti(&self) -> Option<&str> {
        match &self.tcti {
            Some(tcti) => Some(tcti),
            None => is_this_machine(&self.root).then_some(TPM),
        }
    }

    /// Why a command cannot be carried out without a TPM that has been named.
    fn objection(&self) -> Option<String> {
        if self.tcti().is_some() || matches!(self.command, Command::Status { .. }) {
            return None;
        }
        Some(format!(
            "{} is not this machine's root, and this machine's TPM is not that device's: only `firstboot status` \
             works on a card in a reader. Where a TPM does belong to it, say which by --tcti or TPM2_PKCS11_TCTI",
            self.root.display()
        ))
    }
}

fn is_this_machine(root: &Path) -> bool {
    root.canonicalize().is_ok_and(|root| root == Path::new("/"))
}

/// Carries the command out.
pub fn run(arguments: &Arguments) -> Result<()> {
    let tcti = arguments.tcti();
    let root = std::path::absolute(&arguments.root).doing(Exit::Settings, || {
        format!("--root {}", arguments.root.display())
    })?;
    let layout = match tcti {
        Some(_) => Layout::new(root),
        None => Layout::of_card(root),
    };
    match arguments.command {
        Command::Provision => advance(layout, tcti, Goal::Request),
        Command::Enroll => advance(layout, tcti, Goal::Greengrass),
        Command::Status { json } => report::print(&report::status(layout, tcti), json),
        Command::Tpm { json } => {
            let mut tpm = Tpm::connect(tcti.unwrap_or(TPM), &layout)?;
            report::print(&report::tpm(&mut tpm)?, json)
        }
        Command::Reset { keep } => reset(layout, tcti, keep),
    }
}

fn advance(layout: Layout, tcti: Option<&str>, goal: Goal) -> Result<()> {
    // First the lock: what was read while another firstboot was at work may not be true any more.
    let _lock = lock(&layout)?;
    provision::run(&mut Device::open(layout, tcti), goal)
}

fn reset(layout: Layout, tcti: Option<&str>, keep_pin: bool) -> Result<()> {
    let _lock = lock(&layout)?;
    let device = Device::open(layout, tcti);
    // The identity comes first: with it the reset has happened, and what a power cut leaves of the
    // configuration is removed by the next start.
    device.identity.remove_staging()?;
    if !device.identity.exists()? {
        info!("there is no identity");
    } else {
        match device.identity.contents()? {
            Contents::Nothing => info!("there is no identity"),
            Contents::Others(what) => info!("there is no identity: {what}"),
            Contents::Both(what) => {
                return Err(Error::other(format!(
                    "{what}: nothing was changed. Remove or move what is not firstboot's \
                     (`tpm2_ptool rmtoken`), then reset"
                )));
            }
            Contents::Ours => {
                device.withdraw_request();
                let aside = device.identity.give_up(keep_pin)?;
                info!("the identity is kept as {}", aside.display());
                info!(
                    "its PIN is {}",
                    if keep_pin { "in there" } else { "destroyed" }
                );
            }
        }
    }
    for edition in Edition::ALL {
        if greengrass::is_ours(&device.layout, edition) {
            greengrass::remove(&device.layout, edition)?;
            info!("removed the configuration for {edition}");
        }
    }
    provision::publish(
        &device,
        None,
        State::Blank,
        "reset: `firstboot provision` makes a new identity",
    );
    Ok(())
}

/// One firstboot at a time: another one waits here until the first is done.
fn lock(layout: &Layout) -> Result<File> {
    let directory = layout.at(RUN);
    files::make_directory(&directory, 0o700)?;
    let path = directory.join("lock");
    let locking = || format!("cannot lock {}", path.display());
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .doing(Exit::CannotWrite, locking)?;
    if file.try_lock().is_err() {
        info!("another firstboot is at work; waiting for it");
        file.lock().doing(Exit::Other, locking)?;
    }
    Ok(file)
}

/// What to do when the arguments are wrong: clap's own text, and the documented exit status.
pub fn parse() -> std::result::Result<Arguments, u8> {
    /// EX_USAGE of sysexits(3).
    const USAGE: u8 = 64;
    let checked = Arguments::try_parse().and_then(|arguments| match arguments.objection() {
        None => Ok(arguments),
        Some(why) => Err(Arguments::command().error(ErrorKind::MissingRequiredArgument, why)),
    });
    checked.map_err(|e| {
        // Nothing can be done where standard error is closed.
        let _ = e.print();
        if e.use_stderr() { USAGE } else { 0 }
    })
}

impl From<Error> for std::process::ExitCode {
    fn from(error: Error) -> Self {
        Self::from(error.exit as u8)
    }
}
