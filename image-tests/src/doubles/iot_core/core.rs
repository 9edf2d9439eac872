//! The running double.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use openssl::hash::MessageDigest;
use openssl::x509::X509;

use super::answering::Shared;
use super::broker::Broker;
use super::event_log::EventLog;
use super::link::{self, Kind};
use super::memory::Memory;
use super::misbehaviour::{Admission, Call, Misbehaviour};
use super::policy::{ClientIds, Renewing};
use super::provisioning::{Repeated, Service, Template};
use super::registry::{Counts, Registry, Status};
use crate::doubles::pki::aws::{AwsCa, ClaimKey, Subject};
use crate::doubles::pki::{Authority, Pair, Validity, hex};

/// How long to wait for something before giving up.
const PATIENCE: Duration = Duration::from_secs(60);

/// The double's configuration.
#[derive(Clone, Debug)]
pub struct Options {
    pub templates: Vec<Template>,
    pub repeated: Repeated,
    pub subject: Subject,
    pub claim: ClaimKey,
    /// PEM of the operator's CAs for just-in-time provisioning. The broker does not trust these: a device has to send
    /// its chain up to one of `trusted`.
    pub registered: Vec<String>,
    /// PEM of further CAs whose clients the broker accepts.
    pub trusted: Vec<String>,
    /// What devices may do to get another certificate.
    pub renewing: Renewing,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            templates: vec![Template::default()],
            repeated: Repeated::default(),
            subject: Subject::default(),
            claim: ClaimKey::Ecc,
            registered: Vec::new(),
            trusted: Vec::new(),
            renewing: Renewing::default(),
        }
    }
}

/// The double of AWS IoT Core. It stops, and its broker with it, when it is dropped.
pub struct IotCore {
    broker: Option<Broker>,
    port: u16,
    shared: Arc<(Mutex<Shared>, Condvar)>,
    link: Option<JoinHandle<()>>,
}

impl IotCore {
    /// A double whose server certificate this authority signs ("Amazon Root CA").
    pub fn start(root: &Authority, options: Options) -> Result<Self> {
        let issuer = AwsCa::shared()?;
        let (claim, key) = issuer.claim(options.claim)?;
        let pem = |text: Vec<u8>| String::from_utf8(text).context("PEM is text");
        let mut trusted = issuer.certificate_pem()?;
        for more in &options.trusted {
            trusted.extend(more.as_bytes());
        }
        let registered = options
            .registered
            .iter()
            .map(|pem| X509::from_pem(pem.as_bytes()));
        let memory = Memory {
            claim: hex(&claim.digest(MessageDigest::sha256())?),
            claim_pem: [pem(claim.to_pem()?)?, pem(key.private_key_to_pem_pkcs8()?)?],
            registered: registered.collect::<Result<_, _>>()?,
            trusted,
            renewing: options.renewing,
            client_ids: ClientIds::default(),
            service: Service {
                validity: Validity::Now,
                registry: Registry::default(),
                issuer,
                templates: options.templates,
                repeated: options.repeated,
                subject: options.subject,
            },
        };
        Self::resume(root, memory)
    }

    /// A double that continues from the state of another one.
    pub fn resume(root: &Authority, memory: Memory) -> Result<Self> {
        Self::serve(&root.server()?, memory)
    }

