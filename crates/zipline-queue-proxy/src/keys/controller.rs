//! Keys, mode and zone from the controller, in the background. Requests never wait for any of it.
//!
//! Two questions are always on their way once keys are there: one for keys every few minutes, and one that the controller
//! answers as soon as the mode or the keys change. What fails is asked again after a pause that grows up to a minute and is
//! never the same for two queue-proxies. While the controller is away the last mode holds, and the last keys seal for as
//! long as it said that others accept them.

use std::error::Error as _;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use zipline_http::HostPort;
use zipline_https::{Client, ClientConfig, RequestError, Roots, RootsError};
use zipline_protocol::controller::{
    ANSWER_MAX, ControllerKey, KeyState, KeysAnswer, KeysRequest, MODE_WAIT, ModeAnswer, REFUSAL_TYPE,
    TOKEN_MAX,
};
use zipline_protocol::limits::KEYS_MAX;
use zipline_protocol::{KeyId, from_text};
use zipline_runtime::Tasks;
use zipline_seal::{InstallError, Keyring, KeyringUpdate, Secret, TenantKey, key_id, random_bytes};

use crate::guidance::Guidance;

/// Longest time for one question, the wait for a change of mode apart.
const LIMIT: Duration = Duration::from_secs(10);
/// First and longest pause after a failure.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(60));
/// Shortest and longest time between two questions for keys, whatever the controller says.
const REFRESH: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(3600));
/// An answer that nothing has changed within this time is no long poll's; then the next question waits as long.
const HURRY: Duration = Duration::from_secs(1);

/// Where the controller is, and who asks.
#[derive(Clone, Debug)]
pub struct ControllerConfig {
    /// The controller.
    pub server: HostPort,
    /// Certificates in PEM by which it is verified, and by no others.
    pub roots: String,
    /// File with the projected token; read for every question, since it is renewed.
    pub token: PathBuf,
    /// The Revision that this queue-proxy was started for.
    pub revision: String,
}

/// A question to the controller was not answered as it should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// The token cannot be read.
    #[error("the token {} cannot be read", path.display())]
    Token {
        /// Where it should be.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It is no token. It is not quoted.
    #[error("the file {} holds no token", path.display())]
    NoToken {
        /// Where it should be.
        path: PathBuf,
    },
    /// No answer.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// It refused.
    #[error("the controller refused with {status}: {reason}")]
    Refused {
        /// The status.
        status: StatusCode,
        /// The word of its list, or empty.
        reason: String,
    },
    /// The answer is not understood. It is not quoted, since it may hold keys.
    #[error("the answer of the controller is not understood")]
    Malformed,
    /// The keys are another tenant's.
    #[error("the controller gave keys of {given:?}, this queue-proxy serves {tenant:?}")]
    OtherTenant {
        /// Whose keys were given.
        given: String,
        /// Whose are wanted.
        tenant: String,
    },
    /// The ring was refused.
    #[error(transparent)]
    Install(#[from] InstallError),
}

/// Asks the controller.
#[derive(Clone, Debug)]
pub struct Controller {
    client: Client,
    config: ControllerConfig,
}

impl Controller {
    /// Whom to ask. Nothing is asked yet.
    ///
    /// # Errors
    /// The roots cannot be used.
    pub fn new(config: ControllerConfig, tasks: Tasks) -> Result<Self, RootsError> {
        let roots = Roots::from_pem(config.roots.as_bytes())?;
        let limits = ClientConfig { max_requests: 4, max_idle: 2, ..ClientConfig::default() };
        Ok(Self { client: Client::new(config.server.clone(), roots, limits, tasks), config })
    }

    /// Keeps `keyring` and `guidance` as the controller says, for ever.
    ///
    /// # Cancel safety
    /// Dropping it stops asking; keys and mode stay as they are.
    pub async fn run(&self, keyring: &Keyring, guidance: &Guidance) {
        let following = Following {
            controller: self,
            keyring,
            guidance,
            keys_changed: Notify::new(),
            known: parking_lot::Mutex::new(None),
        };
        following.first_keys().await;
        tokio::join!(following.keys(), following.modes());
    }

    /// Tells the controller something; any success will do.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn tell(&self, path: &'static str, message: &impl Serialize) -> Result<(), AskError> {
        self.send(Method::POST, path, Some(message), LIMIT).await.map(drop)
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        message: Option<&impl Serialize>,
        limit: Duration,
    ) -> Result<T, AskError> {
        let body = self.send(method, path, message, limit).await?;
        serde_json::from_slice(&body).map_err(|_| AskError::Malformed)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        message: Option<&impl Serialize>,
        limit: Duration,
    ) -> Result<Bytes, AskError> {
        let body = message.map(|message| serde_json::to_vec(message).expect("plain structures serialise"));
        let mut request = Request::new(Bytes::from(body.unwrap_or_default()));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().expect("the paths are written here");
        let headers = request.headers_mut();
        headers.insert(AUTHORIZATION, self.token()?);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let answer = self.client.send(request, ANSWER_MAX, limit).await?;
        if !answer.status.is_success() {
            return Err(AskError::Refused { status: answer.status, reason: reason(&answer.body) });
        }
        Ok(answer.body)
    }

    fn token(&self) -> Result<HeaderValue, AskError> {
        use std::io::Read as _;
        let path = &self.config.token;
        let failed = |source| AskError::Token { path: path.clone(), source };
        let mut token = b"Bearer ".to_vec();
        let limit = TOKEN_MAX as u64 + 1;
        std::fs::File::open(path).map_err(failed)?.take(limit).read_to_end(&mut token).map_err(failed)?;
        let token = token.trim_ascii_end();
        let mut value = match HeaderValue::from_bytes(token) {
            Ok(value) if (8..=TOKEN_MAX).contains(&token.len()) => value,
            _ => return Err(AskError::NoToken { path: path.clone() }),
        };
        value.set_sensitive(true);
        Ok(value)
    }
}

