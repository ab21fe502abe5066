//! What a test function remembers.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// Runs remembered; later ones are only counted.
const RUNS_MAX: usize = 100_000;

/// How the body of a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BodyEnd {
    /// It still arrives, or nobody reads it.
    Unread,
    /// With the end that its framing calls for.
    Clean,
    /// It broke off.
    Aborted,
}

/// One run of the function.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Run {
    /// `X-Request-Id` of the request; empty if it had none.
    pub id: String,
    /// Path without query.
    pub path: String,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub protocol: String,
    /// Names of the Zipline headers it came with; functions see none, but for those that outsiders may send them.
    pub zipline_headers: Vec<String>,
    /// `User-Agent`, if any.
    pub user_agent: Option<String>,
    /// `Content-Type`, if any.
    pub content_type: Option<String>,
    /// Whether the request was a reference instead of a payload: then something went badly wrong.
    pub reference: bool,
    /// Whether the length was announced.
    pub content_length: Option<u64>,
    /// Bytes of body read.
    pub length: u64,
    /// How the body ended.
    pub end: BodyEnd,
    /// SHA-256 of a body that ended cleanly, in hexadecimal.
    pub sha256: Option<String>,
    /// Trailers of a body that ended cleanly.
    pub trailers: BTreeMap<String, String>,
}

/// All runs of a function.
#[derive(Debug, Clone, Default)]
pub struct Runs {
    runs: Arc<Mutex<Vec<Run>>>,
    gates: Arc<Mutex<HashMap<String, watch::Sender<bool>>>>,
}

impl Runs {
    /// All runs, in the order of their starts.
    #[must_use]
    pub fn all(&self) -> Vec<Run> {
        self.runs.lock().clone()
    }

    /// The runs with this `X-Request-Id`.
    #[must_use]
    pub fn of(&self, id: &str) -> Vec<Run> {
        self.runs.lock().iter().filter(|run| run.id == id).cloned().collect()
    }

    /// Lets the requests waiting at a gate proceed, and all that will come there.
    pub fn open(&self, gate: &str) {
        self.gate(gate).send_replace(true);
    }

    pub(super) async fn wait(&self, gate: &str) {
        let mut open = self.gate(gate).subscribe();
        drop(open.wait_for(|open| *open).await);
    }

    pub(super) fn begin(&self, run: Run) -> RunRecord {
        let mut runs = self.runs.lock();
        let index = (runs.len() < RUNS_MAX).then_some(runs.len());
        if index.is_some() {
            runs.push(run);
        }
        RunRecord { runs: Arc::clone(&self.runs), index }
    }

    fn gate(&self, gate: &str) -> watch::Sender<bool> {
        self.gates.lock().entry(gate.to_owned()).or_insert_with(|| watch::Sender::new(false)).clone()
    }
}

/// Writes down what becomes of one run.
pub(super) struct RunRecord {
    runs: Arc<Mutex<Vec<Run>>>,
    index: Option<usize>,
}

impl RunRecord {
    pub(super) fn read(&self, bytes: usize) {
        self.change(|run| run.length += bytes as u64);
    }

    pub(super) fn clean(&self, sha256: String, trailers: BTreeMap<String, String>) {
        self.change(|run| {
            run.end = BodyEnd::Clean;
            run.sha256 = Some(sha256);
            run.trailers = trailers;
        });
    }

    pub(super) fn aborted(&self) {
        self.change(|run| run.end = BodyEnd::Aborted);
    }

    fn change(&self, change: impl FnOnce(&mut Run)) {
        if let Some(index) = self.index {
            change(&mut self.runs.lock()[index]);
        }
    }
}
