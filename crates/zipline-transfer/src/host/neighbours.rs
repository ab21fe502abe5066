//! The receiver's side: holders on this machine.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::net::UnixStream;
use zipline_protocol::data::{DataRequest, Operation};
use zipline_protocol::host::{Ask, socket_name};
use zipline_protocol::{BootId, ErrorCode, KeyId, LeaseId, Record};
use zipline_runtime::Tasks;
use zipline_seal::{Keyring, SignedRequest, new_lease_id, new_nonce};
use zipline_segment::{Access, Home, Mapping, SegmentBytes};

use super::LINKS_MAX;
use super::frames::Frames;
use super::link::{Answered, Link, Returning};
use crate::error::{RetrieveError, RetrieveErrorKind as Kind, code_of_status};

/// Holders whose connections are kept; beyond it, those without one are forgotten.
const HOLDERS_MAX: usize = 256;
/// Longer payloads are digested off the reactor.
const DIGEST_HERE_MAX: usize = 256 * 1024;

/// Holders on this machine. Clones share connections.
#[derive(Clone)]
pub struct Neighbours {
    shared: Arc<Inner>,
}

struct Inner {
    directory: PathBuf,
    keyring: Keyring,
    tasks: Tasks,
    links: Mutex<HashMap<BootId, Vec<Link>>>,
}

/// A payload in the memory of its holder, or small enough to have come as bytes.
#[derive(Debug)]
pub struct Shared {
    /// The bytes. Their memory goes back to the holder when the last handle to them is dropped.
    pub bytes: SharedBytes,
    /// To be acknowledged once every byte was delivered; dropped before that, the retrieval does not count.
    pub receipt: Receipt,
}

/// Where a shared payload lies.
#[derive(Debug, Clone)]
pub enum SharedBytes {
    /// In the holder's memory, mapped for reading. Its sender may be able to change it, if it is hostile.
    Segment(SegmentBytes),
    /// Here.
    Inline(Bytes),
}

impl SharedBytes {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.as_ref().len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<SharedBytes> for Bytes {
    fn from(bytes: SharedBytes) -> Self {
        match bytes {
            SharedBytes::Segment(bytes) => bytes.into(),
            SharedBytes::Inline(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for SharedBytes {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Segment(bytes) => bytes,
            Self::Inline(bytes) => bytes,
        }
    }
}

/// The lease of a share.
pub struct Receipt {
    neighbours: Neighbours,
    link: Link,
    record: Lease,
    settled: bool,
}

#[derive(Debug, Clone, Copy)]
struct Lease {
    boot: BootId,
    payload: zipline_protocol::PayloadId,
    lease: LeaseId,
}

impl Neighbours {
    /// Those whose sockets are in `directory`. Connections are tasks of `tasks`.
    #[must_use]
    pub fn new(directory: PathBuf, keyring: Keyring, tasks: Tasks) -> Self {
        Self { shared: Arc::new(Inner { directory, keyring, tasks, links: Mutex::default() }) }
    }

    /// Takes a lease of what `record` names and maps its memory. `None`: the holder is not on this machine, does not answer,
    /// or has nothing that could be passed; the network may do better.
    ///
    /// # Errors
    /// [`RetrieveError`]: no key, or the holder refused with proof, or what it passed is not what the reference names.
    /// # Cancel safety
    /// Dropping the future gives back what may have been granted.
    pub async fn share(&self, record: &Record) -> Result<Option<Shared>, RetrieveError> {
        let Some(link) = self.link(&record.boot).await else { return Ok(None) };
        let lease = Lease { boot: record.boot, payload: record.payload, lease: new_lease_id() };
        let (asked, frame) = self.sign(Operation::Share, lease)?;
        let (_, undo) = self.sign(Operation::Cancel, lease)?;
        let Some(answered) = link.ask(frame, Some(undo)).await else { return Ok(None) };
        let receipt = Receipt { neighbours: self.clone(), link, record: lease, settled: false };
        match answered {
            Answered::Shared { share, descriptor, offset, length, digest, proof } => {
                check(&asked, record, length, &proof)?;
                let length = usize::try_from(length).map_err(|_| Kind::Malformed { part: "length" })?;
                let start = usize::try_from(offset).map_err(|_| Kind::Malformed { part: "offset" })?;
                let end = start.checked_add(length).ok_or(Kind::Malformed { part: "offset" })?;
                let mapping = Mapping::adopt(descriptor, end, Access::ReadOnly).map_err(|error| {
                    RetrieveError::new(Kind::Malformed { part: "descriptor" }).with_source(error)
                })?;
                let home = Box::new(AtHolder { _share: share });
                let bytes = SegmentBytes::of_adopted(mapping, start..end, Some(home))
                    .ok_or(Kind::Malformed { part: "offset" })?;
                let bytes = SharedBytes::Segment(bytes);
                verify(record, digest, &bytes).await?;
                Ok(Some(Shared { bytes, receipt }))
            }
            Answered::Inline { digest, proof, bytes } => {
                check(&asked, record, bytes.len() as u64, &proof)?;
                let bytes = SharedBytes::Inline(bytes);
                verify(record, digest, &bytes).await?;
                Ok(Some(Shared { bytes, receipt }))
            }
            Answered::Refused { status, code, proof } => {
                receipt.settle();
                if code == Some(ErrorCode::NotFound) || !asked.verify_reply(status, Some(0), &proof) {
                    return Ok(None);
                }
                Err(Kind::Refused { status, code: code.unwrap_or_else(|| code_of_status(status)) }.into())
            }
            Answered::Done => Err(Kind::Malformed { part: "answer" }.into()),
        }
    }

    fn sign(&self, operation: Operation, lease: Lease) -> Result<(SignedRequest, Vec<u8>), RetrieveError> {
        let mut asked = DataRequest {
            key: KeyId::from_bytes([0; KeyId::LEN]),
            nonce: new_nonce(),
            boot: lease.boot,
            payload: lease.payload,
            lease: lease.lease,
            from: 0,
            to: None,
        };
        let signed = self.shared.keyring.sign_request(operation, &mut asked).map_err(|_| Kind::NoKey)?;
        let mut frame = Vec::new();
        Ask::Prove { operation, proof: signed.header() }.write(&mut frame);
        Ok((signed, frame))
    }

    /// A connection to the holder that is free, a new one, or one that others ask over as well.
    async fn link(&self, boot: &BootId) -> Option<Link> {
        {
            let mut links = self.shared.links.lock();
            if let Some(links) = links.get_mut(boot) {
                links.retain(|link| !link.is_closed());
                let free = links.iter().find(|link| link.is_free());
                if let Some(link) = free.or_else(|| links.last().filter(|_| links.len() >= LINKS_MAX)) {
                    return Some(link.clone());
                }
            }
        }
        // Where the holder is on another machine this fails at once, for want of a file.
        let path = self.shared.directory.join(socket_name(boot));
        let stream = UnixStream::connect(path).await.ok()?;
        let (link, serving) = Link::new(Frames::new(stream));
        let stop = self.shared.tasks.token();
        drop(self.shared.tasks.spawn("link to a neighbour", async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = serving => {}
            }
        }));
        let mut links = self.shared.links.lock();
        if links.len() >= HOLDERS_MAX {
            links.retain(|_, links| links.iter().any(|link| !link.is_closed()));
        }
        links.entry(*boot).or_default().push(link.clone());
        Some(link)
    }
}

impl fmt::Debug for Neighbours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Neighbours").field("directory", &self.shared.directory).finish_non_exhaustive()
    }
}

