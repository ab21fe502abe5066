//! The command as a user meets it: exit statuses, streams, messages. Tests that need instances are with the assembled tests.
#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod app;
mod command;
mod config;
mod exec;
mod messages;
