//! TLS as Knative configures it by variables: versions, cipher suites, curves.
//!
//! # Source
//! `PKG network/tls/config.go` (`DefaultConfigFromEnv`).

/// The four variables as written; empty is not set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsVariables {
    /// What stands before the names, as `QUEUE_PROXY_`.
    pub prefix: String,
    /// `…TLS_MIN_VERSION`.
    pub min_version: String,
    /// `…TLS_MAX_VERSION`.
    pub max_version: String,
    /// `…TLS_CIPHER_SUITES`.
    pub cipher_suites: String,
    /// `…TLS_CURVE_PREFERENCES`.
    pub curve_preferences: String,
}

/// What a TLS server offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// The lowest version.
    pub min: TlsVersion,
    /// The highest version.
    pub max: TlsVersion,
    /// Cipher suites by their IANA names, most wanted first; `None`: all. They bind TLS 1.2 only: those of 1.3 cannot be
    /// configured in Go.
    pub cipher_suites: Option<Vec<&'static str>>,
    /// Key exchanges, most wanted first; `None`: all.
    pub curves: Option<Vec<Curve>>,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// 1.2.
    V12,
    /// 1.3.
    V13,
}

/// A key exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Curve {
    /// X25519.
    X25519,
    /// The hybrid of X25519 and ML-KEM 768.
    X25519MlKem768,
    /// NIST P-256.
    P256,
    /// NIST P-384.
    P384,
    /// NIST P-521.
    P521,
}

/// A variable does not say what TLS may use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// Not a version.
    #[error("invalid {variable} {given:?}: unsupported TLS version {given:?}: must be \"1.2\" or \"1.3\"")]
    Version {
        /// The variable's name.
        variable: String,
        /// What it says.
        given: String,
    },
    /// Not the name of a cipher suite that Go offers.
    #[error("invalid {variable}: unknown cipher suite {given:?}")]
    CipherSuite {
        /// The variable's name.
        variable: String,
        /// The name.
        given: String,
    },
    /// Not the name of a curve.
    #[error("invalid {variable}: unknown curve {given:?}")]
    Curve {
        /// The variable's name.
        variable: String,
        /// The name.
        given: String,
    },
    /// No version is left.
    #[error("invalid {variable}: the highest TLS version is below the lowest")]
    Empty {
        /// The variable's name.
        variable: String,
    },
}

/// What Go's `tls.CipherSuites` lists.
const CIPHER_SUITES: [&str; 13] = [
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
];

impl TlsVariables {
    /// Reads the four. Without any, only 1.3 is spoken.
    ///
    /// # Errors
    /// [`TlsError`] names the variable and what in it is unknown.
    pub fn resolve(&self) -> Result<TlsSettings, TlsError> {
        let min = self.version("TLS_MIN_VERSION", &self.min_version)?.unwrap_or(TlsVersion::V13);
        let max = self.version("TLS_MAX_VERSION", &self.max_version)?.unwrap_or(TlsVersion::V13);
        if max < min {
            return Err(TlsError::Empty { variable: format!("{}TLS_MAX_VERSION", self.prefix) });
        }
        let variable = |suffix: &str| format!("{}{suffix}", self.prefix);
        let cipher_suites = listed(&self.cipher_suites, |name| {
            CIPHER_SUITES.into_iter().find(|suite| *suite == name).ok_or_else(|| TlsError::CipherSuite {
                variable: variable("TLS_CIPHER_SUITES"),
                given: name.to_owned(),
            })
        })?;
        let curves = listed(&self.curve_preferences, |name| {
            curve(name).ok_or_else(|| TlsError::Curve {
                variable: variable("TLS_CURVE_PREFERENCES"),
                given: name.to_owned(),
            })
        })?;
        Ok(TlsSettings { min, max, cipher_suites, curves })
    }

    fn version(&self, suffix: &str, text: &str) -> Result<Option<TlsVersion>, TlsError> {
        match text {
            "" => Ok(None),
            "1.2" => Ok(Some(TlsVersion::V12)),
            "1.3" => Ok(Some(TlsVersion::V13)),
            _ => Err(TlsError::Version {
                variable: format!("{}{suffix}", self.prefix),
                given: text.to_owned(),
            }),
        }
    }
}

/// The items of a comma list; `None` if there are none.
fn listed<T>(text: &str, read: impl Fn(&str) -> Result<T, TlsError>) -> Result<Option<Vec<T>>, TlsError> {
    let items = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    let items: Vec<T> = items.map(read).collect::<Result<_, _>>()?;
    Ok(Some(items).filter(|items| !items.is_empty()))
}

fn curve(name: &str) -> Option<Curve> {
    match name {
        "X25519" => Some(Curve::X25519),
        "X25519MLKEM768" => Some(Curve::X25519MlKem768),
        "CurveP256" | "P-256" => Some(Curve::P256),
        "CurveP384" | "P-384" => Some(Curve::P384),
        "CurveP521" | "P-521" => Some(Curve::P521),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(values: [&str; 4]) -> TlsVariables {
        let [min_version, max_version, cipher_suites, curve_preferences] = values.map(str::to_owned);
        TlsVariables {
            prefix: "QUEUE_PROXY_".into(),
            min_version,
            max_version,
            cipher_suites,
            curve_preferences,
        }
    }

    #[test]
    fn only_1_3_unless_told() {
        let default = variables([""; 4]).resolve().unwrap();
        assert_eq!((default.min, default.max), (TlsVersion::V13, TlsVersion::V13));
        assert_eq!((default.cipher_suites, default.curves), (None, None));
        let told = variables([
            "1.2",
            "1.3",
            "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_AES_128_GCM_SHA256,",
            " X25519,CurveP256,P-384,X25519MLKEM768",
        ]);
        let told = told.resolve().unwrap();
        assert_eq!(told.min, TlsVersion::V12);
        assert_eq!(
            told.cipher_suites.unwrap(),
            ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256"]
        );
        assert_eq!(told.curves.unwrap(), [Curve::X25519, Curve::P256, Curve::P384, Curve::X25519MlKem768]);
    }

    #[test]
    fn the_unknown_is_refused_by_name() {
        for (values, part) in [
            (["1.1", "", "", ""], "QUEUE_PROXY_TLS_MIN_VERSION \"1.1\": unsupported TLS version"),
            (["", "TLS1.3", "", ""], "QUEUE_PROXY_TLS_MAX_VERSION"),
            (["", "1.2", "", ""], "highest TLS version is below the lowest"),
            (["", "", "TLS_RSA_WITH_RC4_128_SHA", ""], "unknown cipher suite \"TLS_RSA_WITH_RC4_128_SHA\""),
            (["", "", "", "P256"], "unknown curve \"P256\""),
        ] {
            let error = variables(values).resolve().unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