    /// The same with a given server certificate.
    pub fn serve(server: &Pair, memory: Memory) -> Result<Self> {
        let ahead = memory.service.registry.now();
        let (broker, stream) = Broker::start(server, &memory.trusted, ahead)?;
        let shared = Arc::new((Mutex::new(Shared::new(memory)), Condvar::new()));
        let answering = Arc::clone(&shared);
        let (ticked, ticks) = mpsc::channel();
        let link = std::thread::spawn(move || {
            // If the broker dies, its clients notice.
            let _ = link::serve(stream, |question| {
                if question.kind == Kind::Tick {
                    // Only the first one is waited for.
                    let _ = ticked.send(());
                }
                let answer = lock(&answering.0).answer(&question);
                answering.1.notify_all();
                answer
            });
        });
        // mosquitto ticks in its main loop, which it enters after opening its listeners.
        ticks
            .recv_timeout(PATIENCE)
            .with_context(|| format!("waiting for mosquitto to listen: {:?}", broker.log()))?;
        Ok(Self {
            port: broker.port(),
            broker: Some(broker),
            shared,
            link: Some(link),
        })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The claim pair: certificate, and key as PKCS#8, both PEM.
    pub fn claim(&self) -> [String; 2] {
        self.lock().memory.claim_pem.clone()
    }

    pub fn memory(&self) -> Memory {
        self.lock().memory.clone()
    }

    pub fn registry(&self) -> Registry {
        self.lock().memory.service.registry.clone()
    }

    pub fn counts(&self) -> Counts {
        self.lock().memory.service.registry.counts()
    }

    /// Blocks until the counts satisfy `wanted`. Fails after a minute.
    pub fn wait_until(&self, what: &str, wanted: impl Fn(Counts) -> bool) -> Result<()> {
        let counted = |shared: &Shared| wanted(shared.memory.service.registry.counts());
        self.wait(what, counted).map(drop)
    }

    fn wait(&self, what: &str, wanted: impl Fn(&Shared) -> bool) -> Result<MutexGuard<'_, Shared>> {
        let missing = |shared: &mut Shared| !wanted(shared);
        let waited = self
            .shared
            .1
            .wait_timeout_while(self.lock(), PATIENCE, missing);
        let (shared, result) = waited.unwrap_or_else(PoisonError::into_inner);
        ensure!(
            !result.timed_out(),
            "waiting for {what}: nothing within a minute"
        );
        Ok(shared)
    }

    pub fn events(&self) -> EventLog {
        self.lock().events.clone()
    }

    /// The events so far, once no connection is open: the broker may notice the end of one after its client is gone.
    pub fn take_events(&self) -> Result<EventLog> {
        let mut shared = self.wait("connections to end", |shared| shared.events.open() == 0)?;
        Ok(std::mem::take(&mut shared.events))
    }

    /// mosquitto's log.
    pub fn log(&self) -> Result<String> {
        self.broker.as_ref().context("no broker")?.log()
    }

    /// The broker's peak resident memory so far, KiB.
    pub fn memory_peak(&self) -> Result<u64> {
        self.broker.as_ref().context("no broker")?.memory_peak()
    }

    /// Advances the double's clock. From its next start on, the broker goes by it, too: it lets nobody in whose
    /// certificate has ended.
    pub fn advance(&self, by: Duration) {
        self.lock().memory.service.registry.advance(by);
    }

    /// Sets a certificate's status, as an operator can.
    pub fn set_status(&self, id: &str, status: Status) {
        if let Some(certificate) = self.lock().memory.service.registry.certificate_mut(id) {
            certificate.status = status;
        }
    }

    /// Certificates are valid then from now on.
    pub fn set_validity(&self, validity: Validity) {
        self.lock().memory.service.validity = validity;
    }

    /// Changes what devices may do to get another certificate.
    pub fn set_renewing(&self, renewing: Renewing) {
        self.lock().memory.renewing = renewing;
    }

    /// Changes under which client IDs devices may connect.
    pub fn set_client_ids(&self, client_ids: ClientIds) {
        self.lock().memory.client_ids = client_ids;
    }

    /// As if a thing had connected before with this certificate of a registered CA.
    pub fn has_seen(&self, id: &str, thing: &str) {
        let registry = &mut self.lock().memory.service.registry;
        registry.provision_just_in_time(id, thing);
    }

    pub fn set_repeated(&self, repeated: Repeated) {
        self.lock().memory.service.repeated = repeated;
    }

    /// Misbehaves in this way at the next `times` requests of a kind.
    pub fn misbehave(&self, call: Call, times: usize, misbehaviour: Misbehaviour) {
        self.lock().orders.add(call, times, misbehaviour);
    }

    /// Behaves as documented from now on.
    pub fn behave(&self) {
        let mut shared = self.lock();
        shared.orders.clear();
        shared.admission = Admission::ByPolicy;
    }

    pub fn set_admission(&self, admission: Admission) {
        self.lock().admission = admission;
    }

    /// Sends the answers held back to the clients that are still connected.
    pub fn release(&self) {
        self.lock().released = true;
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        lock(&self.shared.0)
    }
}

impl Drop for IotCore {
    fn drop(&mut self) {
        self.broker = None;
        if let Some(link) = self.link.take() {
            let _ = link.join();
        }
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
