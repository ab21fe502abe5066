//! The receiver's side: retrieves a payload from its holder.

mod body;
mod connect;
mod exchange;
mod fetch;
mod filling;
mod grant;
mod intake;
mod moving;
mod pool;
mod retrieval;
mod room;
mod settling;
mod wire;

pub use body::{Outcome, RetrievalBody, RetrievalOutcome};
pub use fetch::Fetched;
pub use retrieval::Retrieval;

use crate::Copies;
use crate::error::{RetrieveError, RetrieveErrorKind as Kind};
use exchange::Holder;
use grant::{GrantError, Granted, ask};
use pool::Pool;
use settling::give_back;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};
use zipline_protocol::relay::CopyPlace;
use zipline_protocol::{Record, limits};
use zipline_runtime::Tasks;
use zipline_seal::Keyring;

/// Pause before another connection is tried, times the connections that failed in a row before the last one.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Settings of a retriever. The defaults are the protocol's numbers.
#[derive(Debug, Clone)]
pub struct RetrieverConfig {
    /// Longest time to connect to one address.
    pub connect_timeout: Duration,
    /// The second address is tried this long after the first, or at once when the first fails.
    pub connect_stagger: Duration,
    /// Longest silence of a holder while bytes are waited for, reconnecting included.
    pub progress_timeout: Duration,
    /// Connections in a row that may break having brought less than 64 KiB each.
    pub attempts: u32,
    /// Longest time to be granted a copy by a relay, connecting included; then the holder is asked.
    pub relay_wait: Duration,
    /// Tries of one acknowledgement.
    pub acknowledge_attempts: u32,
    /// Payloads up to this length are hashed on arrival, so that a digest in their final record can be verified. A digest
    /// that the reference itself names is verified whatever the length.
    pub digest_max_bytes: u64,
    /// A fetched payload of so many bytes or more comes in two parts at once.
    pub parts_min_bytes: usize,
    /// Threads that move bytes of large payloads into memory; while all are busy, the reactor does it.
    pub movers: usize,
    /// Idle connections kept per address; further ones are closed.
    pub max_idle_per_address: usize,
    /// Idle connections kept in all; further ones are closed.
    pub max_idle: usize,
    /// An idle connection is closed after this time.
    pub idle_timeout: Duration,
    /// Size of the buffers that answers are read into.
    pub buffer_bytes: usize,
    /// Buffers kept for the next answers; further ones are freed when they were read out. None is kept that was not used for
    /// half a minute.
    pub max_warm_buffers: usize,
}

impl Default for RetrieverConfig {
    fn default() -> Self {
        Self {
            connect_timeout: limits::CONNECT_TIMEOUT,
            connect_stagger: limits::CONNECT_STAGGER,
            progress_timeout: limits::PROGRESS_TIMEOUT,
            attempts: limits::RETRIEVE_ATTEMPTS,
            relay_wait: limits::RELAY_WAIT,
            acknowledge_attempts: limits::ACKNOWLEDGE_ATTEMPTS,
            digest_max_bytes: limits::DIGEST_MAX,
            parts_min_bytes: 1 << 20,
            movers: 4,
            max_idle_per_address: 32,
            max_idle: 1024,
            idle_timeout: Duration::from_secs(60),
            buffer_bytes: 1 << 20,
            max_warm_buffers: 8,
        }
    }
}

impl RetrieverConfig {
    /// Silence after which a sign of life is asked for; the rest of `progress_timeout` is left for the answer.
    fn ask_after(&self) -> Duration {
        self.progress_timeout * 2 / 3
    }
}

/// Which part of a payload to retrieve. The default is all of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RetrieveOptions {
    /// First byte.
    pub from: u64,
    /// Byte after the last one; `None`, or beyond the end: to the end.
    pub to: Option<u64>,
}

/// Retrieves payloads. Clones share keys and pooled connections.
#[derive(Debug, Clone)]
pub struct Retriever {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    keyring: Keyring,
    tasks: Tasks,
    config: RetrieverConfig,
    /// Shared with the task that closes what is idle for too long, and everything when its owner stops.
    pool: Arc<Pool>,
    /// Threads that may move bytes.
    movers: Arc<Semaphore>,
    /// Where what is fetched for many is copied, if it is.
    copies: OnceLock<Copies>,
}

