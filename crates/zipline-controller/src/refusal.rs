//! Why a queue-proxy is not served: a closed list, the same in answers, logs and metrics.

use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use zipline_http::Body;
use zipline_protocol::PROBLEM_MEDIA_TYPE;
use zipline_protocol::controller::REFUSAL_TYPE;

macro_rules! refusals {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $status:literal, $text:literal;)+) => {
        /// Why a request was refused. The text says what to do about it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
        #[non_exhaustive]
        pub enum Refusal {
            $($(#[$doc])* #[error($text)] $variant,)+
        }

        impl Refusal {
            /// Every member.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The stable word.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)+ }
            }

            /// The HTTP status that goes with it.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)+ }
            }
        }
    };
}

refusals! {
    /// There is no bearer token.
    TokenMissing = "token-missing", 401, "show the projected token in Authorization: Bearer";
    /// What is there cannot be a token.
    TokenMalformed = "token-malformed", 401, "the token is too long or not visible ASCII";
    /// The API server does not know it, or no longer.
    TokenRefused = "token-refused", 401, "the API server does not accept this token for this audience";
    /// It is no service account's.
    NotAServiceAccount = "not-a-service-account", 403, "only service accounts of pods get keys";
    /// It is not bound to a pod.
    TokenUnbound = "token-unbound", 403, "the token is not bound to a pod: use the projected token of the pod itself";
    /// The pod is gone.
    PodNotFound = "pod-not-found", 403, "the pod that the token is bound to does not exist any more";
    /// Another pod has its name.
    PodReplaced = "pod-replaced", 403, "a pod of this name exists, but it is another one than the token is bound to";
    /// It has run to its end.
    PodEnded = "pod-ended", 403, "the pod has ended";
    /// Its account is another one.
    AccountMismatch = "account-mismatch", 403, "the pod runs under another service account than the token's";
    /// It is not Knative's.
    NotARevision = "not-a-revision", 403, "the pod has no label serving.knative.dev/revision: only pods of Revisions get keys";
    /// It is another Revision's.
    RevisionMismatch = "revision-mismatch", 403, "the pod belongs to another Revision than the queue-proxy was started for";
    /// The Revision is gone.
    RevisionNotFound = "revision-not-found", 403, "the Revision that the pod's labels name does not exist, or is another one";
    /// There is no queue-proxy in it.
    QueueProxyMissing = "queue-proxy-missing", 403, "the pod has no container named queue-proxy";
    /// It runs another image.
    ImageNotAllowed = "image-not-allowed", 403, "the container queue-proxy runs an image that is not in queue-proxy-images of ConfigMap zipline-config";
    /// It was made to run something else.
    QueueProxyChanged = "queue-proxy-changed", 403, "the container queue-proxy has a command or arguments of its own";
    /// Nobody in it could have the token.
    AudienceNotMounted = "audience-not-mounted", 403, "the container queue-proxy mounts no token of this audience: is queue-sidecar-token-audiences set?";
    /// A function could read the token.
    AudienceElsewhere = "audience-elsewhere", 403, "another container than queue-proxy mounts the token of this audience";
    /// A function could read the queue-proxy's memory.
    SharedProcessNamespace = "shared-process-namespace", 403, "the pod's containers share a process namespace";
    /// The pod's network is the node's.
    HostNetwork = "host-network", 403, "the pod uses the node's network";
    /// The pod sees the node's processes.
    HostPid = "host-pid", 403, "the pod sees the node's processes";
    /// The pod shares the node's memory.
    HostIpc = "host-ipc", 403, "the pod uses the node's shared memory";
    /// Somebody debugs it.
    EphemeralContainer = "ephemeral-container", 403, "the pod has an ephemeral container: start a new pod after debugging";
    /// The request is not one.
    RequestInvalid = "request-invalid", 400, "the request is not what this path takes";
    /// There is no such door.
    NotFound = "not-found", 404, "there is /v1/keys, /v1/mode and /v1/holding";
    /// Too many from one address.
    TooManyRequests = "too-many-requests", 429, "too many requests from this address: wait and ask again";
    /// Too much to do.
    Busy = "busy", 503, "too many requests at once: wait and ask again";
    /// Kubernetes does not answer.
    KubernetesUnavailable = "kubernetes-unavailable", 503, "the API server cannot be asked: wait and ask again";
    /// It has only just started.
    Starting = "starting", 503, "the configuration has not been read yet: wait and ask again";
}

impl Refusal {
    /// The answer, as problem JSON.
    #[must_use]
    pub fn to_response(self) -> Response<Body> {
        let status = StatusCode::from_u16(self.status()).expect("the list has valid statuses");
        let problem = serde_json::json!({
            "type": format!("{REFUSAL_TYPE}{}", self.as_str()),
            "title": self.as_str(),
            "status": self.status(),
            "detail": self.to_string(),
        });
        let mut response = Response::new(Body::full(problem.to_string()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_MEDIA_TYPE));
        if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
        }
        response
    }
}
