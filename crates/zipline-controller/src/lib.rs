//! The controller: one Deployment beside Knative that gives queue-proxies what must not be readable by functions.
//!
//! - **Keys.** A queue-proxy shows its projected token; the API server says which pod that is; the pod's spec says whether
//!   anything but its queue-proxy could have read the token. Namespace keys derive from a master secret ([`masters`]).
//! - **Modes.** `off`, `receive`, `on` by cluster and namespace, watched and handed on by long poll ([`modes`]).
//! - **Guards.** Pods that hold payloads are marked for the autoscalers ([`guards`]).
//!
//! It keeps no state: any number of replicas give the same answers, and a new one needs nothing from the old. What it
//! remembers (who was let in a moment ago, zones of nodes, what was written to a pod) is only to ask the API server less.
#![forbid(unsafe_code)]

pub mod api;
pub mod config;
pub mod guards;
pub mod kubernetes;
pub mod masters;
pub mod metrics;
pub mod modes;
pub mod pods;
pub mod rates;
pub mod refusal;
pub mod server;
pub mod verify;
pub mod zones;
