use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::limits::RETRIEVALS_MAX;
use crate::{BootId, ErrorCode, PayloadId, Retrievals};

/// Owned fields, from which any frame of either direction is made.
#[derive(Debug, Clone)]
struct Fields {
    numbers: (u32, u32, u64, u64),
    short: u8,
    flag: bool,
    ids: [u8; 16],
    texts: Vec<String>,
    bytes: Vec<u8>,
    content_type: Option<Vec<u8>>,
    lists: (Vec<u32>, Vec<u64>),
    retrievals: u32,
}

fn fields() -> impl Strategy<Value = Fields> {
    let numbers = (any::<u32>(), any::<u32>(), any::<u64>(), any::<u64>());
    let lists = (vec(any::<u32>(), 0..20), vec(any::<u64>(), 0..20));
    let texts = vec("[a-zA-Z0-9_-]{0,100}", 0..=GET_MAX);
    let some = (numbers, 0..64u8, any::<bool>(), any::<[u8; 16]>(), texts);
    (some, vec(any::<u8>(), 0..500), option::of(vec(any::<u8>(), 0..=255)), lists, 0..=RETRIEVALS_MAX)
        .prop_map(|((numbers, short, flag, ids, texts), bytes, content_type, lists, retrievals)| Fields {
            numbers,
            short,
            flag,
            ids,
            texts,
            bytes,
            content_type,
            lists,
            retrievals,
        })
}

fn requests(fields: &Fields) -> Vec<Request<'_>> {
    let (request, segment, offset, len) = fields.numbers;
    let wait = Duration::from_millis(segment.into());
    let terms = Terms {
        retrievals: match fields.retrievals {
            0 => Retrievals::Unlimited,
            count => Retrievals::Limited(count),
        },
        ttl: Duration::from_millis(request.into()),
        linger: wait,
        wait,
        content_type: fields.content_type.as_deref(),
    };
    let text = fields.texts.first().map_or("", String::as_str);
    let place = PutBytes::Segment(Place { segment, offset, len });
    let inline = PutBytes::Inline(&fields.bytes);
    let issued = Put::Issued(PayloadId::from_bytes(fields.ids));
    let answered = Put::Answered(terms.clone());
    let references = fields.texts.iter().map(String::as_str).collect();
    vec![
        Request::Hello { version: fields.short, token: &fields.bytes },
        Request::Grant { request, bytes: len, wait },
        Request::Put { request, put: answered.clone(), bytes: place },
        Request::Put { request, put: answered, bytes: inline },
        Request::Put { request, put: issued.clone(), bytes: place },
        Request::Put { request, put: issued, bytes: inline },
        Request::Issue { request, count: fields.short.into(), terms },
        Request::Get { request, get: Get { mapped: fields.flag, timeout: wait, references } },
        Request::Done { handles: fields.lists.1.clone() },
        Request::Release { request, reference: text },
        Request::Forgot { segments: fields.lists.0.clone(), mappings: vec![segment] },
        Request::Settle { request },
        Request::Cancel { request },
    ]
}

fn answers(fields: &Fields) -> Vec<Answer<'_>> {
    let (request, segment, offset, len) = fields.numbers;
    let index = fields.short;
    let text = fields.texts.first().map_or("", String::as_str);
    let got = |bytes| Answer::Got {
        request,
        index,
        got: Got { origin: Origin::Network, content_type: fields.content_type.as_deref(), bytes },
    };
    let payload = PayloadId::from_bytes(fields.ids);
    let tenant = text.get(..60).unwrap_or(text);
    vec![
        Answer::Welcome(Welcome {
            version: index,
            boot: BootId::from_bytes(fields.ids),
            tenant,
            inline_max: request,
            payload_max: len,
        }),
        Answer::Segment { request, segment, capacity: len },
        Answer::PutDone {
            request,
            ttl: Duration::from_millis(offset),
            bounded_by: BoundedBy::Drain,
            reference: text,
        },
        Answer::Issued {
            request,
            issued: fields.texts.iter().map(|reference| Issued { payload, reference }).collect(),
        },
        got(GotBytes::Inline(&fields.bytes)),
        got(GotBytes::Mapping { handle: len, mapping: segment, shown: fields.flag, offset, len }),
        got(GotBytes::Segment { handle: len, segment, offset, len }),
        Answer::Ok { request },
        Answer::Error { request, index, code: ErrorCode::PayloadLost, detail: text },
        Answer::Free { segments: fields.lists.0.clone() },
        Answer::Drop { segments: vec![segment], mappings: fields.lists.0.clone() },
    ]
}

/// The frame's head and body; that the length announced is the one that is there is checked on the way.
fn split(frame: &[u8]) -> (FrameHead, &[u8]) {
    let head = FrameHead::read(frame).unwrap().unwrap();
    let body = &frame[HEAD_BYTES..];
    assert_eq!(head.body_bytes, body.len());
    (head, body)
}

