//! Greengrass's own state, such as everything that the cloud has deployed: it survives every change but that of the
//! identity.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::process::Command;

use anyhow::{Context, Result};
use image_tests::clients::KeyType;
use image_tests::device::{Device, offline_settings};
use image_tests::doubles::pki::Authority;
use image_tests::doubles::tpm_proxy::When;
use image_tests::faults::storage::{Ending, run_with_cut, trace};
use serde_json::{Value, json};

use crate::{assert_ends, device, exit, thing_name, usual};

const NUCLEUS: &str = "/greengrass/v2/config/config.yaml";
const TLOG: &str = "/greengrass/v2/config/config.tlog";
const LITE: &str = "/etc/greengrass/config.yaml";
const DATABASE: &str = "/var/lib/greengrass/config.db";
const IMAGE: &str = "/usr/lib/firstboot/firstboot.json";

fn enrolled(edition: &str) -> Result<(Device, Authority)> {
    let device = device(edition, KeyType::EccP256)?;
    let authority = Authority::new()?;
    device.enroll_with(&authority)?;
    Ok((device, authority))
}

/// Both units of a boot.
fn boot(device: &Device) -> Result<()> {
    device.succeed(&["provision"])?;
    device.succeed(&["enroll"])?;
    Ok(())
}

fn change(device: &Device, edition: &str, change: impl FnOnce(&mut Value)) -> Result<()> {
    let mut settings = offline_settings(edition, KeyType::EccP256);
    change(&mut settings);
    device.settings(&settings)
}

/// Writes the nucleus's log: first the configuration that it has read (`ConfigurationWriter.dump`), then a deployment.
fn start_nucleus(device: &Device) -> Result<()> {
    let config: Value = serde_json::from_str(&device.read(NUCLEUS)?)?;
    let mut log = String::new();
    write_leaves(&config, &mut Vec::new(), 1_700_000_000_000, &mut log);
    for (path, value) in [
        (
            json!(["services", "com.example.App", "version"]),
            json!("1.0.0"),
        ),
        (
            json!(["services", "com.example.App", "configuration", "rate"]),
            json!(7),
        ),
        (
            json!([
                "services",
                "aws.greengrass.Nucleus",
                "configuration",
                "interpolateComponentConfiguration"
            ]),
            json!(true),
        ),
    ] {
        log += &line(1_764_000_000_000, &path, &value);
    }
    device.write(TLOG, log)
}

fn line(timestamp: i64, path: &Value, value: &Value) -> String {
    format!(
        "{}\n",
        json!({"TS": timestamp, "TP": path, "W": "changed", "V": value})
    )
}

fn write_leaves(tree: &Value, path: &mut Vec<String>, timestamp: i64, log: &mut String) {
    match tree {
        Value::Object(object) => {
            for (key, value) in object {
                path.push(key.clone());
                write_leaves(value, path, timestamp, log);
                path.pop();
            }
        }
        leaf => *log += &line(timestamp, &json!(path), leaf),
    }
}

/// The nucleus's value at a path after it has read the log: the last one that is not older than another.
fn in_log(device: &Device, path: &[&str]) -> Result<Option<Value>> {
    let mut newest = i64::MIN;
    let mut found = None;
    for line in device.read(TLOG)?.lines() {
        let line: Value =
            serde_json::from_str(line).context("a line that the nucleus would refuse")?;
        let timestamp = line["TS"].as_i64().context("no timestamp")?;
        if line["TP"] == json!(path) && line["W"] == "changed" && timestamp >= newest {
            newest = timestamp;
            found = Some(line["V"].clone());
        }
    }
    Ok(found)
}

const APP: [&str; 3] = ["services", "com.example.App", "version"];

fn setting(name: &str) -> [&str; 4] {
    ["services", "aws.greengrass.Nucleus", "configuration", name]
}

