use crate::{HugePages, Mapping, PAGE, SegmentMut};

fn segment(pages: usize) -> SegmentMut {
    SegmentMut::whole(Mapping::create(pages * PAGE, HugePages::Off).unwrap(), None)
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|index| u8::try_from(index % 251).unwrap()).collect()
}

#[test]
fn what_is_copied_in_is_there_and_nothing_else_changes() {
    let mut before = segment(4);
    let mut middle = before.split_off(77);
    let (behind, content) = (middle.split_off(2 * PAGE), bytes(PAGE + 100));
    middle.copy_in(&content);
    assert_eq!(middle[..PAGE + 100], content[..]);
    for other in [&before[..], &middle[PAGE + 100..], &behind[..]] {
        assert!(other.iter().all(|byte| *byte == 0));
    }
    // Again, where it was written before.
    before.copy_in(b"before");
    let mut again = middle.split_to(6);
    again.copy_in(b"nearby");
    drop(again);
    assert_eq!((&before[..6], before.is_fresh(0)), (&b"before"[..], false));
    before.copy_in(b"again");
    assert_eq!((&before[..6], &middle[..PAGE]), (&b"againe"[..], &content[6..PAGE + 6]));
}

#[test]
fn what_was_written_is_not_fresh_any_more_and_has_pages() {
    let mut first = segment(4);
    let mut rest = first.split_off(PAGE);
    assert!(first.is_fresh(0) && rest.is_fresh(0));
    rest.split_to(10).copy_in(&bytes(10));
    assert!(!first.is_fresh(0), "it is known up to where it was written last");
    assert_eq!(first.mapping().touched_bytes(), 2 * PAGE);
}

#[test]
#[should_panic(expected = "5 bytes do not fit into 4")]
fn more_than_fits_is_refused() {
    segment(1).split_to(4).copy_in(b"12345");
}

#[cfg(not(miri))]
mod by_the_kernel {
    use std::io::{self, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::Conduit;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (theirs, _) = listener.accept().unwrap();
        theirs.set_nonblocking(true).unwrap();
        (ours, theirs)
    }

    /// Reads until there is no room any more, or to the end of the connection.
    fn receive(segment: &mut SegmentMut, at: usize, socket: &TcpStream) -> usize {
        let (conduit, mut filled) = (Conduit::open().unwrap(), 0);
        while at + filled < segment.len() {
            match segment.splice_in(at + filled, usize::MAX, socket, &conduit) {
                Ok(0) => return filled,
                Ok(got) => filled += got,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        }
        filled
    }

    #[test]
    fn bytes_of_a_socket_arrive_where_they_should_and_nowhere_else() {
        let (mut ours, theirs) = pair();
        let content = bytes(3 << 20);
        let sent = content.clone();
        let writer = std::thread::spawn(move || ours.write_all(&sent).unwrap());
        let mut segment = segment(1024);
        let mut middle = segment.split_off(77);
        let rest = middle.split_off((3 << 20) + 5);
        assert_eq!(receive(&mut middle, 5, &theirs), content.len());
        writer.join().unwrap();
        assert_eq!(middle[5..], content[..]);
        for other in [&segment[..], &middle[..5], &rest[..]] {
            assert!(other.iter().all(|byte| *byte == 0));
        }
        drop(middle);
        assert!(!segment.is_fresh(0) && rest.is_fresh(0), "written up to its end, and no further");
        assert!(segment.mapping().touched_bytes() >= content.len(), "what has pages is counted");
    }

    #[test]
    fn memory_whose_file_is_sealed_is_filled_all_the_same() {
        let (mut ours, theirs) = pair();
        let mut segment = segment(64);
        segment.mapping().seal_future_write().unwrap();
        let content = bytes(64 * PAGE);
        let sent = content.clone();
        let writer = std::thread::spawn(move || ours.write_all(&sent).unwrap());
        assert_eq!(receive(&mut segment, 0, &theirs), content.len());
        writer.join().unwrap();
        assert_eq!(segment[..], content[..]);
        let mut other = self::segment(2);
        other.mapping().seal_future_write().unwrap();
        other.copy_in(&content[..PAGE + 1]);
        assert_eq!(other[..PAGE + 1], content[..PAGE + 1]);
    }

    #[test]
    fn nobody_waits_for_bytes_that_are_not_there() {
        let (ours, theirs) = pair();
        let mut segment = segment(1);
        let tried = segment.splice_in(0, PAGE, &theirs, &Conduit::open().unwrap());
        assert_eq!(tried.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(ours);
        assert_eq!(receive(&mut segment, 0, &theirs), 0, "the end of the connection");
    }
}
