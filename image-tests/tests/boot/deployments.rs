//! Greengrass's own state survives a renewed certificate, an image update that moves the library, other root
//! certificates and a changed setting, with the plug pulled during each; a reset removes it.

use std::process::Command;

use anyhow::{Context, Result};
use image_tests::clients::KeyType;
use image_tests::device::machine::{Machine, Running};
use image_tests::device::offline_settings;
use image_tests::doubles::pki::Authority;
use image_tests::process;
use serde_json::{Value, json};

use super::pulled_plugs::cut;
use super::{certificate, certify, flash, let_in, request, sign};

const MOVED: &str = "/usr/lib/moved/libtpm2_pkcs11.so";
const ALIAS: &str = "AnotherAlias";

/// Where an edition keeps its state, and where the power goes during each change.
struct Edition {
    name: &'static str,
    units: &'static str,
    state: &'static str,
    /// What takes the new certificate's place.
    renewed: &'static str,
    /// With the library moved, then twice with other settings.
    cuts: [(&'static str, &'static str); 3],
}

/// Five boots with a change or a cut in each, and one that is not disturbed.
fn survives(edition: &Edition, deploy: impl FnOnce(&mut Running) -> Result<()>) -> Result<Running> {
    let authority = Authority::new()?;
    let mut running = flash(edition.name, &authority)?
        .boot()?
        .until("multi-user.target")?;
    certify(&mut running, &authority)?;
    running = let_in(running)?;
    deploy(&mut running)?;
    move_the_library(&mut running)?;
    let machine = running.power_off()?;

    let asked = machine.card.read_text(&request())?;
    machine
        .card
        .put(&certificate(), sign(&authority, asked.as_bytes())?)?;
    let machine = cut(machine, "before", &format!("rename {}", edition.renewed))?;
    let [library, settings @ ..] = edition.cuts;
    let mut machine = cut(machine, library.0, &format!("rename {}", library.1))?;
    change_settings(&machine, edition.name, &authority)?;
    for (when, path) in settings {
        machine = cut(machine, when, &format!("rename {path}"))?;
    }
    let_in(machine.boot()?)
}

/// An image update that moves the PKCS#11 library.
fn move_the_library(running: &mut Running) -> Result<()> {
    running.succeed(&format!(
        "set -e; mkdir -p $(dirname {MOVED}); cp -L $(ls /usr/lib/*/pkcs11/libtpm2_pkcs11.so) {MOVED}; \
         cd /usr/lib/firstboot; jq '.platform.pkcs11_module = \"{MOVED}\"' firstboot.json >/run/image.json; \
         cat /run/image.json >firstboot.json; sync"
    ))?;
    Ok(())
}

/// Another root certificate beside the old one, and another role alias.
fn change_settings(machine: &Machine, edition: &str, authority: &Authority) -> Result<()> {
    let mut settings = offline_settings(edition, KeyType::EccP256);
    settings["greengrass"]["iot_role_alias"] = json!(ALIAS);
    let card = &machine.card;
    card.put("firstboot/firstboot.json", settings.to_string())?;
    let roots = authority.certificate_pem()? + &Authority::new()?.certificate_pem()?;
    card.put("firstboot/root-ca.pem", roots)
}

/// Nothing of the state is left where Greengrass would find it.
fn ends_with_a_reset(mut running: Running, edition: &Edition) -> Result<()> {
    running.succeed(&format!(
        "systemctl stop {} && firstboot reset && test ! -e {}",
        edition.units, edition.state
    ))?;
    running.power_off()?;
    Ok(())
}

