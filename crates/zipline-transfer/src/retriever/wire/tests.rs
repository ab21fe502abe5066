use super::*;
use proptest::prelude::*;
use std::future::poll_fn;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};

/// Answers one request with `bytes`, in pieces of `piece`, and closes.
async fn answered(bytes: Vec<u8>, piece: usize) -> Wire {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (client, server) =
        tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    let mut server = server.unwrap().0;
    #[expect(clippy::disallowed_methods, reason = "a peer that ends with what it has to say")]
    tokio::spawn(async move {
        let mut request = [0_u8; 16];
        server.read_exact(&mut request[..3]).await.unwrap();
        for piece in bytes.chunks(piece.max(1)) {
            if server.write_all(piece).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
    });
    Wire::new(Stream::Plain(client.unwrap()), &Recycler::new(64, 1))
}

struct Read {
    status: u16,
    bytes: Vec<u8>,
    trailers: HeaderMap,
    reusable: bool,
}

async fn read(bytes: impl Into<Vec<u8>>, piece: usize) -> Result<Read, WireError> {
    let mut wire = answered(bytes.into(), piece).await;
    let head = wire.ask(b"ask").await?;
    let mut read =
        Read { status: head.status.as_u16(), bytes: Vec::new(), trailers: HeaderMap::new(), reusable: false };
    while let Some(frame) = poll_fn(|cx| wire.poll_frame(cx)).await {
        match frame?.into_data() {
            Ok(bytes) => read.bytes.extend_from_slice(&bytes),
            Err(frame) => read.trailers = frame.into_trailers().unwrap_or_default(),
        }
    }
    read.reusable = wire.is_reusable();
    Ok(read)
}

const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

#[tokio::test]
async fn chunks_and_trailers_come_out_whatever_the_pieces() {
    for piece in [1, 2, 3, 7, 64, 10_000] {
        let text = format!("{CHUNKED}5\r\nhello\r\nA;x=y\r\n, big worl\r\n1\r\nd\r\n0\r\nfinal: yes\r\n\r\n");
        let read = read(text, piece).await.unwrap();
        assert_eq!((read.status, read.bytes.as_slice()), (200, &b"hello, big world"[..]), "{piece}");
        assert_eq!(read.trailers["final"], "yes");
        assert!(read.reusable);
    }
}

#[tokio::test]
async fn sized_and_empty_answers() {
    let sized = read("HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\nnope", 5).await.unwrap();
    assert_eq!((sized.status, sized.bytes.as_slice(), sized.reusable), (404, &b"nope"[..], true));
    let empty = read("HTTP/1.1 204 No Content\r\n\r\n", 5).await.unwrap();
    assert_eq!((empty.status, empty.bytes.len(), empty.reusable), (204, 0, true));
    let last = read("HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n", 5).await.unwrap();
    assert!(!last.reusable);
    let more = read("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nab", 100).await.unwrap();
    assert!(!more.reusable, "there is more than was asked for");
}

#[tokio::test]
async fn what_is_not_of_the_form_is_refused() {
    let head = "HTTP/1.1 200 OK\r\n";
    let long = format!("{head}x: {}\r\n\r\n", "a".repeat(SECTION_MAX));
    for bad in [
        "SSH-2.0-x\r\n\r\n".to_owned(),
        format!("{head}\r\nno length"),
        format!("{head}content-length: 1\r\ncontent-length: 1\r\n\r\na"),
        format!("{head}content-length: 1\r\ntransfer-encoding: chunked\r\n\r\na"),
        format!("{head}content-length: +1\r\n\r\na"),
        format!("{head}transfer-encoding: gzip, chunked\r\n\r\n"),
        format!("{head}transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        "HTTP/1.1 100 Continue\r\n\r\n".to_owned(),
        format!("{CHUNKED}x\r\n"),
        format!("{CHUNKED}\r\n"),
        format!("{CHUNKED}5\nhello\r\n"),
        format!("{CHUNKED}+5\r\nhello\r\n"),
        format!("{CHUNKED}11111111111111111\r\n"),
        format!("{CHUNKED}5\r\nhello!\r\n"),
        format!("{CHUNKED}{}", "0".repeat(CHUNK_LINE_MAX)),
        format!("{CHUNKED}0\r\n: x\r\n\r\n"),
        long,
    ] {
        let read = read(bad.clone(), 10_000).await;
        assert!(matches!(read, Err(WireError::NotHttp(_))), "{:.80?}", bad);
    }
}

#[tokio::test]
async fn an_early_end_is_never_an_end() {
    for broken in [
        "HTTP/1.1 200 O".to_owned(),
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\na".to_owned(),
        format!("{CHUNKED}5\r\nhell"),
        format!("{CHUNKED}5\r\nhello"),
        format!("{CHUNKED}5\r\nhello\r\n"),
        format!("{CHUNKED}0\r\nfinal: yes\r\n"),
    ] {
        let read = read(broken.clone(), 10_000).await;
        assert!(matches!(read, Err(WireError::Broken(_))), "{broken:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_chunking_gives_the_same_bytes(
        chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 0..8), piece in 1_usize..500,
    ) {
        let mut answer = CHUNKED.as_bytes().to_vec();
        for chunk in &chunks {
            answer.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            answer.extend_from_slice(chunk);
            answer.extend_from_slice(b"\r\n");
        }
        answer.extend_from_slice(b"0\r\n\r\n");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let read = runtime.block_on(read(answer, piece)).unwrap();
        prop_assert_eq!(read.bytes, chunks.concat());
        prop_assert!(read.reusable);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut answer = CHUNKED.as_bytes().to_vec();
        answer.extend_from_slice(&bytes);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        // Whatever comes out, it comes out.
        let _ = runtime.block_on(async { tokio::time::timeout(std::time::Duration::from_secs(5), read(answer, 97)).await }).expect("nothing hangs");
    }
}
