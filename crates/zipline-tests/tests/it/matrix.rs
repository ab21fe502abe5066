//! Every way a message can be framed × both protocols × every way a payload can take.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use http_body::Frame;
use zipline_testkit::client::Protocol;
use zipline_testkit::function::BodyEnd;
use zipline_testkit::raw::Raw;
use zipline_testkit::stock_proxy::{Manners, StockProxy};
use zipline_testkit::{body, pattern, wait};
use zipline_tests::check;
use zipline_tests::pair::{Pair, RECEIVER};

/// A deferred exchange leaves less than this at the gateway, heads included.
const GATEWAY_MOST: u64 = 64 * 1024;

/// Sizes of request and response in every cell: two that differ, both with a digest, then one without.
const SIZES: [(u64, u64); 2] = [(300_000, 250_001), (3_000_000, 2_500_001)];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Deferred,
    Inline,
    Stranger,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Known,
    Chunked,
    Trailers,
    Expect,
    Early,
    Head,
    Bidirectional,
}

struct Cell {
    pair: Pair,
    protocol: Protocol,
    way: Way,
    _stranger: Option<StockProxy>,
}

impl Cell {
    async fn start(protocol: Protocol, framing: Framing, way: Way) -> Result<Self> {
        let unknown = matches!(framing, Framing::Chunked | Framing::Trailers | Framing::Bidirectional);
        let pair = Pair::start_with(|config| {
            for side in [&mut config.sender, &mut config.receiver] {
                if way == Way::Inline {
                    side.mode = "receive";
                }
                // The first bytes of a body of unknown length reach the threshold in one read, so that the way does
                // not depend on how fast the machine is.
                if unknown {
                    side.threshold_bytes = 4096;
                }
            }
            if way == Way::Stranger {
                config.sender.receivers.clear();
            }
        })
        .await?;
        let stranger = if way == Way::Stranger {
            let stranger = StockProxy::start(pair.function.address, Manners::Refuse).await?;
            pair.gateway.route(RECEIVER, stranger.address);
            Some(stranger)
        } else {
            None
        };
        Ok(Self { pair, protocol, way, _stranger: stranger })
    }

    /// Checks the way of all payloads so far: so many requests and responses above the threshold.
    async fn took_its_way(&self, requests: u64, responses: u64, crossed: u64) -> Result<()> {
        let (deferred, inline, reason) = match self.way {
            Way::Deferred => (true, false, ""),
            Way::Inline => (false, true, "mode"),
            Way::Stranger => (false, true, "unknown-receiver"),
        };
        wait::until("all transfers counted", || async {
            let status = self.pair.sender.status().await?;
            let sent = if deferred {
                status.count("sent", "request", "network")
            } else {
                status.inline_because("request", reason)
            };
            let got = status.count("received", "response", if deferred { "network" } else { "inline" });
            let edges = &status.transfers.edges;
            ensure!(sent == requests, "{sent} of {requests} requests went the way: {edges:?}");
            ensure!(got == responses, "{got} of {responses} responses went the way: {edges:?}");
            if self.way == Way::Stranger {
                return Ok(Some(()));
            }
            let other = self.pair.receiver.status().await?;
            let way = if deferred { "network" } else { "inline" };
            let edges = &other.transfers.edges;
            let got = other.count("received", "request", way);
            let sent = other.count("sent", "response", way);
            ensure!(got == requests, "the receiver counts {got} requests: {edges:?}");
            ensure!(sent == responses, "the receiver counts {sent} responses: {edges:?}");
            Ok(Some(()))
        })
        .await?;
        let seen = self.pair.gateway.traffic.total();
        if inline {
            ensure!(seen >= crossed, "only {seen} of {crossed} bytes crossed the gateway");
        } else {
            let most = GATEWAY_MOST * (requests + responses).max(1);
            ensure!(seen < most, "{seen} bytes crossed the gateway");
        }
        Ok(())
    }

    async fn known(&self) -> Result<()> {
        let mut total = 0;
        for (up, down) in SIZES {
            let (id, call) = self.pair.invoke(self.protocol, &format!("/size?bytes={down}&seed=5"));
            let call = call.header("content-type", "image/x-raw; w=3").header("user-agent", "camera/2");
            let reply = call.pattern(4, up, true).send(self.pair.sender.api()).await?;
            check::answered(&reply, 5, down)?;
            ensure!(reply.content_length() == Some(down), "{:?}", reply.headers);
            ensure!(
                reply.header("content-type") == "application/x-pattern; charset=none",
                "{:?}",
                reply.headers
            );
            ensure!(reply.header("cache-control") == "max-age=60", "{:?}", reply.headers);
            let run = check::arrived(&self.pair.function.runs, &id, 4, up)?;
            ensure!(run.content_length == Some(up), "{run:?}");
            ensure!(run.content_type.as_deref() == Some("image/x-raw; w=3"), "{run:?}");
            ensure!(run.user_agent.as_deref() == Some("camera/2"), "{run:?}");
            self.same_protocol(&run.protocol)?;
            if self.way != Way::Stranger {
                ensure!(run.zipline_headers.is_empty(), "{run:?}");
            }
            total += up + down;
        }
        self.took_its_way(2, 2, total).await
    }

