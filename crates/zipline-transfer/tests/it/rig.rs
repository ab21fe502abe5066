//! A holder and a receiver in one process.

use bytes::Bytes;
use std::net::SocketAddr;
use std::time::Duration;
use zipline_buffer::{PayloadGuard, PayloadWriter, Spec, Store, StoreConfig};
use zipline_protocol::{BootId, PayloadId, Record, ReferenceKind, Retrievals};
use zipline_runtime::Tasks;
use zipline_seal::{Keyring, KeyringUpdate, Secret, TenantKey, new_boot_id, new_payload_id};
use zipline_transfer::{
    DataCertificate, DataPort, DataPortConfig, DataPortMonitor, Retrieval, RetrieveError, RetrieveOptions,
    Retriever, RetrieverConfig,
};

pub(crate) const MIB: usize = 1024 * 1024;

/// Longer than what is held back, so that a digest and bytes let go before it can be seen together.
pub(crate) const DIGEST_MAX_BYTES: u64 = 1024 * 1024;

pub(crate) struct Rig {
    pub(crate) store: Store,
    pub(crate) keyring: Keyring,
    pub(crate) boot: BootId,
    pub(crate) certificate: Option<[u8; 32]>,
    pub(crate) address: SocketAddr,
    pub(crate) monitor: DataPortMonitor,
    pub(crate) tasks: Tasks,
}

pub(crate) fn keyring(secret: u8) -> Keyring {
    let keyring = Keyring::new("default");
    let keys = vec![TenantKey { serial: 1, secret: Secret::from_bytes([secret; 32]) }];
    keyring.install(KeyringUpdate { keys, seal_with: Some(1) }).unwrap();
    keyring
}

/// Bytes that differ at every offset that matters.
pub(crate) fn pattern(length: usize) -> Bytes {
    (0..length).map(|at| u8::try_from((at ^ (at >> 8) ^ (at >> 16)) & 0xFF).unwrap()).collect()
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    /// The same, but its port speaks TLS.
    pub(crate) fn with_tls() -> Self {
        Self::with(|config| config.certificate = Some(DataCertificate::generate().unwrap()))
    }

    pub(crate) fn with(change: impl FnOnce(&mut DataPortConfig)) -> Self {
        let digest_max_bytes = DIGEST_MAX_BYTES;
        let store = Store::new(StoreConfig { digest_max_bytes, ..StoreConfig::with_budget(64 << 20) });
        let (keyring, boot, tasks) = (keyring(1), new_boot_id(), Tasks::new());
        let mut config = DataPortConfig::new("127.0.0.1:0".parse().unwrap(), boot);
        change(&mut config);
        let certificate = config.certificate.as_ref().map(DataCertificate::digest);
        let port = DataPort::bind(config, keyring.clone(), store.clone()).unwrap();
        let (address, monitor) = (port.local_addr(), port.monitor());
        drop(tasks.spawn("expiry", store.run_expiry()));
        drop(tasks.spawn("port", port.run(tasks.child())));
        Self { store, keyring, boot, certificate, address, monitor, tasks }
    }

    pub(crate) fn spec(length: Option<u64>) -> Spec {
        Spec {
            id: new_payload_id(),
            kind: ReferenceKind::Put,
            length,
            retrievals: Retrievals::Limited(5),
            ttl: Some(Duration::from_secs(3600)),
            linger: Duration::ZERO,
            wait: None,
            windowed: false,
        }
    }

    pub(crate) fn record(&self, id: PayloadId, length: Option<u64>) -> Record {
        Record {
            kind: ReferenceKind::Put,
            payload: id,
            boot: self.boot,
            addresses: vec![self.address],
            length,
            expiry_unix_ms: None,
            retrievals: Retrievals::Limited(5),
            digest: None,
            binding: None,
            certificate: self.certificate,
            zone: String::new(),
            tenant: "default".to_owned(),
            content_type: None,
        }
    }

    /// Holds a complete payload that may be retrieved five times.
    pub(crate) async fn hold(&self, bytes: &Bytes) -> Record {
        let mut record = self.hold_n(bytes, Retrievals::Limited(5)).await;
        record.retrievals = Retrievals::Limited(5);
        record
    }

    pub(crate) async fn hold_n(&self, bytes: &Bytes, retrievals: Retrievals) -> Record {
        let spec = Spec { retrievals, ..Self::spec(Some(bytes.len() as u64)) };
        let id = spec.id;
        let (mut writer, guard) = self.store.begin(spec).await.unwrap();
        writer.write(bytes.clone()).await.unwrap();
        let complete = writer.finish(Vec::new()).unwrap();
        guard.keep();
        Record { digest: complete.digest, ..self.record(id, Some(complete.length)) }
    }

    /// Begins a growing payload.
    pub(crate) async fn grow(&self) -> (Record, PayloadWriter, PayloadGuard) {
        let spec = Self::spec(None);
        let record = self.record(spec.id, None);
        let (writer, guard) = self.store.begin(spec).await.unwrap();
        (record, writer, guard)
    }

    pub(crate) fn retriever(&self) -> Retriever {
        self.retriever_with(RetrieverConfig {
            digest_max_bytes: DIGEST_MAX_BYTES,
            ..RetrieverConfig::default()
        })
    }

    pub(crate) fn retriever_with(&self, config: RetrieverConfig) -> Retriever {
        Retriever::new(self.keyring.clone(), self.tasks.child(), config)
    }

    pub(crate) fn retrievals_left(&self, record: &Record) -> Option<u32> {
        self.store.info(&record.payload).and_then(|info| info.retrievals_left)
    }

    pub(crate) fn leases(&self) -> usize {
        self.store.snapshot().leases
    }
}

/// A retriever with the order of its time limits kept, all of them short.
pub(crate) fn hasty() -> RetrieverConfig {
    RetrieverConfig {
        connect_timeout: Duration::from_millis(300),
        progress_timeout: Duration::from_millis(300),
        ..RetrieverConfig::default()
    }
}

/// Everything up to the end, or to the failure.
pub(crate) async fn drain(retrieval: &mut Retrieval) -> (Vec<u8>, Option<RetrieveError>) {
    let mut all = Vec::new();
    while let Some(bytes) = retrieval.next().await {
        match bytes {
            Ok(bytes) => all.extend_from_slice(&bytes),
            Err(error) => return (all, Some(error)),
        }
    }
    (all, None)
}

pub(crate) async fn retrieve(
    retriever: &Retriever,
    record: &Record,
    options: RetrieveOptions,
) -> Result<Vec<u8>, RetrieveError> {
    let mut retrieval = retriever.start(record, options).await?;
    let (all, error) = drain(&mut retrieval).await;
    match error {
        Some(error) => Err(error),
        None => {
            assert!(retrieval.is_complete());
            retrieval.acknowledge().await?;
            Ok(all)
        }
    }
}

/// Waits until `condition` holds, as often as other tasks run; the test's own time limit is the runner's.
pub(crate) async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