proptest! {
    #[test]
    fn requests_come_back_as_they_were(fields in fields()) {
        for request in requests(&fields) {
            let mut frame = Vec::new();
            request.write(&mut frame);
            let (head, body) = split(&frame);
            prop_assert_eq!(Request::read(head, body), Ok(request));
        }
    }

    #[test]
    fn answers_come_back_as_they_were(fields in fields()) {
        for answer in answers(&fields) {
            let mut frame = Vec::new();
            answer.write(&mut frame);
            let (head, body) = split(&frame);
            prop_assert_eq!(Answer::read(head, body), Ok(answer));
        }
    }

    /// Whatever is cut off or added, a frame never reads as the same one, and nothing panics.
    #[test]
    fn other_lengths_are_other_frames(fields in fields(), cut in any::<prop::sample::Index>()) {
        for request in requests(&fields) {
            let mut frame = Vec::new();
            request.write(&mut frame);
            let (head, body) = split(&frame);
            if !body.is_empty() {
                let shorter = &body[..cut.index(body.len())];
                prop_assert_ne!(Request::read(head, shorter), Ok(request.clone()));
            }
            let longer = [body, &[0]].concat();
            prop_assert_ne!(Request::read(head, &longer), Ok(request));
        }
        for answer in answers(&fields) {
            let mut frame = Vec::new();
            answer.write(&mut frame);
            let (head, body) = split(&frame);
            let shorter = &body[..cut.index(body.len())];
            prop_assert_ne!(Answer::read(head, shorter), Ok(answer.clone()));
            let longer = [body, &[0]].concat();
            prop_assert_ne!(Answer::read(head, &longer), Ok(answer));
        }
    }

    #[test]
    fn any_bytes_read_or_are_refused(kind in 0..80u8, body in vec(any::<u8>(), 0..300)) {
        let head = FrameHead { kind, body_bytes: body.len() };
        if let Ok(request) = Request::read(head, &body) {
            let mut again = Vec::new();
            request.write(&mut again);
            prop_assert_eq!(&again[HEAD_BYTES..], &body[..]);
        }
        if let Ok(answer) = Answer::read(head, &body) {
            let mut again = Vec::new();
            answer.write(&mut again);
            prop_assert_eq!(&again[HEAD_BYTES..], &body[..]);
        }
    }
}

#[test]
fn a_head_waits_for_its_bytes_and_refuses_long_frames() {
    assert_eq!(FrameHead::read(&[0, 0, 0, 1]), Ok(None));
    let longest = u32::try_from(FRAME_MAX).unwrap().to_be_bytes();
    let head = [&longest[..], &[9]].concat();
    assert_eq!(FrameHead::read(&head), Ok(Some(FrameHead { kind: 9, body_bytes: FRAME_MAX })));
    let error = FrameHead::read(&[0, 2, 0, 1, 9]).unwrap_err();
    assert_eq!(error, FrameError::TooLong { actual_bytes: 131_073 });
    assert_eq!(error.to_string(), "a frame of 131073 bytes, at most 131072 are allowed");
}

#[test]
fn lists_beyond_their_limits_are_refused_before_they_are_read() {
    let head = FrameHead { kind: 9, body_bytes: 2 };
    assert_eq!(Request::read(head, &[0x03, 0xff]), Err(FrameError::Short), "1023 handles that are not there");
    let error = Request::read(head, &[0x04, 0x01]).unwrap_err();
    assert_eq!(error, FrameError::Limit { what: "handles", actual: 1025, limit: 1024 });
    assert_eq!(Request::read(FrameHead { kind: 200, body_bytes: 0 }, &[]), Err(FrameError::UnknownType(200)));
}

#[test]
fn what_is_more_than_nothing_never_becomes_nothing() {
    let mut frame = Vec::new();
    Request::Grant { request: 1, bytes: 1, wait: Duration::from_micros(1) }.write(&mut frame);
    let (head, body) = split(&frame);
    let read = Request::read(head, body).unwrap();
    assert_eq!(read, Request::Grant { request: 1, bytes: 1, wait: Duration::from_millis(1) });
}

#[test]
fn a_long_detail_is_cut_between_characters() {
    let detail = "ä".repeat(DETAIL_MAX);
    let mut frame = Vec::new();
    Answer::Error { request: 1, index: 0, code: ErrorCode::Draining, detail: &detail }.write(&mut frame);
    let (head, body) = split(&frame);
    let Ok(Answer::Error { detail: read, .. }) = Answer::read(head, body) else { panic!("no error") };
    assert_eq!(read.len(), DETAIL_MAX);
}
