//! Headers of the data port: what is taken is formatted again as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use zipline_protocol::data::{DataRequest, FinalRecord};

fuzz_target!(|value: &str| {
    if let Ok((request, mac)) = DataRequest::parse(value) {
        assert_eq!(request.format(&mac), value);
    }
    if let Ok((record, mac)) = FinalRecord::parse(value, Vec::new()) {
        assert_eq!(record.format(&mac), value);
    }
});
