//! Bodies in pieces, of the Rust SDK: against real queue-proxies, and against a server that does what no queue-proxy should.

use std::io::{self, Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body::{Body as _, Frame};
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;
use zipline_sdk::{Error, ErrorCode, Options, PutOptions, Reference, StreamBody, blocking};
use zipline_testkit::function::{BodyEnd, Run};
use zipline_testkit::pattern;
use zipline_tests::pair::{Pair, RECEIVER};

use crate::sdk::{blocking as beside, clients, refused};
use crate::sdk_invoke::by_address;

/// Below and above what travels by reference, and more than any socket takes at once.
const LENGTHS: [usize; 4] = [0, 1_000, 300_000, 20_000_000];

/// A body that a test gives frame by frame.
struct Given(mpsc::Receiver<io::Result<Frame<Bytes>>>);

impl http_body::Body for Given {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0.poll_recv(cx)
    }
}

fn given() -> (mpsc::Sender<io::Result<Frame<Bytes>>>, StreamBody) {
    let (sender, receiver) = mpsc::channel(1);
    (sender, StreamBody::new(Given(receiver)))
}

/// Reads as an endless source does, and counts.
struct Endless(Arc<AtomicU64>);

impl Read for Endless {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.0.fetch_add(room.len() as u64, Ordering::Relaxed);
        Ok(room.len())
    }
}

impl tokio::io::AsyncRead for Endless {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut TaskContext<'_>,
        room: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let count = Read::read(&mut *self, room.initialize_unfilled())?;
        room.advance(count);
        Poll::Ready(Ok(()))
    }
}

/// Fails after a few bytes.
struct Failing(bool);

impl Read for Failing {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        if std::mem::replace(&mut self.0, true) {
            return Err(io::Error::other("the camera"));
        }
        room[..4].fill(1);
        Ok(4)
    }
}

fn is_the_cameras(error: &Error) -> Result<()> {
    let source = std::error::Error::source(error).context("an error without its source")?;
    ensure!(source.to_string() == "the camera", "{source}");
    Ok(())
}

/// Answers the hello of a client, then does what the test says with its next request, whose head was read.
fn server<T: Send + 'static>(
    serve: impl FnOnce(TcpStream) -> io::Result<T> + Send + 'static,
) -> Result<(Options, std::thread::JoinHandle<io::Result<T>>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let api = format!("http://{}", listener.local_addr()?);
    let serving = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        heard(&mut stream)?;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
        heard(&mut stream)?;
        serve(stream)
    });
    Ok((Options::new().api(&api)?.token("t"), serving))
}

/// Reads a head, and nothing beyond it.
fn heard(stream: &mut TcpStream) -> io::Result<String> {
    let (mut head, mut byte) = (String::new(), [0]);
    while !head.ends_with("\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(char::from(byte[0]));
    }
    Ok(head)
}

/// Both directions go on at the same time, or an echo of so much would end nowhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_of_every_size_stream_there_and_back() -> Result<()> {
    let pair = Pair::start().await?;
    for options in [clients(&pair).0, by_address(&pair.sender)?] {
        let threaded = options.clone();
        beside(move || {
            let client = blocking::Client::connect(threaded)?;
            for (seed, length) in (1..).zip(LENGTHS) {
                let body = pattern::bytes(seed, 0, length);
                let read = || blocking::StreamBody::read(&body[..]);
                let bodies = [read(), read().length(length as u64), body.clone().into()];
                for (kind, sent) in bodies.into_iter().enumerate() {
                    let request = Request::post("/echo").header("content-type", "text/x-a").body(sent)?;
                    let response = client.invoke_stream(RECEIVER, request)?;
                    ensure!(response.status() == StatusCode::OK, "{response:?}");
                    ensure!(response.body().content_type() == Some("text/x-a"), "{response:?}");
                    let mut came = Vec::new();
                    response.into_body().read_to_end(&mut came).with_context(|| format!("{kind}"))?;
                    ensure!(came[..] == body[..], "{kind}: {length} bytes came back as others");
                }
            }
            Ok(())
        })
        .await?;
        let client = zipline_sdk::Client::connect(options).await?;
        for (seed, length) in (1..).zip(LENGTHS) {
            let body = pattern::bytes(seed, 0, length);
            let read = || StreamBody::read(io::Cursor::new(body.clone()));
            for sent in [read(), read().length(length as u64), body.clone().into()] {
                let request = Request::post("/echo").body(sent)?;
                let mut came = Vec::new();
                client.invoke_stream(RECEIVER, request).await?.into_body().read_to_end(&mut came).await?;
                ensure!(came[..] == body[..], "{length} bytes came back as others");
            }
        }
    }
    pair.hold_nothing().await
}