/// ggconfigd's tables, with a deployed component in them.
fn start_lite(device: &Device) -> Result<()> {
    let path = device.path(DATABASE);
    fs::create_dir_all(path.parent().context("a directory")?)?;
    sqlite(
        &path,
        "CREATE TABLE keyTable (keyid INTEGER PRIMARY KEY AUTOINCREMENT UNIQUE NOT NULL, keyvalue TEXT NOT NULL);
         CREATE TABLE relationTable (keyid INT UNIQUE NOT NULL, parentid INT NOT NULL, PRIMARY KEY (keyid));
         CREATE TABLE valueTable (keyid INT UNIQUE NOT NULL, value TEXT NOT NULL, timeStamp INTEGER NOT NULL);
         CREATE TABLE version (version TEXT DEFAULT '0.1');
         INSERT INTO version VALUES ('0.1');
         INSERT INTO keyTable VALUES (1, 'services'), (2, 'com.example.App'), (3, 'version');
         INSERT INTO relationTable VALUES (2, 1), (3, 2);
         INSERT INTO valueTable VALUES (3, '\"1.0.0\"', 1764000000000);",
    )?;
    fs::copy(&path, device.path(format!("{DATABASE}.backup")))?;
    Ok(())
}

fn sqlite(path: &std::path::Path, sql: &str) -> Result<String> {
    let script = "import sqlite3, sys\n\
                  with sqlite3.connect(sys.argv[1]) as d:\n \
                  for s in sys.argv[2].split(';'):\n  \
                  for row in d.execute(s): print(*row)\n";
    let finished = image_tests::process::finish(
        Command::new("python3")
            .args(["-c", script])
            .arg(path)
            .arg(sql),
    )?;
    anyhow::ensure!(finished.code == 0, "{}", finished.stderr);
    Ok(finished.stdout)
}

/// The deployed components that lite would report to the cloud.
fn deployed(device: &Device) -> Result<String> {
    sqlite(
        &device.path(DATABASE),
        "SELECT keyvalue, value FROM keyTable JOIN relationTable ON relationTable.parentid = keyTable.keyid \
         JOIN valueTable ON valueTable.keyid = relationTable.keyid",
    )
}

#[test]
fn a_nucleus_keeps_its_deployments_and_gets_the_changes() -> Result<()> {
    let (device, authority) = enrolled("nucleus")?;
    start_nucleus(&device)?;
    let before = device.read(TLOG)?;

    // Nothing of this is in the log.
    device.drop_certificate(&authority.sign(&device.request()?)?)?;
    boot(&device)?;
    let roots = authority.certificate_pem()? + &Authority::new()?.certificate_pem()?;
    device.write("/boot/firstboot/root-ca.pem", &roots)?;
    boot(&device)?;
    assert_eq!(device.read("/greengrass/v2/root-ca.pem")?, roots);
    fs::remove_file(device.path(NUCLEUS))?;
    boot(&device)?;
    assert_eq!(device.read(TLOG)?, before);

    // These are.
    let module = device.read("/usr/lib/firstboot/firstboot.json")?;
    let installed = image_tests::clients::installed_module()?;
    let elsewhere = device.path("/opt/libtpm2_pkcs11.so");
    fs::create_dir_all(elsewhere.parent().context("a directory")?)?;
    fs::copy(installed, &elsewhere)?;
    let mut image: Value = serde_json::from_str(&module)?;
    image["platform"] = json!({ "pkcs11_module": elsewhere });
    device.write(IMAGE, image.to_string())?;
    change(&device, "nucleus", |s| {
        s["greengrass"]["iot_role_alias"] = json!("Another");
        s["greengrass"]["iot_data_endpoint"] = json!("mqtt.example.com");
    })?;
    boot(&device)?;
    let after = device.read(TLOG)?;
    assert!(after.starts_with(&before));
    assert_eq!(after.lines().count(), before.lines().count() + 3, "{after}");
    assert_eq!(in_log(&device, &APP)?, Some(json!("1.0.0")));
    assert_eq!(
        in_log(&device, &setting("iotRoleAlias"))?,
        Some(json!("Another"))
    );
    assert_eq!(
        in_log(&device, &setting("iotDataEndpoint"))?,
        Some(json!("mqtt.example.com"))
    );
    let library = [
        "services",
        "aws.greengrass.crypto.Pkcs11Provider",
        "configuration",
        "library",
    ];
    assert_eq!(in_log(&device, &library)?, Some(json!(elsewhere)));
    boot(&device)?;
    assert_eq!(device.read(TLOG)?, after, "once is enough");
    Ok(())
}

