//! Connections that never leave the host.

use socket2::SockRef;
use std::net::IpAddr;
use std::os::fd::AsFd;

/// Tunes a socket whose other end is `peer`, if that is on this host. Nothing is lost or shared there, and pacing (bbr, the
/// default of many systems) halves what one connection moves and costs timers for every message. Whatever is not allowed
/// leaves the default.
pub(crate) fn tune(socket: &impl AsFd, peer: IpAddr) {
    if peer.to_canonical().is_loopback() {
        let socket = SockRef::from(socket);
        let _ = ["cubic", "reno"].iter().any(|name| socket.set_tcp_congestion(name.as_bytes()).is_ok());
    }
}
