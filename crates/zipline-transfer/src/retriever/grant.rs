//! Asking for a lease until it is granted, refused, or the holder is silent for too long.

use super::Shared;
use super::exchange::{Answer, ExchangeError, Holder, checkout, send, tell};
use crate::error::{RetrieveError, RetrieveErrorKind as Kind};
use std::io;
use std::pin::pin;
use tokio::time::{Instant, sleep_until, timeout_at};
use zipline_protocol::data::Operation;
use zipline_protocol::limits;
use zipline_protocol::relay::CopyPlace;

/// A lease that was granted.
#[derive(Debug)]
pub(super) enum Granted {
    /// Its bytes follow.
    Bytes(Box<Answer>),
    /// They are to be had from a relay; `None`: from the holder, if it is asked again.
    Relay(Option<Box<CopyPlace>>),
}

/// Why a lease was not granted.
#[derive(Debug, thiserror::Error)]
pub(super) enum GrantError {
    /// The connection broke; another one may do better.
    #[error("the connection broke")]
    Broken(#[source] io::Error),
    /// The holder could not be connected.
    #[error(transparent)]
    Unreachable(RetrieveError),
    /// Silent, refused, unproven.
    #[error(transparent)]
    Final(RetrieveError),
}

impl GrantError {
    /// Whether the lease may have been granted all the same.
    pub(super) fn may_hold_a_lease(&self) -> bool {
        match self {
            Self::Broken(_) => true,
            Self::Unreachable(error) | Self::Final(error) => error.may_hold_a_lease(),
        }
    }
}

/// Nothing was offered, so nothing is named.
const UNASKED: Kind = Kind::Malformed { part: "a relay that nobody asked for" };

impl From<ExchangeError> for GrantError {
    fn from(error: ExchangeError) -> Self {
        match error {
            ExchangeError::Broken(error) => Self::Broken(error),
            ExchangeError::Relayed(_) => Self::Final(UNASKED.into()),
            ExchangeError::Final(error) if matches!(error.kind(), Kind::Connect { .. }) => {
                Self::Unreachable(error)
            }
            ExchangeError::Final(error) => Self::Final(error),
        }
    }
}

/// As [`ask`], without an offer, so that the bytes follow.
pub(super) async fn grant(
    shared: &Shared,
    holder: &Holder,
    from: u64,
    to: Option<u64>,
    deadline: Option<Instant>,
) -> Result<Answer, GrantError> {
    match ask(shared, holder, from, to, deadline, None).await? {
        Granted::Bytes(answer) => Ok(*answer),
        Granted::Relay(_) => Err(GrantError::Final(UNASKED.into())),
    }
}

/// Takes or resumes the lease from byte `from`; with `offer`, whoever has it would serve a copy there, and may be sent to a relay.
/// `deadline` bounds a resumption, connecting included; without one, connecting
/// has its own bound and the answer `PROGRESS_TIMEOUT`.
///
/// A holder that lets us wait for another lease to end is silent as well. So after a while it is asked over another
/// connection whether it has our lease. If it has, its answer was lost on the way, and the lease is resumed there. If it
/// has not, it lives all the same, and as long as it does, it has up to `SEND_WAIT` and `LEASE_LAPSE`.
pub(super) async fn ask(
    shared: &Shared,
    holder: &Holder,
    from: u64,
    to: Option<u64>,
    deadline: Option<Instant>,
    offer: Option<&CopyPlace>,
) -> Result<Granted, GrantError> {
    let silent = || GrantError::Final(Kind::Stalled { after: shared.config.progress_timeout }.into());
    let mut fresh = false;
    let mut lost_answers = 0;
    'ask: loop {
        let checkout = checkout(shared, holder, fresh);
        let (connection, used) = match deadline {
            Some(deadline) => timeout_at(deadline, checkout).await.map_err(|_elapsed| silent())??,
            None => checkout.await?,
        };
        let sent = Instant::now();
        let give_up = sent + limits::SEND_WAIT + limits::LEASE_LAPSE + shared.config.progress_timeout;
        let mut deadline = deadline.unwrap_or(sent + shared.config.progress_timeout);
        let mut ask = (sent + shared.config.ask_after()).min(deadline);
        let mut asked = pin!(send(shared, holder, Operation::Retrieve, (from, to), offer, connection));
        let answer = loop {
            tokio::select! {
                answer = &mut asked => break Some(answer),
                () = sleep_until(ask) => {}
            }
            if Instant::now() >= deadline.min(give_up) {
                break None;
            }
            tokio::select! {
                answer = &mut asked => break Some(answer),
                sign = timeout_at(deadline, sign_of_life(shared, holder)) => match sign {
                    Ok(Sign::Granted) if lost_answers < shared.config.attempts => {
                        lost_answers += 1;
                        fresh = true;
                        continue 'ask;
                    }
                    Ok(Sign::Lives | Sign::Granted) => {
                        deadline = Instant::now() + shared.config.progress_timeout;
                        ask = Instant::now() + shared.config.ask_after();
                    }
                    // No sign: what is left of the time is for the answer itself.
                    Ok(Sign::None) | Err(_) => ask = deadline,
                },
            }
        };
        match answer {
            Some(Ok(answer)) => return Ok(Granted::Bytes(Box::new(answer))),
            Some(Err(ExchangeError::Relayed(place))) => return Ok(Granted::Relay(place)),
            // A holder may close an idle connection just when it is used again.
            Some(Err(ExchangeError::Broken(_))) if used => fresh = true,
            Some(Err(error)) => return Err(error.into()),
            None => return Err(silent()),
        }
    }
}

/// Asks for a part of a lease that runs. When it does not, the range is taken by a retrieve.
pub(super) async fn grant_part(
    shared: &Shared,
    holder: &Holder,
    (from, to): (u64, u64),
    deadline: Instant,
) -> Result<Answer, GrantError> {
    let silent = || GrantError::Final(Kind::Stalled { after: shared.config.progress_timeout }.into());
    let mut fresh = false;
    loop {
        let asking = async {
            let (connection, used) = checkout(shared, holder, fresh).await?;
            let sent = send(shared, holder, Operation::Part, (from, Some(to)), None, connection).await;
            Ok::<_, ExchangeError>((sent, used))
        };
        let (sent, used) = timeout_at(deadline, asking).await.map_err(|_elapsed| silent())??;
        match sent {
            Ok(answer) => return Ok(answer),
            // A holder may close an idle connection just when it is used again.
            Err(ExchangeError::Broken(_)) if used => fresh = true,
            Err(ExchangeError::Final(error)) if matches!(error.kind(), Kind::Refused { status: 404, .. }) => {
                return grant(shared, holder, from, Some(to), Some(deadline)).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// What a holder says of a lease that was asked for.
enum Sign {
    /// It has granted it.
    Granted,
    /// It has not, and answers with proof.
    Lives,
    /// It does not answer, or without proof.
    None,
}

async fn sign_of_life(shared: &Shared, holder: &Holder) -> Sign {
    match tell(shared, holder, Operation::Alive, 0).await {
        Ok(()) => Sign::Granted,
        Err(ExchangeError::Final(error)) if matches!(error.kind(), Kind::Refused { .. }) => Sign::Lives,
        Err(_) => Sign::None,
    }
}
