//! `GET /v1/payloads`.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use http::Request;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::timeout;
use zipline_http::{Body, Target};

use crate::instance::{Instance, InstanceState};

use super::Control;

/// Queue-proxies asked at a time.
const AT_A_TIME: usize = 16;
/// A queue-proxy that has not answered within this is reported as such.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest answer: 1,000 payloads and 1,000 edges fit many times.
const ANSWER_MAX: usize = 8 * 1024 * 1024;

/// What all queue-proxies say about themselves.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Payloads {
    /// 1.
    pub schema: u32,
    /// One for each instance that listens, functions by name, then guests.
    pub instances: Vec<InstancePayloads>,
}

/// One queue-proxy's word.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InstancePayloads {
    /// The instance.
    pub instance: String,
    /// `service.namespace`.
    pub function: String,
    /// Its `/status`; none if it did not answer.
    pub status: Option<Value>,
    /// Why it did not answer.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
}

pub(super) async fn payloads(control: &Control) -> Payloads {
    let mut all: Vec<(String, Arc<Instance>)> = Vec::new();
    for (name, function) in control.functions.iter() {
        all.extend(function.instances().into_iter().map(|instance| (name.to_string(), instance)));
    }
    all.extend(
        control.context.guests.lock().iter().map(|guest| (guest.function.clone(), guest.instance.clone())),
    );
    let asked = all.into_iter().filter_map(|(function, instance)| {
        let admin = instance.facts().addresses?.admin;
        Some(async move {
            let (status, error) = match ask(control, admin).await {
                Ok(status) => (Some(status), None),
                // One that drains may end while it is asked: then it holds nothing.
                Err(_) if instance.facts().state >= InstanceState::Draining => return None,
                Err(error) => (None, Some(error)),
            };
            Some(InstancePayloads { instance: instance.name.clone(), function, status, error })
        })
    });
    let instances = futures_util::stream::iter(asked)
        .buffered(AT_A_TIME)
        .filter_map(|found| async move { found })
        .collect()
        .await;
    Payloads { schema: 1, instances }
}

async fn ask(control: &Control, admin: std::net::SocketAddr) -> Result<Value, String> {
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = http::Uri::from_static("/status");
    let answer = async {
        let response =
            control.client.send(&Target::http1(admin), request).await.map_err(|error| error.to_string())?;
        if !response.status().is_success() {
            return Err(format!("its admin port answered {}", response.status()));
        }
        let body = response.into_body().collect_up_to(ANSWER_MAX).await.map_err(|error| error.to_string())?;
        serde_json::from_slice(&body).map_err(|error| error.to_string())
    };
    timeout(ANSWER_TIMEOUT, answer)
        .await
        .unwrap_or_else(|_| Err(format!("it did not answer within {} s", ANSWER_TIMEOUT.as_secs())))
}
