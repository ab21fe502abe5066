//! The signals that ask a process to end.
//!
//! The first one starts an orderly end; whoever gets the second one while that is under way ends at once.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

/// A signal that asks the process to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT, Ctrl-C.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

impl Signal {
    /// Its number.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Interrupt => 2,
            Self::Terminate => 15,
        }
    }

    /// Exit code of a process that ended because of it: 128 + number.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        128 + self.number()
    }
}

/// Ears for SIGINT and SIGTERM. From its making on, these signals no longer end the process by themselves.
#[derive(Debug)]
pub struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    /// Starts listening; signals that arrive before [`Signals::next`] is called are kept (several of one kind as one).
    ///
    /// # Errors
    /// The system refused the handlers.
    pub fn listen() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for the next one.
    ///
    /// # Cancel safety
    /// Safe: no signal is lost.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::Terminate,
        }
    }
}

/// Waits for the first SIGINT or SIGTERM. For the second one keep [`Signals`] instead.
///
/// # Errors
/// The system refused the handlers.
pub async fn terminated() -> io::Result<Signal> {
    Ok(Signals::listen()?.next().await)
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal as Raw, getpid, kill_process};

    use super::*;

    #[tokio::test]
    async fn both_signals_are_heard_one_after_the_other() {
        let mut signals = Signals::listen().unwrap();
        kill_process(getpid(), Raw::TERM).unwrap();
        assert_eq!(signals.next().await, Signal::Terminate);
        kill_process(getpid(), Raw::INT).unwrap();
        let second = signals.next().await;
        assert_eq!((second, second.exit_code()), (Signal::Interrupt, 130));
    }
}
