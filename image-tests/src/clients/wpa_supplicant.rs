//! wpa_supplicant, as its unit starts it: it reads what firstboot has written, where that is on a device.

use std::io::{BufReader, PipeReader};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::{Background, bounded, succeed};

/// How an authentication ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Accepted,
    Refused,
}

#[derive(Debug)]
pub struct Supplicant {
    program: Background,
    output: BufReader<PipeReader>,
    interface: String,
    said: String,
}

impl Supplicant {
    /// Starts it.
    pub fn start(command: &mut Command, interface: &str) -> Result<Self> {
        let (output, writer) = std::io::pipe()?;
        let program = Background::start(command.stdout(writer.try_clone()?).stderr(writer))
            .context("is wpasupplicant installed? Run image-tests/host-packages")?;
        Ok(Self {
            program,
            output: BufReader::new(output),
            interface: interface.to_owned(),
            said: String::new(),
        })
    }

    /// Waits for the end of an authentication.
    pub fn verdict(&mut self) -> Result<Verdict> {
        let said = &mut self.said;
        let read = |line: &str| {
            said.push_str(line);
            let ended = line.split_once("CTRL-EVENT-EAP-")?.1;
            match ended.split(' ').next()?.trim_end() {
                "SUCCESS" => Some(Verdict::Accepted),
                "FAILURE" => Some(Verdict::Refused),
                _ => None,
            }
        };
        let verdict = (self.program).read_until("a verdict", &mut self.output, read);
        verdict.with_context(|| format!("wpa_supplicant said:\n{}", self.said))
    }

    /// Everything that it has said so far.
    pub fn said(&self) -> &str {
        &self.said
    }

    pub fn id(&self) -> u32 {
        self.program.id()
    }

    /// Tells it something with wpa_cli, which has to be confirmed.
    pub fn tell(&self, command: &str) -> Result<()> {
        let mut cli = bounded("wpa_cli");
        cli.args(["-p", "/run/wpa_supplicant", "-i", &self.interface, command]);
        let answer = succeed(&mut cli)?;
        anyhow::ensure!(answer.trim() == "OK", "wpa_cli {command}: {answer}");
        Ok(())
    }
}
