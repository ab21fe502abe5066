//! The controller's secrets: made once, kept ever after.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use serde_json::{Value, json};
use zipline_protocol::controller::HOST;

use super::manifests::{CA_SECRET, MASTER_SECRET, NAMESPACE, TLS_SECRET};
use crate::exit::Failure;

/// For how long the CA is valid. A new CA has to reach every pod, so it is made rarely.
const CA_VALID: Duration = Duration::from_secs(10 * 365 * 86_400);
/// For how long the controller's own certificate is.
const SERVING_VALID: Duration = Duration::from_secs(2 * 365 * 86_400);
/// It is made anew when less than this is left.
pub(super) const RENEW_BEFORE: Duration = Duration::from_secs(90 * 86_400);
/// Clocks may be this far apart.
const SKEW: Duration = Duration::from_secs(86_400);
/// Annotation of the certificate's Secret: the end of its validity, in seconds since 1970.
const NOT_AFTER: &str = "zipline.internal/not-after";

/// What is in the cluster, as far as it is there.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) master: bool,
    pub(super) authority: Option<Value>,
    pub(super) serving: Option<Value>,
}

/// What has to be made, and what then holds.
#[derive(Debug)]
pub(super) struct Made {
    /// Objects to be applied.
    pub(super) manifests: Vec<Value>,
    /// What was made, for the operator.
    pub(super) said: Vec<&'static str>,
    /// The CA's certificate, in PEM.
    pub(super) root_ca: String,
}

/// Makes what is missing or about to end.
pub(super) fn make(found: &Found) -> Result<Made, Failure> {
    let (mut manifests, mut said) = (Vec::new(), Vec::new());
    if !found.master {
        let mut bytes = [0_u8; 32];
        getrandom::fill(&mut bytes)
            .map_err(|error| Failure::failed(anyhow::anyhow!("no random bytes: {error}")))?;
        manifests.push(secret(MASTER_SECRET, "Opaque", &[("1", &BASE64_STANDARD.encode(bytes))], None));
        said.push("a master key");
    }
    let known = found
        .authority
        .as_ref()
        .and_then(|object| Some((text(object, "tls.crt")?, text(object, "tls.key")?)));
    let new_authority = known.is_none();
    let (certificate, key) = match known {
        Some(known) => known,
        None => {
            let made = authority().map_err(Failure::failed)?;
            manifests.push(secret(
                CA_SECRET,
                "kubernetes.io/tls",
                &[("tls.crt", &made.0), ("tls.key", &made.1)],
                None,
            ));
            said.push("a certificate authority");
            made
        }
    };
    let current = found.serving.as_ref().is_some_and(|object| {
        text(object, "ca.crt").as_deref() == Some(&certificate)
            && not_after(object).is_none_or(|end| end.saturating_sub(RENEW_BEFORE) > since_1970())
    });
    if new_authority || !current {
        let (serving, serving_key) = serving(&key).map_err(Failure::failed)?;
        let end = since_1970() + SERVING_VALID;
        let data = [("tls.crt", &*serving), ("tls.key", &*serving_key), ("ca.crt", &*certificate)];
        manifests.push(secret(TLS_SECRET, "kubernetes.io/tls", &data, Some(end)));
        said.push("the controller's certificate");
    }
    Ok(Made { manifests, said, root_ca: certificate })
}

/// One text of a Secret.
pub(super) fn text(object: &Value, key: &str) -> Option<String> {
    let bytes = BASE64_STANDARD.decode(object["data"][key].as_str()?).ok()?;
    String::from_utf8(bytes).ok()
}

/// When the certificate in a Secret ends, since 1970; none if Zipline has not made it.
pub(super) fn not_after(object: &Value) -> Option<Duration> {
    object["metadata"]["annotations"][NOT_AFTER].as_str()?.parse().ok().map(Duration::from_secs)
}

/// Now.
pub(super) fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn secret(name: &str, kind: &str, data: &[(&str, &str)], end: Option<Duration>) -> Value {
    let data: serde_json::Map<String, Value> =
        data.iter().map(|(key, text)| ((*key).to_owned(), BASE64_STANDARD.encode(text).into())).collect();
    let annotations = match end {
        Some(end) => json!({NOT_AFTER: end.as_secs().to_string(), "helm.sh/resource-policy": "keep"}),
        None => json!({"helm.sh/resource-policy": "keep"}),
    };
    let labels = json!({"app.kubernetes.io/part-of": "zipline"});
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels, "annotations": annotations},
        "type": kind,
        "data": data,
    })
}

fn parameters(name: &str, valid: Duration) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, name);
    let now = SystemTime::now();
    params.not_before = (now - SKEW).into();
    params.not_after = (now + valid).into();
    Ok(params)
}

/// The CA's parameters follow from nothing but its name, so an issuer is made again from its key alone.
fn authority_parameters() -> Result<CertificateParams, rcgen::Error> {
    let mut params = parameters("zipline-controller", CA_VALID)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn authority() -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    Ok((authority_parameters()?.self_signed(&key)?.pem(), key.serialize_pem()))
}

fn serving(authority_key: &str) -> Result<(String, String), rcgen::Error> {
    let issuer = Issuer::new(authority_parameters()?, KeyPair::from_pem(authority_key)?);
    let mut params = parameters(HOST, SERVING_VALID)?;
    for name in [HOST.to_owned(), format!("{HOST}.cluster.local")] {
        params.subject_alt_names.push(rcgen::SanType::DnsName(name.try_into()?));
    }
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    Ok((params.signed_by(&key, &issuer)?.pem(), key.serialize_pem()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(made: &Made, name: &str) -> Option<Value> {
        made.manifests.iter().find(|object| object["metadata"]["name"] == name).cloned()
    }

    #[test]
    fn everything_is_made_once() {
        let made = make(&Found::default()).unwrap();
        assert_eq!(made.said.len(), 3);
        let master = text(&named(&made, MASTER_SECRET).unwrap(), "1").unwrap();
        assert_eq!(BASE64_STANDARD.decode(master).unwrap().len(), 32);
        let found =
            Found { master: true, authority: named(&made, CA_SECRET), serving: named(&made, TLS_SECRET) };
        let again = make(&found).unwrap();
        assert!(again.manifests.is_empty());
        assert_eq!(again.root_ca, made.root_ca);
    }

    #[test]
    fn the_certificate_is_renewed_by_the_same_authority() {
        let made = make(&Found::default()).unwrap();
        let mut serving = named(&made, TLS_SECRET).unwrap();
        serving["metadata"]["annotations"][NOT_AFTER] =
            json!((since_1970() + RENEW_BEFORE / 2).as_secs().to_string());
        let found = Found { master: true, authority: named(&made, CA_SECRET), serving: Some(serving) };
        let again = make(&found).unwrap();
        assert_eq!(
            (again.said.as_slice(), &again.root_ca),
            (&["the controller's certificate"][..], &made.root_ca)
        );
    }
}
