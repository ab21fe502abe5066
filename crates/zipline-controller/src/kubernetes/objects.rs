//! The fields of Kubernetes' objects that count here. What is absent is empty or `false`, as the API defines it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Names and labels of any object.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    /// Its name.
    pub name: String,
    /// Its namespace; empty for objects of the cluster.
    pub namespace: String,
    /// Never given to another object.
    pub uid: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its version, opaque.
    pub resource_version: String,
}

/// Any object of which only the metadata counts: namespaces, Revisions.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Object {
    /// Names and labels.
    pub metadata: Metadata,
}

/// A node is looked at for its labels only.
pub type Node = Object;

/// A ConfigMap.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ConfigMap {
    /// Names and labels.
    pub metadata: Metadata,
    /// What it says.
    pub data: BTreeMap<String, String>,
}

/// A pod.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Pod {
    /// Names and labels.
    pub metadata: Metadata,
    /// What it should be.
    pub spec: PodSpec,
    /// How it is.
    pub status: PodStatus,
}

/// What a pod should be.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    /// The account whose tokens it gets.
    pub service_account_name: String,
    /// Its node; empty until it is scheduled.
    pub node_name: String,
    /// Whether its network is the node's.
    pub host_network: bool,
    /// Whether it sees the node's processes.
    #[serde(rename = "hostPID")]
    pub host_pid: bool,
    /// Whether it uses the node's shared memory.
    #[serde(rename = "hostIPC")]
    pub host_ipc: bool,
    /// Whether its containers see each other's processes.
    pub share_process_namespace: bool,
    /// Run to their end first, or beside the others.
    pub init_containers: Vec<Container>,
    /// Run as long as the pod.
    pub containers: Vec<Container>,
    /// Added for debugging.
    pub ephemeral_containers: Vec<Container>,
    /// What can be mounted.
    pub volumes: Vec<Volume>,
}

/// How a pod is.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct PodStatus {
    /// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
    pub phase: String,
}

/// A container of a pod.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// What it runs.
    pub image: String,
    /// In place of the image's entry point.
    pub command: Vec<String>,
    /// In place of the image's arguments.
    pub args: Vec<String>,
    /// What it can read.
    pub volume_mounts: Vec<VolumeMount>,
}

/// A volume in a container.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct VolumeMount {
    /// The volume's name.
    pub name: String,
}

/// A volume of a pod.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// What is projected into it.
    pub projected: Option<Projection>,
}

/// A volume made of several sources.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Projection {
    /// The sources.
    pub sources: Vec<Source>,
}

/// One source of a projected volume.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Source {
    /// A token of the pod's service account.
    pub service_account_token: Option<TokenSource>,
}

/// A token of the pod's service account.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct TokenSource {
    /// For whom it is; empty is the API server.
    pub audience: String,
}

/// The API server's word on a token.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct TokenReview {
    /// The word.
    pub status: TokenReviewStatus,
}

/// The API server's word on a token.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct TokenReviewStatus {
    /// Whether it is valid.
    pub authenticated: bool,
    /// For which of the audiences asked for it is. Empty if the server knows no audiences.
    pub audiences: Vec<String>,
    /// Whose it is.
    pub user: User,
}

/// Whose a token is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct User {
    /// `system:serviceaccount:<namespace>:<name>` for service accounts.
    pub username: String,
    /// What else the token says, e.g. the pod it is bound to.
    pub extra: BTreeMap<String, Vec<String>>,
}
