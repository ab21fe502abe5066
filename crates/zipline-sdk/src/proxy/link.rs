//! One connection: sends frames, and hands what comes to whoever waits for it.

use std::io::{self, IoSlice};
use std::panic::Location;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use zipline_protocol::PayloadId;
use zipline_protocol::sdk::{
    Answer, Get, GotBytes, LIST_MAX, Origin, PREFACE, Place, Put, PutBytes, Request, Terms, VERSION,
};
use zipline_segment::{Access, Mapping, SegmentBytes};

use super::input::Input;
use super::mappings;
use super::segments::Outgoing;
use super::socket::Socket;
use super::state::{Issued, Reply, Slot, State};
use super::tend;
use super::wait::Waiting;
use crate::clock::now;
use crate::options::SocketAddress;
use crate::reference::Life;
use crate::{Error, ErrorCode, Payload, PutOptions, Reference, Result, Source};

/// References that are asked for at once.
const ISSUE: u16 = 32;
/// With so many left, more are asked for.
const ISSUE_LOW: usize = 8;
/// Memory that was not used for so long is given back.
const IDLE: Duration = Duration::from_secs(20);

/// One connection to the queue-proxy.
#[derive(Debug)]
pub(crate) struct Link {
    pub(super) socket: Arc<Socket>,
    pub(super) state: Mutex<State>,
    /// Followers wait for the leader here.
    pub(super) answered: Condvar,
    pub(super) input: Mutex<Input>,
    writer: Mutex<Writer>,
    inline_max: AtomicUsize,
    this: Weak<Self>,
    /// Whether tasks wait on it, so that nothing may block.
    tasks: bool,
    #[cfg(feature = "tokio")]
    pub(super) bells: Arc<super::task::Bells>,
}

#[derive(Debug, Default)]
struct Writer {
    /// What the socket did not take yet; always sent first.
    unsent: Vec<u8>,
}

/// What is to be dropped once no lock is held, since dropping it takes the lock.
#[derive(Debug, Default)]
struct Garbage {
    bytes: Vec<SegmentBytes>,
    mappings: Vec<Mapping>,
    forgotten: (Vec<u32>, Vec<u32>),
    /// References that came too late, and the requests by which they are released.
    orphans: Vec<(u32, String)>,
}

/// Says the handle done when nobody reads its bytes any more: the bytes go first.
struct Read {
    bytes: SegmentBytes,
    _done: Done,
}

struct Done {
    link: Arc<Link>,
    handle: u64,
}

impl Drop for Done {
    fn drop(&mut self) {
        self.link.done(self.handle);
    }
}

impl AsRef<[u8]> for Read {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Link {
    /// Connects and says hello; the answer is [`Reply::Welcome`].
    pub(crate) fn open(address: &SocketAddress, token: &[u8], tasks: bool) -> Result<(Arc<Self>, Waiting)> {
        let socket = Socket::connect(address).map_err(|error| {
            Error::unreachable(format_args!("the queue-proxy cannot be reached at {address}"), error)
        })?;
        if tasks {
            socket.never_block().map_err(|error| Error::unreachable("the socket cannot be set up", error))?;
        }
        let link = Arc::new_cyclic(|this| Self {
            socket: Arc::new(socket),
            state: Mutex::default(),
            answered: Condvar::new(),
            input: Mutex::new(Input::new()),
            writer: Mutex::default(),
            inline_max: AtomicUsize::new(0),
            this: Weak::clone(this),
            tasks,
            #[cfg(feature = "tokio")]
            bells: Arc::default(),
        });
        #[cfg(feature = "tokio")]
        if tasks {
            let started = super::task::start(&link);
            started.map_err(|error| Error::unreachable("no task can read the socket", error))?;
        }
        let mut frame = PREFACE.to_vec();
        Request::Hello { version: VERSION, token }.write(&mut frame);
        link.state.lock().slots.insert(0, Slot::of(1));
        link.send(&frame, &[])?;
        let waiting = Waiting::new(Arc::clone(&link), 0, false);
        Ok((link, waiting))
    }

