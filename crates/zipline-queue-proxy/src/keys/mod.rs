//! Keys as they come from the engine, from a file, or from the controller.

pub mod controller;
pub mod holding;

use std::path::Path;

use zipline_protocol::control::KeyringMessage;
use zipline_seal::{InstallError, Keyring, KeyringUpdate};

/// Longest keyring file, in bytes; 16 keys need far less.
const FILE_MAX: u64 = 64 * 1024;

/// Why keys were not installed. The keys in use stay.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeysError {
    /// They are another tenant's.
    #[error("the keys are of tenant {given:?}, this queue-proxy serves {tenant:?}")]
    OtherTenant {
        /// Whose keys were given.
        given: String,
        /// Whose are wanted.
        tenant: String,
    },
    /// The ring was refused.
    #[error(transparent)]
    Install(#[from] InstallError),
    /// The file cannot be read.
    #[error("the keyring file cannot be read")]
    Read(#[source] std::io::Error),
    /// The file is no keyring. What is wrong is not quoted, since it may be a secret.
    #[error("the keyring file is not one JSON object with tenant, keys and seal_with")]
    Malformed,
}

/// Puts the keys of `message` in place of those before.
///
/// # Errors
/// [`KeysError::OtherTenant`], [`KeysError::Install`].
pub fn install(keyring: &Keyring, message: &KeyringMessage) -> Result<(), KeysError> {
    if message.tenant != keyring.tenant() {
        let given = message.tenant.chars().take(64).collect();
        return Err(KeysError::OtherTenant { given, tenant: keyring.tenant().to_owned() });
    }
    keyring.install(KeyringUpdate::try_from(message)?)?;
    Ok(())
}

/// Installs the keys in the file at `path`, the same JSON as on the control channel.
///
/// # Errors
/// Every [`KeysError`].
pub fn install_file(keyring: &Keyring, path: &Path) -> Result<(), KeysError> {
    use std::io::Read as _;
    let file = std::fs::File::open(path).map_err(KeysError::Read)?;
    let mut text = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut text).map_err(KeysError::Read)?;
    if text.len() as u64 > FILE_MAX {
        return Err(KeysError::Malformed);
    }
    install(keyring, &serde_json::from_slice(&text).map_err(|_| KeysError::Malformed)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(tenant: &str, secret: &str) -> KeyringMessage {
        let json = serde_json::json!({
            "tenant": tenant,
            "keys": [{"serial": 1, "secret": secret}],
            "seal_with": 1,
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn keys_of_the_tenant_are_installed() {
        let keyring = Keyring::new("default");
        install(&keyring, &message("default", &"A".repeat(43))).unwrap();
        assert!(keyring.can_seal());
    }

    #[test]
    fn other_keys_are_refused_without_a_word_of_the_secret() {
        let keyring = Keyring::new("default");
        let error = install(&keyring, &message("other", &"A".repeat(43))).unwrap_err();
        assert!(matches!(error, KeysError::OtherTenant { .. }));
        let error = install(&keyring, &message("default", "c2hvcnQ")).unwrap_err();
        assert!(!error.to_string().contains("c2hvcnQ"));
        assert!(!keyring.can_seal());
    }

    #[test]
    fn a_file_holds_the_same() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let keyring = Keyring::new("default");
        serde_json::to_writer(&mut file, &message("default", &"A".repeat(43))).unwrap();
        install_file(&keyring, file.path()).unwrap();
        assert!(keyring.can_seal());
        std::fs::write(file.path(), "{").unwrap();
        assert!(matches!(install_file(&keyring, file.path()), Err(KeysError::Malformed)));
    }
}
