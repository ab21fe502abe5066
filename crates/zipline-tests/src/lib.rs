//! The stages on which the assembled tests play: real queue-proxies between fakes of everything else.
#![forbid(unsafe_code)]

pub mod check;
pub mod pair;
pub mod turn;

/// Tells a figure that is worth knowing and no matter of passing or failing.
#[expect(clippy::print_stderr, reason = "tests speak to whoever runs them with --nocapture")]
pub fn report(text: &str) {
    eprintln!("{text}");
}