    /// Largest payload that goes in its frame.
    pub(crate) fn inline_max(&self) -> usize {
        self.inline_max.load(Ordering::Relaxed)
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.state.lock().broken.is_some()
    }

    /// Sends a request whose answer is waited for.
    fn ask(&self, write: impl FnOnce(u32, &mut Vec<u8>), bytes: &[u8]) -> Result<Waiting> {
        self.ask_for(1, false, write, bytes)
    }

    /// Sends a request whose answers are waited for, which may be cancelled.
    fn ask_for(
        &self,
        answers: usize,
        cancels: bool,
        write: impl FnOnce(u32, &mut Vec<u8>),
        bytes: &[u8],
    ) -> Result<Waiting> {
        let request = {
            let mut state = self.state.lock();
            state.check()?;
            let request = state.next_request();
            state.slots.insert(request, Slot::of(answers));
            request
        };
        let waiting = Waiting::new(self.strong(), request, cancels);
        let mut frame = Vec::with_capacity(256);
        write(request, &mut frame);
        self.send(&frame, bytes)?;
        Ok(waiting)
    }

    fn strong(&self) -> Arc<Self> {
        self.this.upgrade().expect("whoever calls has it")
    }

    /// A free segment, or else a grant to wait for.
    pub(crate) fn segment(
        &self,
        len: usize,
        wait: Duration,
    ) -> Result<std::result::Result<Outgoing, Waiting>> {
        if let Some(free) = self.free_segment(len) {
            return Ok(Ok(free));
        }
        // Whoever puts without answers has not heard yet what is free again.
        if !self.tasks {
            self.read_if_idle();
            if let Some(free) = self.free_segment(len) {
                return Ok(Ok(free));
            }
        }
        let bytes = len.max(1) as u64;
        self.ask(|request, out| Request::Grant { request, bytes, wait }.write(out), &[]).map(Err)
    }

    /// A free segment that is large enough.
    pub(crate) fn free_segment(&self, len: usize) -> Option<Outgoing> {
        self.state.lock().segments.take(len, Weak::clone(&self.this))
    }

    /// Gives back all free segments: what they hold of the budget is needed for one that they do not fit.
    pub(crate) fn give_way(&self) {
        let mut garbage = Garbage::default();
        let mut state = self.state.lock();
        for id in state.segments.idle(now()) {
            garbage.mappings.extend(state.segments.unwanted(id));
            garbage.forgotten.0.push(id);
        }
        drop(state);
        self.clear(garbage);
    }

    /// Puts bytes in their frame.
    pub(crate) fn put_inline(&self, bytes: &[u8], options: &PutOptions) -> Result<Waiting> {
        let put = Put::Answered(terms(options));
        self.ask(|request, out| Request::write_inline_put(request, &put, bytes.len(), out), bytes)
    }

    /// Puts what lies in a segment.
    pub(crate) fn put_segment(
        &self,
        segment: u32,
        bytes: SegmentBytes,
        options: &PutOptions,
    ) -> Result<Waiting> {
        let put = Put::Answered(terms(options));
        let place = self.putting(segment, bytes);
        let write =
            |request, out: &mut _| Request::Put { request, put, bytes: PutBytes::Segment(place) }.write(out);
        self.ask(write, &[])
    }

    fn putting(&self, segment: u32, bytes: SegmentBytes) -> Place {
        let place = Place { segment, offset: bytes.place().offset, len: bytes.len() as u64 };
        self.state.lock().segments.put(segment, bytes);
        place
    }

    /// A reference in advance; more are asked for when they run low. `None`: one has to be waited for.
    pub(crate) fn take_issued(&self, options: &PutOptions) -> Result<Option<Issued>> {
        let (taken, ask) = self.state.lock().take_issued(options, ISSUE_LOW, now());
        if ask {
            self.issue(options)?;
        }
        Ok(taken)
    }

    /// A reference in advance if one is at hand, for a put that does as well without.
    pub(crate) fn take_ready(&self, options: &PutOptions) -> Result<Option<Issued>> {
        // Whoever puts without answers has not heard yet what was issued, and what failed.
        if !self.tasks {
            self.read_if_idle();
        }
        let (taken, ask) = self.state.lock().take_ready(options, ISSUE_LOW, now());
        if ask {
            self.issue(options)?;
        }
        Ok(taken)
    }

