//! One file per verb.

pub(crate) mod bench;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod doctor;
pub(crate) mod down;
pub(crate) mod engine;
pub(crate) mod exec;
pub(crate) mod init;
pub(crate) mod invoke;
pub(crate) mod keys;
pub(crate) mod knative;
pub(crate) mod logs;
pub(crate) mod payloads;
pub(crate) mod run;
pub(crate) mod status;
pub(crate) mod up;
