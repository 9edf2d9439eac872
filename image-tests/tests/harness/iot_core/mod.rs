//! The double of AWS IoT Core, tested with mosquitto's clients: it does what AWS documents, and refuses what AWS
//! refuses.

mod api;
mod broker;
mod misbehaviour;
mod relay;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use image_tests::doubles::iot_core::{IotCore, Options};
use image_tests::doubles::pki::{Authority, Pair};
use image_tests::process::{Finished, bounded, finish, succeed};
use serde_json::{Value, json};

const CREATE: &str = "$aws/certificates/create-from-csr/json";
const REGISTER: &str = "$aws/provisioning-templates/gateways/provision/json";

struct Double {
    root: Authority,
    core: IotCore,
    files: tempfile::TempDir,
    claim: Pair,
}

impl Double {
    fn new() -> Result<Self> {
        Self::with(Options::default())
    }

    fn with(options: Options) -> Result<Self> {
        let root = Authority::new()?;
        let core = IotCore::start(&root, options)?;
        let files = tempfile::tempdir()?;
        let [certificate, key] = core.claim();
        let claim = Pair {
            certificate: files.path().join("claim.cert.pem"),
            key: files.path().join("claim.key.pem"),
        };
        std::fs::write(&claim.certificate, certificate)?;
        std::fs::write(&claim.key, key)?;
        Ok(Self {
            root,
            core,
            files,
            claim,
        })
    }

    /// One of mosquitto's clients with this certificate, client ID and port.
    fn client(&self, program: &str, who: &Pair, id: &str, port: u16) -> Command {
        let mut command = bounded(program);
        command.args(["-h", "localhost", "-V", "mqttv311", "-q", "1", "-i", id]);
        command.args(["-p", &port.to_string()]);
        command.arg("--cafile").arg(self.root.certificate_path());
        command.arg("--cert").arg(&who.certificate);
        command.arg("--key").arg(&who.key);
        command
    }

    /// Publishes something, and waits for a message at another topic.
    fn request(&self, topic: &str, answer: &str, payload: &str, port: u16) -> Result<Finished> {
        self.ask(topic, answer, payload, port, "60")
    }

    /// The same for a message that must not come.
    fn in_vain(&self, topic: &str, answer: &str, payload: &str) -> Result<String> {
        let said = self.ask(topic, answer, payload, self.core.port(), "2")?;
        Ok(said.stdout)
    }

    fn ask(
        &self,
        topic: &str,
        answer: &str,
        payload: &str,
        port: u16,
        seconds: &str,
    ) -> Result<Finished> {
        let mut command = self.client("mosquitto_rr", &self.claim, "device", port);
        command.args(["-W", seconds, "-t", topic, "-e", answer, "-m", payload]);
        finish(&mut command)
    }

    fn accepted(&self, topic: &str, payload: &Value) -> Result<Value> {
        self.answer(topic, "accepted", payload)
    }

    fn rejected(&self, topic: &str, payload: &Value) -> Result<Value> {
        self.answer(topic, "rejected", payload)
    }

    fn answer(&self, topic: &str, kind: &str, payload: &Value) -> Result<Value> {
        let at = format!("{topic}/{kind}");
        let said = self.request(topic, &at, &payload.to_string(), self.core.port())?;
        serde_json::from_str(&said.stdout)
            .with_context(|| format!("no answer: {said:?}\n{:?}", self.core.events()))
    }

    fn create(&self, request: &str) -> Result<Value> {
        self.accepted(CREATE, &json!({ "certificateSigningRequest": request }))
    }

    fn register(&self, token: &Value, serial: &str) -> Result<Value> {
        self.accepted(REGISTER, &registration(token, serial))
    }

    /// Whether a device can connect with its own certificate and publish to its own topic.
    fn lets_in(&self, who: &Pair, thing: &str) -> Result<bool> {
        let mut command = self.client("mosquitto_pub", who, thing, self.core.port());
        command.args(["-t", &format!("devices/{thing}/hello"), "-m", "hello"]);
        Ok(finish(&mut command)?.code == 0)
    }

    /// A new key, by these arguments of `openssl genpkey`, and a request for it.
    fn request_for(&self, key: &[&str]) -> Result<(PathBuf, String)> {
        let path = tempfile::NamedTempFile::new_in(&self.files)?
            .into_temp_path()
            .keep()?;
        succeed(
            bounded("openssl")
                .arg("genpkey")
                .args(key)
                .arg("-out")
                .arg(&path),
        )?;
        let mut make = bounded("openssl");
        make.args([
            "req",
            "-new",
            "-config",
            "/dev/null",
            "-subj",
            "/CN=gateway-1",
            "-key",
        ]);
        let request = succeed(make.arg(&path))?;
        Ok((path, request))
    }

    fn ecc_request(&self) -> Result<(PathBuf, String)> {
        self.request_for(&["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"])
    }

    /// Writes a certificate into a file beside its key.
    fn pair(&self, key: PathBuf, created: &Value) -> Result<Pair> {
        let certificate = key.with_extension("crt");
        let pem = created["certificatePem"]
            .as_str()
            .context("no certificate")?;
        std::fs::write(&certificate, pem)?;
        Ok(Pair { certificate, key })
    }
}

fn registration(token: &Value, serial: &str) -> Value {
    json!({ "certificateOwnershipToken": token, "parameters": { "SerialNumber": serial } })
}