    /// Asks for references in advance, unless somebody has.
    fn issue(&self, options: &PutOptions) -> Result<()> {
        {
            let mut writer = self.writer.lock();
            // Under the lock of who sends: what is said by somebody who sees that it is asked for, goes behind it.
            let Some(request) = self.state.lock().asks(options) else { return Ok(()) };
            Request::Issue { request, count: ISSUE, terms: terms(options) }.write(&mut writer.unsent);
        }
        self.send(&[], &[])
    }

    /// Whether the queue-proxy issued nothing when it was asked last.
    pub(crate) fn is_refused(&self, options: &PutOptions) -> bool {
        self.state.lock().is_refused(options)
    }

    /// Puts without an answer.
    pub(crate) fn put_ahead(
        &self,
        id: PayloadId,
        bytes: Ahead<'_>,
        call_site: &'static Location<'static>,
    ) -> Result<()> {
        let request = {
            let mut state = self.state.lock();
            state.check()?;
            let request = state.next_request();
            state.put_ahead(request, call_site);
            request
        };
        let put = Put::Issued(id);
        let mut frame = Vec::with_capacity(64);
        match bytes {
            Ahead::Inline(bytes) => {
                Request::write_inline_put(request, &put, bytes.len(), &mut frame);
                self.send(&frame, bytes)
            }
            Ahead::Segment(segment, bytes) => {
                let place = self.putting(segment, bytes);
                Request::Put { request, put, bytes: PutBytes::Segment(place) }.write(&mut frame);
                self.send(&frame, &[])
            }
        }
    }

    /// Gets at most [`zipline_protocol::sdk::GET_MAX`] payloads.
    pub(crate) fn get(&self, references: &[Reference], timeout: Duration) -> Result<Waiting> {
        let answers = references.len();
        let references = references.iter().map(Reference::as_str).collect();
        let get = Get { mapped: true, timeout, references };
        self.ask_for(answers, true, |request, out| Request::Get { request, get }.write(out), &[])
    }

    pub(crate) fn release(&self, reference: &Reference) -> Result<Waiting> {
        let reference = reference.as_str();
        self.ask(|request, out| Request::Release { request, reference }.write(out), &[])
    }

    pub(crate) fn settle(&self) -> Result<Waiting> {
        self.ask(|request, out| Request::Settle { request }.write(out), &[])
    }

    pub(crate) fn take_failure(&self) -> Option<Error> {
        self.state.lock().take_failure()
    }

    /// Nobody waits for it any more.
    pub(super) fn given_up(&self, request: u32, cancels: bool) {
        let (slot, open) = {
            let mut state = self.state.lock();
            let slot = state.slots.remove(&request);
            let open = slot.as_ref().is_some_and(Slot::is_open) && state.broken.is_none();
            if open {
                state.unheard(request);
            }
            (slot, open)
        };
        // Payloads in it take the lock when they go.
        drop(slot);
        if cancels && open {
            let mut frame = Vec::with_capacity(16);
            Request::Cancel { request }.write(&mut frame);
            self.say(&frame);
        }
    }

    fn done(&self, handle: u64) {
        let full = {
            let mut state = self.state.lock();
            state.done.push(handle);
            state.broken.is_some()
        };
        if !full {
            self.say(&[]);
        }
    }

    /// Says something that nobody waits for, as far as the socket takes it now; the rest goes with what is sent next.
    fn say(&self, frame: &[u8]) {
        let writer = if frame.is_empty() { self.writer.try_lock() } else { Some(self.writer.lock()) };
        // Whoever sends now, or next, takes along what is done.
        let Some(mut writer) = writer else { return };
        self.add_done(&mut writer.unsent);
        writer.unsent.extend_from_slice(frame);
        match self.socket.send_now(&writer.unsent) {
            Ok(sent) => drop(writer.unsent.drain(..sent)),
            Err(_full_or_broken) => self.wake_sender(),
        }
    }