/// Piece for piece, with trailers at the end of both bodies; and a body that is taken as `http_body` has it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_answers_while_it_is_asked() -> Result<()> {
    let pair = Pair::start().await?;
    let client = zipline_sdk::Client::connect(clients(&pair).0).await?;
    let (giving, sent) = given();
    giving.send(Ok(Frame::data(Bytes::from_static(b"0")))).await?;
    let request = Request::post("/echo").header("trailer", "x-sum").body(sent)?;
    let mut body = client.invoke_stream(RECEIVER, request).await?.into_body();
    ensure!(body.length().is_none() && body.trailers().is_none(), "{body:?}");
    ensure!(body.piece().await?.context("an early end")?[..] == b"0"[..], "{body:?}");
    for turn in 1..20_u8 {
        // One that is given up loses nothing.
        let early = tokio::time::timeout(Duration::ZERO, body.piece()).await;
        ensure!(early.is_err(), "{turn} came before it was sent");
        giving.send(Ok(Frame::data(Bytes::from(vec![turn])))).await?;
        let piece = body.piece().await?.context("an early end")?;
        ensure!(piece[..] == [turn], "{turn}: {piece:?}");
    }
    let trailers = HeaderMap::from_iter([("x-sum".parse()?, HeaderValue::from_static("190"))]);
    giving.send(Ok(Frame::trailers(trailers))).await?;
    ensure!(body.piece().await?.is_none(), "more came than was sent");
    ensure!(body.trailers().context("an end")?["x-sum"] == "190", "{body:?}");
    ensure!(body.piece().await?.is_none(), "an end that does not stay");

    let request = Request::get("/size?bytes=100000&seed=3&trailers=1").body(())?;
    let mut body = Box::pin(client.invoke_stream(RECEIVER, request).await?.into_body());
    let (mut came, mut trailers) = (Vec::new(), None);
    while let Some(frame) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        match frame?.into_data() {
            Ok(piece) => came.extend_from_slice(&piece),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    ensure!(came[..] == pattern::bytes(3, 0, 100_000)[..] && body.is_end_stream(), "other bytes");
    ensure!(trailers.context("trailers")?["x-answer-trailer"] == "answer trailer");

    let request = Request::get("/size?bytes=70000&seed=4").body(())?;
    let mut sized = client.invoke_stream(RECEIVER, request).await?.into_body();
    ensure!(sized.length() == Some(70_000) && sized.size_hint().exact() == Some(70_000), "{sized:?}");
    let first = sized.piece().await?.context("a piece")?.len() as u64;
    ensure!(sized.size_hint().exact() == Some(70_000 - first), "{sized:?}");
    drop(sized);
    pair.hold_nothing().await
}

/// Whoever does not read is not sent to, whatever the source has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_is_read_no_faster_than_its_bytes_are_taken() -> Result<()> {
    let most = 32 << 20;
    let stalled = |counted: Arc<AtomicU64>, failed: zipline_sdk::Result<()>| -> Result<()> {
        let error = refused(failed, ErrorCode::DeadlineExceeded)?;
        ensure!(error.message().contains("nothing moved of the invoke of f.default"), "{error}");
        let taken = counted.load(Ordering::Relaxed);
        ensure!(taken > 0 && taken < most, "{taken} bytes were read of the source");
        Ok(())
    };
    // It stays open for as long as whoever may join the thread.
    let never_reads = || server(Ok);
    let (options, first) = never_reads()?;
    let counted = Arc::new(AtomicU64::new(0));
    let source = Endless(Arc::clone(&counted));
    let failed = beside(move || {
        let client = blocking::Client::connect(options.timeout(Duration::from_millis(300)))?;
        let request = Request::post("/").body(blocking::StreamBody::read(source))?;
        Ok(client.invoke_stream("f", request).map(drop))
    });
    stalled(counted, failed.await?)?;

    let (options, second) = never_reads()?;
    let counted = Arc::new(AtomicU64::new(0));
    let client = zipline_sdk::Client::connect(options.timeout(Duration::from_millis(300))).await?;
    let request = Request::post("/").body(StreamBody::read(Endless(Arc::clone(&counted))))?;
    stalled(counted, client.invoke_stream("f", request).await.map(drop))?;
    first.join().expect("no panic")?;
    second.join().expect("no panic")?;
    Ok(())
}

