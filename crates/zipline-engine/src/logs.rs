//! What functions and queue-proxies write: kept line by line in bounded rings, written to files, and followed live.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, BufReader};
use tokio::sync::broadcast;

use zipline_protocol::FunctionName;

/// Lines kept in memory per instance; the oldest goes first.
const RING_LINES: usize = 1000;
/// Bytes of one line; a longer one is cut into several.
const LINE_MAX: usize = 16 * 1024;
/// Instances whose lines are kept; those that ended longest ago go first.
const INSTANCES: usize = 256;
/// Size at which a log file is renamed to `.1`, in place of an older one.
const FILE_MAX: u64 = 16 * 1024 * 1024;
/// Lines that a follower may lag behind before it loses some, which it is told.
const FOLLOW_LAG: usize = 4096;

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogStream {
    /// The function's standard output.
    Stdout,
    /// The function's standard error.
    Stderr,
    /// The queue-proxy.
    QueueProxy,
    /// The engine, about the instance.
    Engine,
}

/// One line, as `GET /v1/logs` sends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Counts up over all lines of one engine.
    pub sequence: u64,
    /// Unix time in milliseconds.
    pub unix_ms: u64,
    /// `service.namespace`.
    pub function: String,
    /// The instance.
    pub instance: String,
    /// Where it came from.
    pub stream: LogStream,
    /// Without its line feed; bytes that are not UTF-8 are replaced.
    pub line: String,
}

/// All logs of one engine.
#[derive(Debug)]
pub(crate) struct Logs {
    folder: PathBuf,
    sequence: AtomicU64,
    follow: broadcast::Sender<Arc<LogLine>>,
    instances: Mutex<VecDeque<Arc<InstanceLog>>>,
}

/// The log of one instance.
#[derive(Debug)]
pub(crate) struct InstanceLog {
    function: String,
    instance: String,
    path: PathBuf,
    written: Mutex<Written>,
}

#[derive(Debug, Default)]
struct Written {
    ring: VecDeque<Arc<LogLine>>,
    file: Option<File>,
    file_bytes: u64,
}

impl Logs {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            sequence: AtomicU64::new(0),
            follow: broadcast::Sender::new(FOLLOW_LAG),
            instances: Mutex::new(VecDeque::new()),
        }
    }

    /// Opens the log of a new instance.
    pub(crate) fn open(&self, function: &FunctionName, instance: &str) -> Arc<InstanceLog> {
        let path = self.folder.join(format!("{}.{instance}.log", function.namespace()));
        let log = Arc::new(InstanceLog {
            function: function.to_string(),
            instance: instance.to_owned(),
            path,
            written: Mutex::new(Written::default()),
        });
        let mut instances = self.instances.lock();
        if instances.len() >= INSTANCES {
            instances.pop_front();
        }
        instances.push_back(log.clone());
        log
    }

    /// Adds a line. The file is written in place: it is a page cache write, and ordering matters more.
    pub(crate) fn write(&self, log: &InstanceLog, stream: LogStream, line: String) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let mut written = log.written.lock();
        let line = Arc::new(LogLine {
            sequence: self.sequence.fetch_add(1, Ordering::Relaxed),
            unix_ms: u64::try_from(now).unwrap_or(u64::MAX),
            function: log.function.clone(),
            instance: log.instance.clone(),
            stream,
            line,
        });
        if written.ring.len() >= RING_LINES {
            written.ring.pop_front();
        }
        written.ring.push_back(line.clone());
        written.append(&log.path, &line.line);
        // Fails only while nobody follows.
        let _ = self.follow.send(line);
    }

    /// Lines kept, oldest first, of one function or all; and what follows from here on.
    pub(crate) fn read(
        &self,
        function: Option<&FunctionName>,
    ) -> (Vec<Arc<LogLine>>, broadcast::Receiver<Arc<LogLine>>) {
        let follow = self.follow.subscribe();
        let wanted = function.map(ToString::to_string);
        let mut lines: Vec<_> = Vec::new();
        for log in self.instances.lock().iter() {
            if wanted.as_ref().is_none_or(|wanted| *wanted == log.function) {
                lines.extend(log.written.lock().ring.iter().cloned());
            }
        }
        lines.sort_by_key(|line| line.sequence);
        (lines, follow)
    }

    /// Reads lines until the stream ends. Not cancel safe: a line read in part is lost.
    pub(crate) async fn pump(&self, log: &InstanceLog, stream: LogStream, from: impl AsyncRead + Unpin) {
        let mut reader = BufReader::with_capacity(LINE_MAX, from);
        while let Some(line) = next_line(&mut reader).await {
            self.write(log, stream, line);
        }
    }
}

