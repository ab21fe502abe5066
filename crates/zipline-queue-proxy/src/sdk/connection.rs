//! One SDK connection.
//!
//! | state | event | next |
//! |---|---|---|
//! | – | preface, HELLO of this version with the right token | open |
//! | – | anything else, or silence | closed |
//! | open | a request | open: it runs, or is answered at once |
//! | open | a request ends | open: answered, unless it was cancelled |
//! | open | too many requests run, or the client takes no answers | open, and not read until that changes |
//! | open | the client is gone or breaks the protocol, or this process ends | closed: all is given back |

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use zipline_buffer::Permit;
use zipline_protocol::limits::PUT_WAIT_MAX;
use zipline_protocol::sdk::{
    Answer, FrameHead, Get, Got, GotBytes, HANDLES_MAX, INLINE_MAX, LIST_MAX, OUTSTANDING_MAX, PREFACE, Put,
    PutBytes, Request, VERSION, Welcome,
};
use zipline_protocol::{ErrorCode, PayloadId};
use zipline_seal::new_payload_id;
use zipline_segment::{Access, SegmentBytes};

use super::get::{self, Gotten, GottenBytes, Memory};
use super::issue::{Issued, Terms};
use super::memory::{self, Closing, Gone, Granted, Incoming, Returns, WARM_IDLE};
use super::put::{self, Putting, Taken};
use super::segments::{Returned, Segments};
use super::wire::{End, Wire};
use crate::api::Refusal;
use crate::api::reference::open_text;
use crate::api::release::release_record;
use crate::state::Shared;

/// Inline payloads that wait for memory: beyond it the connection is not read.
const WAITING_BYTES_MAX: usize = 1024 * 1024;

/// What became of a request that ran.
enum Outcome {
    Put {
        sequence: u64,
        request: u32,
        issued: Option<PayloadId>,
        waited: usize,
        result: Result<Taken, Refusal>,
    },
    /// `None`: cancelled.
    Got {
        request: u32,
        index: u8,
        result: Option<Result<Box<Gotten>, Refusal>>,
    },
    Granted {
        request: u32,
        result: Result<Granted, Refusal>,
    },
    Released {
        request: u32,
        result: Result<(), Refusal>,
    },
}

pub(super) struct Connection {
    shared: Arc<Shared>,
    wire: Wire,
    running: FuturesUnordered<BoxFuture<'static, Outcome>>,
    /// Gets that can be cancelled, and how many of their references are not answered yet.
    gets: HashMap<u32, (CancellationToken, usize)>,
    issued: Issued,
    /// Puts that run, by their order.
    puts: BTreeSet<u64>,
    next_put: u64,
    /// Who wants to be told once all puts before this one have ended: as many as may be outstanding. None of them keeps a put from
    /// ending, so a connection that is not read because of them will be.
    settles: VecDeque<(u64, u32)>,
    waiting_bytes: usize,
    segments: Segments,
    granting: usize,
    returns: Arc<Returns>,
    incoming: Closing,
    /// What the function may look at, by its handle. Dropped after `incoming`, so that none of it is used again.
    handles: HashMap<u64, SegmentBytes>,
    next_handle: u64,
    /// Mappings whose descriptor the client has, and what it calls them.
    shown: HashMap<u64, u32>,
    next_shown: u32,
    /// Shares of the budget of memory that was given up and that the client has not forgotten yet, by what it calls it.
    dropped: HashMap<u32, Permit>,
}

