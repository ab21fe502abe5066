//! Who asks: from a token to a pod that may have keys.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use zipline_protocol::Mode;
use zipline_protocol::controller::{AUDIENCE, MODE_ANNOTATION};

use crate::kubernetes::{Kubernetes, KubernetesError, Object, Pod, TokenReview, User};
use crate::pods::{self, REVISION_LABEL, REVISION_UID_LABEL};
use crate::refusal::Refusal;

/// Verifications at a time; further ones wait.
const VERIFICATIONS_MAX: usize = 32;
/// Longest wait for one's turn.
const TURN_WAIT: Duration = Duration::from_secs(5);
/// How long somebody who was let in may go on to ask for modes and report holding, which need no secret to be given out.
const REMEMBERED: Duration = Duration::from_secs(600);
/// Most of those remembered; when full, nobody new is, and everybody else is verified each time.
const REMEMBERED_MAX: usize = 32_768;

/// What service accounts' user names begin with.
const ACCOUNT_PREFIX: &str = "system:serviceaccount:";
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// A pod whose queue-proxy has proven itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Its namespace, which is the tenant.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// Its UID.
    pub uid: String,
    /// Its service account.
    pub account: String,
    /// Its Revision.
    pub revision: String,
    /// Its node; empty if unknown.
    pub node: String,
    /// What its Service's template says.
    pub mode: Mode,
}

/// Verifies tokens against the API server.
pub struct Verifier {
    kubernetes: Kubernetes,
    turns: Semaphore,
    remembered: Mutex<HashMap<[u8; 32], (Instant, Admitted)>>,
}

impl Verifier {
    /// A verifier that asks `kubernetes`.
    #[must_use]
    pub fn new(kubernetes: Kubernetes) -> Self {
        Self { kubernetes, turns: Semaphore::new(VERIFICATIONS_MAX), remembered: Mutex::default() }
    }

    /// Verifies `token` afresh; its pod must run one of `images` and belong to `revision`, if one is claimed.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub async fn verify(
        &self,
        token: &str,
        revision: Option<&str>,
        images: &[String],
    ) -> Result<Admitted, Refusal> {
        let turn = timeout(TURN_WAIT, self.turns.acquire()).await.map_err(|_| Refusal::Busy)?;
        let _turn = turn.expect("the semaphore is never closed");
        let admitted = self.ask(token, revision, images).await;
        let digest = Sha256::digest(token).into();
        let mut remembered = self.remembered.lock();
        match &admitted {
            Ok(admitted) => {
                if remembered.len() >= REMEMBERED_MAX {
                    remembered.retain(|_, (at, _)| at.elapsed() < REMEMBERED);
                }
                if remembered.len() < REMEMBERED_MAX {
                    remembered.insert(digest, (Instant::now(), admitted.clone()));
                }
            }
            Err(_) => {
                remembered.remove(&digest);
            }
        }
        admitted
    }

    /// As [`Verifier::verify`], but believes a verification of the last ten minutes. Not for keys.
    ///
    /// # Errors
    /// As [`Verifier::verify`].
    pub async fn recognise(&self, token: &str, images: &[String]) -> Result<Admitted, Refusal> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        if let Some((at, admitted)) = self.remembered.lock().get(&digest)
            && at.elapsed() < REMEMBERED
        {
            return Ok(admitted.clone());
        }
        self.verify(token, None, images).await
    }

    async fn ask(&self, token: &str, revision: Option<&str>, images: &[String]) -> Result<Admitted, Refusal> {
        let user = self.review(token).await?;
        let bound = Bound::from_user(&user)?;
        let path = format!("/api/v1/namespaces/{}/pods/{}", bound.namespace, bound.pod);
        let pod: Pod = self.kubernetes.get(&path).await.map_err(unavailable)?.ok_or(Refusal::PodNotFound)?;
        if pod.metadata.uid != bound.uid {
            return Err(Refusal::PodReplaced);
        }
        if pod.spec.service_account_name != bound.account {
            return Err(Refusal::AccountMismatch);
        }
        pods::judge(&pod, images)?;
        let labelled = pod.metadata.labels.get(REVISION_LABEL).ok_or(Refusal::NotARevision)?;
        if revision.is_some_and(|claimed| claimed != labelled) {
            return Err(Refusal::RevisionMismatch);
        }
        self.find_revision(bound.namespace, labelled, pod.metadata.labels.get(REVISION_UID_LABEL)).await?;
        Ok(Admitted {
            namespace: bound.namespace.to_owned(),
            pod: bound.pod.to_owned(),
            uid: bound.uid.to_owned(),
            account: bound.account.to_owned(),
            revision: labelled.clone(),
            node: pod.spec.node_name,
            mode: match pod.metadata.annotations.get(MODE_ANNOTATION) {
                // The queue-proxy refuses a word that is none by name; here it lowers nothing.
                Some(word) => word.parse().unwrap_or(Mode::On),
                None => Mode::On,
            },
        })
    }

    async fn review(&self, token: &str) -> Result<User, Refusal> {
        let review = serde_json::json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [AUDIENCE]},
        });
        let path = "/apis/authentication.k8s.io/v1/tokenreviews";
        let review: TokenReview = self.kubernetes.create(path, &review).await.map_err(unavailable)?;
        // A server that knows no audiences leaves them empty, and would accept any token.
        if !review.status.authenticated
            || !review.status.audiences.iter().any(|audience| audience == AUDIENCE)
        {
            return Err(Refusal::TokenRefused);
        }
        Ok(review.status.user)
    }

    /// The Revision that a pod's labels name has to exist, under the same UID.
    async fn find_revision(&self, namespace: &str, name: &str, uid: Option<&String>) -> Result<(), Refusal> {
        if !is_name(name) {
            return Err(Refusal::RevisionNotFound);
        }
        let path = format!("/apis/serving.knative.dev/v1/namespaces/{namespace}/revisions/{name}");
        let found: Option<Object> = self.kubernetes.get(&path).await.map_err(unavailable)?;
        match (found, uid) {
            (Some(revision), Some(uid)) if revision.metadata.uid == *uid => Ok(()),
            _ => Err(Refusal::RevisionNotFound),
        }
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("remembered", &self.remembered.lock().len()).finish_non_exhaustive()
    }
}

