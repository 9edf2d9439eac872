//! The installed files: systemd accepts the units, and they keep their sandbox.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use image_tests::measure::exposure::{MOST_EXPOSED, exposure};
use image_tests::process::{finish, succeed};
use tempfile::TempDir;

/// Everything that `make -C firstboot install` installs, and nothing else.
const INSTALLED: &[&str] = &[
    "/usr/bin/firstboot",
    "/usr/lib/firstboot/AmazonTrustServices.pem",
    "/usr/lib/firstboot/bind-tpm",
    "/usr/lib/firstboot/firstboot.json",
    "/usr/lib/firstboot/start-networks",
    "/usr/lib/systemd/system/dev-tpmrm0.device.d/10-firstboot.conf",
    "/usr/lib/systemd/system/firstboot-again.service",
    "/usr/lib/systemd/system/firstboot-bind.service",
    "/usr/lib/systemd/system/firstboot-enroll.path",
    "/usr/lib/systemd/system/firstboot-enroll.service",
    "/usr/lib/systemd/system/firstboot-enroll.service.d/10-eap-tls.conf",
    "/usr/lib/systemd/system/firstboot-enroll.timer",
    "/usr/lib/systemd/system/firstboot-fsck@.service",
    "/usr/lib/systemd/system/firstboot-greengrass.target",
    "/usr/lib/systemd/system/firstboot-network.path",
    "/usr/lib/systemd/system/firstboot-network.service",
    "/usr/lib/systemd/system/firstboot-renew.service",
    "/usr/lib/systemd/system/firstboot-renew.service.d/10-eap-tls.conf",
    "/usr/lib/systemd/system/firstboot-renew.timer",
    "/usr/lib/systemd/system/firstboot.service",
    "/usr/lib/systemd/system/ggl.aws.greengrass.TokenExchangeService.service.d/10-firstboot.conf",
    "/usr/lib/systemd/system/ggl.core.gg-fleet-statusd.service.d/10-firstboot.conf",
    "/usr/lib/systemd/system/ggl.core.ggconfigd.service.d/10-firstboot.conf",
    "/usr/lib/systemd/system/ggl.core.ggdeploymentd.service.d/10-firstboot.conf",
    "/usr/lib/systemd/system/ggl.core.gghealthd.service.d/10-firstboot.conf",
    "/usr/lib/systemd/system/ggl.core.ggipcd.service.d/10-firstboot.conf",
    "/usr/lib/systemd/system/ggl.core.ggpubsubd.service.d/10-firstboot.conf",
    "/usr/lib/systemd/system/ggl.core.iotcored.service.d/10-firstboot.conf",
    "/usr/lib/systemd/system/ggl.core.tesd.service.d/10-firstboot.conf",
    "/usr/lib/systemd/system/greengrass-lite.target.d/10-firstboot.conf",
    "/usr/lib/systemd/system/greengrass.service.d/10-firstboot.conf",
    "/usr/lib/systemd/system/wpa_supplicant-wired@.service.d/10-firstboot.conf",
    "/usr/lib/systemd/system/wpa_supplicant@.service.d/10-firstboot.conf",
    "/usr/lib/systemd/system-generators/firstboot-generator",
    "/usr/lib/tmpfiles.d/firstboot-eap-tls.conf",
    "/usr/lib/tmpfiles.d/firstboot.conf",
    "/usr/share/bash-completion/completions/firstboot",
    "/usr/share/fish/vendor_completions.d/firstboot.fish",
    "/usr/share/licenses/firstboot/LICENSE",
    "/usr/share/licenses/firstboot/THIRD-PARTY.txt",
    "/usr/share/man/man8/firstboot.8",
    "/usr/share/zsh/site-functions/_firstboot",
];

fn installed() -> Result<TempDir> {
    let root = tempfile::tempdir()?;
    let firstboot = Path::new(env!("CARGO_MANIFEST_DIR")).join("../firstboot");
    let mut make = Command::new("make");
    make.arg("-s").arg("-C").arg(firstboot).arg("install");
    make.arg(format!("DESTDIR={}", root.path().display()));
    make.arg(format!(
        "BINARY={}",
        image_tests::device::firstboot()?.display()
    ));
    succeed(&mut make)?;
    Ok(root)
}

#[test]
fn the_install_rule_installs_what_is_listed() -> Result<()> {
    let root = installed()?;
    let snapshot = image_tests::device::Snapshot::of(root.path())?;
    let files: Vec<String> = snapshot
        .entries()
        .iter()
        .filter(|(_, entry)| entry.mode & 0o170_000 == 0o100_000)
        .map(|(path, _)| path.display().to_string())
        .collect();
    assert_eq!(files, INSTALLED);
    Ok(())
}