impl InstanceLog {
    /// The file that the lines are written to.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Written {
    fn append(&mut self, path: &Path, line: &str) {
        if self.file_bytes >= FILE_MAX {
            self.file = None;
            let _ = fs::rename(path, path.with_extension("log.1"));
        }
        if self.file.is_none() {
            self.file = OpenOptions::new().create(true).append(true).mode(0o600).open(path).ok();
            self.file_bytes = fs::metadata(path).map_or(0, |data| data.len());
        }
        if let Some(file) = &mut self.file {
            // A full disk must not stop the function: the ring still has the line.
            let _ = writeln!(file, "{line}");
            self.file_bytes += line.len() as u64 + 1;
        }
    }
}

/// The next line without its end, at most [`LINE_MAX`] bytes of it at a time.
async fn next_line(reader: &mut (impl AsyncBufRead + Unpin)) -> Option<String> {
    let mut line: Vec<u8> = Vec::new();
    loop {
        let chunk = match reader.fill_buf().await {
            Ok(chunk) if !chunk.is_empty() => chunk,
            _ => return (!line.is_empty()).then(|| String::from_utf8_lossy(&line).into_owned()),
        };
        let room = LINE_MAX - line.len();
        let end = chunk.iter().take(room).position(|byte| *byte == b'\n');
        let take = end.unwrap_or(chunk.len().min(room));
        line.extend_from_slice(&chunk[..take]);
        reader.consume(take + usize::from(end.is_some()));
        if end.is_some() || line.len() >= LINE_MAX {
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            return Some(String::from_utf8_lossy(&line).into_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logs() -> (tempfile::TempDir, Logs) {
        let folder = tempfile::tempdir().unwrap();
        let logs = Logs::new(folder.path().to_path_buf());
        (folder, logs)
    }

    #[tokio::test]
    async fn lines_are_cut_and_kept_in_order() {
        let (_folder, logs) = logs();
        let log = logs.open(&"a.default".parse().unwrap(), "a-00001-1");
        let long = "x".repeat(LINE_MAX + 5);
        let text = format!("one\r\ntwo\n{long}\nlast");
        logs.pump(&log, LogStream::Stdout, text.as_bytes()).await;
        let (lines, _) = logs.read(None);
        let lengths: Vec<_> = lines.iter().map(|line| line.line.len()).collect();
        assert_eq!(lengths, [3, 3, LINE_MAX, 5, 4]);
        assert_eq!(fs::read_to_string(log.path()).unwrap().lines().count(), 5);
    }

    #[test]
    fn rings_are_bounded_and_filtered() {
        let (_folder, logs) = logs();
        let a = logs.open(&"a.default".parse().unwrap(), "a-1");
        let b = logs.open(&"b.default".parse().unwrap(), "b-1");
        for number in 0..RING_LINES + 10 {
            logs.write(&a, LogStream::Stderr, number.to_string());
        }
        logs.write(&b, LogStream::QueueProxy, "hello".into());
        let (lines, _) = logs.read(Some(&"a.default".parse().unwrap()));
        assert_eq!((lines.len(), lines[0].line.as_str()), (RING_LINES, "10"));
        assert_eq!(logs.read(None).0.len(), RING_LINES + 1);
    }
}
