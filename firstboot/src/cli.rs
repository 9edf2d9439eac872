//! The command line: its arguments, and what each command does.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind as UsageErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use firstboot_formats::files;
use log::info;

use crate::error::{ErrorKind, Result, ResultExt};
use crate::exit::Exit;
use crate::layout::{Layout, RUN, TPM};
use crate::provision::{self, Context, Goal, State, Survey};
use crate::report;
use crate::tpm::Tpm;

/// Turn an unprovisioned TPM into an AWS IoT Greengrass identity on a device's first boot
#[derive(Debug, Parser)]
#[command(
    version,
    propagate_version = true,
    after_help = "\
Exit status: 0 done; 64 usage; 69 no TPM; 70 any other failure; 73 cannot write;
75 waiting (certificate, network, clock, lockout); 78 settings or claim pair missing or invalid.

Examples:
  firstboot provision && firstboot enroll       what the two systemd services run
  firstboot status                              show the state and the next step
  firstboot --root /mnt/card status --json      the same for a card in a reader"
)]
pub struct Arguments {
    /// The root of the device's file tree: a prefix for every path
    #[arg(long, global = true, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
    /// The TPM's TCTI; without --root, the default is device:/dev/tpmrm0
    #[arg(long, global = true, value_name = "TCTI", env = "TPM2_PKCS11_TCTI")]
    pub tcti: Option<String>,
    /// Log more
    #[arg(long, short, global = true)]
    pub verbose: bool,
    /// The command
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum Command {
    /// Create the token, the key and the certificate request, where missing. Needs no network
    #[command(after_help = "\
Publishes the request as firstboot/requests/<thing>.csr.pem on the boot partition.

Example:
  firstboot provision")]
    Provision,
    /// Provision, then obtain the certificate and configure Greengrass
    #[command(after_help = "\
Exits with status 75 while there is no certificate. Greengrass must not be running: on a device in service,
`systemctl restart firstboot-enroll` stops it, does the same, and starts it again.

Example:
  cp gateway-1.pem /boot/firstboot/certificates/ && firstboot enroll")]
    Enroll,
    /// Accept a new certificate while Greengrass runs, or ask for one that is due
    #[command(after_help = "\
With \"renew\" in the settings, asks for a new certificate when one is due, perhaps for a new key that it creates,
and connects to AWS IoT Core to try the certificate. Also configures networks, makes their own key and its request,
and puts away a claim that is no longer needed. Leaves the token and the configuration in service alone. nucleus lite
uses the certificate from its next connection on. The other editions read it from the token, and a new key is not in
service yet: `systemctl restart firstboot-enroll` does the rest, stopping Greengrass and starting it again.
firstboot-renew.service does all of this, daily and when a certificate is saved on the boot partition.

Example:
  firstboot renew && firstboot renew --due && systemctl restart firstboot-enroll")]
    Renew {
        /// Change nothing. Exit with 0 if Greengrass has to stop for an accepted certificate, with 75 if not
        #[arg(long)]
        due: bool,
    },
    /// Show the state and the next step. Changes nothing
    #[command(after_help = status_help())]
    Status {
        /// Print JSON with stable names
        #[arg(long)]
        json: bool,
    },
    /// Describe the TPM: manufacturer, firmware, limits, lockout, persistent objects
    #[command(after_help = "\
Examples:
  firstboot tpm
  firstboot --tcti swtpm:host=127.0.0.1,port=2321 tpm --json")]
    Tpm {
        /// Print JSON with stable names
        #[arg(long)]
        json: bool,
    },
    /// Discard the identity and remove the configuration written for it
    #[command(after_help = "\
Destroys the identity's PIN, so that its key can no longer be used. The rest of the identity is set aside as
/var/lib/tpm2_pkcs11.orphan-N, readable only by root; the latest two are kept. Also destroyed, with or without
--keep, are the next and the previous identity, the networks' own key, and the claim pair that was kept for renewals.
The TPM keeps its storage root key. What Greengrass derived from the configuration, such as its record of
deployments, is removed, too. The next `firstboot provision` creates a new key.

Example:
  systemctl stop greengrass-lite.target && firstboot reset && systemctl restart firstboot")]
    Reset {
        /// Keep the PIN, so that root can still use the old key
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
Also shows what keeps the calling user from using the token, which files were refused or set aside, and how many
failed tries the TPM has counted. status.json on the boot partition uses the same names.

States, and what to do:
{states}
With --root and without --tcti, status reads a card in a reader and looks for no TPM.

Examples:
  firstboot status
  sudo -u ggcore firstboot status
  firstboot status --json | jq -r .state
  firstboot --root /mnt/card status"
    )
}

impl Arguments {
    /// The TPM's TCTI. A root other than this machine's is a card in a reader, and this machine's TPM does not belong
    /// to it: a TPM is then used only if it is named.
    fn tcti(&self) -> Option<&str> {
        match &self.tcti {
            Some(tcti) => Some(tcti),
            None => is_this_machine(&self.root).then_some(TPM),
        }
    }

