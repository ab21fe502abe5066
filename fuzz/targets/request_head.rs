//! Heads of requests to a data port: nothing beyond a head changes what it says, and no part of one is taken for the whole.
#![no_main]

use libfuzzer_sys::fuzz_target;
use zipline_transfer::request_head::parse;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Some(head)) = parse(bytes) {
        assert!(head.bytes <= bytes.len());
        assert_eq!(parse(&bytes[..head.bytes]), Ok(Some(head.clone())));
        assert_eq!(parse(&bytes[..head.bytes - 1]), Ok(None));
    }
});
