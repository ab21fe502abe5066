//! Where copies of a payload are served (section 6.8): what a receiver offers, and what a holder names.

use crate::data::{DataHeaderError, Mac};
use crate::{BootId, Nonce, from_text, to_text};
use std::net::{IpAddr, SocketAddr};

/// A data port that serves copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyPlace {
    /// The life of its process.
    pub boot: BootId,
    /// One or two addresses of it.
    pub addresses: Vec<SocketAddr>,
    /// SHA-256 of the certificate that it shows; `None`: it speaks plain HTTP.
    pub certificate: Option<[u8; 32]>,
}

/// Who names a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlaceRole {
    /// A receiver, its own: `Zipline-Copy`.
    Offer,
    /// A holder, another receiver's: `Zipline-Relay`.
    Relay,
}

impl PlaceRole {
    const fn word(self) -> &'static [u8] {
        match self {
            Self::Offer => b"zl1 copy",
            Self::Relay => b"zl1 relay",
        }
    }

    const fn error(self, part: &'static str) -> DataHeaderError {
        let header = match self {
            Self::Offer => "Zipline-Copy",
            Self::Relay => "Zipline-Relay",
        };
        DataHeaderError::new(header, part)
    }
}

impl CopyPlace {
    /// Most addresses of one place.
    pub const ADDRESSES_MAX: usize = 2;

    /// The bytes that the proof covers. `nonce` is that of the request.
    pub fn mac_input(&self, role: PlaceRole, nonce: &Nonce) -> Vec<u8> {
        let mut input = Vec::with_capacity(120);
        input.extend_from_slice(role.word());
        input.extend_from_slice(nonce.as_bytes());
        input.extend_from_slice(self.boot.as_bytes());
        input.push(u8::try_from(self.addresses.len()).unwrap_or(u8::MAX));
        for address in &self.addresses {
            match address.ip() {
                IpAddr::V4(ip) => {
                    input.push(4);
                    input.extend_from_slice(&ip.octets());
                }
                IpAddr::V6(ip) => {
                    input.push(6);
                    input.extend_from_slice(&ip.octets());
                }
            }
            input.extend_from_slice(&address.port().to_be_bytes());
        }
        input.push(u8::from(self.certificate.is_some()));
        input.extend_from_slice(self.certificate.as_ref().map(|digest| &digest[..]).unwrap_or_default());
        input
    }

    /// The header's value with its proof.
    pub fn format(&self, mac: &Mac) -> String {
        let addresses: Vec<String> = self.addresses.iter().map(SocketAddr::to_string).collect();
        let certificate = self.certificate.map_or_else(|| "-".to_owned(), |digest| to_text(&digest));
        format!(
            "v=1, boot={}, at={}, certificate={certificate}, mac={}",
            self.boot.to_text(),
            addresses.join(" "),
            to_text(mac)
        )
    }

    /// Reads a header's value: exactly these fields, in this order.
    ///
    /// # Errors
    /// [`DataHeaderError`] names the first part that is wrong. The proof is not checked here.
    pub fn parse(role: PlaceRole, value: &str) -> Result<(Self, Mac), DataHeaderError> {
        let mut parts = value.split(", ");
        let mut part = |name: &'static str| {
            let value = parts.next().and_then(|part| part.strip_prefix(name)?.strip_prefix('='));
            value.ok_or(role.error(name))
        };
        if part("v")? != "1" {
            return Err(role.error("v"));
        }
        let boot = BootId::parse(part("boot")?).map_err(|_| role.error("boot"))?;
        let mut addresses = Vec::with_capacity(Self::ADDRESSES_MAX);
        for text in part("at")?.split(' ') {
            let address: SocketAddr = text.parse().map_err(|_| role.error("at"))?;
            // A scope means nothing on another machine.
            let address = SocketAddr::new(address.ip(), address.port());
            if addresses.len() == Self::ADDRESSES_MAX || address.to_string() != text {
                return Err(role.error("at"));
            }
            addresses.push(address);
        }
        let certificate = match part("certificate")? {
            "-" => None,
            text => Some(bytes(text).ok_or(role.error("certificate"))?),
        };
        let mac = bytes(part("mac")?).ok_or(role.error("mac"))?;
        if parts.next().is_some() {
            return Err(role.error("end"));
        }
        Ok((Self { boot, addresses, certificate }, mac))
    }
}

fn bytes(text: &str) -> Option<[u8; 32]> {
    from_text(text)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn place(addresses: &[&str], certificate: Option<[u8; 32]>) -> CopyPlace {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        CopyPlace { boot: BootId::from_bytes([1; 16]), addresses, certificate }
    }

    #[test]
    fn places_are_read_as_they_were_written() {
        for place in [place(&["10.0.0.1:8031"], None), place(&["[fd00::1]:1", "10.0.0.1:2"], Some([3; 32]))] {
            for role in [PlaceRole::Offer, PlaceRole::Relay] {
                assert_eq!(CopyPlace::parse(role, &place.format(&[7; 32])), Ok((place.clone(), [7; 32])));
            }
        }
    }

    #[test]
    fn malformed_places_are_named() {
        let value = place(&["10.0.0.1:8031"], None).format(&[7; 32]);
        for (wrong, part) in [
            (value.replace("v=1", "v=2"), "v"),
            (value.replace("at=10.0.0.1:8031", "at="), "at"),
            (value.replace("at=10.0.0.1:8031", "at=holder:8031"), "at"),
            (value.replace("at=10.0.0.1:8031", "at=1.1.1.1:1 1.1.1.1:2 1.1.1.1:3"), "at"),
            (value.replace("at=10.0.0.1:8031", "at=[fe80::1%3]:1"), "at"),
            (value.replace("certificate=-", "certificate=AA"), "certificate"),
            (format!("{value}, more=1"), "end"),
            (value[..value.len() - 2].to_owned(), "mac"),
        ] {
            let error = CopyPlace::parse(PlaceRole::Relay, &wrong).unwrap_err();
            assert_eq!(error, PlaceRole::Relay.error(part), "{wrong}");
        }
    }

    #[test]
    fn every_field_and_the_role_are_under_the_proof() {
        let nonce = Nonce::from_bytes([9; 16]);
        let base = place(&["10.0.0.1:1"], None);
        let input = base.mac_input(PlaceRole::Offer, &nonce);
        let others = [
            base.mac_input(PlaceRole::Relay, &nonce),
            base.mac_input(PlaceRole::Offer, &Nonce::from_bytes([8; 16])),
            place(&["10.0.0.1:2"], None).mac_input(PlaceRole::Offer, &nonce),
            place(&["10.0.0.1:1", "10.0.0.1:1"], None).mac_input(PlaceRole::Offer, &nonce),
            place(&["10.0.0.1:1"], Some([0; 32])).mac_input(PlaceRole::Offer, &nonce),
            CopyPlace { boot: BootId::from_bytes([2; 16]), ..base }.mac_input(PlaceRole::Offer, &nonce),
        ];
        assert!(others.iter().all(|other| *other != input));
    }

    proptest! {
        #[test]
        fn arbitrary_values_never_panic(text in ".{0,300}") {
            let _ = CopyPlace::parse(PlaceRole::Offer, &text);
        }
    }
}
