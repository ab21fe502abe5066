//! What the standalone engine and its queue-proxies say to each other: one JSON object per line over an inherited socket.
//!
//! The end of the stream from the engine means that the engine is gone: a queue-proxy then drains and ends.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;

/// Longest line either side accepts, in bytes.
pub const LINE_MAX: usize = 256 * 1024;

/// From the engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum EngineMessage {
    /// The tenant's keys, replacing those before.
    Keyring(KeyringMessage),
    /// Functions that open references, in place of those told before.
    Receivers {
        /// `service.namespace` each.
        functions: Vec<String>,
        /// How long to believe it, in seconds.
        valid_seconds: u64,
    },
    /// Finish what runs and end.
    Drain {
        /// Longest time for it, in seconds.
        grace_seconds: u64,
    },
}

/// A tenant's keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyringMessage {
    /// The tenant.
    pub tenant: String,
    /// Up to 16 keys.
    pub keys: Vec<KeyMessage>,
    /// Serial of the key to seal with; none: open only.
    pub seal_with: Option<u32>,
}

/// One key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyMessage {
    /// Its serial number.
    pub serial: u32,
    /// 32 bytes in base64url.
    pub secret: String,
}

impl fmt::Debug for KeyMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyMessage").field("serial", &self.serial).field("secret", &"redacted").finish()
    }
}

/// From a queue-proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum QueueProxyMessage {
    /// Its sockets are bound and accept.
    Listening {
        /// Requests to the function; none for a guest.
        inbound: Option<SocketAddr>,
        /// Local API and forward proxy.
        api: SocketAddr,
        /// What other queue-proxies retrieve from.
        data: SocketAddr,
        /// Health, metrics, status.
        admin: SocketAddr,
    },
    /// The function answers its readiness probe.
    Ready,
    /// It no longer does.
    NotReady,
    /// Nothing runs and nothing is held any more; it ends now.
    Drained,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_stable() {
        let line = r#"{"type":"receivers","functions":["a.default"],"valid_seconds":60}"#;
        let message: EngineMessage = serde_json::from_str(line).unwrap();
        assert_eq!(serde_json::to_string(&message).unwrap(), line);
        let line = r#"{"type":"listening","inbound":null,"api":"127.0.0.1:1","data":"127.0.0.1:2","admin":"127.0.0.1:3"}"#;
        let message: QueueProxyMessage = serde_json::from_str(line).unwrap();
        assert_eq!(serde_json::to_string(&message).unwrap(), line);
        assert!(
            serde_json::from_str::<EngineMessage>(r#"{"type":"drain","grace_seconds":1,"more":2}"#).is_err()
        );
    }

    #[test]
    fn secrets_do_not_show() {
        let key = KeyMessage { serial: 1, secret: "c2VjcmV0".into() };
        assert!(!format!("{key:?}").contains("c2VjcmV0"));
    }
}