    async fn chunked(&self) -> Result<()> {
        let mut total = 0;
        for (up, down) in SIZES {
            let (id, call) = self.pair.invoke(self.protocol, &format!("/size?bytes={down}&seed=5&chunked=1"));
            let reply = call.pattern(4, up, false).send(self.pair.sender.api()).await?;
            check::answered(&reply, 5, down)?;
            check::arrived(&self.pair.function.runs, &id, 4, up)?;
            total += up + down;
        }
        self.took_its_way(2, 2, total).await
    }

    async fn trailers(&self) -> Result<()> {
        let mut total = 0;
        for (up, down) in SIZES {
            let path = format!("/size?bytes={down}&seed=5&trailers=1");
            let (id, call) = self.pair.invoke(self.protocol, &path);
            let name = HeaderName::from_static("x-checksum");
            let trailers = HeaderMap::from_iter([(name, HeaderValue::from_static("of the request"))]);
            let reply = call.with_trailers(4, up, trailers).send(self.pair.sender.api()).await?;
            check::answered(&reply, 5, down)?;
            let trailer = reply.trailers.get("x-answer-trailer").and_then(|value| value.to_str().ok());
            ensure!(trailer == Some("answer trailer"), "trailers of the answer: {:?}", reply.trailers);
            let run = check::arrived(&self.pair.function.runs, &id, 4, up)?;
            let trailer = run.trailers.get("x-checksum").map(String::as_str);
            ensure!(trailer == Some("of the request"), "trailers of the request: {run:?}");
            total += up + down;
        }
        self.took_its_way(2, 2, total).await
    }

    async fn expect(&self) -> Result<()> {
        let (up, down) = SIZES[0];
        let path = format!("/size?bytes={down}&seed=5");
        let api = self.pair.sender.api();
        let (id, call) = self.pair.invoke(self.protocol, &path);
        if self.protocol == Protocol::H2c {
            let call = call.header("expect", "100-continue");
            check::answered(&call.pattern(4, up, true).send(api).await?, 5, down)?;
        } else {
            let mut raw = Raw::connect(api).await?;
            let token = &self.pair.sender.token;
            raw.send(format!(
                "POST /v1/invoke/{RECEIVER}{path} HTTP/1.1\r\nHost: {api}\r\nZipline-Token: {token}\r\n\
                 X-Request-Id: {id}\r\nContent-Length: {up}\r\nExpect: 100-continue\r\n\r\n"
            ))
            .await?;
            // Without the answer no byte of the body is sent, so a queue-proxy that waited for one would hang.
            let head = raw.head().await?;
            ensure!(head.status == 100, "{head:?}");
            raw.send(pattern::bytes(4, 0, usize::try_from(up)?)).await?;
            let head = raw.final_head().await?;
            ensure!(head.status == 200, "{head:?}");
            let content = raw.body(&head).await?;
            ensure!(pattern::sha256_of(&content) == pattern::sha256(5, down), "other bytes answered");
        }
        check::arrived(&self.pair.function.runs, &id, 4, up)?;
        self.took_its_way(1, 1, up + down).await
    }

    /// The client sends a third and waits for the answer before it would send more.
    async fn early(&self) -> Result<()> {
        let (up, _) = SIZES[1];
        let (id, call) = self.pair.invoke(self.protocol, "/early");
        let (sender, content) = body::channel();
        let third = pattern::bytes(4, 0, usize::try_from(up / 3)?);
        let call = call.header("content-length", up.to_string()).body(content);
        sender.send(Ok(Frame::data(third))).await.ok().context("the body is not read")?;
        let reply = call.open(self.pair.sender.api()).await?.read().await;
        check::succeeded(&reply)?;
        ensure!(reply.text() == "early\n", "{}", reply.text());
        drop(sender);
        let run = check::ran_once(&self.pair.function.runs, &id)?;
        ensure!(run.end != BodyEnd::Clean, "a third of the body ended as if complete: {run:?}");
        let seen = self.pair.gateway.traffic.total();
        ensure!(self.way != Way::Deferred || seen < GATEWAY_MOST, "{seen} bytes crossed the gateway");
        Ok(())
    }

