//! What queue-proxies on Kubernetes and the controller say to each other: JSON over HTTPS, always asked by a queue-proxy.
//!
//! | request | answer |
//! |---|---|
//! | `POST /v1/keys`, [`KeysRequest`] | [`KeysAnswer`] |
//! | `GET /v1/mode?revision=<n>` | [`ModeAnswer`]: at once when it differs from revision `n`, else within [`MODE_WAIT`] |
//! | `POST /v1/holding`, [`HoldingReport`] | 204 |
//!
//! Every request carries the queue-proxy's projected service account token as `Authorization: Bearer`. A refusal is
//! problem JSON whose `type` is [`REFUSAL_TYPE`] with a word of the controller's list. Fields that a reader does not know
//! are ignored, so that controller and queue-proxies can be upgraded one after the other.

use crate::Mode;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// The audience that the token must have been issued for, alone or among others.
pub const AUDIENCE: &str = "zipline-controller";

/// Where Knative mounts the token of [`AUDIENCE`] into queue-proxies.
///
/// # Source
/// `knative.dev/serving/pkg/reconciler/revision/resources` (token volumes of the queue-proxy).
pub const TOKEN_PATH: &str = "/var/run/secrets/tokens/zipline-controller";

/// The controller's host name in every cluster.
pub const HOST: &str = "zipline-controller.zipline-system.svc";

/// The port of its service.
pub const PORT: u16 = 8443;

/// Longest body of a request to the controller, in bytes.
pub const REQUEST_MAX: usize = 4 * 1024;

/// Longest answer of the controller, in bytes: 16 keys need less than 4 KiB.
pub const ANSWER_MAX: usize = 64 * 1024;

/// Longest token, in bytes; bound tokens have some 1,200.
pub const TOKEN_MAX: usize = 16 * 1024;

/// Longest time a [`ModeAnswer`] is waited for.
pub const MODE_WAIT: Duration = Duration::from_secs(25);

/// Shortest time between two reports of one queue-proxy.
pub const HOLDING_PAUSE: Duration = Duration::from_secs(10);

/// Beginning of the `type` of every refusal.
pub const REFUSAL_TYPE: &str = "urn:zipline:controller:";

/// Annotation of pods (from a Service's template) and of namespaces: `off`, `receive` or `on`.
pub const MODE_ANNOTATION: &str = "zipline.internal/mode";

/// Who asks for keys. The token says which pod it is; the rest has to agree with that pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeysRequest {
    /// Name of the Revision that the queue-proxy was started for.
    pub revision: String,
}

/// The keys of the pod's namespace, and what else it has to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeysAnswer {
    /// Whose keys these are: the namespace.
    pub tenant: String,
    /// The pod's namespace.
    pub namespace: String,
    /// At most 16 keys; exactly one of them seals.
    pub keys: Vec<ControllerKey>,
    /// Ask again after this many seconds.
    pub refresh_seconds: u64,
    /// Without a newer answer within this many seconds nothing is sealed any more, since others may not have the key.
    pub valid_seconds: u64,
    /// The modes by which [`ModeAnswer::mode`] is made.
    pub modes: Modes,
    /// Zone of the pod's node; empty where unknown.
    #[serde(default)]
    pub zone: String,
}

/// One key of a namespace.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControllerKey {
    /// The key id in base64url (section 4 of the protocol); its second half is the serial number.
    pub id: String,
    /// 32 bytes in base64url.
    pub secret: String,
    /// What it is for.
    pub state: KeyState,
}

impl fmt::Debug for ControllerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControllerKey")
            .field("id", &self.id)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyState {
    /// Seals and opens.
    Active,
    /// Opens only: it has sealed before, or will.
    Accept,
}

/// The modes that apply to a pod; the lowest of them holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Modes {
    /// Of the cluster.
    pub cluster: Mode,
    /// Of its namespace.
    pub namespace: Mode,
    /// Of its Service.
    pub service: Mode,
}

impl Modes {
    /// The lowest of the three.
    #[must_use]
    pub fn effective(self) -> Mode {
        self.cluster.min(self.namespace).min(self.service)
    }
}

/// The mode of a pod as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModeAnswer {
    /// Names this answer, below 2^53; the next question hands it back.
    pub revision: u64,
    /// The mode.
    pub mode: Mode,
    /// Changes whenever other keys are to be used, which are then asked for at once. Below 2^53.
    pub keys: u64,
}

/// How much a pod holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Holding {
    /// Nothing.
    Nothing,
    /// Payloads: it is better not the first to be scaled away.
    Some,
    /// So many bytes that its node should not be emptied for convenience.
    Much,
}

/// Says that a pod holds more or less than before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldingReport {
    /// How much it holds.
    pub holding: Holding,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_stable() {
        let text = r#"{"tenant":"shop","namespace":"shop","keys":[{"id":"AQIDBAAAAAE","secret":"c2VjcmV0","state":"active"}],"refresh_seconds":300,"valid_seconds":9000,"modes":{"cluster":"on","namespace":"receive","service":"on"},"zone":"eu-1a"}"#;
        let answer: KeysAnswer = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&answer).unwrap(), text);
        assert_eq!(answer.modes.effective(), Mode::Receive);
        assert!(!format!("{answer:?}").contains("c2VjcmV0"));
        let text = r#"{"revision":7,"mode":"off","keys":3}"#;
        let answer: ModeAnswer = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&answer).unwrap(), text);
        let report: HoldingReport = serde_json::from_str(r#"{"holding":"much","more":1}"#).unwrap();
        assert_eq!(report.holding, Holding::Much);
    }
}
