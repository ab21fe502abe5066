//! What a reference seals (section 3.1).

use crate::limits::{CONTENT_TYPE_MAX, TENANT_MAX, ZONE_MAX};
use crate::{BootId, Nonce, PayloadId, ReferenceKind, Retrievals};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const RECORD_VERSION: u8 = 1;
const GROWING: u64 = u64::MAX;

/// The contents of a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What it stands for.
    pub kind: ReferenceKind,
    /// The payload.
    pub payload: PayloadId,
    /// The holder's life it belongs to.
    pub boot: BootId,
    /// One or two addresses of the holder's data port.
    pub addresses: Vec<SocketAddr>,
    /// Bytes, `None` while growing.
    pub length: Option<u64>,
    /// When it ends, Unix milliseconds; `None` lives as long as its invocation.
    pub expiry_unix_ms: Option<u64>,
    /// Budget of retrievals.
    pub retrievals: Retrievals,
    /// SHA-256 of the whole payload, if known.
    pub digest: Option<[u8; 32]>,
    /// The nonce a response is bound to.
    pub binding: Option<Nonce>,
    /// SHA-256 of the certificate that the holder's data port shows; `None`: it speaks plain HTTP.
    pub certificate: Option<[u8; 32]>,
    /// The holder's zone, empty if unknown; at most 32 bytes.
    pub zone: String,
    /// The tenant; 1 to 63 bytes.
    pub tenant: String,
    /// The payload's content type, byte for byte; at most 255.
    pub content_type: Option<Vec<u8>>,
}

/// A record cannot be written or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// A field is longer than its limit.
    #[error("{field} has {actual}, allowed are {limit}")]
    Limit {
        /// Which field.
        field: &'static str,
        /// Its size or count.
        actual: usize,
        /// What is allowed.
        limit: &'static str,
    },
    /// The bytes end early, go on too long, or hold a value that version 1 does not know.
    #[error("the record's {field} is malformed")]
    Malformed {
        /// Which field.
        field: &'static str,
    },
}

impl Record {
    /// The binary form.
    ///
    /// # Errors
    /// [`RecordError::Limit`] if a field is longer than its limit.
    pub fn encode(&self) -> Result<Vec<u8>, RecordError> {
        let mut out = Vec::with_capacity(256);
        out.push(RECORD_VERSION);
        out.push(match self.kind {
            ReferenceKind::Request => 1,
            ReferenceKind::Response => 2,
            ReferenceKind::Put => 3,
        });
        out.extend_from_slice(self.payload.as_bytes());
        out.extend_from_slice(self.boot.as_bytes());
        match self.addresses.len() {
            1 => out.push(1),
            2 => out.push(2),
            actual => return Err(RecordError::Limit { field: "addresses", actual, limit: "1 or 2" }),
        }
        for address in &self.addresses {
            match address.ip() {
                IpAddr::V4(ip) => {
                    out.push(4);
                    out.extend_from_slice(&ip.octets());
                }
                IpAddr::V6(ip) => {
                    out.push(6);
                    out.extend_from_slice(&ip.octets());
                }
            }
            out.extend_from_slice(&address.port().to_be_bytes());
        }
        out.extend_from_slice(&self.length.unwrap_or(GROWING).to_be_bytes());
        out.extend_from_slice(&self.expiry_unix_ms.unwrap_or(0).to_be_bytes());
        let retrievals = match self.retrievals {
            Retrievals::Unlimited => 0,
            Retrievals::Limited(0) => {
                return Err(RecordError::Limit { field: "retrievals", actual: 0, limit: "1 or more" });
            }
            Retrievals::Limited(n) => n,
        };
        out.extend_from_slice(&retrievals.to_be_bytes());
        put_option(&mut out, self.digest.as_ref().map(|digest| &digest[..]));
        put_option(&mut out, self.binding.as_ref().map(|nonce| &nonce.as_bytes()[..]));
        put_option(&mut out, self.certificate.as_ref().map(|digest| &digest[..]));
        put_bytes(&mut out, "zone", self.zone.as_bytes(), 0..=ZONE_MAX, "0 to 32 bytes")?;
        put_bytes(&mut out, "tenant", self.tenant.as_bytes(), 1..=TENANT_MAX, "1 to 63 bytes")?;
        out.push(u8::from(self.content_type.is_some()));
        let content_type = self.content_type.as_deref().unwrap_or_default();
        put_bytes(&mut out, "content type", content_type, 0..=CONTENT_TYPE_MAX, "0 to 255 bytes")?;
        Ok(out)
    }

