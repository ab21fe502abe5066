use std::sync::Arc;

use tokio::io::{AsyncBufReadExt as _, DuplexStream, duplex};

use super::*;
use crate::server::tests::shared;

struct Engine {
    stream: BufReader<DuplexStream>,
}

impl Engine {
    async fn says(&mut self, line: &str) {
        self.stream.write_all(line.as_bytes()).await.unwrap();
        self.stream.write_all(b"\n").await.unwrap();
    }
}

async fn channel() -> (Arc<Shared>, Engine, Reports, Speaker<DuplexStream>, Listener<DuplexStream>) {
    let (ours, engines) = duplex(LINE_MAX);
    let (reports, speaker, listener) = open(ours);
    (shared(&[]).await, Engine { stream: BufReader::new(engines) }, reports, speaker, listener)
}

#[tokio::test]
async fn the_engine_is_obeyed() {
    let (shared, mut engine, _reports, _speaker, mut listener) = channel().await;
    let secret = "A".repeat(43);
    engine
        .says(&format!(
            r#"{{"type":"keyring","tenant":"default","keys":[{{"serial":7,"secret":"{secret}"}}],"seal_with":7}}"#
        ))
        .await;
    engine.says(r#"{"type":"receivers","functions":["recog.default","Not.One"],"valid_seconds":60}"#).await;
    engine.says(r#"{"type":"drain","grace_seconds":5}"#).await;
    assert_eq!(listener.order(&shared).await, DrainOrder { grace: Duration::from_secs(5) });
    assert_eq!(shared.keyring.serials(), [7]);
    assert!(shared.capabilities.is_known(&"recog.default".parse().unwrap()));
    assert!(!listener.has_ended());
}

#[tokio::test]
async fn what_is_not_understood_changes_nothing() {
    let (shared, mut engine, _reports, _speaker, mut listener) = channel().await;
    for line in ["", "{", r#"{"type":"dance"}"#, r#"{"type":"drain"}"#, "\u{0}"] {
        engine.says(line).await;
    }
    engine.says(r#"{"type":"keyring","tenant":"other","keys":[],"seal_with":null}"#).await;
    let before = shared.keyring.serials();
    engine.says(r#"{"type":"drain","grace_seconds":1}"#).await;
    assert_eq!(listener.order(&shared).await, DrainOrder { grace: Duration::from_secs(1) });
    assert_eq!(shared.keyring.serials(), before);
}

#[tokio::test]
async fn an_engine_that_is_gone_means_a_brief_drain() {
    let (shared, engine, _reports, _speaker, mut listener) = channel().await;
    drop(engine);
    assert_eq!(listener.order(&shared).await, DrainOrder { grace: ENGINE_GONE_GRACE });
    assert!(listener.has_ended());
}

#[tokio::test]
async fn an_endless_line_ends_the_channel() {
    let (shared, mut engine, _reports, _speaker, mut listener) = channel().await;
    let talks = async {
        let noise = vec![b'x'; LINE_MAX + 1];
        engine.stream.write_all(&noise).await.unwrap();
        engine
    };
    let (order, _engine) = tokio::join!(listener.order(&shared), talks);
    assert_eq!(order.grace, ENGINE_GONE_GRACE);
    assert!(listener.has_ended());
}

#[tokio::test]
async fn reports_are_lines() {
    let (_shared, mut engine, reports, speaker, _listener) = channel().await;
    reports.say(QueueProxyMessage::Ready).await;
    reports.say(QueueProxyMessage::Drained).await;
    drop(reports);
    speaker.run().await;
    let mut lines = String::new();
    engine.stream.read_line(&mut lines).await.unwrap();
    engine.stream.read_line(&mut lines).await.unwrap();
    assert_eq!(lines, "{\"type\":\"ready\"}\n{\"type\":\"drained\"}\n");
}