impl Connection {
    /// Hears preface and hello. `None`: it is none of ours, and was told so if that could help.
    pub(super) async fn open(stream: UnixStream, shared: Arc<Shared>) -> Option<Self> {
        let wire = Wire::new(stream)
            .inspect_err(|error| tracing::warn!(%error, "an SDK's socket cannot be watched"));
        let mut wire = wire.ok()?;
        let opened = Self::hello(&mut wire, &shared).await;
        if let Err(end) = &opened {
            tracing::debug!(error = %end, "an SDK was not let in");
        }
        // What was said last is wanted, even if it ends here.
        let flushed = wire.flush();
        let (Ok(()), Ok(())) = (opened, flushed) else { return None };
        let issued = Issued::new(&shared);
        let segments = Segments::new(shared.config.reuse_shared);
        Some(Self {
            returns: segments.returns(),
            segments,
            granting: 0,
            incoming: Closing(Incoming::new(shared.in_flight.clone(), shared.copies.clone())),
            handles: HashMap::new(),
            next_handle: 0,
            shown: HashMap::new(),
            next_shown: 0,
            dropped: HashMap::new(),
            shared,
            wire,
            running: FuturesUnordered::new(),
            gets: HashMap::new(),
            issued,
            puts: BTreeSet::new(),
            next_put: 0,
            settles: VecDeque::new(),
            waiting_bytes: 0,
        })
    }

    async fn hello(wire: &mut Wire, shared: &Shared) -> Result<(), End> {
        let mut begun = false;
        loop {
            if !begun {
                match wire.starts_with(PREFACE) {
                    Some(true) => begun = true,
                    Some(false) => return Err(End::Rule("another preface")),
                    None => {}
                }
            }
            let frame = if begun { wire.next_frame()? } else { None };
            let Some((head, body)) = frame else {
                wire.wait(true).await?;
                wire.read()?;
                continue;
            };
            let Request::Hello { version, token } = Request::read(head, &body)? else {
                return Err(End::Rule("something else than hello came first"));
            };
            let refusal = if version != VERSION {
                let detail =
                    format!("this queue-proxy speaks version {VERSION} of the SDK's socket, not {version}");
                Refusal::new(ErrorCode::RequestInvalid, detail)
            } else if !shared.config.token.matches(token) {
                let detail = "hello must hold the value of the variable ZIPLINE_TOKEN";
                Refusal::new(ErrorCode::TokenMissing, detail)
            } else {
                wire.say(&Answer::Welcome(Welcome {
                    version: VERSION,
                    boot: shared.boot,
                    tenant: shared.keyring.tenant(),
                    inline_max: u32::try_from(INLINE_MAX).unwrap_or(u32::MAX),
                    payload_max: shared.config.budget_bytes,
                }));
                return Ok(());
            };
            shared.metrics.error(refusal.code());
            wire.say(&error(0, 0, &refusal));
            return Err(End::Rule("hello was refused"));
        }
    }

    /// Serves it until it ends or `token` is cancelled.
    pub(super) async fn run(mut self, token: CancellationToken) {
        let ended = tokio::select! {
            ended = self.serve() => ended,
            () = token.cancelled() => return,
        };
        match ended {
            Err(End::Closed) | Ok(()) => {}
            Err(end) => tracing::debug!(error = &end as &dyn std::error::Error, "an SDK connection ended"),
        }
    }

