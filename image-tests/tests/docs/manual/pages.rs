//! What the manual pages say beside the command lines: description, files, environment, further reading.

use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory};
use firstboot::layout::{BOOT, IDENTITY, IMAGE_ROOT_CA, IMAGE_SETTINGS};
use firstboot::provision::State;

/// A program with a manual page.
pub struct Program {
    pub command: Command,
    /// The page's section.
    pub section: &'static str,
    /// What the section is called.
    pub manual: &'static str,
    /// Where the program's sources are.
    pub folder: &'static str,
    pub description: Section,
    /// Those between the exit statuses and the examples.
    pub sections: Vec<(&'static str, Section)>,
    pub see_also: Section,
}

/// A section's content.
pub enum Section {
    Paragraphs(Vec<&'static str>),
    /// Terms, and what is said of them.
    Entries(Vec<(String, String)>),
}

impl Program {
    pub fn name(&self) -> String {
        self.command.get_name().to_owned()
    }

    /// Name and version.
    pub fn release(&self) -> String {
        format!(
            "{} {}",
            self.name(),
            self.command.get_version().unwrap_or_default()
        )
    }

    /// Where the page is in the repository.
    pub fn page_path(&self) -> PathBuf {
        let page = format!("{}.{}", self.name(), self.section);
        Path::new(self.folder).join("man").join(page)
    }
}

fn entries<A: Into<String>, B: Into<String>>(list: impl IntoIterator<Item = (A, B)>) -> Section {
    Section::Entries(
        list.into_iter()
            .map(|(a, b)| (a.into(), b.into()))
            .collect(),
    )
}

/// The device's program and the bench's.
pub fn programs() -> [Program; 2] {
    [device(), station()]
}

fn device() -> Program {
    Program {
        command: firstboot::cli::Arguments::command(),
        section: "8",
        manual: "System Manager's Manual",
        folder: "firstboot",
        description: Section::Paragraphs(vec![
            "firstboot creates a PKCS#11 token, a key pair in the device's TPM and a certificate request, obtains the \
             certificate, and configures AWS IoT Greengrass (nucleus, nucleus lite or v1) to use key and certificate. \
             The key never leaves the TPM.",
            "systemd runs it at each boot: firstboot.service runs provision until the device has its certificate, \
             firstboot-enroll.service runs enroll, and Greengrass waits for the latter. Each start looks at what is \
             there, takes the steps that are missing, and ends. With nothing to do, it writes nothing. The power may \
             fail at any moment: the next start goes on from what it finds.",
            "The certificate comes from files that an operator puts on the boot partition, from AWS IoT fleet \
             provisioning, or from an EST server, as firstboot.json says. firstboot-renew.timer starts \
             firstboot-renew.service daily, which runs renew.",
        ]),
        sections: vec![
            (
                "STATES",
                entries(State::ALL.iter().map(|s| (s.to_string(), s.meaning()))),
            ),
            (
                "ENVIRONMENT",
                entries([
                    ("TPM2_PKCS11_TCTI", "The TPM's TCTI, as for --tcti."),
                    (
                        "TSS2_LOG, TPM2_PKCS11_LOG_LEVEL",
                        "What the TPM libraries log. If they are not set, firstboot keeps the libraries quiet, unless \
                         --verbose is given.",
                    ),
                    (
                        "PKCS11_SQL_LOCK",
                        "Where tpm2-pkcs11 creates its lock file. If it is set, status also checks that the calling \
                         user can open it.",
                    ),
                    (
                        "NOTIFY_SOCKET",
                        "Set by systemd, which is told there what is going on. If it is not set, a person runs \
                         firstboot: enroll then says when Greengrass must not be running.",
                    ),
                    (
                        "JOURNAL_STREAM",
                        "Set by systemd. If it names standard error, each line of the log begins with its priority.",
                    ),
                ]),
            ),
            (
                "FILES",
                entries([
                    (
                        format!("{BOOT}/firstboot.json"),
                        "The operator's settings.".to_owned(),
                    ),
                    (
                        IMAGE_SETTINGS.to_owned(),
                        "The image's settings, which the operator's override.".to_owned(),
                    ),
                    (
                        format!("{BOOT}/requests/<thing>.csr.pem, <thing>.json"),
                        "The certificate request, and its record: board, TPM, key, and the evidence that the key is in \
                         that TPM."
                            .to_owned(),
                    ),
                    (
                        format!("{BOOT}/certificates/<thing>.pem, <thing>.reply.json"),
                        "The certificate, or a reply of firstboot-station(1) that only this TPM can open.".to_owned(),
                    ),
                    (
                        format!("{BOOT}/requests/<thing>.next.*, {BOOT}/certificates/<thing>.next.*"),
                        "The same for the next key.".to_owned(),
                    ),
                    (
                        format!("{BOOT}/requests/<thing>.eap.*, {BOOT}/certificates/<thing>.eap.*"),
                        "The same for the networks' own key.".to_owned(),
                    ),
                    (
                        format!("{BOOT}/claim.cert.pem, claim.key.pem, claim.password"),
                        "The fleet's claim, for fleet provisioning and EST; removed from the card after enrollment."
                            .to_owned(),
                    ),
                    (
                        format!("{BOOT}/est-ca.pem"),
                        "The CAs of an EST server and of the certificates that it issues.".to_owned(),
                    ),
                    (
                        format!("{BOOT}/eap-ca.pem"),
                        "The CA of the RADIUS server of networks that ask who the device is.".to_owned(),
                    ),
                    (
                        format!("{BOOT}/root-ca.pem"),
                        format!("Root certificates in place of those in {IMAGE_ROOT_CA}."),
                    ),
                    (
                        format!("{BOOT}/status.json"),
                        "The state after the last start, for people without a login.".to_owned(),
                    ),
                    (
                        format!("{IDENTITY}/"),
                        "The identity: token store, PIN, request, certificate. Readable by root, and by nucleus lite's \
                         group ggcore."
                            .to_owned(),
                    ),
                    (
                        format!("{IDENTITY}.next/, {IDENTITY}.previous/"),
                        "The identity with the next key, and the one that was in service before.".to_owned(),
                    ),
                    (
                        format!("{IDENTITY}.eap/"),
                        "The identity with the networks' own key, with a PIN of its own. Readable by root.".to_owned(),
                    ),
                    (
                        format!("{IDENTITY}.orphan-N/"),
                        "Identities that were set aside; the latest two are kept.".to_owned(),
                    ),
                    (
                        "/var/lib/firstboot/".to_owned(),
                        "The claim pair, where renewals may need it, and which storage root key has an authorization \
                         value. Readable by root."
                            .to_owned(),
                    ),
                    (
                        "/greengrass/v2/config/config.yaml, /etc/greengrass/config.yaml, /greengrass/config/config.json"
                            .to_owned(),
                        "Greengrass's configuration: nucleus, nucleus lite, v1.".to_owned(),
                    ),
                    (
                        "/etc/wpa_supplicant/wpa_supplicant[-wired]-<interface>.conf, /etc/wpa_supplicant/firstboot/, \
                         /etc/systemd/network/zz-firstboot-<interface>.network"
                            .to_owned(),
                        "The networks that ask who the device is: wpa_supplicant's configuration with what OpenSSL and \
                         systemd need for it, and DHCP."
                            .to_owned(),
                    ),
                ]),
            ),
        ],
        see_also: Section::Paragraphs(vec![
            "firstboot-station(1), systemctl(1), journalctl(1), tpm2_getcap(1), p11tool(1)",
        ]),
    }
}

fn station() -> Program {
    Program {
        command: firstboot_station::cli::Arguments::command(),
        section: "1",
        manual: "General Commands Manual",
        folder: "firstboot/station",
        description: Section::Paragraphs(vec![
            "firstboot-station answers the certificate requests that firstboot(8) writes to its devices' cards. It checks \
             that a request comes with the endorsement key certificate of a TPM whose manufacturer you trust, and with a \
             key that such a TPM has generated and never exports. The answer is a certificate, encrypted so that only \
             this TPM can read it, and only while the key of the request is loaded in it.",
            "The certificate is a secret until its first use: until then, the answer is the only proof of where the key \
             is. The station never writes it to a disk in clear.",
            "It needs no network. The CA's key may be in a file, or in a smart card or HSM.",
        ]),
        sections: vec![(
            "FILES",
            entries([
                (
                    "<thing>.json, <thing>.csr.pem",
                    "A request's record, and the request. Both are needed.",
                ),
                (
                    "<thing>.reply.json",
                    "The reply, for firstboot/certificates/ on the device's boot partition.",
                ),
            ]),
        )],
        see_also: Section::Paragraphs(vec!["firstboot(8), p11tool(1), openssl-x509(1)"]),
    }
}