/// A deployment has moved the device to another endpoint: the settings have not changed, and do not undo it.
#[test]
fn a_value_set_by_a_deployment_stays() -> Result<()> {
    let (device, _) = enrolled("nucleus")?;
    start_nucleus(&device)?;
    let moved = line(
        1_764_000_000_001,
        &json!(setting("iotDataEndpoint")),
        &json!("moved.example.com"),
    );
    device.write(TLOG, device.read(TLOG)? + &moved)?;
    change(&device, "nucleus", |s| {
        s["greengrass"]["iot_role_alias"] = json!("Another");
    })?;
    boot(&device)?;
    let found = |name| in_log(&device, &setting(name));
    assert_eq!(found("iotDataEndpoint")?, Some(json!("moved.example.com")));
    assert_eq!(found("iotRoleAlias")?, Some(json!("Another")));
    Ok(())
}

/// The nucleus itself falls back to its copies, and reads the main file after them.
#[test]
fn a_damaged_log_is_left_for_the_nucleus() -> Result<()> {
    let (device, _) = enrolled("nucleus")?;
    start_nucleus(&device)?;
    let log = device.read(TLOG)?;
    let torn = &log[..log.len() - 20];
    device.write(TLOG, torn)?;
    device.write("/greengrass/v2/config/bootstrap.tlog", &log)?;
    change(&device, "nucleus", |s| {
        s["greengrass"]["iot_role_alias"] = json!("Another");
    })?;
    boot(&device)?;
    assert_eq!(device.read(TLOG)?, torn);
    assert_eq!(device.read("/greengrass/v2/config/bootstrap.tlog")?, log);
    Ok(())
}

#[test]
fn a_nucleus_lite_keeps_its_deployments() -> Result<()> {
    let (device, authority) = enrolled("nucleus-lite")?;
    start_lite(&device)?;
    let before = device.snapshot()?;
    let state = |snapshot: &image_tests::device::Snapshot| {
        let entries = snapshot.entries().iter();
        entries
            .filter(|(path, _)| path.starts_with("/var/lib/greengrass"))
            .map(|(path, entry)| (path.clone(), entry.clone()))
            .collect::<Vec<_>>()
    };
    device.drop_certificate(&authority.sign(&device.request()?)?)?;
    boot(&device)?;
    let roots = authority.certificate_pem()? + &Authority::new()?.certificate_pem()?;
    device.write("/boot/firstboot/root-ca.pem", &roots)?;
    boot(&device)?;
    change(&device, "nucleus-lite", |s| {
        s["greengrass"]["iot_role_alias"] = json!("Another");
    })?;
    boot(&device)?;
    assert!(device.read(LITE)?.contains("Another"));
    // An update with its own /etc: nothing of the configuration is left.
    fs::remove_dir_all(device.path("/etc/greengrass"))?;
    boot(&device)?;
    // The same, and the image brings a file with placeholders.
    device.write(LITE, "system:\n  privateKeyPath: \"\"\n  thingName: \"\"\n")?;
    boot(&device)?;
    assert!(device.read(LITE)?.contains(&thing_name()));
    assert_eq!(state(&device.snapshot()?), state(&before));
    assert_eq!(deployed(&device)?, "com.example.App \"1.0.0\"\n");
    Ok(())
}

/// An older firstboot kept no mark: the main file tells whose configuration it is.
#[test]
fn an_older_firstboot_left_no_mark() -> Result<()> {
    let (device, _) = enrolled("nucleus-lite")?;
    start_lite(&device)?;
    device.remove("/var/lib/tpm2_pkcs11/configured")?;
    boot(&device)?;
    assert!(device.exists("/var/lib/tpm2_pkcs11/configured"));
    assert!(device.exists(DATABASE));
    Ok(())
}

/// An older firstboot had nucleus lite read the certificate from the token.
#[test]
fn a_nucleus_lite_that_read_the_token_keeps_its_deployments() -> Result<()> {
    let (device, _) = enrolled("nucleus-lite")?;
    start_lite(&device)?;
    let now = device.read(LITE)?;
    let file = "/var/lib/tpm2_pkcs11/certificate.pem";
    let uri = device.identity(KeyType::EccP256)?.uri("cert");
    device.write(LITE, now.replace(file, &uri))?;
    assert_ne!(device.read(LITE)?, now);
    let before = fs::read(device.path(DATABASE))?;
    boot(&device)?;
    assert_eq!(device.read(LITE)?, now);
    assert_eq!(fs::read(device.path(DATABASE))?, before);
    assert_eq!(deployed(&device)?, "com.example.App \"1.0.0\"\n");
    Ok(())
}

