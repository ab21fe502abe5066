//! The profiling port. A process without Go's runtime has none of Go's profiles, and says so (ADR 12).

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use zipline_http::{Body, Handler};

use super::replies::{method_not_allowed, not_found, text};

const PREFIX: &str = "/debug/pprof/";

/// Answers on the profiling port: 501 with a text for what stock Knative answers with profiles, 404 for the rest.
///
/// # Source
/// `PKG observability/runtime/pprof.go`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Profiling;

impl Profiling {
    fn answer(method: &Method, path: &str) -> Response<Body> {
        // Go's router sends the name of a directory on to the directory.
        if path == PREFIX.trim_end_matches('/') && *method == Method::GET {
            let mut response = text(StatusCode::MOVED_PERMANENTLY, "");
            response.headers_mut().insert(header::LOCATION, HeaderValue::from_static(PREFIX));
            return response;
        }
        let Some(profile) = path.strip_prefix(PREFIX) else { return not_found() };
        if !matches!(*method, Method::GET | Method::HEAD) {
            return method_not_allowed();
        }
        text(StatusCode::NOT_IMPLEMENTED, explanation(profile))
    }
}

impl Handler for Profiling {
    async fn handle(&self, request: Request<Body>) -> Response<Body> {
        Self::answer(request.method(), request.uri().path())
    }
}

fn explanation(profile: &str) -> String {
    let why = match profile {
        "" => "it offers no profiles",
        "profile" => "it takes no CPU profiles by itself; use \"perf record -g -p <pid>\" on the node",
        "heap" | "allocs" => "it has no Go heap; its memory is in process_resident_memory_bytes on port 9091",
        "goroutine" | "threadcreate" => "it has no goroutines",
        "block" | "mutex" | "trace" => "it has no Go scheduler to trace",
        "symbol" => "it has no Go symbols",
        "cmdline" => "it takes no arguments",
        _ => "there is no such profile",
    };
    format!("Zipline's queue-proxy is not a Go program: {why}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_profile_is_refused_by_name() {
        for (method, path, status, words) in [
            (Method::GET, "/debug/pprof/", 501, "no profiles"),
            (Method::GET, "/debug/pprof/heap", 501, "no Go heap"),
            (Method::GET, "/debug/pprof/profile", 501, "perf record"),
            (Method::GET, "/debug/pprof/else", 501, "no such profile"),
            (Method::GET, "/debug/pprof", 301, ""),
            (Method::POST, "/debug/pprof/heap", 405, "Method Not Allowed"),
            (Method::GET, "/", 404, "404 page not found"),
        ] {
            let response = Profiling::answer(&method, path);
            assert_eq!(response.status(), status, "{path}");
            let body = response.into_body().collect_up_to(1000).await.unwrap();
            assert!(std::str::from_utf8(&body).unwrap().contains(words), "{path}: {body:?}");
        }
    }
}