#[test]
fn nucleus_lite_keeps_its_deployments() -> Result<()> {
    let lite = Edition {
        name: "nucleus-lite",
        units: "greengrass-lite.target",
        state: "/var/lib/greengrass/config.db",
        renewed: "/var/lib/tpm2_pkcs11/certificate.pem",
        cuts: [
            ("before", "/etc/greengrass/openssl.cnf"),
            ("after", "/etc/greengrass/root-ca.pem"),
            ("before", "/etc/greengrass/config.yaml"),
        ],
    };
    let digest = format!("sha256sum {0} {0}.backup; stat -c %U:%a {0}", lite.state);
    let mut before = String::new();
    let mut running = survives(&lite, |running| {
        running.put("/boot/database", &database()?)?;
        running.succeed(
            "set -e; install -d -o ggcore -g ggcore /var/lib/greengrass; cd /var/lib/greengrass; \
             base64 -d /boot/database >config.db; cp config.db config.db.backup; chown ggcore:ggcore config.db*; \
             rm /boot/database; sync",
        )?;
        before = running.succeed(&digest)?;
        Ok(())
    })?;
    assert_eq!(running.succeed(&digest)?, before);
    let written = running.succeed("cat /etc/greengrass/openssl.cnf /etc/greengrass/config.yaml")?;
    assert!(
        written.contains(MOVED) && written.contains(ALIAS),
        "{written}"
    );
    ends_with_a_reset(running, &lite)
}

/// ggconfigd's database with a deployed component, created by SQLite; base64.
fn database() -> Result<String> {
    let script = r#"
import base64, os, sqlite3, sys, tempfile
path = os.path.join(tempfile.mkdtemp(), "config.db")
with sqlite3.connect(path) as d:
    d.executescript("""
        CREATE TABLE keyTable (keyid INTEGER PRIMARY KEY AUTOINCREMENT UNIQUE NOT NULL, keyvalue TEXT NOT NULL);
        CREATE TABLE relationTable (keyid INT UNIQUE NOT NULL, parentid INT NOT NULL, PRIMARY KEY (keyid));
        CREATE TABLE valueTable (keyid INT UNIQUE NOT NULL, value TEXT NOT NULL, timeStamp INTEGER NOT NULL);
        CREATE TABLE version (version TEXT DEFAULT '0.1');
        INSERT INTO version VALUES ('0.1');
        INSERT INTO keyTable VALUES (1, 'services'), (2, 'com.example.App'), (3, 'version');
        INSERT INTO relationTable VALUES (2, 1), (3, 2);
        INSERT INTO valueTable VALUES (3, '"1.0.0"', 1764000000000);
    """)
d.close()
print(base64.b64encode(open(path, "rb").read()).decode())
os.remove(path)
os.rmdir(os.path.dirname(path))
"#;
    let made = process::finish(Command::new("python3").args(["-c", script]))?;
    anyhow::ensure!(made.code == 0, "{}", made.stderr);
    Ok(made.stdout)
}

#[test]
fn the_nucleus_keeps_its_deployments() -> Result<()> {
    let nucleus = Edition {
        name: "nucleus",
        units: "greengrass.service",
        state: "/greengrass/v2/config/config.tlog",
        renewed: "/var/lib/tpm2_pkcs11/verified.json",
        // The log comes before the files.
        cuts: [
            ("before", "/greengrass/v2/config/config.yaml"),
            ("after", "/greengrass/v2/config/config.tlog"),
            ("after", "/greengrass/v2/root-ca.pem"),
        ],
    };
    let read = format!("cat {}", nucleus.state);
    let mut before = String::new();
    let mut running = survives(&nucleus, |running| {
        // As the nucleus writes it after reading the configuration; then a deployment.
        running.succeed(
            r#"cd /greengrass/v2/config; jq -c 'paths(scalars) as $p
               | {TS: 1700000000000, TP: $p, W: "changed", V: getpath($p)}' config.yaml >config.tlog
               echo '{"TS":1764000000000,"TP":["services","com.example.App","version"],"W":"changed","V":"1.0.0"}' \
               >>config.tlog; sync"#,
        )?;
        before = running.succeed(&read)?;
        Ok(())
    })?;
    let after = running.succeed(&read)?;
    let added = after
        .strip_prefix(&before)
        .context("the log has lost lines")?;
    let added: Vec<Value> = added
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    assert_eq!(added.len(), 2, "each change once: {added:?}");
    for (line, key, value) in [
        (&added[0], "library", MOVED),
        (&added[1], "iotRoleAlias", ALIAS),
    ] {
        assert_eq!((&line["TP"][3], &line["V"]), (&json!(key), &json!(value)));
    }
    ends_with_a_reset(running, &nucleus)
}