/// A wrong mode leads to a chmod; the file is not written again.
#[test]
fn only_a_wrong_mode_or_owner_is_repaired() -> Result<()> {
    let (device, _) = enrolled("nucleus")?;
    start_nucleus(&device)?;
    let snapshot =
        || -> Result<_> { Ok(device.snapshot()?.without("/boot/firstboot/status.json")) };
    let before = snapshot()?;
    std::fs::set_permissions(
        device.path(NUCLEUS),
        std::os::unix::fs::PermissionsExt::from_mode(0o644),
    )?;
    if nix::unistd::geteuid().is_root() {
        for path in [NUCLEUS, "/var/lib/tpm2_pkcs11/pin", "/var/lib/tpm2_pkcs11"] {
            std::os::unix::fs::chown(device.path(path), Some(12_345), None)?;
        }
    }
    boot(&device)?;
    before.assert_same(&snapshot()?);
    Ok(())
}

/// A link's target belongs to somebody else: firstboot reports it, and the device stays in service.
#[test]
fn the_mode_of_a_links_target_is_left_alone() -> Result<()> {
    let (device, _) = enrolled("nucleus")?;
    let store = device.path("/var/lib/tpm2_pkcs11/tpm2_pkcs11.sqlite3");
    let elsewhere = device.path("/var/lib/elsewhere");
    fs::rename(&store, &elsewhere)?;
    fs::set_permissions(
        &elsewhere,
        std::os::unix::fs::PermissionsExt::from_mode(0o604),
    )?;
    symlink(&elsewhere, &store)?;
    let outcome = device.run(&["provision"])?;
    assert_ends(&outcome, exit::DONE, "it is a symbolic link");
    assert_eq!(device.status()?["state"], "Error");
    assert_eq!(fs::metadata(&elsewhere)?.mode() & 0o7777, 0o604);
    Ok(())
}

/// Another thing name: nothing of the old one may win, and no copy of its log is left.
fn renamed(device: &Device, authority: &Authority) -> Result<()> {
    change(device, "nucleus", |s| s["thing_name"] = json!("pump-7"))?;
    device.succeed(&["provision"])?;
    let request = device.boot_file("requests/pump-7.csr.pem");
    fs::write(
        device.boot_file("certificates/pump-7.pem"),
        authority.sign(&request)?,
    )?;
    Ok(())
}

#[test]
fn another_thing_starts_afresh_wherever_the_power_is_cut() -> Result<()> {
    let (device, authority) = enrolled("nucleus")?;
    start_nucleus(&device)?;
    let ongoing = "/greengrass/v2/deployments/ongoing";
    device.write(
        "/greengrass/v2/deployments/d1/target_config.tlog",
        device.read(TLOG)?,
    )?;
    symlink("/greengrass/v2/deployments/d1", device.path(ongoing))?;
    renamed(&device, &authority)?;
    let copy = || Device::copy_of(device.root(), device.tpm.state());
    let model = copy()?;
    let calls = trace(model.firstboot(&["enroll"])?, model.root())?;
    let of_greengrass: Vec<usize> = (1..)
        .zip(&calls)
        .filter(|(_, call)| call.path.starts_with(model.path("/greengrass")))
        .map(|(n, _)| n)
        .collect();
    assert!(of_greengrass.len() > 5, "{calls:#?}");
    for n in of_greengrass {
        let mut device = copy()?;
        let root = device.root().to_path_buf();
        let program = device.firstboot(&["enroll"])?;
        let tpm = &mut device.tpm;
        let outcome = run_with_cut(program, &root, n, When::After, || tpm.pull_the_plug())?;
        assert_eq!(outcome.ending, Ending::Cut, "{n}");
        // Greengrass must not find the new name with the old state, even if it started now.
        let is_new = device.read(NUCLEUS)?.contains("pump-7");
        assert!(!(is_new && device.exists(TLOG)), "after call {n}");
        device.tpm.power_on()?;
        boot(&device)?;
        assert!(device.read(NUCLEUS)?.contains("pump-7"));
        assert!(
            !device.exists(TLOG) && !device.exists(ongoing),
            "after call {n}"
        );
        // The state of the new configuration stays.
        start_nucleus(&device)?;
        boot(&device)?;
        assert_eq!(in_log(&device, &APP)?, Some(json!("1.0.0")));
    }
    Ok(())
}

