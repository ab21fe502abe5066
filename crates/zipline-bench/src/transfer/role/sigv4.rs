//! Signatures of S3 requests: AWS Signature Version 4 in headers, with an unsigned payload, as clients send it where transport
//! or trust make a second hash of every byte useless. So no peer pays for a digest.

use std::fmt::Write as _;
use std::net::SocketAddr;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

pub(in crate::transfer) const ACCESS: &str = "benchbenchbench";
pub(in crate::transfer) const SECRET: &str = "benchbenchbenchbenchbenchbench";
const REGION: &str = "us-east-1";
const PAYLOAD: &str = "UNSIGNED-PAYLOAD";

/// The head of a signed request, up to its empty line.
pub(super) fn head(method: &str, at: SocketAddr, path: &str, length: usize, unix_seconds: u64) -> String {
    let stamp = stamp(unix_seconds);
    let day = &stamp[..8];
    let scope = format!("{day}/{REGION}/s3/aws4_request");
    let signed = "host;x-amz-content-sha256;x-amz-date";
    let canonical = format!(
        "{method}\n{path}\n\nhost:{at}\nx-amz-content-sha256:{PAYLOAD}\nx-amz-date:{stamp}\n\n{signed}\n{PAYLOAD}"
    );
    let text = format!("AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{}", hex(&Sha256::digest(canonical)));
    let mut key = keyed(format!("AWS4{SECRET}").as_bytes(), day);
    for part in [REGION, "s3", "aws4_request", &text] {
        key = keyed(&key, part);
    }
    format!(
        "{method} {path} HTTP/1.1\r\nHost: {at}\r\nx-amz-content-sha256: {PAYLOAD}\r\nx-amz-date: {stamp}\r\n\
         Authorization: AWS4-HMAC-SHA256 Credential={ACCESS}/{scope}, SignedHeaders={signed}, Signature={}\r\n\
         Content-Length: {length}\r\n\r\n",
        hex(&key)
    )
}

fn keyed(key: &[u8], message: &str) -> Vec<u8> {
    // HMAC takes keys of any length.
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length is a key");
    mac.update(message.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// `YYYYMMDDTHHMMSSZ`.
fn stamp(unix_seconds: u64) -> String {
    let (days, rest) = (unix_seconds / 86_400, unix_seconds % 86_400);
    // Days since 1 March of year 0, in eras of 400 years, each year beginning in March.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let march = (5 * of_year + 2) / 153;
    let month = if march < 10 { march + 3 } else { march - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let of_month = of_year - (153 * march + 2) / 5 + 1;
    format!("{year:04}{month:02}{of_month:02}T{:02}{:02}{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_of_known_times() {
        assert_eq!(stamp(0), "19700101T000000Z");
        assert_eq!(stamp(951_782_400), "20000229T000000Z");
        assert_eq!(stamp(1_440_938_160), "20150830T123600Z");
        assert_eq!(stamp(1_798_761_599), "20261231T235959Z");
    }

    /// The chain of keys of the example in AWS's documentation (secret, day, region and service of its own).
    #[test]
    fn keys_of_a_known_example() {
        let mut key = keyed(b"AWS4wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "20150830");
        for part in ["us-east-1", "iam", "aws4_request"] {
            key = keyed(&key, part);
        }
        assert_eq!(hex(&key), "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9");
    }
}