/// Whoever does not take a response's pieces is not sent more; dropping it ends the exchange.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_is_sent_no_faster_than_it_is_taken_and_ends_when_it_is_dropped() -> Result<()> {
    let endless = || {
        let sent = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&sent);
        let served = server(move |mut stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
            // Until the client has gone, which is an error here.
            let mut write = move || -> io::Result<()> {
                loop {
                    stream.write_all(&[7; 10_000])?;
                    counted.fetch_add(10_000, Ordering::Relaxed);
                }
            };
            write().or(Ok(()))
        })?;
        Ok::<_, anyhow::Error>((served, sent))
    };
    let ((options, serving), sent) = endless()?;
    beside(move || {
        let client = blocking::Client::connect(options)?;
        let mut body = client.invoke_stream("f", Request::get("/").body(())?)?.into_body();
        let mut taken = 0;
        while taken < 1_000_000 {
            taken += body.piece()?.context("an end")?.len() as u64;
            ensure!(sent.load(Ordering::Relaxed) < taken + (32 << 20), "what nobody took was sent");
        }
        drop(body);
        Ok(serving.join().expect("no panic")?)
    })
    .await?;
    let ((options, serving), sent) = endless()?;
    let client = zipline_sdk::Client::connect(options).await?;
    let mut body = client.invoke_stream("f", Request::get("/").body(())?).await?.into_body();
    let mut piece = vec![0; 500_000];
    body.read_exact(&mut piece).await?;
    ensure!(piece == [7; 500_000] && sent.load(Ordering::Relaxed) < 64 << 20);
    drop(body);
    beside(move || Ok(serving.join().expect("no panic")?)).await
}

/// A cut response is an error however often it is read, and never an end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_breaks_off_is_an_error() -> Result<()> {
    let pair = Pair::start().await?;
    let (sender, _) = clients(&pair);
    let options = sender.clone();
    beside(move || {
        let client = blocking::Client::connect(options)?;
        for length in [5_000, 2_000_000] {
            let request = Request::get(format!("/short?bytes={length}")).body(())?;
            let response = match client.invoke_stream(RECEIVER, request) {
                Ok(response) => response,
                // It may have broken before its head was on its way, in the function or in the memory it was deferred from.
                Err(early) => {
                    let codes = [ErrorCode::UpstreamFailed, ErrorCode::PayloadLost];
                    ensure!(codes.contains(&early.code()), "{early:?}");
                    continue;
                }
            };
            let (mut body, mut came) = (response.into_body(), Vec::new());
            let error = body.read_to_end(&mut came).err().context("it ended well")?;
            let inner = error.get_ref().and_then(|error| error.downcast_ref::<Error>());
            let code = inner.context("an error of Zipline")?.code();
            ensure!(code == ErrorCode::UpstreamFailed, "{error}");
            ensure!(came.len() <= length / 2 && body.trailers().is_none(), "{} bytes", came.len());
            ensure!(body.read(&mut [0; 9]).is_err(), "the error is forgotten");
            refused(body.piece(), ErrorCode::UpstreamFailed)?;
        }
        Ok(())
    })
    .await?;
    pair.hold_nothing().await?;

    for broken in ["content-length: 100\r\n\r\nonly this", "transfer-encoding: chunked\r\n\r\n4\r\nthis\r\n"]
    {
        let cut =
            || server(move |mut stream| stream.write_all(format!("HTTP/1.1 200 OK\r\n{broken}").as_bytes()));
        let (options, serving) = cut()?;
        let client = zipline_sdk::Client::connect(options).await?;
        let mut payload = client.open(&"zl1.AAAA".parse()?).await?;
        ensure!(payload.read_to_end(&mut Vec::new()).await.is_err(), "it ended well");
        refused(payload.piece().await, ErrorCode::PayloadLost)?;
        serving.join().expect("no panic")?;

        let (options, serving) = cut()?;
        let client = zipline_sdk::Client::connect(options).await?;
        let mut body = client.invoke_stream("f", Request::get("/").body(())?).await?.into_body();
        // As a body it says so once.
        let mut body = Pin::new(&mut body);
        let mut next = async || std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await;
        ensure!(next().await.context("a piece")??.into_data().is_ok(), "the piece that came");
        let error = next().await.context("an error")?.map(drop);
        refused(error, ErrorCode::UpstreamFailed)?;
        ensure!(next().await.is_none(), "it is said twice");
        serving.join().expect("no panic")?;

        let (options, serving) = cut()?;
        beside(move || {
            let client = blocking::Client::connect(options)?;
            let mut body = client.invoke_stream("f", Request::get("/").body(())?)?.into_body();
            ensure!(body.piece()?.is_some(), "the piece that came");
            for _ in 0..2 {
                refused(body.piece(), ErrorCode::UpstreamFailed)?;
            }
            Ok(serving.join().expect("no panic")?)
        })
        .await?;
    }
    Ok(())
}