    async fn serve(&mut self) -> Result<(), End> {
        let returns = Arc::clone(&self.returns);
        let mut cooling = interval(WARM_IDLE / 2);
        cooling.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            while self.may_read()
                && let Some((head, body)) = self.wire.next_frame()?
            {
                self.accept(head, &body)?;
            }
            // All that is ready now is answered by one write.
            while let Some(Some(outcome)) = self.running.next().now_or_never() {
                self.end(outcome);
            }
            let Returned { free, dropped } = self.segments.returned();
            for segments in free.chunks(LIST_MAX) {
                self.wire.say(&Answer::Free { segments: segments.to_vec() });
            }
            for segments in dropped.chunks(LIST_MAX) {
                self.wire.say(&Answer::Drop { segments: segments.to_vec(), mappings: Vec::new() });
            }
            self.give_up();
            self.wire.flush()?;
            let reads = self.may_read();
            tokio::select! {
                biased;
                Some(outcome) = self.running.next() => self.end(outcome),
                readable = self.wire.wait(reads) => {
                    if readable? {
                        self.wire.read()?;
                    }
                }
                () = returns.some() => {}
                () = self.incoming.0.some_gone() => {}
                _ = cooling.tick() => self.incoming.0.cool(),
            }
        }
    }

    /// Has the client unmap what was given up; until it has, the pages are there, and count.
    fn give_up(&mut self) {
        let mut mappings = Vec::new();
        for Gone { mapping, share } in self.incoming.0.gone() {
            if let Some(shown) = self.shown.remove(&mapping) {
                self.dropped.insert(shown, share);
                mappings.push(shown);
            }
        }
        for mappings in mappings.chunks(LIST_MAX) {
            self.wire.say(&Answer::Drop { segments: Vec::new(), mappings: mappings.to_vec() });
        }
    }

    /// Requests that wait for others count like those that run: all that is not answered is bounded.
    fn may_read(&self) -> bool {
        let outstanding = self.running.len() + self.settles.len();
        self.wire.may_read() && outstanding < OUTSTANDING_MAX && self.waiting_bytes < WAITING_BYTES_MAX
    }

    fn accept(&mut self, head: FrameHead, body: &Bytes) -> Result<(), End> {
        match Request::read(head, body)? {
            Request::Hello { .. } => return Err(End::Rule("a second hello")),
            Request::Put { request, put, bytes } => {
                if let Err(refusal) = self.put(request, &put, bytes, body) {
                    self.refuse(request, 0, &refusal);
                    // The client believes it put.
                    if let PutBytes::Segment(place) = bytes
                        && self.segments.is_owned(place.segment)
                    {
                        self.wire.say(&Answer::Free { segments: vec![place.segment] });
                    }
                }
            }
            Request::Issue { request, count, terms } => {
                let shared = Arc::clone(&self.shared);
                let issued =
                    Terms::check(&shared, &terms).and_then(|terms| self.issued.issue(&shared, &terms, count));
                match issued {
                    Ok(issued) => {
                        let issued = issued.iter().map(|(payload, reference)| {
                            zipline_protocol::sdk::Issued { payload: *payload, reference: reference.as_str() }
                        });
                        self.wire.say(&Answer::Issued { request, issued: issued.collect() });
                    }
                    Err(refusal) => self.refuse(request, 0, &refusal),
                }
            }
            Request::Get { request, get } => self.get(request, &get)?,
            Request::Release { request, reference } => {
                let (shared, reference) = (Arc::clone(&self.shared), reference.to_owned());
                self.running.push(Box::pin(async move {
                    let released = async {
                        let record = open_text(&shared, &reference).await?;
                        release_record(&shared, &record).await
                    };
                    Outcome::Released { request, result: released.await }
                }));
            }
            Request::Settle { request } if self.puts.is_empty() => self.wire.say(&Answer::Ok { request }),
            Request::Settle { request } => self.settles.push_back((self.next_put, request)),
            Request::Cancel { request } => {
                if let Some((token, _)) = self.gets.remove(&request) {
                    token.cancel();
                }
            }
            Request::Grant { request, bytes, wait } => match self.segments.room(self.granting) {
                Ok(()) => self.grant(request, bytes, wait),
                Err(refusal) => self.refuse(request, 0, &refusal),
            },
            Request::Done { handles } => {
                for handle in handles {
                    if self.handles.remove(&handle).is_none() {
                        return Err(End::Rule("done with a handle that was not given"));
                    }
                }
            }
            Request::Forgot { segments, mappings } => {
                segments.into_iter().for_each(|id| self.segments.forgotten(id));
                self.shown.retain(|_, id| !mappings.contains(id));
                self.dropped.retain(|id, _| !mappings.contains(id));
            }
        }
        Ok(())
    }

    fn put(
        &mut self,
        request: u32,
        put: &Put<'_>,
        bytes: PutBytes<'_>,
        frame: &Bytes,
    ) -> Result<(), Refusal> {
        let (id, issued, terms) = match put {
            Put::Answered(terms) => (new_payload_id(), None, Terms::check(&self.shared, terms)?),
            Put::Issued(id) => match self.issued.take(id) {
                Some(terms) => (*id, Some(*id), terms),
                None => {
                    let detail = "this payload id was not issued to this connection, or was put before";
                    return Err(Refusal::invalid(detail));
                }
            },
        };
        let putting = Putting { id, issued: issued.is_some(), terms };
        let bytes = match bytes {
            PutBytes::Inline(bytes) => frame.slice_ref(bytes),
            PutBytes::Segment(place) => {
                // Its memory is there, so it is taken at once.
                let taken =
                    self.segments.put(place).and_then(|bytes| put::segment(&self.shared, putting, bytes));
                self.put_ended(request, issued, taken);
                return Ok(());
            }
        };
        let waited = bytes.len();
        self.waiting_bytes += waited;
        let sequence = self.next_put;
        self.next_put += 1;
        self.puts.insert(sequence);
        let putting = put::inline(Arc::clone(&self.shared), putting, bytes);
        self.running.push(Box::pin(async move {
            Outcome::Put { sequence, request, issued, waited, result: putting.await }
        }));
        Ok(())
    }

    fn put_ended(&mut self, request: u32, issued: Option<PayloadId>, result: Result<Taken, Refusal>) {
        if let Some(id) = issued {
            self.issued.settled(&id);
        }
        match result {
            Ok(Taken { ttl, bounded_by, reference: Some(reference) }) => {
                let reference = reference.as_str();
                self.wire.say(&Answer::PutDone { request, ttl, bounded_by, reference });
            }
            Ok(Taken { reference: None, .. }) => {}
            Err(refusal) => self.refuse(request, 0, &refusal),
        }
    }

    fn get(&mut self, request: u32, get: &Get<'_>) -> Result<(), End> {
        if get.references.is_empty() {
            return Err(End::Rule("a get of nothing"));
        }
        let token = CancellationToken::new();
        if self.gets.insert(request, (token.clone(), get.references.len())).is_some() {
            return Err(End::Rule("two gets of one number"));
        }
        let deadline = Instant::now() + get.timeout;
        for (index, reference) in (0_u8..).zip(&get.references) {
            let memory = Memory { incoming: self.incoming.0.clone(), outgoing: self.segments.mappings() };
            let getting =
                get::get(Arc::clone(&self.shared), memory, (*reference).to_owned(), get.mapped, deadline);
            let token = token.clone();
            self.running.push(Box::pin(async move {
                let result = token.run_until_cancelled_owned(Box::pin(getting)).await;
                Outcome::Got { request, index, result: result.map(|got| got.map(Box::new)) }
            }));
        }
        Ok(())
    }

    /// Answers a request that ran.
    fn end(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Put { sequence, request, issued, waited, result } => {
                self.waiting_bytes -= waited;
                self.put_ended(request, issued, result);
                self.puts.remove(&sequence);
                let open = self.puts.first().copied().unwrap_or(u64::MAX);
                while let Some((_, request)) = self.settles.pop_front_if(|(after, _)| *after <= open) {
                    self.wire.say(&Answer::Ok { request });
                }
            }
            Outcome::Got { request, index, result } => {
                if let Some((_, left)) = self.gets.get_mut(&request) {
                    *left -= 1;
                    if *left == 0 {
                        self.gets.remove(&request);
                    }
                }
                match result {
                    None => {}
                    Some(Ok(gotten)) => self.got(request, index, *gotten),
                    Some(Err(refusal)) => self.refuse(request, index, &refusal),
                }
            }
            Outcome::Granted { request, result } => {
                self.granting -= 1;
                match result {
                    Ok(charged) => self.granted(request, charged),
                    Err(refusal) => self.refuse(request, 0, &refusal),
                }
            }
            Outcome::Released { request, result: Ok(()) } => self.wire.say(&Answer::Ok { request }),
            Outcome::Released { request, result: Err(refusal) } => self.refuse(request, 0, &refusal),
        }
    }

    fn got(&mut self, request: u32, index: u8, gotten: Gotten) {
        match self.show(request, index, &gotten) {
            Ok(()) => gotten.delivered(),
            Err(refusal) => self.refuse(request, index, &refusal),
        }
    }

    fn show(&mut self, request: u32, index: u8, gotten: &Gotten) -> Result<(), Refusal> {
        let (origin, content_type) = (gotten.origin, gotten.content_type.as_deref());
        let answer = |bytes| Answer::Got { request, index, got: Got { origin, content_type, bytes } };
        let memory = match &gotten.bytes {
            GottenBytes::Inline(bytes) => {
                self.wire.say(&answer(GotBytes::Inline(bytes)));
                return Ok(());
            }
            GottenBytes::Memory(memory) => memory,
        };
        if self.handles.len() >= HANDLES_MAX {
            let detail =
                format!("the function keeps {HANDLES_MAX} payloads already: drop those it no longer reads");
            return Err(Refusal::new(ErrorCode::BufferFull, detail));
        }
        let (handle, len) = (self.next_handle, memory.len() as u64);
        let place = memory.place();
        let (id, offset) = (place.mapping.id(), place.offset);
        if let Some(segment) = self.segments.holding(memory) {
            self.wire.say(&answer(GotBytes::Segment { handle, segment, offset, len }));
        } else if let Some(mapping) = self.shown.get(&id).copied() {
            self.wire.say(&answer(GotBytes::Mapping { handle, mapping, shown: false, offset, len }));
        } else {
            let descriptor = memory::shown(place.mapping).map_err(|error| {
                Refusal::new(ErrorCode::BufferFull, format_args!("no descriptor can be passed: {error}"))
            })?;
            let mapping = self.next_shown;
            self.next_shown = self.next_shown.wrapping_add(1);
            // A holder's memory is mapped for each get anew: this mapping never has another payload in it.
            if place.mapping.access() == Access::ReadWrite {
                self.shown.insert(id, mapping);
            }
            let answer = answer(GotBytes::Mapping { handle, mapping, shown: true, offset, len });
            self.wire.say_with(&answer, Some(descriptor));
        }
        self.next_handle += 1;
        self.handles.insert(handle, memory.clone());
        Ok(())
    }

    fn grant(&mut self, request: u32, bytes: u64, wait: Duration) {
        let (store, wait) = (self.shared.store.clone(), wait.min(PUT_WAIT_MAX));
        self.granting += 1;
        self.running.push(Box::pin(async move {
            let result = memory::grant(&store, bytes, wait).await;
            Outcome::Granted { request, result }
        }));
    }

    fn granted(&mut self, request: u32, charged: Granted) {
        use std::os::fd::AsFd as _;
        let capacity = charged.mapping.capacity() as u64;
        match charged.mapping.as_fd().try_clone_to_owned() {
            Ok(descriptor) => {
                let segment = self.segments.add(charged);
                self.wire.say_with(&Answer::Segment { request, segment, capacity }, Some(descriptor));
            }
            Err(error) => {
                let detail = format!("no descriptor can be passed: {error}");
                self.refuse(request, 0, &Refusal::new(ErrorCode::BufferFull, detail));
            }
        }
    }

    fn refuse(&mut self, request: u32, index: u8, refusal: &Refusal) {
        self.shared.metrics.error(refusal.code());
        self.wire.say(&error(request, index, refusal));
    }
}

fn error(request: u32, index: u8, refusal: &Refusal) -> Answer<'_> {
    Answer::Error { request, index, code: refusal.code(), detail: refusal.detail() }
}