impl Retriever {
    /// A retriever that proves with `keyring` and runs its acknowledgements and cancellations as tasks of `tasks`. Idle
    /// connections are closed when those are asked to stop.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn new(keyring: Keyring, tasks: Tasks, config: RetrieverConfig) -> Self {
        let pool = Arc::new(Pool::new(&config));
        let (stop, idle) = (tasks.token(), Arc::clone(&pool));
        drop(tasks.spawn("idle retrieval connections", async move {
            tokio::select! {
                () = stop.cancelled() => idle.close(),
                () = idle.run_expiry() => {}
            }
        }));
        let movers = Arc::new(Semaphore::new(config.movers));
        Self { shared: Arc::new(Shared { keyring, tasks, config, pool, movers, copies: OnceLock::new() }) }
    }

    /// Makes copies of what is fetched for many, and retrieves from others who do, where the holder says so. The first ones given
    /// stay, also for clones.
    #[must_use]
    pub fn with_copies(self, copies: Copies) -> Self {
        // Second ones change nothing, as documented.
        let _ = self.shared.copies.set(copies);
        self
    }

    /// Connects to the holder that `record` names and is granted a lease. The bytes follow from the [`Retrieval`].
    ///
    /// Takes as long as connecting may take, and, when all retrievals of the payload are taken by others, up to
    /// `LEASE_LAPSE` for one of them to end. A holder that sends much else lets it wait up to `SEND_WAIT`; of a put it is then
    /// asked `RETRIEVE_ATTEMPTS` times in all. A holder that is silent for `PROGRESS_TIMEOUT` is given up.
    ///
    /// # Errors
    /// [`RetrieveError`]: no key, no connection, no proof, refused, or silent. Not a byte has arrived then.
    /// # Cancel safety
    /// Dropping the future closes the connection and gives back a lease that may have been granted meanwhile.
    pub async fn start(&self, record: &Record, options: RetrieveOptions) -> Result<Retrieval, RetrieveError> {
        let holder = Arc::new(Holder::of(record, zipline_seal::new_lease_id()));
        let Granted::Bytes(answer) = self.grant_first(&holder, options, None).await? else {
            return Err(Kind::Malformed { part: "a relay that nobody asked for" }.into());
        };
        Retrieval::new(Arc::clone(&self.shared), Arc::clone(&holder), record, options, *answer)
    }

    /// Takes the lease. One that may have been granted without our knowing is given back.
    async fn grant_first(
        &self,
        holder: &Arc<Holder>,
        options: RetrieveOptions,
        offer: Option<&CopyPlace>,
    ) -> Result<Granted, RetrieveError> {
        let mut unsettled = Unsettled { shared: &self.shared, holder, granted: true };
        let answer = self.first_grant(holder, options, offer).await.inspect_err(|error| {
            unsettled.granted = error.may_hold_a_lease();
        })?;
        unsettled.granted = false;
        Ok(answer)
    }

    /// Takes the lease, with as many connections as may break in a row. A holder that is busy is asked again as often, unless the
    /// payload is an invocation's: that can be sent inline.
    async fn first_grant(
        &self,
        holder: &Holder,
        options: RetrieveOptions,
        offer: Option<&CopyPlace>,
    ) -> Result<Granted, RetrieveError> {
        let config = &self.shared.config;
        let (mut broken, mut busy, mut deadline) = (0, 0, None);
        loop {
            match ask(&self.shared, holder, options.from, options.to, deadline, offer).await {
                Ok(granted) => return Ok(granted),
                Err(GrantError::Final(error))
                    if error.is_busy() && holder.may_wait && busy + 1 < config.attempts =>
                {
                    busy += 1;
                    (broken, deadline) = (0, None);
                    sleep(RETRY_PAUSE * busy).await;
                }
                Err(GrantError::Broken(error)) => {
                    broken += 1;
                    if broken >= config.attempts {
                        return Err(RetrieveError::new(Kind::Broken { attempts: broken }).with_source(error));
                    }
                    deadline.get_or_insert(Instant::now() + config.progress_timeout);
                    sleep(RETRY_PAUSE * (broken - 1)).await;
                }
                Err(GrantError::Unreachable(error) | GrantError::Final(error)) => return Err(error),
            }
        }
    }

    /// Idle connections now.
    #[must_use]
    pub fn idle_connections(&self) -> usize {
        self.shared.pool.idle()
    }
}

/// Gives a lease back that may have been granted without our knowing.
struct Unsettled<'a> {
    shared: &'a Arc<Shared>,
    holder: &'a Arc<Holder>,
    granted: bool,
}

impl Drop for Unsettled<'_> {
    fn drop(&mut self) {
        if self.granted {
            give_back(self.shared, self.holder);
        }
    }
}