/// firstboot changes the log first, then the file, so that a cut in between leaves something to do.
#[test]
fn a_changed_setting_reaches_the_log_wherever_the_power_is_cut() -> Result<()> {
    let (device, _) = enrolled("nucleus")?;
    start_nucleus(&device)?;
    change(&device, "nucleus", |s| {
        s["greengrass"]["iot_role_alias"] = json!("Another");
    })?;
    let copy = || Device::copy_of(device.root(), device.tpm.state());
    let model = copy()?;
    let calls = trace(model.firstboot(&["enroll"])?, model.root())?;
    let touches = |(n, call): (usize, &image_tests::faults::storage::StorageCall)| {
        call.path
            .starts_with(model.path("/greengrass"))
            .then_some(n)
    };
    let points: Vec<usize> = (1..).zip(&calls).filter_map(touches).collect();
    assert!(points.len() > 5, "{calls:#?}");
    for n in points {
        let mut device = copy()?;
        let root = device.root().to_path_buf();
        let program = device.firstboot(&["enroll"])?;
        let tpm = &mut device.tpm;
        run_with_cut(program, &root, n, When::After, || tpm.pull_the_plug())?;
        device.tpm.power_on()?;
        boot(&device)?;
        assert_eq!(
            in_log(&device, &APP)?,
            Some(json!("1.0.0")),
            "after call {n}"
        );
        assert_eq!(
            in_log(&device, &setting("iotRoleAlias"))?,
            Some(json!("Another")),
            "after call {n}"
        );
    }
    Ok(())
}

/// Another program set Greengrass up before: firstboot must not delete that.
#[test]
fn somebody_elses_state_is_set_aside() -> Result<()> {
    let device = usual()?;
    start_lite(&device)?;
    device.write(
        LITE,
        json!({"system": {"privateKeyPath": "/etc/keys/device.key", "thingName": "old-core"}})
            .to_string(),
    )?;
    device.enroll_with(&Authority::new()?)?;
    assert!(!device.exists(DATABASE));
    fs::rename(
        device.path(format!("{DATABASE}.earlier")),
        device.path(DATABASE),
    )?;
    assert_eq!(deployed(&device)?, "com.example.App \"1.0.0\"\n");
    Ok(())
}

/// ggcore owns the directory, and can put anything there.
#[test]
fn unexpected_files_of_the_daemons_user_do_not_stop_root() -> Result<()> {
    let (device, _) = enrolled("nucleus-lite")?;
    let directory = device.path("/var/lib/greengrass");
    let prepare = || -> Result<()> {
        fs::create_dir_all(directory.join("config.db/deep/deeper"))?;
        fs::create_dir_all(directory.join("config.db.earlier/x"))?;
        symlink(device.path("/etc"), directory.join("config.db/deep/etc"))?;
        symlink(device.path("/etc/passwd"), directory.join("config.db-wal"))?;
        nix::unistd::mkfifo(
            &directory.join("config.db-journal"),
            nix::sys::stat::Mode::S_IRWXU,
        )?;
        fs::create_dir_all(directory.join("config.db-old"))?;
        Ok(())
    };
    prepare()?;
    boot(&device)?;
    device.succeed(&["reset"])?;
    for gone in ["config.db", "config.db-wal", "config.db-journal"] {
        assert!(directory.join(gone).symlink_metadata().is_err(), "{gone}");
    }
    assert!(
        directory.join("config.db-old").exists(),
        "a file that is not lite's was removed"
    );
    assert!(device.exists("/etc/passwd"));
    assert!(!device.exists(LITE), "the reset did not finish");
    prepare()?;
    device.enroll_with(&Authority::new()?)?;
    assert!(device.exists("/etc/passwd"));
    Ok(())
}