    fn add_done(&self, out: &mut Vec<u8>) {
        let handles = std::mem::take(&mut self.state.lock().done);
        for handles in handles.chunks(LIST_MAX) {
            Request::Done { handles: handles.to_vec() }.write(out);
        }
    }

    /// Sends a frame whose last bytes are `bytes`, by one call if the socket takes it.
    fn send(&self, frame: &[u8], bytes: &[u8]) -> Result<()> {
        let mut writer = self.writer.lock();
        self.add_done(&mut writer.unsent);
        let first = writer.unsent.len();
        let whole = first + frame.len() + bytes.len();
        let mut sent = 0;
        while sent < whole {
            let parts = [&writer.unsent[..], frame, bytes];
            let mut skip = sent;
            let parts = parts.map(|part| {
                let skipped = skip.min(part.len());
                skip -= skipped;
                IoSlice::new(&part[skipped..])
            });
            match self.socket.send(&parts) {
                Ok(more) => sent += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && self.tasks => break,
                // The queue-proxy takes no more before we take what it said.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.state.lock().check()?;
                    self.read_if_idle();
                }
                Err(error) => {
                    drop(writer);
                    return Err(self.lost(error));
                }
            }
        }
        let rest: Vec<u8> = if sent < whole {
            let all = [&writer.unsent[..], frame, bytes].concat();
            all[sent..].to_vec()
        } else {
            Vec::new()
        };
        writer.unsent = rest;
        if !writer.unsent.is_empty() {
            self.wake_sender();
        }
        Ok(())
    }

    /// Sends what the socket did not take before; `true` if nothing is left.
    pub(super) fn flush(&self) -> bool {
        let mut writer = self.writer.lock();
        self.add_done(&mut writer.unsent);
        while !writer.unsent.is_empty() {
            match self.socket.send_now(&writer.unsent) {
                Ok(sent) => drop(writer.unsent.drain(..sent)),
                Err(_full_or_broken) => return false,
            }
        }
        true
    }

    /// Bytes that the socket did not take.
    #[cfg(feature = "tokio")]
    pub(super) fn unsent_bytes(&self) -> usize {
        self.writer.lock().unsent.len()
    }

    fn wake_sender(&self) {
        #[cfg(feature = "tokio")]
        self.bells.unsent.notify_one();
    }

    /// The connection has ended for this reason.
    pub(super) fn lost(&self, error: io::Error) -> Error {
        let message = "the connection to the queue-proxy broke; what was put stays until its time is over";
        self.broke(ErrorCode::UpstreamFailed, message);
        Error::unreachable(message, error)
    }

    pub(super) fn broke(&self, code: ErrorCode, message: &str) {
        self.state.lock().breaks(code, message);
        self.answered.notify_all();
        self.socket.close();
    }

    /// Hands out every frame that is there as a whole.
    ///
    /// # Errors
    /// What the queue-proxy said makes no sense; the connection is over.
    pub(super) fn dispatch(&self, input: &mut Input) -> Result<()> {
        let mut garbage = Garbage::default();
        let mut state = self.state.lock();
        let mut wrong = None;
        loop {
            // The descriptors are taken by the frames they rode on, in order.
            let mut descriptors = std::mem::take(&mut input.descriptors);
            let frame = match input.next() {
                Ok(Some((head, body))) => Answer::read(head, body),
                Ok(None) => {
                    input.descriptors = descriptors;
                    break;
                }
                Err(error) => Err(error),
            };
            let handed = match frame {
                Ok(answer) => {
                    self.hand_out(&mut state, &mut garbage, answer, &mut || descriptors.pop_front())
                }
                Err(error) => Err(error.to_string()),
            };
            input.descriptors = descriptors;
            if let Err(what) = handed {
                wrong = Some(what);
                break;
            }
        }
        let waits = state.followers > 0;
        let idle = state.segments.is_empty() && state.mappings.is_empty();
        let tended = state.tended || idle;
        state.tended |= !idle;
        drop(state);
        if !tended && !self.tasks {
            tend::start(Weak::clone(&self.this));
        }
        if waits {
            self.answered.notify_all();
        }
        self.clear(garbage);
        match wrong {
            None => Ok(()),
            Some(what) => {
                let message = format!("the queue-proxy broke the protocol of the SDK's socket: {what}");
                self.broke(ErrorCode::UpstreamFailed, &message);
                Err(Error::new(ErrorCode::UpstreamFailed, message))
            }
        }
    }

