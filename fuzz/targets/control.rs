//! Lines of the control channel, from both sides: what is taken survives being said again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use zipline_protocol::control::{EngineMessage, QueueProxyMessage};

fuzz_target!(|line: &[u8]| {
    if let Ok(message) = serde_json::from_slice::<EngineMessage>(line) {
        let again = serde_json::to_vec(&message).expect("control messages always serialise");
        assert_eq!(serde_json::from_slice::<EngineMessage>(&again).expect("its own words"), message);
    }
    if let Ok(message) = serde_json::from_slice::<QueueProxyMessage>(line) {
        assert!(serde_json::to_vec(&message).is_ok());
    }
});