/// What a token is bound to.
#[derive(Debug, PartialEq, Eq)]
struct Bound<'a> {
    namespace: &'a str,
    account: &'a str,
    pod: &'a str,
    uid: &'a str,
}

impl<'a> Bound<'a> {
    fn from_user(user: &'a User) -> Result<Self, Refusal> {
        let account = user.username.strip_prefix(ACCOUNT_PREFIX).and_then(|rest| rest.split_once(':'));
        let (namespace, account) = account.ok_or(Refusal::NotAServiceAccount)?;
        let one = |name: &str| match user.extra.get(name).map(Vec::as_slice) {
            Some([value]) if !value.is_empty() => Ok(value.as_str()),
            _ => Err(Refusal::TokenUnbound),
        };
        let (pod, uid) = (one(POD_NAME)?, one(POD_UID)?);
        if ![namespace, account, pod].into_iter().all(is_name) {
            return Err(Refusal::NotAServiceAccount);
        }
        Ok(Self { namespace, account, pod, uid })
    }
}

/// Names that can stand in a path.
fn is_name(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    !text.is_empty() && text.len() <= 253 && text != "." && text != ".." && text.bytes().all(fits)
}

fn unavailable(error: KubernetesError) -> Refusal {
    tracing::error!(error = &error as &dyn std::error::Error, "the API server gave no usable answer");
    Refusal::KubernetesUnavailable
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(username: &str, extra: &[(&str, &[&str])]) -> User {
        let extra = extra.iter().map(|(name, values)| {
            ((*name).to_owned(), values.iter().map(|value| (*value).to_owned()).collect())
        });
        User { username: username.to_owned(), extra: extra.collect() }
    }

    #[test]
    fn a_token_is_bound_to_one_pod_or_refused() {
        let good = user("system:serviceaccount:shop:default", &[(POD_NAME, &["p"]), (POD_UID, &["u"])]);
        let bound = Bound::from_user(&good).unwrap();
        assert_eq!(bound, Bound { namespace: "shop", account: "default", pod: "p", uid: "u" });
        let account = "system:serviceaccount:shop:default";
        for (user, refusal) in [
            (user("admin", &[]), Refusal::NotAServiceAccount),
            (user(account, &[]), Refusal::TokenUnbound),
            (user(account, &[(POD_NAME, &["p"])]), Refusal::TokenUnbound),
            (user(account, &[(POD_NAME, &["p", "q"]), (POD_UID, &["u"])]), Refusal::TokenUnbound),
            (user(account, &[(POD_NAME, &["../q"]), (POD_UID, &["u"])]), Refusal::NotAServiceAccount),
        ] {
            assert_eq!(Bound::from_user(&user), Err(refusal));
        }
    }
}
