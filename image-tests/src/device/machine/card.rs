//! The card, as in a card reader: the FAT partition for the operator, the ext4 one for the system. The layout is that
//! of `guest/build`: 64 MiB of FAT from 1 MiB, ext4 from 65 MiB. Nothing is mounted.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::doubles::pki::Authority;
use crate::process::{Finished, bounded, finish, succeed};

/// The partitions' offsets, bytes.
const FAT: u64 = 1 << 20;
pub const EXT4: u64 = 65 << 20;
/// BS_Reserved1 of a FAT32 boot sector, in which Linux and fsck.fat keep "is mounted" (bit 0).
const FAT_STATE: u64 = 0x41;

#[derive(Debug)]
pub struct Card {
    image: PathBuf,
    _directory: TempDir,
}

impl Card {
    /// A card with a copy of this image, as sparse as the image.
    pub fn flash(image: &Path) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("card-").tempdir()?;
        let path = directory.path().join("card.img");
        let mut copy = Command::new("cp");
        copy.args(["--sparse=always", "--reflink=auto"]);
        succeed(copy.arg(image).arg(&path))?;
        Ok(Self {
            image: path,
            _directory: directory,
        })
    }

    pub fn path(&self) -> &Path {
        &self.image
    }

    /// Writes a file of the FAT partition. Its directory has to exist.
    pub fn put(&self, path: &str, content: impl AsRef<[u8]>) -> Result<()> {
        let mut file = tempfile::NamedTempFile::new()?;
        std::io::Write::write_all(&mut file, content.as_ref())?;
        let mut copy = self.mtools("mcopy");
        copy.args(["-n", "-o", "-D", "o"]).arg(file.path());
        succeed(copy.arg(format!("::{path}"))).with_context(|| format!("{path} onto the card"))?;
        Ok(())
    }

    pub fn remove(&self, path: &str) -> Result<()> {
        succeed(self.mtools("mdel").arg(format!("::{path}")))?;
        Ok(())
    }

    /// The content of a file on the FAT partition; `None` if there is no such file.
    pub fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        let directory = TempDir::new()?;
        let to = directory.path().join("file");
        let mut copy = self.mtools("mcopy");
        let copied = finish(copy.arg("-n").arg(format!("::{path}")).arg(&to))?;
        if copied.code != 0 {
            ensure!(
                copied.stderr.contains("not found") || copied.stderr.contains("no match"),
                "cannot read {path} on the card: {}",
                copied.stderr
            );
            return Ok(None);
        }
        Ok(Some(std::fs::read(to)?))
    }

    pub fn read_text(&self, path: &str) -> Result<String> {
        let content = self.read(path)?;
        let content = content.with_context(|| format!("there is no {path} on the card"))?;
        String::from_utf8(content).with_context(|| format!("{path} is not text"))
    }

    /// Prepares the card: the operator's settings and the authority that the device trusts; certificate and key of the
    /// broker on the guest's loopback.
    pub fn prepare(&self, settings: &serde_json::Value, authority: &Authority) -> Result<()> {
        self.put(
            "firstboot/firstboot.json",
            serde_json::to_string_pretty(settings)?,
        )?;
        self.put("firstboot/root-ca.pem", authority.certificate_pem()?)?;
        let broker = authority.server()?;
        self.put("broker/authority.pem", authority.certificate_pem()?)?;
        self.put("broker/certificate.pem", std::fs::read(broker.certificate)?)?;
        self.put("broker/key.pem", std::fs::read(broker.key)?)
    }

    /// Copies a directory of the FAT partition.
    pub fn copy_fat(&self, folder: &str, to: &Path) -> Result<()> {
        let mut copy = self.mtools("mcopy");
        succeed(copy.args(["-n", "-s", &format!("::{folder}")]).arg(to))?;
        Ok(())
    }

    /// Copies a directory of the ext4 partition, with owners and modes, into an existing one; nothing if it does not
    /// exist.
    pub fn copy_ext4(&self, path: &str, to: &Path) -> Result<()> {
        let request = format!("rdump {path} {}", to.display());
        self.debugfs(&request)?;
        Ok(())
    }

    /// Lists a directory of the ext4 partition: inodes, modes, owners, sizes, times of change.
    pub fn list_ext4(&self, path: &str) -> Result<String> {
        Ok(self.debugfs(&format!("ls -l {path}"))?.stdout)
    }

    /// Lists a directory of the FAT partition and everything below it: sizes and times.
    pub fn list_fat(&self, folder: &str) -> Result<String> {
        let mut list = self.mtools("mdir");
        // Free space changes with files elsewhere, too.
        let all = succeed(list.args(["-/", &format!("::{folder}")]))?;
        Ok(all
            .lines()
            .filter(|line| !line.contains("bytes free"))
            .map(|line| line.to_owned() + "\n")
            .collect())
    }

    /// Checks both file systems and repairs them without asking, as a boot does after a power cut; the boot partition
    /// as firstboot-fsck@.service does, if it is marked as mounted. Returns the messages if one is damaged even so.
    pub fn check(&self) -> Result<Option<String>> {
        let ext4 = self.partition(EXT4, None)?;
        let fat = self.partition(FAT, Some(EXT4 - FAT))?;
        // -p and -a repair without asking, and replay the journal; exit status 1 means "repaired".
        let mut checks = vec![
            ("e2fsck", ["-p", "-v"].as_slice(), ext4.path(), 1),
            ("e2fsck", &["-f", "-n"], ext4.path(), 0),
        ];
        if self.is_fat_marked()? {
            checks.push(("fsck.fat", &["-a", "-V"], fat.path(), 1));
            checks.push(("fsck.fat", &["-a"], fat.path(), 1));
        }
        // Damage must not go unmarked.
        checks.push(("fsck.fat", &["-n"], fat.path(), 0));
        for (program, arguments, partition, most) in checks {
            let mut check = bounded(program);
            let finished = finish(check.args(arguments).arg(partition))?;
            if finished.code > most {
                let said = finished.stdout + &finished.stderr;
                return Ok(Some(format!(
                    "{program} {arguments:?}: {} {said}",
                    finished.code
                )));
            }
        }
        self.put_back(FAT, fat.path())?;
        self.put_back(EXT4, ext4.path())?;
        Ok(None)
    }

    /// Whether the FAT partition is marked as mounted, as it stays after a power cut.
    pub fn is_fat_marked(&self) -> Result<bool> {
        let mut state = [0];
        File::open(&self.image)?.read_exact_at(&mut state, FAT + FAT_STATE)?;
        Ok(state[0] & 1 != 0)
    }

    /// Marks the FAT partition as mounted.
    pub fn mark_fat(&self) -> Result<()> {
        let image = File::options().write(true).open(&self.image)?;
        Ok(image.write_all_at(&[1], FAT + FAT_STATE)?)
    }

    /// Whether a file or directory of the FAT partition has clusters that are not marked as used: a power cut leaves
    /// that while it is being created.
    pub fn is_fat_torn(&self) -> Result<bool> {
        let fat = self.partition(FAT, Some(EXT4 - FAT))?;
        let looked = finish(bounded("fsck.fat").arg("-n").arg(fat.path()))?;
        Ok(looked.stdout.contains("Contains a free cluster"))
    }

    /// A copy of a partition, because fsck.fat cannot start within a file, and e2fsck forgets the offset after
    /// replaying the journal.
    fn partition(&self, from: u64, length: Option<u64>) -> Result<tempfile::NamedTempFile> {
        let file = tempfile::NamedTempFile::new()?;
        let mut copy = self.copy(&self.image, file.path());
        copy.arg(format!("skip={from}"));
        copy.args(length.map(|length| format!("count={length}")));
        succeed(&mut copy)?;
        Ok(file)
    }

    /// Writes a partition back.
    fn put_back(&self, at: u64, partition: &Path) -> Result<()> {
        // dd skips zeros, and the image may have other bytes there.
        let mut punch = bounded("fallocate");
        punch.arg("--punch-hole").arg(format!("--offset={at}"));
        punch.arg(format!("--length={}", partition.metadata()?.len()));
        succeed(punch.arg(&self.image))?;
        let mut copy = self.copy(partition, &self.image);
        succeed(copy.arg(format!("seek={at}"))).map(drop)
    }

    fn copy(&self, from: &Path, to: &Path) -> Command {
        let mut copy = Command::new("dd");
        copy.arg(format!("if={}", from.display()));
        copy.arg(format!("of={}", to.display()));
        copy.args(["bs=1M", "conv=sparse,notrunc", "status=none"]);
        copy.args(["iflag=skip_bytes,count_bytes", "oflag=seek_bytes"]);
        copy
    }

    fn at(&self, offset: u64) -> OsString {
        let mut at = self.image.clone().into_os_string();
        at.push(format!("?offset={offset}"));
        at
    }

    fn debugfs(&self, request: &str) -> Result<Finished> {
        finish(bounded("debugfs").arg("-R").arg(request).arg(self.at(EXT4)))
    }

    fn mtools(&self, tool: &str) -> Command {
        let mut command = bounded(tool);
        command.arg("-i");
        command.arg(format!("{}@@{FAT}", self.image.display()));
        // The host's configuration must not apply.
        command
            .env("MTOOLSRC", "/dev/null")
            .env("MTOOLS_SKIP_CHECK", "1");
        command
    }
}
