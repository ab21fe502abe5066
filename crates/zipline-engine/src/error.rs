//! Why an engine could not start or went down.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use zipline_protocol::FunctionName;

use crate::state::StateError;

/// An engine could not start, or not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The state directory cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// There is nothing to run.
    #[error("no service to run: name at least one manifest")]
    NoServices,
    /// The gateway's port cannot be had.
    #[error("the gateway cannot listen on {address}{}", in_use(source))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The control socket cannot be had.
    #[error("cannot listen on the control socket {}", path.display())]
    Control {
        /// Its path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Commands that do not exist or cannot be run; one line for each service.
    #[error("{}", lines(findings))]
    Commands {
        /// What is wrong, per service.
        findings: Vec<CommandError>,
    },
    /// One of Zipline's own binaries is missing.
    #[error("{} is not there or cannot be run: build or install it beside `zipline`", path.display())]
    Program {
        /// Its path.
        path: PathBuf,
    },
    /// Users of their own were demanded for instances, and cannot be had.
    #[error("instances cannot have users of their own, as --instance-uids require demands: {reason}")]
    InstanceUids {
        /// Why not.
        reason: String,
    },
    /// The operating system gave no randomness.
    #[error("cannot make keys: the operating system gave no random bytes")]
    Random,
    /// A socket could not be used any more.
    #[error("cannot {action}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// A function's command cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: service {service}: command \"{command}\" {reason}", file.display())]
pub struct CommandError {
    /// The manifest.
    pub file: PathBuf,
    /// The service.
    pub service: FunctionName,
    /// The command's first word.
    pub command: String,
    /// What is wrong and what to do.
    pub reason: String,
}

fn lines(findings: &[CommandError]) -> String {
    findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn in_use(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::AddrInUse {
        ": the port is in use; choose another with --gateway"
    } else {
        ""
    }
}
