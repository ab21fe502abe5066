//! Reference text: what is taken is written again as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use zipline_protocol::ReferenceText;

fuzz_target!(|text: &str| {
    if let Ok(reference) = ReferenceText::parse(text) {
        assert_eq!(reference.as_str(), text);
    }
});
