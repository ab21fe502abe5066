//! The few calls to the Kubernetes API that the controller needs (`docs/adr/0009` says why not a whole client library).
//!
//! Answers are read as the few fields that count here. Paths are made of names that the API server itself gave.

mod error;
mod objects;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, StatusCode};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use zipline_https::{Client, ClientConfig, Roots};
use zipline_runtime::Tasks;

use crate::config::Config;

pub use error::KubernetesError;
pub use objects::{
    ConfigMap, Container, Metadata, Node, Object, Pod, PodSpec, PodStatus, Projection, Source, TokenReview,
    TokenReviewStatus, TokenSource, User, Volume, VolumeMount,
};
pub use watch::{Change, Collection};

/// Longest time for one call.
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// Longest answer to one call; lists come in pages.
const ANSWER_MAX: usize = 16 * 1024 * 1024;
/// Calls at a time.
const CALLS_MAX: usize = 64;
/// The controller's own token is read again after this long; Kubernetes renews the file well before it expires.
const TOKEN_FRESH: Duration = Duration::from_secs(60);
/// Longest file of a token or of roots.
const FILE_MAX: u64 = 1024 * 1024;

/// The API server. Clones share connections.
#[derive(Debug, Clone)]
pub struct Kubernetes {
    client: Client,
    token: Arc<Token>,
}

#[derive(Debug)]
struct Token {
    path: PathBuf,
    read: Mutex<Option<(Instant, HeaderValue)>>,
}

impl Kubernetes {
    /// The API server of `config`. Its roots are read now, the token when it is needed.
    ///
    /// # Errors
    /// [`KubernetesError::File`], [`KubernetesError::Roots`].
    pub fn new(config: &Config, tasks: Tasks) -> Result<Self, KubernetesError> {
        let roots = Roots::from_pem(&read(&config.kubernetes_ca)?)?;
        let limits = ClientConfig { max_requests: CALLS_MAX, max_idle: 16, ..ClientConfig::default() };
        Ok(Self {
            client: Client::new(config.kubernetes.clone(), roots, limits, tasks),
            token: Arc::new(Token { path: config.kubernetes_token.clone(), read: Mutex::default() }),
        })
    }

    /// Reads the object at `path`; `None` if there is none.
    ///
    /// # Errors
    /// [`KubernetesError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, KubernetesError> {
        match self.call(Method::GET, path, None, Bytes::new()).await {
            Ok(body) => Ok(Some(parse(&body)?)),
            Err(KubernetesError::Status { status: StatusCode::NOT_FOUND, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates `object` at `path` and gives what the server made of it.
    ///
    /// # Errors
    /// [`KubernetesError`].
    pub async fn create<T: DeserializeOwned>(
        &self,
        path: &str,
        object: &impl Serialize,
    ) -> Result<T, KubernetesError> {
        let body = serde_json::to_vec(object).expect("strings and numbers always serialise");
        parse(&self.call(Method::POST, path, Some("application/json"), body.into()).await?)
    }

    /// Server-side apply of `object` at `path` in the name of `manager`, without force: fields that another manager owns with
    /// another value are a conflict ([`KubernetesError::is_conflict`]), and nothing is changed.
    ///
    /// # Errors
    /// [`KubernetesError`].
    pub async fn apply(
        &self,
        path: &str,
        manager: &str,
        object: &impl Serialize,
    ) -> Result<(), KubernetesError> {
        let body = serde_json::to_vec(object).expect("strings and numbers always serialise");
        let path = format!("{path}?fieldManager={manager}");
        // JSON is YAML, and this is the one name of the type that every supported version knows.
        self.call(Method::PATCH, &path, Some("application/apply-patch+yaml"), body.into()).await?;
        Ok(())
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        content_type: Option<&'static str>,
        body: Bytes,
    ) -> Result<Bytes, KubernetesError> {
        let request = self.request(method, path, "application/json", content_type, body)?;
        let answer = self.client.send(request, ANSWER_MAX, CALL_LIMIT).await?;
        if !answer.status.is_success() {
            return Err(KubernetesError::refused(answer.status, &answer.body));
        }
        Ok(answer.body)
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        accept: &'static str,
        content_type: Option<&'static str>,
        body: Bytes,
    ) -> Result<Request<Bytes>, KubernetesError> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().map_err(|_| KubernetesError::Name)?;
        let headers = request.headers_mut();
        headers.insert(AUTHORIZATION, self.token.header()?);
        headers.insert(ACCEPT, HeaderValue::from_static(accept));
        if let Some(content_type) = content_type {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        Ok(request)
    }
}

impl Token {
    fn header(&self) -> Result<HeaderValue, KubernetesError> {
        let mut read_before = self.read.lock();
        if let Some((at, header)) = &*read_before
            && at.elapsed() < TOKEN_FRESH
        {
            return Ok(header.clone());
        }
        let token = read(&self.path)?;
        let token = [b"Bearer ", token.trim_ascii()].concat();
        let mut header = HeaderValue::from_bytes(&token).map_err(|_| KubernetesError::Token)?;
        header.set_sensitive(true);
        *read_before = Some((Instant::now(), header.clone()));
        Ok(header)
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, KubernetesError> {
    serde_json::from_slice(body).map_err(KubernetesError::Malformed)
}

fn read(path: &std::path::Path) -> Result<Vec<u8>, KubernetesError> {
    use std::io::Read as _;
    let failed = |source| KubernetesError::File { path: path.to_owned(), source };
    let mut content = Vec::new();
    std::fs::File::open(path).map_err(failed)?.take(FILE_MAX).read_to_end(&mut content).map_err(failed)?;
    Ok(content)
}