    fn clear(&self, garbage: Garbage) {
        let Garbage { bytes, mappings, forgotten: (segments, shown), orphans } = garbage;
        drop(bytes);
        drop(mappings);
        if !segments.is_empty() || !shown.is_empty() {
            self.forgot(segments, shown);
        }
        for (request, reference) in orphans {
            let mut frame = Vec::with_capacity(reference.len() + 16);
            Request::Release { request, reference: &reference }.write(&mut frame);
            self.say(&frame);
        }
    }

    fn forgot(&self, segments: Vec<u32>, mappings: Vec<u32>) {
        let mut frame = Vec::new();
        let lists = segments.len().max(mappings.len()).div_ceil(LIST_MAX);
        for list in 0..lists {
            let part = |ids: &[u32]| {
                let from = (list * LIST_MAX).min(ids.len());
                ids[from..(from + LIST_MAX).min(ids.len())].to_vec()
            };
            Request::Forgot { segments: part(&segments), mappings: part(&mappings) }.write(&mut frame);
        }
        self.say(&frame);
    }

    fn hand_out(
        &self,
        state: &mut State,
        garbage: &mut Garbage,
        answer: Answer<'_>,
        descriptor: &mut dyn FnMut() -> Option<std::os::fd::OwnedFd>,
    ) -> std::result::Result<(), String> {
        let missing = || "a frame came without its descriptor".to_owned();
        let (request, reply) = match answer {
            Answer::Welcome(welcome) => {
                let inline = usize::try_from(welcome.inline_max).unwrap_or(usize::MAX);
                self.inline_max.store(inline.min(zipline_protocol::sdk::INLINE_MAX), Ordering::Relaxed);
                state.segments.keep_most = welcome.payload_max / 2;
                (0, Reply::Welcome)
            }
            Answer::Segment { request, segment, capacity } => {
                let wanted = usize::try_from(capacity).map_err(|_| "a segment is too large".to_owned())?;
                let mapping = Mapping::adopt(descriptor().ok_or_else(missing)?, wanted, Access::ReadWrite)
                    .map_err(|error| error.to_string())?;
                let outgoing = state.segments.granted(segment, mapping, Weak::clone(&self.this));
                (request, Reply::Segment(outgoing))
            }
            Answer::PutDone { request, ttl, bounded_by, reference } => {
                state.taken();
                (request, Reply::Put(reference.to_owned(), Life { ttl, bounded_by }))
            }
            Answer::Issued { request, issued } => {
                let references = issued.iter().map(|issued| (issued.payload, Arc::from(issued.reference)));
                state.issued(request, references, now());
                (request, Reply::Issued)
            }
            Answer::Got { request, index, got } => {
                let content_type =
                    got.content_type.and_then(|bytes| std::str::from_utf8(bytes).ok()).map(Arc::from);
                let source = match got.origin {
                    Origin::Own => Source::Own,
                    Origin::Host => Source::Host,
                    Origin::Network => Source::Network,
                };
                let (bytes, handle) = match got.bytes {
                    GotBytes::Inline(bytes) => (Ok(Bytes::copy_from_slice(bytes)), None),
                    // The holder's own memory: nothing else will come to lie in this mapping.
                    GotBytes::Mapping { handle, shown: true, offset, len, .. } if source == Source::Host => {
                        let descriptor = descriptor().ok_or_else(missing)?;
                        let bytes = mappings::alone(descriptor, offset, len);
                        (Err(bytes.map_err(|error| error.to_string())?), Some(handle))
                    }
                    GotBytes::Mapping { handle, mapping, shown, offset, len } => {
                        if shown {
                            let end = usize::try_from(offset.saturating_add(len)).unwrap_or(usize::MAX);
                            let descriptor = descriptor().ok_or_else(missing)?;
                            let shown = state.mappings.show(mapping, descriptor, end, now());
                            shown.map_err(|error| error.to_string())?;
                        }
                        (Err(state.mappings.bytes(mapping, offset, len, now())), Some(handle))
                    }
                    GotBytes::Segment { handle, segment, offset, len } => {
                        (Err(state.segments.bytes(segment, offset, len)), Some(handle))
                    }
                };
                if !state.slots.contains_key(&request) {
                    // Cancelled meanwhile.
                    state.done.extend(handle);
                    return Ok(());
                }
                let bytes = match (bytes, handle) {
                    (Ok(bytes), _) => bytes,
                    (Err(Some(bytes)), Some(handle)) => {
                        let _done = Done { link: self.strong(), handle };
                        Bytes::from_owner(Read { bytes, _done })
                    }
                    (Err(_), _) => return Err("a payload lies outside of the memory it names".to_owned()),
                };
                (request, Reply::Got(index.into(), Payload::new(bytes, content_type, source)))
            }
            Answer::Ok { request } => (request, Reply::Ok),
            Answer::Error { request, index, code, detail } => {
                if state.not_issued(request) {
                    return Ok(());
                }
                (request, Reply::Refused(index.into(), Error::new(code, detail)))
            }
            Answer::Free { segments } => {
                garbage.bytes.extend(segments.into_iter().filter_map(|id| state.segments.freed(id)));
                return Ok(());
            }
            Answer::Drop { segments, mappings } => {
                for id in segments {
                    // The queue-proxy does not look at it any more either.
                    garbage.bytes.extend(state.segments.freed(id));
                    if let Some(mapping) = state.segments.unwanted(id) {
                        garbage.mappings.push(mapping);
                        garbage.forgotten.0.push(id);
                    }
                }
                for id in mappings {
                    garbage.bytes.extend(state.mappings.forget(id));
                    garbage.forgotten.1.push(id);
                }
                return Ok(());
            }
        };
        match state.answer(request, reply) {
            // Its buffer is free for the next put.
            Err(Reply::Segment(outgoing)) => garbage.bytes.push(outgoing.memory.freeze()),
            // Its put was given up, so nobody can name it.
            Err(Reply::Put(reference, _)) => {
                let release = state.next_request();
                state.unheard(release);
                garbage.orphans.push((release, reference));
            }
            Err(Reply::Refused(_, error)) => state.failed(request, error),
            Ok(()) | Err(_) => {}
        }
        Ok(())
    }