/// With systemd's own units, and each edition's units for the drop-ins.
#[test]
fn systemd_accepts_the_units() -> Result<()> {
    let root = installed()?;
    let units = root.path().join("usr/lib/systemd/system");
    let own = ["/usr/lib/systemd/system", "/lib/systemd/system"]
        .into_iter()
        .find(|path| Path::new(path).join("sysinit.target").exists())
        .context("systemd's units are not here: image-tests/host-packages installs them")?;
    succeed(
        Command::new("cp")
            .args(["-an", &format!("{own}/.")])
            .arg(&units),
    )?;
    // Programs that the units name without a path.
    let firstboot = root.path().join("usr/bin/firstboot");
    for name in ["sleep", "fsck.fat", "systemctl"] {
        fs::copy(&firstboot, firstboot.with_file_name(name))?;
    }
    let service = "[Service]\nExecStart=/usr/bin/firstboot status\n";
    for name in [
        "greengrass",
        "ggl.core.ggconfigd",
        "ggl.core.iotcored",
        "ggl.core.tesd",
        "ggl.core.ggipcd",
        "ggl.aws.greengrass.TokenExchangeService",
        "wpa_supplicant@",
        "wpa_supplicant-wired@",
    ] {
        fs::write(units.join(format!("{name}.service")), service)?;
    }
    fs::write(
        units.join("greengrass-lite.target"),
        "[Unit]\nDescription=lite\n",
    )?;
    let mut verify = Command::new("systemd-analyze");
    verify
        .args(["verify", "--man=no"])
        .arg(format!("--root={}", root.path().display()));
    verify.args([
        "firstboot.service",
        "firstboot-enroll.service",
        "firstboot-enroll.path",
        "firstboot-enroll.timer",
        "firstboot-again.service",
        "firstboot-renew.service",
        "firstboot-renew.timer",
        "firstboot-network.path",
        "firstboot-network.service",
        "firstboot-bind.service",
        "firstboot-fsck@dev-mmcblk0p1.service",
    ]);
    verify.args([
        "firstboot-greengrass.target",
        "greengrass.service",
        "greengrass-lite.target",
        "ggl.core.iotcored.service",
        "ggl.core.ggipcd.service",
        "ggl.aws.greengrass.TokenExchangeService.service",
        "wpa_supplicant@wlan0.service",
        "wpa_supplicant-wired@eth0.service",
    ]);
    let finished = finish(&mut verify)?;
    assert_eq!((finished.code, finished.stderr.as_str()), (0, ""));
    // A mistake is found.
    fs::write(
        units.join("firstboot.service"),
        "[Service]\nExecStart=/nowhere\nNoSuch=1\n",
    )?;
    assert_ne!(finish(&mut verify)?.stderr, "");
    Ok(())
}

/// A boot partition that is missing or unmounted takes no device out of service; one that appears is waited for.
#[test]
fn no_service_requires_the_boot_partition() -> Result<()> {
    let root = installed()?;
    for unit in ["firstboot.service", "firstboot-enroll.service"] {
        let text = fs::read_to_string(root.path().join("usr/lib/systemd/system").join(unit))?;
        let requires = |line: &&str| {
            ["Requires", "Requisite", "BindsTo"]
                .iter()
                .any(|name| line.starts_with(name))
        };
        let required: Vec<&str> = text.lines().filter(requires).collect();
        let boot = required
            .iter()
            .find(|line| line.contains("boot.mount") || line.contains("/boot"));
        assert_eq!(boot, None, "{unit}");
        assert!(required.contains(&"RequiresMountsFor=/var/lib"), "{unit}");
        assert!(
            text.lines().any(|line| line == "Wants=boot.mount"),
            "{unit}"
        );
        assert!(
            text.lines().any(|line| line == "After=boot.mount"),
            "{unit}"
        );
    }
    Ok(())
}

/// Enrollment may write the token's store and ends a lockout; a wpa_supplicant that starts meanwhile loses its key.
#[test]
fn networks_start_after_enrollment() -> Result<()> {
    let root = installed()?;
    let unit = |name: &str| {
        let path = root.path().join("usr/lib/systemd/system").join(name);
        fs::read_to_string(path)
    };
    let text = unit("firstboot-network.service")?;
    let after = text.lines().filter_map(|line| line.strip_prefix("After="));
    let after: Vec<&str> = after.flat_map(str::split_whitespace).collect();
    assert!(after.contains(&"firstboot-enroll.service"), "{after:?}");
    // Somebody else's interface does not wait for firstboot, and has an environment of its own.
    let drop_in = unit("wpa_supplicant@.service.d/10-firstboot.conf")?;
    let lines = drop_in.lines().filter(|line| !line.starts_with('#'));
    let file = "EnvironmentFile=-/etc/wpa_supplicant/firstboot/%p@%i.env";
    assert_eq!(lines.collect::<Vec<_>>(), ["[Service]", file]);
    // Only with the package for networks may enrollment write their files.
    let enroll = unit("firstboot-enroll.service")?;
    assert!(!enroll.contains("/etc/wpa_supplicant"));
    Ok(())
}

#[test]
fn the_sandbox_gets_no_weaker() -> Result<()> {
    let root = installed()?;
    for (unit, most) in MOST_EXPOSED {
        let mut analyze = Command::new("systemd-analyze");
        analyze.args(["security", "--offline=true", "--no-pager"]);
        analyze
            .arg(format!("--root={}", root.path().display()))
            .arg(unit);
        let report = finish(&mut analyze)?.stdout;
        let level = exposure(&report)?;
        assert!(level <= most, "{unit}: {level}\n{report}");
    }
    Ok(())
}
