use super::*;
use futures_util::StreamExt as _;
use std::time::Duration;

/// A body whose frames come after a pause each.
fn body(frames: Vec<(u64, Vec<u8>)>) -> Body {
    Body::from_frames(Box::pin(futures_util::stream::iter(frames).then(|(pause, data)| async move {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        Ok(Frame::data(Bytes::from(data)))
    })))
}

async fn whole(peeked: Peeked) -> Vec<u8> {
    peeked.body.collect_up_to(1 << 20).await.unwrap().to_vec()
}

#[tokio::test(start_paused = true)]
async fn bytes_that_arrive_without_a_pause_are_large() {
    let peeked = arrivals(body(vec![(0, vec![1; 60]), (0, vec![2; 60]), (500, vec![3; 5])]), 100).await;
    assert!(peeked.large);
    assert_eq!(whole(peeked).await, [vec![1; 60], vec![2; 60], vec![3; 5]].concat());
}

#[tokio::test(start_paused = true)]
async fn a_pause_or_an_early_end_is_small_and_loses_nothing() {
    for frames in
        [vec![(0, vec![1; 60]), (50, vec![2; 60])], vec![(0, vec![1; 60])], vec![(50, vec![1; 200])], vec![]]
    {
        let expected: Vec<u8> = frames.iter().flat_map(|(_, data)| data.clone()).collect();
        let peeked = arrivals(body(frames), 100).await;
        assert!(!peeked.large);
        assert_eq!(whole(peeked).await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_grpc_prefix_tells_before_the_message_is_there() {
    let message = |length: u32| [vec![0], length.to_be_bytes().to_vec()].concat();
    // The prefix itself may come in pieces.
    let (head, tail) = (message(1000)[..2].to_vec(), message(1000)[2..].to_vec());
    assert!(grpc_message(body(vec![(5, head), (1, tail), (5000, vec![7; 1000])]), 1000).await.large);
    assert!(!grpc_message(body(vec![(0, message(10)), (0, vec![7; 2000])]), 1000).await.large);
    let peeked = grpc_message(body(vec![(51, message(1000))]), 1000).await;
    assert!(!peeked.large, "a stream that waits for an early answer is not held up");
    assert_eq!(whole(peeked).await, message(1000));
}

#[tokio::test(start_paused = true)]
async fn the_start_is_read_and_put_back() {
    let (start, rest) =
        start(body(vec![(0, b"abc".to_vec()), (0, b"defg".to_vec()), (0, b"h".to_vec())]), 5).await;
    assert_eq!(start, b"abcde");
    assert_eq!(rest.collect_up_to(100).await.unwrap(), "abcdefgh");
}

#[tokio::test(start_paused = true)]
async fn a_line_is_taken_off() {
    let frames = || body(vec![(0, b"ab".to_vec()), (0, b"c\nde".to_vec()), (0, b"f".to_vec())]);
    let (first, rest) = line(frames(), 3).await.unwrap();
    assert_eq!(first, b"abc");
    assert_eq!(rest.collect_up_to(100).await.unwrap(), "def");
    assert!(line(frames(), 2).await.is_none());
    assert!(line(body(vec![(0, b"abc".to_vec())]), 10).await.is_none());
}