/// The word of a refusal, if it is one.
fn reason(body: &[u8]) -> String {
    let problem: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let word = problem["type"].as_str().and_then(|kind| kind.strip_prefix(REFUSAL_TYPE));
    word.unwrap_or_default().chars().take(64).filter(char::is_ascii_graphic).collect()
}

struct Following<'a> {
    controller: &'a Controller,
    keyring: &'a Keyring,
    guidance: &'a Guidance,
    /// The controller has said that other keys are to be used.
    keys_changed: Notify,
    /// The keys in use, until when they seal, and when to ask again.
    known: parking_lot::Mutex<Option<Known>>,
}

#[derive(Clone, Copy)]
struct Known {
    refresh: Instant,
    valid: Instant,
}

impl Following<'_> {
    /// Asks until there are keys. Only then a mode means anything.
    async fn first_keys(&self) {
        let mut backoff = Backoff::new();
        loop {
            match self.fetch().await {
                Ok(answer) => {
                    let mode = answer.modes.effective();
                    self.guidance.set_mode(mode);
                    tracing::info!(mode = mode.as_str(), zone = answer.zone, "the controller has answered");
                    return;
                }
                Err(error) => self.pause(&mut backoff, &error).await,
            }
        }
    }

    /// Asks for keys again and again.
    async fn keys(&self) {
        let mut backoff = Backoff::new();
        loop {
            let known = *self.known.lock();
            let refresh = known.map_or_else(Instant::now, |known| known.refresh);
            tokio::select! {
                () = sleep_until(refresh) => {}
                () = self.keys_changed.notified() => {}
            }
            while let Err(error) = self.fetch().await {
                self.seal_no_more(known);
                self.pause(&mut backoff, &error).await;
            }
            backoff = Backoff::new();
        }
    }

    /// Asks for the mode again and again; each question waits at the controller until there is news.
    async fn modes(&self) {
        let (mut backoff, mut last) = (Backoff::new(), None::<ModeAnswer>);
        loop {
            let asked = Instant::now();
            let path = last
                .map_or_else(|| "/v1/mode".to_owned(), |last| format!("/v1/mode?revision={}", last.revision));
            let limit = MODE_WAIT + LIMIT;
            let answer = self.controller.ask::<ModeAnswer>(Method::GET, &path, None::<&()>, limit).await;
            match answer {
                Ok(answer) => {
                    backoff = Backoff::new();
                    if self.guidance.set_mode(answer.mode) {
                        tracing::info!(mode = answer.mode.as_str(), "the mode has changed");
                    }
                    if last.is_some_and(|last| last.keys != answer.keys) {
                        self.keys_changed.notify_one();
                    }
                    let news = last.is_none_or(|last| last.revision != answer.revision);
                    last = Some(answer);
                    if !news && asked.elapsed() < HURRY {
                        sleep(HURRY).await;
                    }
                }
                Err(error) => self.pause(&mut backoff, &error).await,
            }
        }
    }

    async fn fetch(&self) -> Result<KeysAnswer, AskError> {
        let asked = Instant::now();
        let request = KeysRequest { revision: self.controller.config.revision.clone() };
        let answer: KeysAnswer = self.controller.ask(Method::POST, "/v1/keys", Some(&request), LIMIT).await?;
        install(self.keyring, &answer)?;
        self.guidance.set_zone(&answer.zone);
        self.guidance.succeeded(self.keyring.serials());
        let refresh = Duration::from_secs(answer.refresh_seconds).clamp(REFRESH.0, REFRESH.1);
        let valid = Duration::from_secs(answer.valid_seconds.min(366 * 86_400));
        // Asked before the last tenth, each at another time.
        *self.known.lock() =
            Some(Known { refresh: asked + refresh.mul_f64(0.8 + 0.2 * fraction()), valid: asked + valid });
        Ok(answer)
    }

    /// Keys that nobody may accept any more must not seal. They go on to open.
    fn seal_no_more(&self, known: Option<Known>) {
        if known.is_some_and(|known| known.valid <= Instant::now()) && self.keyring.can_seal() {
            tracing::error!(
                "the keys are too old to seal with; everything goes inline until there are new ones"
            );
            self.keyring.seal_no_more();
        }
    }

    async fn pause(&self, backoff: &mut Backoff, error: &AskError) {
        let cause = error.source().map(ToString::to_string).unwrap_or_default();
        let pause = backoff.next();
        tracing::warn!(%error, cause, pause_seconds = pause.as_secs_f64(), "the controller is asked again");
        self.guidance.failed(match cause.is_empty() {
            true => error.to_string(),
            false => format!("{error}: {cause}"),
        });
        // A pause must not outlast the keys.
        let valid = (*self.known.lock()).map(|known| known.valid);
        let until = Instant::now() + pause;
        let _ =
            timeout_at(valid.filter(|valid| *valid > Instant::now()).unwrap_or(until), sleep_until(until))
                .await;
    }
}