    /// Why the command cannot run unless a TPM is named.
    fn objection(&self) -> Option<String> {
        if self.tcti().is_some() || matches!(self.command, Command::Status { .. }) {
            return None;
        }
        Some(format!(
            "{} is not this machine's root, so this machine's TPM does not belong to it: only `firstboot status` \
             works on a card in a reader. If a TPM does belong to it, name that with --tcti or TPM2_PKCS11_TCTI",
            self.root.display()
        ))
    }
}

fn is_this_machine(root: &Path) -> bool {
    root.canonicalize().is_ok_and(|root| root == Path::new("/"))
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<Exit> {
    let tcti = arguments.tcti();
    let root = std::path::absolute(&arguments.root).context(ErrorKind::Settings, || {
        format!("cannot resolve --root {}", arguments.root.display())
    })?;
    let layout = match tcti {
        Some(_) => Layout::new(root),
        None => Layout::of_card(root),
    };
    match arguments.command {
        Command::Provision => advance(layout, tcti, Goal::Request)?,
        Command::Enroll => advance(layout, tcti, Goal::Greengrass)?,
        Command::Renew { due: false } => advance(layout, tcti, Goal::Renewal)?,
        Command::Renew { due: true } => {
            if !is_renewal_due(layout)? {
                return Ok(Exit::Waiting);
            }
        }
        Command::Status { json } => report::print(&report::status(layout, tcti), json)?,
        Command::Tpm { json } => {
            let mut tpm = Tpm::connect(tcti.unwrap_or(TPM), &layout)?;
            report::print(&report::tpm(&mut tpm)?, json)?;
        }
        Command::Reset { keep } => reset(layout, tcti, keep)?,
    }
    Ok(Exit::Done)
}

fn advance(layout: Layout, tcti: Option<&str>, goal: Goal) -> Result<()> {
    // Lock first: anything read while another firstboot was running may be out of date.
    let _lock = lock(&layout)?;
    let mut context = Context::open(layout, tcti);
    let outcome = provision::run(&mut context, goal);
    // What a renewal leaves undone is about to be done, or does not matter to it.
    if goal != Goal::Renewal || outcome.is_end() {
        report::publish(
            &context,
            outcome.survey.as_ref(),
            outcome.state,
            &outcome.message,
        );
    }
    outcome.conclude()
}

/// Whether Greengrass has to stop for a certificate that was accepted: the token does not hold it yet, or it is for a new
/// key. Sends no TPM command.
fn is_renewal_due(layout: Layout) -> Result<bool> {
    let _lock = lock(&layout)?;
    let mut context = Context::open(layout, None);
    // `firstboot renew` has just done its part.
    context.memory.leaves_trials = true;
    let survey = Survey::take(&mut context, None)?;
    let step = provision::next(context.wanted(), &survey, &context.memory);
    Ok(step.needs_restart())
}

fn reset(layout: Layout, tcti: Option<&str>, keep_pin: bool) -> Result<()> {
    let _lock = lock(&layout)?;
    let context = Context::open(layout, tcti);
    provision::reset(&context.places, keep_pin)?;
    let message = "reset: `firstboot provision` creates a new identity";
    report::publish(&context, None, State::Blank, message);
    Ok(())
}

/// One firstboot at a time: a second one waits here until the first has finished.
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
        .context(ErrorKind::CannotWrite, locking)?;
    if file.try_lock().is_err() {
        info!("another firstboot is running; waiting for it to finish");
        file.lock().context(ErrorKind::Other, locking)?;
    }
    Ok(file)
}

/// Parses a command line, whose first word is the program's name.
pub fn read<T: Into<OsString> + Clone>(
    words: impl IntoIterator<Item = T>,
) -> std::result::Result<Arguments, clap::Error> {
    let arguments = Arguments::try_parse_from(words)?;
    match arguments.objection() {
        None => Ok(arguments),
        Some(why) => Err(Arguments::command().error(UsageErrorKind::MissingRequiredArgument, why)),
    }
}

/// Parses the arguments. If there is nothing to run, prints clap's own text: help, or what is wrong with them.
pub fn parse() -> std::result::Result<Arguments, Exit> {
    read(std::env::args_os()).map_err(|e| {
        // Nothing can be done if standard error is closed.
        let _ = e.print();
        if e.use_stderr() {
            Exit::Usage
        } else {
            Exit::Done
        }
    })
}