impl Receipt {
    /// Every byte was delivered: the retrieval counts. Whether the holder heard of it is its affair alone; an acknowledgement
    /// that is lost may allow one delivery more, never one fewer.
    ///
    /// # Cancel safety
    /// Dropped before it was sent, nothing counts.
    pub async fn acknowledge(mut self) {
        let Ok((_, frame)) = self.neighbours.sign(Operation::Acknowledge, self.record) else { return };
        self.settled = true;
        if !matches!(self.link.ask(frame, None).await, Some(Answered::Done)) {
            tracing::debug!("a neighbour did not confirm an acknowledgement");
        }
    }

    /// As [`acknowledge`](Self::acknowledge), without waiting for the holder's answer.
    pub fn acknowledge_in_background(mut self) {
        if let Ok((_, frame)) = self.neighbours.sign(Operation::Acknowledge, self.record) {
            self.settled = true;
            self.link.tell(frame);
        }
    }

    fn settle(mut self) {
        self.settled = true;
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if !self.settled
            && let Ok((_, frame)) = self.neighbours.sign(Operation::Cancel, self.record)
        {
            self.link.tell(frame);
        }
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt").field("record", &self.record).finish_non_exhaustive()
    }
}

/// Where the mapping of a share goes: it is unmapped first, then returned.
struct AtHolder {
    _share: Returning,
}

impl Home for AtHolder {
    fn returned(self: Box<Self>, mapping: Mapping) {
        drop(mapping);
        drop(self);
    }
}

fn check(asked: &SignedRequest, record: &Record, length: u64, proof: &str) -> Result<(), RetrieveError> {
    if !asked.verify_reply(200, Some(length), proof) {
        return Err(Kind::Unauthenticated { status: 200 }.into());
    }
    if record.length.is_some_and(|sealed| sealed != length) {
        return Err(Kind::Malformed { part: "length" }.into());
    }
    Ok(())
}

/// The reference's digest counts; without one, the holder's own.
async fn verify(record: &Record, digest: Option<[u8; 32]>, bytes: &SharedBytes) -> Result<(), RetrieveError> {
    let Some(expected) = record.digest.or(digest) else { return Ok(()) };
    let actual = if bytes.len() <= DIGEST_HERE_MAX {
        Sha256::digest(bytes).into()
    } else {
        let bytes = bytes.clone();
        let digesting = tokio::task::spawn_blocking(move || <[u8; 32]>::from(Sha256::digest(&bytes)));
        digesting.await.map_err(|_panicked| Kind::Digest)?
    };
    if actual == expected { Ok(()) } else { Err(Kind::Digest.into()) }
}
