//! Records, as they come out of a seal: what is taken is encoded again as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use zipline_protocol::Record;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(record) = Record::decode(bytes) {
        assert_eq!(record.encode().expect("what was decoded fits"), bytes);
    }
});
