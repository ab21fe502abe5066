//! Descriptors over Unix stream sockets.
//!
//! They travel with the first byte of what is sent and arrive with it: a read never goes beyond the bytes that the next
//! descriptors belong to.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Most descriptors of one message.
pub const DESCRIPTORS_MAX: usize = 8;

/// Room for the descriptors of one message.
const CONTROL_BYTES: usize = rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX));

/// Sends the start of `parts` with `descriptors`, as much as the socket takes; returns how many bytes. At least one byte
/// must be there. If the socket takes none, the descriptors were not sent either.
///
/// # Errors
/// What the kernel says, `WouldBlock` included; more than [`DESCRIPTORS_MAX`] descriptors are `InvalidInput`.
pub fn send(socket: impl AsFd, parts: &[IoSlice<'_>], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    if descriptors.len() > DESCRIPTORS_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors for one message"));
    }
    let mut space = [MaybeUninit::uninit(); CONTROL_BYTES];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        let fits = control.push(SendAncillaryMessage::ScmRights(descriptors));
        debug_assert!(fits, "the buffer has room for the most descriptors");
    }
    Ok(sendmsg(socket, parts, &mut control, SendFlags::NOSIGNAL)?)
}

/// Reads into `buffer` and adds the descriptors that came with it to `descriptors`; returns how many bytes, 0 at the end. They
/// are closed on exec.
///
/// # Errors
/// What the kernel says, `WouldBlock` included; `InvalidData` if more descriptors came than [`DESCRIPTORS_MAX`], which are
/// closed then.
pub fn receive(socket: impl AsFd, buffer: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); CONTROL_BYTES];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) {
        descriptors.clear();
        return Err(io::Error::new(io::ErrorKind::InvalidData, "more descriptors came than are taken"));
    }
    Ok(received.bytes)
}

// Miri has no sockets that descriptors pass through.
#[cfg(test)]
#[cfg(not(any(miri, loom)))]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::{Access, HugePages, Mapping, SegmentBytes, SegmentMut};

    #[test]
    fn a_segment_crosses_a_socket_and_shows_the_same_bytes() {
        let (left, right) = UnixStream::pair().unwrap();
        let mut segment = SegmentMut::whole(Mapping::create(8192, HugePages::Off).unwrap(), None);
        segment[5000..5005].copy_from_slice(b"hello");
        let sent = segment.freeze();
        let parts = [IoSlice::new(b"he"), IoSlice::new(b"re")];
        assert_eq!(send(&left, &parts, &[sent.place().fd()]).unwrap(), 4);
        assert_eq!(send(&left, &[IoSlice::new(b"!")], &[]).unwrap(), 1);
        let (mut buffer, mut descriptors) = ([0; 16], Vec::new());
        assert_eq!(receive(&right, &mut buffer, &mut descriptors).unwrap(), 4);
        assert_eq!((&buffer[..4], descriptors.len()), (&b"here"[..], 1));
        let adopted = Mapping::adopt(descriptors.pop().unwrap(), 8192, Access::ReadOnly).unwrap();
        let seen = SegmentBytes::of_adopted(adopted, 5000..5005, None).unwrap();
        assert_eq!(&*seen, b"hello");
        assert_eq!(receive(&right, &mut buffer, &mut descriptors).unwrap(), 1);
        drop(left);
        assert_eq!(receive(&right, &mut buffer, &mut descriptors).unwrap(), 0);
    }

    #[test]
    fn too_many_descriptors_are_refused_by_name() {
        let (left, _right) = UnixStream::pair().unwrap();
        let many = [left.as_fd(); DESCRIPTORS_MAX + 1];
        let error = send(&left, &[IoSlice::new(b"x")], &many).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
