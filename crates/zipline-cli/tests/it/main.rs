//! The command as a user meets it: exit statuses, streams, messages; and `up` with real instances.
#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod app;
mod command;
mod config;
mod exec;
mod journey;
mod messages;
