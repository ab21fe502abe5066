//! Keeping an eye on a collection: a list, then its changes, then, when those break off, a list again.

use std::time::Duration;

use http::{Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout};
use zipline_http::Body;

use super::{CALL_LIMIT, Kubernetes, KubernetesError, Metadata, parse};

/// Longest line of a watch.
const LINE_MAX: usize = 4 * 1024 * 1024;
/// Objects in one page of a list.
const PAGE: usize = 500;
/// The server ends a watch after this long.
const WATCH_SECONDS: u64 = 240;
/// Longest silence of a watch; the server sends bookmarks every minute or so.
const SILENCE_MAX: Duration = Duration::from_secs(100);
/// First and longest pause after a failure.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// One change of a collection.
#[derive(Debug)]
pub enum Change<T> {
    /// All there is, in place of what was known.
    All(Vec<T>),
    /// This is there now, or has changed.
    Present(T),
    /// This is gone.
    Gone(T),
}

/// A collection that is watched.
#[derive(Debug, Clone)]
pub struct Collection {
    /// Its path.
    pub path: &'static str,
    /// The namespace that stands in the path for `{namespace}`.
    pub namespace: String,
    /// A field selector, percent-encoded; may be empty.
    pub fields: &'static str,
    /// Whether only metadata is asked for.
    pub metadata_only: bool,
}

impl Collection {
    fn path(&self) -> String {
        self.path.replace("{namespace}", &self.namespace)
    }

    fn accept(&self, list: bool) -> &'static str {
        match (self.metadata_only, list) {
            (false, _) => "application/json",
            (true, true) => "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
            (true, false) => "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
        }
    }
}

#[derive(Deserialize)]
struct List<T> {
    metadata: ListMetadata,
    #[serde(default = "Vec::new")]
    items: Vec<T>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ListMetadata {
    resource_version: String,
    #[serde(rename = "continue")]
    next: String,
}

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    object: serde_json::Value,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Marked {
    metadata: Metadata,
}

impl Kubernetes {
    /// Tells `changed` of a collection and of every change, for ever. While the server cannot be asked nothing is told, so
    /// that what was known goes on to hold.
    ///
    /// # Cancel safety
    /// Dropping it ends the watch.
    pub async fn watch<T: DeserializeOwned>(
        &self,
        collection: &Collection,
        mut changed: impl FnMut(Change<T>),
    ) {
        let mut pause = PAUSE.0;
        loop {
            let started = Instant::now();
            let Err(error) = self.watch_once(collection, &mut changed).await;
            if error.is_gone() {
                tracing::debug!(path = collection.path, "the watch begins anew");
            } else {
                tracing::warn!(
                    path = collection.path,
                    error = &error as &dyn std::error::Error,
                    "the watch broke off"
                );
            }
            // A watch that ran for a while is worth an attempt at once.
            pause = if started.elapsed() > PAUSE.1 { PAUSE.0 } else { (pause * 2).min(PAUSE.1) };
            sleep(pause).await;
        }
    }

    async fn watch_once<T: DeserializeOwned>(
        &self,
        collection: &Collection,
        changed: &mut impl FnMut(Change<T>),
    ) -> Result<std::convert::Infallible, KubernetesError> {
        let (items, mut version) = self.list(collection).await?;
        changed(Change::All(items));
        loop {
            let path = format!(
                "{}?watch=true&allowWatchBookmarks=true&timeoutSeconds={WATCH_SECONDS}&resourceVersion={version}&fieldSelector={}",
                collection.path(),
                collection.fields
            );
            let request =
                self.request(Method::GET, &path, collection.accept(false), None, bytes::Bytes::new())?;
            let response = self.client.stream(request, CALL_LIMIT).await?;
            if response.status() != StatusCode::OK {
                return Err(KubernetesError::refused(response.status(), b""));
            }
            let mut lines = Lines { body: response.into_body(), buffer: Vec::new() };
            while let Some(line) = lines.next().await? {
                let event: Event = parse(&line)?;
                let marked: Marked = serde_json::from_value(event.object.clone()).unwrap_or_default();
                let object = |value| serde_json::from_value::<T>(value).map_err(KubernetesError::Malformed);
                match event.kind.as_str() {
                    "ADDED" | "MODIFIED" => changed(Change::Present(object(event.object)?)),
                    "DELETED" => changed(Change::Gone(object(event.object)?)),
                    "BOOKMARK" => {}
                    // What was missed cannot be told any more, whatever the reason.
                    _ => return Err(KubernetesError::refused(StatusCode::GONE, b"")),
                }
                version = marked.metadata.resource_version;
            }
        }
    }

    async fn list<T: DeserializeOwned>(
        &self,
        collection: &Collection,
    ) -> Result<(Vec<T>, String), KubernetesError> {
        let (mut items, mut next) = (Vec::new(), String::new());
        loop {
            let path = format!(
                "{}?limit={PAGE}&continue={next}&fieldSelector={}",
                collection.path(),
                collection.fields
            );
            let request =
                self.request(Method::GET, &path, collection.accept(true), None, bytes::Bytes::new())?;
            let answer = self.client.send(request, super::ANSWER_MAX, CALL_LIMIT).await?;
            if !answer.status.is_success() {
                return Err(KubernetesError::refused(answer.status, &answer.body));
            }
            let page: List<T> = parse(&answer.body)?;
            items.extend(page.items);
            if page.metadata.next.is_empty() {
                return Ok((items, page.metadata.resource_version));
            }
            // The token is base64url; anything else would not survive in a query.
            next = page.metadata.next.replace('=', "%3D").replace('+', "%2B");
        }
    }
}

/// Lines of a body that does not end.
struct Lines {
    body: Body,
    buffer: Vec<u8>,
}

impl Lines {
    async fn next(&mut self) -> Result<Option<Vec<u8>>, KubernetesError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let rest = self.buffer.split_off(end + 1);
                let line = std::mem::replace(&mut self.buffer, rest);
                return Ok(Some(line));
            }
            if self.buffer.len() > LINE_MAX {
                return Err(KubernetesError::Watch("an event is too long"));
            }
            match timeout(SILENCE_MAX, self.body.data()).await {
                Err(_) => return Err(KubernetesError::Watch("it fell silent")),
                Ok(None) => return Ok(None),
                Ok(Some(Err(_))) => return Err(KubernetesError::Watch("its connection broke")),
                Ok(Some(Ok(frame))) => {
                    if let Some(data) = frame.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
            }
        }
    }
}
