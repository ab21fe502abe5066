//! The function that is invoked: a process of its own, which can be killed. It writes down when it ran and what it got before
//! it answers, so that what happened is known whatever becomes of it.
//!
//! | path | answers |
//! |---|---|
//! | `/digest` | JSON with length and SHA-256 of the body |
//! | `/make?seed=S&bytes=N&known=0` | N bytes of the pattern S, after the body |

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use zipline_testkit::body::{self, AnyBody};
use zipline_testkit::owner::Owner;
use zipline_testkit::{forward, pattern};

/// Serves until this process is killed.
///
/// # Errors
/// The address is taken, or the journal cannot be written.
pub async fn serve(listen: SocketAddr, journal: &Path) -> Result<()> {
    let journal = OpenOptions::new().append(true).create(true).open(journal);
    let journal = Arc::new(journal.context("the journal")?);
    let listener = TcpListener::bind(listen).await.with_context(|| listen.to_string())?;
    // The first line of each life says where it is; the harness waits for it.
    note(&journal, &format!("listening {}", listener.local_addr()?));
    let owner = Owner::default();
    forward::serve(listener, &owner.spawner(), Arc::default(), move |request| {
        answer(request, Arc::clone(&journal))
    });
    std::future::pending().await
}

/// One line in one write, so that lines of concurrent runs never mix and none is lost with this process.
fn note(mut journal: &File, line: &str) {
    drop(journal.write_all(format!("{line}\n").as_bytes()));
}

async fn answer(request: Request<Incoming>, journal: Arc<File>) -> Response<AnyBody> {
    let (head, mut incoming) = request.into_parts();
    let id = head.headers.get("x-request-id").and_then(|id| id.to_str().ok()).unwrap_or("-").to_owned();
    note(&journal, &format!("begin {id}"));
    let (mut length, mut digest) = (0_u64, Sha256::new());
    while let Some(frame) = incoming.frame().await {
        let Ok(frame) = frame else {
            note(&journal, &format!("broken {id} {length}"));
            return forward::text(StatusCode::BAD_REQUEST, "the body broke off\n");
        };
        if let Some(piece) = frame.data_ref() {
            length += piece.len() as u64;
            digest.update(piece);
        }
    }
    let sha256 = pattern::hex(&digest.finalize());
    note(&journal, &format!("end {id} {length} {sha256}"));
    match head.uri.path() {
        "/digest" => {
            let json = json!({ "length": length, "sha256": sha256 }).to_string();
            forward::text(StatusCode::OK, json)
        }
        "/make" => {
            let query = head.uri.query().unwrap_or_default();
            let [seed, bytes, known] = ["seed", "bytes", "known"].map(|name| number(query, name));
            Response::new(body::generated(seed, bytes, known != 0, None))
        }
        path => forward::text(StatusCode::NOT_FOUND, format!("no behaviour {path}\n")),
    }
}

fn number(query: &str, name: &str) -> u64 {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == name).and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
}