    /// Nobody in this process has the segment any more.
    pub(super) fn segment_returned(&self, id: u32, mapping: Mapping) {
        let forgotten = self.state.lock().segments.returned(id, mapping, now());
        if forgotten.is_some() {
            drop(forgotten);
            self.forgot(vec![id], Vec::new());
        }
    }

    /// Gives back what was idle for long. `false`: there is nothing left to look after.
    pub(super) fn tend(&self) -> bool {
        let mut garbage = Garbage::default();
        let mut state = self.state.lock();
        if state.broken.is_some() {
            return false;
        }
        if let Some(before) = now().checked_sub(IDLE) {
            for id in state.segments.idle(before) {
                garbage.mappings.extend(state.segments.unwanted(id));
                garbage.forgotten.0.push(id);
            }
            for id in state.mappings.idle(before) {
                garbage.bytes.extend(state.mappings.forget(id));
                garbage.forgotten.1.push(id);
            }
        }
        let left = !state.segments.is_empty() || !state.mappings.is_empty() || !state.done.is_empty();
        state.tended = left;
        drop(state);
        self.clear(garbage);
        self.flush();
        left
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.socket.close();
    }
}

/// Bytes of a put that is not answered.
pub(crate) enum Ahead<'a> {
    Inline(&'a [u8]),
    Segment(u32, SegmentBytes),
}

fn terms(options: &PutOptions) -> Terms<'_> {
    Terms {
        retrievals: options.retrievals,
        ttl: options.ttl,
        linger: options.linger,
        wait: options.wait,
        content_type: options.content_type.as_deref().map(str::as_bytes),
    }
}
