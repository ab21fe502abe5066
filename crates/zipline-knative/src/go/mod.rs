//! How Go's standard library reads and writes plain values, as far as Knative's formats show it.

pub(crate) mod float;
pub(crate) mod json;
pub(crate) mod number;
pub(crate) mod quote;
