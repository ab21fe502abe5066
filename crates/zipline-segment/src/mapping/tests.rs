// What asks the kernel for more than memory is left out under Miri, which makes no system calls.
#[cfg(not(miri))]
use rustix::fs::MemfdFlags;

use super::*;
use crate::SegmentMut;

#[cfg(not(miri))]
#[test]
fn pages_are_counted_when_touched_and_given_back() {
    let mut mapping = Mapping::create(10 * PAGE - 1, HugePages::Off).unwrap();
    assert_eq!((mapping.capacity(), mapping.touched_bytes()), (10 * PAGE, 0));
    mapping.populate(PAGE..2 * PAGE + 1).unwrap();
    assert_eq!(mapping.touched_bytes(), 3 * PAGE);
    mapping.discard_from(PAGE + 1).unwrap();
    assert_eq!(mapping.touched_bytes(), 2 * PAGE);
    let blocks = rustix::fs::fstat(&mapping.fd).unwrap().st_blocks;
    assert_eq!(usize::try_from(blocks).unwrap() * 512, PAGE, "the second page is left");
}

#[test]
fn what_was_given_back_reads_as_zeros() {
    struct Back(std::sync::mpsc::SyncSender<Mapping>);
    impl crate::Home for Back {
        fn returned(self: Box<Self>, mapping: Mapping) {
            self.0.send(mapping).unwrap();
        }
    }
    let (sender, back) = std::sync::mpsc::sync_channel(1);
    let mut segment =
        SegmentMut::whole(Mapping::create(2 * PAGE, HugePages::Off).unwrap(), Some(Box::new(Back(sender))));
    segment.fill(7);
    drop(segment);
    let mut mapping = back.recv().unwrap();
    mapping.discard_from(PAGE).unwrap();
    let segment = SegmentMut::whole(mapping, None);
    assert!(segment[..PAGE].iter().all(|byte| *byte == 7), "warm pages keep what they hold");
    assert!(segment[PAGE..].iter().all(|byte| *byte == 0));
}

#[cfg(not(miri))]
#[test]
fn only_memory_of_sealed_size_is_adopted() {
    let unsealed = rustix::fs::memfd_create("x", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::fs::ftruncate(&unsealed, 4096).unwrap();
    assert!(matches!(Mapping::adopt(unsealed, 1, Access::ReadOnly), Err(AdoptError::Unsealed)));
    let file = OwnedFd::from(std::fs::File::open("/proc/self/exe").unwrap());
    assert!(matches!(Mapping::adopt(file, 1, Access::ReadOnly), Err(AdoptError::Unsealed)));
    let mapping = Mapping::create(PAGE, HugePages::Off).unwrap();
    let fd = mapping.as_fd().try_clone_to_owned().unwrap();
    let error = Mapping::adopt(fd, PAGE + 1, Access::ReadOnly).unwrap_err();
    assert!(matches!(error, AdoptError::TooShort { wanted: 4097, actual: 4096 }), "{error}");
}

#[cfg(not(miri))]
#[test]
fn after_the_seal_nobody_else_can_write_and_the_owner_can() {
    let mapping = Mapping::create(PAGE, HugePages::Off).unwrap();
    mapping.seal_future_write().unwrap();
    mapping.seal_future_write().unwrap();
    let fd = mapping.as_fd().try_clone_to_owned().unwrap();
    assert!(rustix::io::write(&fd, b"x").is_err());
    assert!(matches!(Mapping::adopt(fd, PAGE, Access::ReadWrite), Err(AdoptError::Kernel(_))));
    let reader =
        Mapping::adopt(mapping.as_fd().try_clone_to_owned().unwrap(), PAGE, Access::ReadOnly).unwrap();
    let mut segment = SegmentMut::whole(mapping, None);
    segment[0] = 9;
    assert_eq!(crate::SegmentBytes::of_adopted(reader, 0..1, None).unwrap()[0], 9);
}

#[test]
fn huge_pages_are_asked_for_only_where_they_can_be_had() {
    assert_eq!(HugePages::of_setting("always within_size advise [never] deny force\n"), HugePages::Off);
    assert_eq!(HugePages::of_setting("always within_size [advise] never deny force\n"), HugePages::Advised);
    assert_eq!(HugePages::of_setting(""), HugePages::Off);
    let mapping = Mapping::create(HUGE_FROM, HugePages::Advised).unwrap();
    assert_eq!(mapping.touched_bytes(), 0, "asking touches nothing");
}

#[test]
fn what_was_shared_is_written_again_only_on_trust_and_what_was_abandoned_never() {
    let mapping = Mapping::create(1, HugePages::Off).unwrap();
    let answers = |mapping: &Mapping| [false, true].map(|trusting| mapping.may_be_written_again(trusting));
    assert_eq!(answers(&mapping), [true, true]);
    mapping.mark_shared();
    assert_eq!(answers(&mapping), [false, true]);
    mapping.mark_abandoned();
    mapping.mark_shared();
    assert_eq!(answers(&mapping), [false, false]);
}

#[test]
fn what_a_socket_has_is_written_again_only_once_it_was_read() {
    let mapping = Mapping::create(1, HugePages::Off).unwrap();
    let (one, two) = (mapping.queue(), mapping.queue());
    one.were_read();
    assert!(!mapping.may_be_written_again(true));
    two.were_read();
    assert!(mapping.may_be_written_again(false));
    drop(mapping.queue());
    assert!(!mapping.may_be_written_again(true), "nobody will say when it was read");
}
