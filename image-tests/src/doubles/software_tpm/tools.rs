//! What tpm2-tools report about a software TPM, and the states that they put it into.

use anyhow::{Context, Result, bail};

use super::SoftwareTpm;
use crate::process::{Finished, bounded, finish};

/// The storage root key's handle in tpm2-pkcs11, systemd and the TCG's provisioning guidance.
const STORAGE_ROOT_KEY: &str = "0x81000001";
const STORAGE_KEY: &str =
    "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|decrypt";

impl SoftwareTpm {
    /// Runs one of the tpm2-tools on this TPM. After those that leave a transient object, call `flush`.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let finished = self.attempt(arguments)?;
        if finished.code != 0 {
            bail!("{arguments:?} failed: {}", finished.stderr);
        }
        Ok(finished.stdout)
    }

    /// The same, but it may fail.
    pub fn attempt(&self, arguments: &[&str]) -> Result<Finished> {
        let (tool, arguments) = arguments.split_first().context("no command")?;
        finish(
            bounded(tool)
                .args(arguments)
                .current_dir(self.workspace.path())
                .env("TPM2TOOLS_TCTI", self.tcti())
                // Silences the library: the tools report their failures themselves.
                .env("TSS2_LOG", "all+NONE"),
        )
    }

    /// Flushes all transient objects.
    pub fn flush(&self) -> Result<()> {
        self.run(&["tpm2_flushcontext", "-t"]).map(drop)
    }

    pub fn persistent_handles(&self) -> Result<Vec<u32>> {
        self.handles("handles-persistent")
    }

    pub fn transient_handles(&self) -> Result<Vec<u32>> {
        self.handles("handles-transient")
    }

    fn handles(&self, kind: &str) -> Result<Vec<u32>> {
        self.run(&["tpm2_getcap", kind])?
            .lines()
            .map(|line| number(line.trim_start_matches("- ")))
            .collect()
    }

    /// Failed tries, as the dictionary-attack logic counts them.
    pub fn lockout_counter(&self) -> Result<u32> {
        self.property("TPM2_PT_LOCKOUT_COUNTER")
    }

    pub fn max_tries(&self) -> Result<u32> {
        self.property("TPM2_PT_MAX_AUTH_FAIL")
    }

    pub fn in_lockout(&self) -> Result<bool> {
        Ok(self.property("inLockout")? == 1)
    }

    fn property(&self, name: &str) -> Result<u32> {
        self.run(&["tpm2_getcap", "properties-variable"])?
            .lines()
            .find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':'))
            .with_context(|| format!("the TPM has no property {name}"))
            .and_then(number)
    }

    pub fn set_lockout_auth(&self, auth: &str) -> Result<()> {
        self.run(&["tpm2_changeauth", "-c", "lockout", auth])
            .map(drop)
    }

    pub fn set_owner_auth(&self, auth: &str) -> Result<()> {
        self.run(&["tpm2_changeauth", "-c", "owner", auth])
            .map(drop)
    }

    /// Needs an empty lockoutAuth. Sets long recovery times, so that the counter does not fall during a test.
    pub fn set_max_tries(&self, tries: u32) -> Result<()> {
        let tries = tries.to_string();
        let times = ["-t", "86400", "-l", "86400"];
        let mut command = vec!["tpm2_dictionarylockout", "-s", "-n", &tries];
        command.extend(times);
        self.run(&command).map(drop)
    }

    /// Uses one wrong auth value.
    pub fn use_up_one_try(&self) -> Result<()> {
        self.make_decoy()?;
        self.attempt(&["tpm2_create", "-C", "decoy", "-P", "wrong"])?;
        self.flush()
    }

    fn make_decoy(&self) -> Result<()> {
        let decoy = ["-C", "n", "-p", "right", "-c", "decoy"];
        self.run(&[&["tpm2_createprimary"], &decoy[..]].concat())?;
        self.flush()
    }

    /// Uses wrong auth values until the TPM locks out.
    pub fn use_up_tries(&self) -> Result<()> {
        self.make_decoy()?;
        // One more than the maximum: if attempts fail for another reason, this ends all the same.
        for _ in 0..=self.max_tries()? {
            if self.in_lockout()? {
                return Ok(());
            }
            self.attempt(&["tpm2_create", "-C", "decoy", "-P", "wrong"])?;
            self.flush()?;
        }
        bail!("wrong auth values have not led to lockout")
    }

    /// Puts it into failure mode, as after a failed self-test: its state can no longer be written. Only a power cycle
    /// would end that, and the state is gone.
    pub fn fail(&self) -> Result<()> {
        // Once it answers, its first state is written: swtpm listens before that, and would end without the directory.
        self.run(&["tpm2_getrandom", "--hex", "1"])?;
        std::fs::remove_dir_all(self.state())?;
        // Any command that writes; it has to fail.
        let written = self.attempt(&["tpm2_dictionarylockout", "--setup-parameters", "-n", "5"])?;
        if written.code == 0 {
            bail!("this TPM can write without its state directory");
        }
        Ok(())
    }

    /// Clears the TPM, as the firmware's menu does: new seeds, empty auth values. By the platform hierarchy, which no
    /// earlier auth value blocks.
    pub fn clear(&self) -> Result<()> {
        self.run(&["tpm2_clear", "-c", "p"]).map(drop)
    }

    /// Puts a signing key at 0x81000001: nothing can be stored under it.
    pub fn occupy_with_signing_key(&self) -> Result<()> {
        let attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign";
        self.occupy(&["-G", "ecc256:ecdsa-sha256", "-a", attributes])
    }

    /// Puts a storage key with an auth value at 0x81000001.
    pub fn occupy_with_storage_key(&self, auth: &str) -> Result<()> {
        self.occupy(&["-G", "ecc256:aes128cfb", "-a", STORAGE_KEY, "-p", auth])
    }

    /// Puts a storage root key at 0x81000001 by the template of `systemd-tpm2-setup`.
    pub fn occupy_with_systemd_root_key(&self) -> Result<()> {
        let attributes = format!("{STORAGE_KEY}|noda");
        self.occupy(&["-G", "ecc256:aes128cfb", "-a", &attributes])
    }

    /// Puts a storage root key at 0x81000001 as tpm2-pkcs11 creates it, without noDA.
    pub fn occupy_with_library_root_key(&self) -> Result<()> {
        self.occupy(&["-G", "ecc256:aes128cfb", "-a", STORAGE_KEY])
    }

    /// Puts a primary object of the owner hierarchy at 0x81000001; the template is `tpm2_createprimary`'s options.
    pub fn occupy(&self, template: &[&str]) -> Result<()> {
        self.occupy_handle(STORAGE_ROOT_KEY, template)
    }

    /// The same at another persistent handle.
    pub fn occupy_handle(&self, handle: &str, template: &[&str]) -> Result<()> {
        let mut create = vec!["tpm2_createprimary", "-C", "o", "-c", "occupant"];
        create.extend(template);
        self.run(&create)?;
        self.flush()?;
        self.run(&["tpm2_evictcontrol", "-C", "o", "-c", "occupant", handle])?;
        self.flush()
    }
}

/// A number in the tools' output, decimal or hexadecimal.
fn number(text: &str) -> Result<u32> {
    let text = text.trim();
    match text.strip_prefix("0x") {
        Some(hexadecimal) => u32::from_str_radix(hexadecimal, 16),
        None => text.parse(),
    }
    .with_context(|| format!("tpm2_getcap says {text:?} where a number is expected"))
}