    async fn head(&self) -> Result<()> {
        let (_, down) = SIZES[0];
        let (id, call) =
            self.pair.invoke_by(self.protocol, Method::HEAD, &format!("/size?bytes={down}&seed=5"));
        let reply = call.send(self.pair.sender.api()).await?;
        check::succeeded(&reply)?;
        ensure!(reply.length == 0 && reply.content_length() == Some(down), "{:?}", reply.headers);
        ensure!(reply.header("content-type") == "application/x-pattern; charset=none", "{:?}", reply.headers);
        let run = check::ran_once(&self.pair.function.runs, &id)?;
        ensure!(run.length == 0, "{run:?}");
        // Neither direction has a payload, so nothing is deferred and hardly a byte crosses anything.
        let status = self.pair.sender.status().await?;
        ensure!(status.count("sent", "request", "network") == 0, "{:?}", status.transfers);
        ensure!(status.count("received", "response", "network") == 0, "{:?}", status.transfers);
        Ok(())
    }

    /// The client sends a piece, waits for all of its echo, and only then sends the next.
    async fn bidirectional(&self) -> Result<()> {
        const PIECE: usize = 64 * 1024;
        let (id, call) = self.pair.invoke(self.protocol, "/echo");
        let (sender, content) = body::channel();
        let piece = |index: usize| pattern::bytes(4, (index * PIECE) as u64, PIECE);
        let send =
            async |content: Bytes| sender.send(Ok(Frame::data(content))).await.ok().context("not read");
        send(piece(0)).await?;
        let mut exchange = call.body(content).open(self.pair.sender.api()).await?;
        ensure!(exchange.response.status() == 200, "{:?}", exchange.response);
        let mut rest = Vec::new();
        for index in 0..4 {
            if index > 0 {
                send(piece(index)).await?;
            }
            let echo = tokio::time::timeout(wait::PATIENCE / 2, exchange.exactly(PIECE, &mut rest));
            let echo = echo.await.with_context(|| format!("no echo of piece {index}"))??;
            ensure!(echo == piece(index), "another echo of piece {index}");
        }
        drop(sender);
        ensure!(rest.is_empty() && exchange.next().await?.is_none(), "the echo goes on");
        let length = 4 * PIECE as u64;
        check::arrived(&self.pair.function.runs, &id, 4, length)?;
        self.took_its_way(1, 1, 2 * length).await
    }

    fn same_protocol(&self, seen: &str) -> Result<()> {
        let expected = if self.protocol == Protocol::Http1 { "HTTP/1.1" } else { "HTTP/2.0" };
        ensure!(seen == expected, "the function was spoken to in {seen}");
        Ok(())
    }
}

async fn run(protocol: Protocol, framing: Framing, way: Way) -> Result<()> {
    let cell = Cell::start(protocol, framing, way).await?;
    let exchanges = async {
        match framing {
            Framing::Known => cell.known().await,
            Framing::Chunked => cell.chunked().await,
            Framing::Trailers => cell.trailers().await,
            Framing::Expect => cell.expect().await,
            Framing::Early => cell.early().await,
            Framing::Head => cell.head().await,
            Framing::Bidirectional => cell.bidirectional().await,
        }
    };
    let outcome = tokio::time::timeout(Duration::from_secs(90), exchanges).await.context("it hangs");
    let logs = || {
        format!("sender:\n{}receiver:\n{}", cell.pair.sender.process.log(), cell.pair.receiver.process.log())
    };
    outcome.and_then(|outcome| outcome).with_context(logs)?;
    cell.pair.hold_nothing().await?;
    // And it still serves.
    let (id, call) = cell.pair.invoke(protocol, "/sha256");
    check::succeeded(&call.pattern(9, 1000, true).send(cell.pair.sender.api()).await?)?;
    check::arrived(&cell.pair.function.runs, &id, 9, 1000)?;
    Ok(())
}

// One thread each: whatever is ready of a message then leaves in one go, and does not count as a pause.
macro_rules! cells {
    ($($protocol:ident $p:ident { $($framing:ident $f:ident),+ })+) => {
        $(mod $protocol { $(pub(super) mod $framing {
            use anyhow::Result;
            use zipline_testkit::client::Protocol;
            use super::super::{Framing, Way, run};

            #[tokio::test]
            async fn deferred() -> Result<()> {
                run(Protocol::$p, Framing::$f, Way::Deferred).await
            }

            #[tokio::test]
            async fn inline() -> Result<()> {
                run(Protocol::$p, Framing::$f, Way::Inline).await
            }

            #[tokio::test]
            async fn receiver_without_zipline() -> Result<()> {
                run(Protocol::$p, Framing::$f, Way::Stranger).await
            }
        })+ })+
    };
}

cells! {
    http1 Http1 {
        known_length Known, chunked Chunked, trailers Trailers, expect Expect, early_answer Early, head Head,
        bidirectional Bidirectional
    }
    h2c H2c {
        known_length Known, chunked Chunked, trailers Trailers, expect Expect, early_answer Early, head Head,
        bidirectional Bidirectional
    }
}
