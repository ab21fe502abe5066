//! Host names and user agents of strangers: a name that is found can be read again, what was hidden is restored.
#![no_main]

use libfuzzer_sys::fuzz_target;
use zipline_protocol::{FunctionName, user_agent};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(host) = std::str::from_utf8(bytes)
        && let Some(name) = FunctionName::from_host(host)
    {
        assert_eq!(name.to_string().parse(), Ok(name));
    }
    let deferred = user_agent::defer(Some(bytes));
    assert_eq!(user_agent::restore(&deferred), Some(Some(bytes)));
});