/// What Zipline refuses is an error before a body; what a function says is not. Sources that fail or lie end the request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_name_whose_they_are() -> Result<()> {
    let pair = Pair::start().await?;
    let (sender, _) = clients(&pair);
    let options = sender.clone();
    beside(move || {
        let client = blocking::Client::connect(options)?;
        refused(client.invoke_stream("a b", Request::new(())), ErrorCode::RequestInvalid)?;
        refused(blocking::Client::local().invoke_stream(RECEIVER, Request::new(())), ErrorCode::NotFound)?;
        let gone: Reference = client.put(b"x", &PutOptions::new())?;
        client.release(&gone)?;
        refused(client.invoke_stream(RECEIVER, Request::new(&gone)), ErrorCode::PayloadLost)?;
        refused(client.open(&gone), ErrorCode::PayloadLost)?;
        refused(client.put_stream(&gone, &PutOptions::new()), ErrorCode::RequestInvalid)?;
        let teapot = client.invoke_stream(RECEIVER, Request::post("/status?code=418").body(())?)?;
        ensure!(teapot.status() == StatusCode::IM_A_TEAPOT, "{teapot:?}");
        let brief = client.with_timeout(Duration::from_millis(50));
        let held = brief.invoke_stream(RECEIVER, Request::get("/hold?gate=never").body(())?);
        refused(held, ErrorCode::DeadlineExceeded)?;

        let failing = || blocking::StreamBody::read(Failing(false));
        let sha256 = |body| Request::post("/sha256").body(body);
        let failed = client.invoke_stream(RECEIVER, sha256(failing())?);
        is_the_cameras(&refused(failed, ErrorCode::RequestInvalid)?)?;
        let short = blocking::StreamBody::read(&b"abc"[..]).length(5);
        let short = refused(client.invoke_stream(RECEIVER, sha256(short)?), ErrorCode::RequestInvalid)?;
        ensure!(short.message().contains("ended 2 bytes before"), "{short}");
        // Of a reader no more is read than was said.
        let mut longer = &b"abcdef"[..];
        let sent = blocking::StreamBody::read(longer.by_ref()).length(4);
        let came = client.invoke_stream(RECEIVER, Request::post("/echo").body(sent)?)?;
        ensure!(io::read_to_string(came.into_body())? == "abcd" && longer == b"ef", "{longer:?}");
        for length in [None, Some(300_000), Some(10)] {
            let sent = match length {
                Some(length) => failing().length(length),
                None => failing(),
            };
            let failed = client.put_stream(sent, &PutOptions::new());
            let error = refused(failed, ErrorCode::RequestInvalid)?;
            is_the_cameras(&error)?;
            ensure!(
                error.call_site().is_some_and(|site| site.file().ends_with("sdk_stream.rs")),
                "{error:?}"
            );
        }
        Ok(())
    })
    .await?;
    let client = zipline_sdk::Client::connect(sender).await?;
    let (giving, sent) = given();
    giving.send(Ok(Frame::data(Bytes::from_static(b"some")))).await?;
    let invoking = client.invoke_stream(RECEIVER, Request::post("/echo").body(sent)?).await?;
    let mut body = invoking.into_body();
    ensure!(body.piece().await?.context("a piece")?[..] == b"some"[..], "other bytes");
    giving.send(Err(io::Error::other("the camera"))).await?;
    is_the_cameras(&refused(body.piece().await, ErrorCode::RequestInvalid)?)?;

    let (giving, sent) = given();
    giving.send(Ok(Frame::data(Bytes::from_static(b"abcdef")))).await?;
    let longer = client.put_stream(sent.length(4), &PutOptions::new()).await;
    refused(longer, ErrorCode::RequestInvalid)?;
    let short = StreamBody::read(&b"abc"[..]).length(300_000);
    let short = refused(client.put_stream(short, &PutOptions::new()).await, ErrorCode::RequestInvalid)?;
    ensure!(short.message().contains("ended 299997 bytes before"), "{short}");
    drop(client);
    pair.hold_nothing().await?;
    // None of them was taken for a whole request but the one that was.
    let runs = pair.function.runs.all();
    let taken = |run: &&Run| ["/sha256", "/echo"].contains(&run.path.as_str()) && run.end == BodyEnd::Clean;
    ensure!(runs.iter().filter(taken).count() == 1, "{runs:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payloads_are_put_and_got_in_pieces() -> Result<()> {
    let pair = Pair::start().await?;
    let by_socket = clients(&pair);
    let over_http = (by_address(&pair.sender)?, by_address(&pair.receiver)?);
    for (sender, receiver) in [by_socket, over_http] {
        let (one, two) = (sender.clone(), receiver.clone());
        beside(move || {
            let (sender, receiver) = (blocking::Client::connect(one)?, blocking::Client::connect(two)?);
            let typed = PutOptions::new().content_type("text/x-put");
            for (seed, length) in (1..).zip(LENGTHS) {
                let bytes = pattern::bytes(seed, 0, length);
                let read = || blocking::StreamBody::read(&bytes[..]);
                for body in [read(), read().length(length as u64), bytes.clone().into()] {
                    let reference = sender.put_stream(body, &typed)?;
                    ensure!(reference.ttl() == Some(Duration::from_secs(60)), "{:?}", reference.ttl());
                    if length > 10_000_000 {
                        // One that is given up spends nothing.
                        let mut given_up = receiver.open(&reference)?;
                        given_up.read_exact(&mut [0; 10])?;
                    }
                    let mut payload = receiver.open(&reference)?;
                    ensure!(payload.length() == Some(length as u64), "{payload:?}");
                    ensure!(payload.content_type() == Some("text/x-put"), "{payload:?}");
                    let mut came = Vec::new();
                    payload.read_to_end(&mut came)?;
                    ensure!(came[..] == bytes[..], "{length} bytes arrived as others");
                    refused(receiver.open(&reference), ErrorCode::RetrievalsExhausted)?;
                }
            }
            Ok(())
        })
        .await?;
        let sender = zipline_sdk::Client::connect(sender).await?;
        let receiver = zipline_sdk::Client::connect(receiver).await?;
        for (seed, length) in (1..).zip(LENGTHS) {
            let bytes = pattern::bytes(seed, 0, length);
            let read = || StreamBody::read(io::Cursor::new(bytes.clone()));
            for body in [read(), read().length(length as u64), bytes.clone().into()] {
                let reference = sender.put_stream(body, &PutOptions::new()).await?;
                let mut came = Vec::new();
                receiver.open(&reference).await?.read_to_end(&mut came).await?;
                ensure!(came[..] == bytes[..], "{length} bytes arrived as others");
                refused(receiver.open(&reference).await, ErrorCode::RetrievalsExhausted)?;
            }
        }
    }
    let local = blocking::Client::local();
    let reference = local.put_stream(blocking::StreamBody::read(&b"held here"[..]), &PutOptions::new())?;
    ensure!(io::read_to_string(local.open(&reference)?)? == "held here");
    let local = zipline_sdk::Client::local();
    let body = StreamBody::read(&b"held here"[..]).length(9);
    let reference = local.put_stream(body, &PutOptions::new()).await?;
    ensure!(local.open(&reference).await?.piece().await?.context("a piece")?[..] == b"held here"[..]);
    refused(local.open(&reference).await, ErrorCode::RetrievalsExhausted)?;
    pair.hold_nothing().await
}