/// Pauses that double, each between half of itself and itself.
struct Backoff {
    next: Duration,
}

impl Backoff {
    fn new() -> Self {
        Self { next: PAUSE.0 }
    }

    fn next(&mut self) -> Duration {
        let pause = self.next.mul_f64(0.5 + 0.5 * fraction());
        self.next = (self.next * 2).min(PAUSE.1);
        pause
    }
}

/// A random number from 0 to 1.
fn fraction() -> f64 {
    f64::from(u32::from_be_bytes(random_bytes())) / f64::from(u32::MAX)
}

/// Puts the keys of `answer` in place of those before.
fn install(keyring: &Keyring, answer: &KeysAnswer) -> Result<(), AskError> {
    let tenant = keyring.tenant();
    if answer.tenant != tenant {
        let given = answer.tenant.chars().take(64).collect();
        return Err(AskError::OtherTenant { given, tenant: tenant.to_owned() });
    }
    let mut update = KeyringUpdate::default();
    // One more than allowed is enough to be refused.
    for key in answer.keys.iter().take(KEYS_MAX + 1) {
        let installed = read(tenant, key)?;
        if key.state == KeyState::Active {
            update.seal_with = Some(installed.serial);
        }
        update.keys.push(installed);
    }
    keyring.install(update)?;
    Ok(())
}

fn read(tenant: &str, key: &ControllerKey) -> Result<TenantKey, AskError> {
    let id = KeyId::parse(&key.id).map_err(|_| AskError::Malformed)?;
    let serial = id.serial();
    if id != key_id(tenant, serial) {
        return Err(AskError::Malformed);
    }
    let bytes = from_text(&key.secret).map(zeroize::Zeroizing::new);
    let secret = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes.as_slice()).ok());
    let secret = secret.ok_or(InstallError::Secret { serial })?;
    Ok(TenantKey { serial, secret: Secret::from_bytes(secret) })
}

#[cfg(test)]
mod tests;