/// The image's value stays, even if firstboot has a default for it.
#[test]
fn the_images_value_survives_a_reset() -> Result<()> {
    let device = device("nucleus", KeyType::EccP256)?;
    device.write(
        NUCLEUS,
        "services:\n  aws.greengrass.Nucleus:\n    configuration:\n      runWithDefault:\n        \
         posixUser: \"svc:svc\"\n",
    )?;
    device.enroll_with(&Authority::new()?)?;
    device.succeed(&["reset"])?;
    let rest: Value = serde_json::from_str(&device.read(NUCLEUS)?)?;
    let only = json!({"services": {"aws.greengrass.Nucleus": {"configuration":
        {"runWithDefault": {"posixUser": "svc:svc"}}}}});
    assert_eq!(rest, only, "firstboot's defaults are still there");
    Ok(())
}

/// A nucleus keeps copies of its configuration, which have the PIN in clear.
#[test]
fn a_reset_leaves_no_copy_of_the_pin_with_greengrass() -> Result<()> {
    let (device, _) = enrolled("nucleus")?;
    start_nucleus(&device)?;
    let config = device.read(NUCLEUS)?;
    let log = device.read(TLOG)?;
    for copy in ["effectiveConfig.yaml", "effectiveConfig.yaml~"] {
        device.write(format!("/greengrass/v2/config/{copy}"), &config)?;
    }
    for copy in ["config.tlog~", "config.tlog.old", "bootstrap.tlog"] {
        device.write(format!("/greengrass/v2/config/{copy}"), &log)?;
    }
    device.write("/greengrass/v2/deployments/d0/rollback_snapshot.tlog", &log)?;
    device.write("/greengrass/v2/work/com.example.App/data", "theirs")?;
    // The main file is damaged: the next start sets it aside.
    device.write(NUCLEUS, format!("{}\u{0}{{", &config[..config.len() - 3]))?;
    boot(&device)?;
    assert!(device.exists(format!("{NUCLEUS}.unreadable")));
    let pin = device.identity(KeyType::EccP256)?.pin()?;
    device.succeed(&["reset"])?;
    let snapshot = device.snapshot()?;
    let copies = snapshot.files_with(pin.as_bytes());
    let with_greengrass: Vec<_> = copies
        .iter()
        .filter(|path| path.starts_with("/greengrass"))
        .collect();
    assert!(with_greengrass.is_empty(), "{with_greengrass:?}");
    assert!(device.exists("/greengrass/v2/work/com.example.App/data"));
    Ok(())
}

/// firstboot must not remove the integrator's file, even if it is not YAML.
#[test]
fn a_reset_leaves_a_file_that_was_unreadable_before() -> Result<()> {
    let device = device("nucleus", KeyType::EccP256)?;
    device.write(NUCLEUS, "system: [unfinished")?;
    device.enroll_with(&Authority::new()?)?;
    device.succeed(&["reset"])?;
    assert_eq!(
        device.read(format!("{NUCLEUS}.unreadable"))?,
        "system: [unfinished"
    );
    Ok(())
}

/// Only the certificate is damaged: the identity is the same, so everything that belongs to it stays.
#[test]
fn a_damaged_certificate_costs_no_deployment() -> Result<()> {
    for edition in ["nucleus", "nucleus-lite"] {
        let (device, authority) = enrolled(edition)?;
        let state = match edition {
            "nucleus" => {
                start_nucleus(&device)?;
                TLOG
            }
            _ => {
                start_lite(&device)?;
                DATABASE
            }
        };
        let before = fs::read(device.path(state))?;
        fs::remove_dir_all(device.boot_file("certificates"))?;
        fs::create_dir(device.boot_file("certificates"))?;
        device.write("/var/lib/tpm2_pkcs11/certificate.pem", "\0\0\0\0")?;
        device.succeed(&["provision"])?;
        let outcome = device.run(&["enroll"])?;
        assert_eq!(outcome.code, exit::WAITING, "{}", outcome.stderr);
        device.drop_certificate(&authority.sign(&device.request()?)?)?;
        boot(&device)?;
        assert_eq!(fs::read(device.path(state))?, before, "{edition}");
    }
    Ok(())
}