    /// Reads the binary form, which must be exactly one record.
    ///
    /// # Errors
    /// [`RecordError::Malformed`] names the first field that is not as section 3.1 says.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut input = Input(bytes);
        if input.u8("version")? != RECORD_VERSION {
            return Err(malformed("version"));
        }
        let kind = match input.u8("kind")? {
            1 => ReferenceKind::Request,
            2 => ReferenceKind::Response,
            3 => ReferenceKind::Put,
            _ => return Err(malformed("kind")),
        };
        let payload = PayloadId::from_bytes(input.array("payload id")?);
        let boot = BootId::from_bytes(input.array("boot id")?);
        let count = input.u8("addresses")?;
        if !(1..=2).contains(&count) {
            return Err(malformed("addresses"));
        }
        let mut addresses = Vec::with_capacity(2);
        for _ in 0..count {
            let ip = match input.u8("addresses")? {
                4 => IpAddr::V4(Ipv4Addr::from(input.array::<4>("addresses")?)),
                6 => IpAddr::V6(Ipv6Addr::from(input.array::<16>("addresses")?)),
                _ => return Err(malformed("addresses")),
            };
            addresses.push(SocketAddr::new(ip, u16::from_be_bytes(input.array("addresses")?)));
        }
        let length = Some(u64::from_be_bytes(input.array("length")?)).filter(|length| *length != GROWING);
        let expiry_unix_ms = Some(u64::from_be_bytes(input.array("expiry")?)).filter(|expiry| *expiry != 0);
        let retrievals = match u32::from_be_bytes(input.array("retrievals")?) {
            0 => Retrievals::Unlimited,
            n => Retrievals::Limited(n),
        };
        let digest = input.option::<32>("digest")?;
        let binding = input.option::<16>("binding")?.map(Nonce::from_bytes);
        let certificate = input.option::<32>("certificate")?;
        let zone = input.string("zone", ZONE_MAX)?;
        let tenant = input.string("tenant", TENANT_MAX)?;
        if tenant.is_empty() {
            return Err(malformed("tenant"));
        }
        let present = input.u8("content type")?;
        let content_type = input.bytes("content type", CONTENT_TYPE_MAX)?.to_vec();
        let content_type = match present {
            0 if content_type.is_empty() => None,
            1 => Some(content_type),
            _ => return Err(malformed("content type")),
        };
        if !input.0.is_empty() {
            return Err(malformed("end"));
        }
        Ok(Self {
            kind,
            payload,
            boot,
            addresses,
            length,
            expiry_unix_ms,
            retrievals,
            digest,
            binding,
            certificate,
            zone,
            tenant,
            content_type,
        })
    }
}

fn malformed(field: &'static str) -> RecordError {
    RecordError::Malformed { field }
}

fn put_option(out: &mut Vec<u8>, value: Option<&[u8]>) {
    out.push(u8::from(value.is_some()));
    out.extend_from_slice(value.unwrap_or_default());
}

fn put_bytes(
    out: &mut Vec<u8>,
    field: &'static str,
    bytes: &[u8],
    allowed: std::ops::RangeInclusive<usize>,
    limit: &'static str,
) -> Result<(), RecordError> {
    let error = RecordError::Limit { field, actual: bytes.len(), limit };
    if !allowed.contains(&bytes.len()) {
        return Err(error);
    }
    out.push(u8::try_from(bytes.len()).map_err(|_| error)?);
    out.extend_from_slice(bytes);
    Ok(())
}

/// The rest of a record's bytes.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, field: &'static str, len: usize) -> Result<&'a [u8], RecordError> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(malformed(field))?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], RecordError> {
        self.take(field, N)?.try_into().map_err(|_| malformed(field))
    }

    fn u8(&mut self, field: &'static str) -> Result<u8, RecordError> {
        Ok(self.array::<1>(field)?[0])
    }

    fn option<const N: usize>(&mut self, field: &'static str) -> Result<Option<[u8; N]>, RecordError> {
        match self.u8(field)? {
            0 => Ok(None),
            1 => self.array(field).map(Some),
            _ => Err(malformed(field)),
        }
    }

    fn bytes(&mut self, field: &'static str, max: usize) -> Result<&'a [u8], RecordError> {
        let len = usize::from(self.u8(field)?);
        if len > max {
            return Err(malformed(field));
        }
        self.take(field, len)
    }

    fn string(&mut self, field: &'static str, max: usize) -> Result<String, RecordError> {
        String::from_utf8(self.bytes(field, max)?.to_vec()).map_err(|_| malformed(field))
    }
}

#[cfg(test)]
mod tests;
