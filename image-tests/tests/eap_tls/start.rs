//! `start-networks`, with a systemctl that notes what it is asked for.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use anyhow::Result;
use image_tests::process::succeed;
use tempfile::TempDir;

use crate::at_a_port;

const FOLDER: &str = "/etc/wpa_supplicant/firstboot";

/// Runs the script on this list; the first call of systemctl runs `meanwhile`. What systemctl was asked to do with
/// units.
fn asked(run: &TempDir, list: &str, meanwhile: &str) -> Result<Vec<String>> {
    let at = |name: &str| run.path().join(name);
    fs::write(format!("{FOLDER}/networks"), list)?;
    let _ = fs::remove_file(at("asked"));
    let systemctl = format!(
        "#!/bin/sh\n[ -e {asked} ] || {{ :; {meanwhile}\n}}\necho \"$*\" >>{asked}\n\
         case $* in *masked*) exit 1 ;; esac\n",
        asked = at("asked").display()
    );
    fs::create_dir_all(at("bin"))?;
    fs::write(at("bin/systemctl"), systemctl)?;
    fs::set_permissions(at("bin/systemctl"), PermissionsExt::from_mode(0o755))?;
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../firstboot/conf/start-networks"
    );
    let mut command = Command::new("sh");
    command.arg(script).env("RUNTIME_DIRECTORY", run.path());
    let path = format!("{}:/usr/bin:/bin", at("bin").display());
    succeed(command.env("PATH", path))?;
    let asked = fs::read_to_string(at("asked"))?;
    let asked = asked
        .lines()
        .filter_map(|line| line.strip_prefix("--no-block "));
    Ok(asked.map(str::to_owned).collect())
}

#[test]
fn only_what_reads_something_else_starts_again() -> Result<()> {
    at_a_port(|| {
        image_tests::namespaces::mount(&["-t", "tmpfs", "none", "/etc/wpa_supplicant"])?;
        fs::create_dir(FOLDER)?;
        let run = TempDir::new()?;
        let first = "# Written\na.service 1\nb.service 1\n";
        let restarts = ["restart a.service", "restart b.service"];
        assert_eq!(asked(&run, first, "")?, restarts);
        // What has ended starts; what runs goes on.
        assert_eq!(
            asked(&run, first, "")?,
            ["start a.service", "start b.service"]
        );
        let second = "# Written\na.service 1\nb.service 2\n";
        let changed = ["start a.service", "restart b.service"];
        assert_eq!(asked(&run, second, "")?, changed);

        // The list changes while the script runs: systemd does not watch then.
        let later = format!("echo 'c.service 1' >>{FOLDER}/networks");
        let starts = ["start a.service", "start b.service"];
        let all = [&starts[..], &starts, &["restart c.service"]].concat();
        assert_eq!(asked(&run, second, &later)?, all);
        // It goes: nothing is left to start.
        let gone = format!("rm {FOLDER}/networks");
        assert_eq!(asked(&run, second, &gone)?, starts);
        // A unit that cannot be started keeps no other from being started.
        let masked = "masked.service 1\nb.service 3\n";
        assert_eq!(
            asked(&run, masked, "")?,
            ["restart masked.service", "restart b.service"]
        );
        Ok(())
    })
}
