//! tokio's oneshot channel.
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot as real;
use tokio::sync::oneshot::error::{RecvError, TryRecvError};

use super::{Seen, Steps};

/// The receiving end is polled in place.
#[derive(Debug)]
pub(crate) struct Receiver<T>(Seen<real::Receiver<T>>);

#[derive(Debug)]
pub(crate) struct Sender<T>(Seen<Option<real::Sender<T>>>);

pub(crate) fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = real::channel();
    let steps = Steps::default();
    let sender = Sender(Seen { inner: Some(sender), steps: steps.clone() });
    (sender, Receiver(Seen { inner: receiver, steps }))
}

impl<T> Sender<T> {
    pub(crate) fn send(mut self, value: T) -> Result<(), T> {
        self.0.steps.step();
        match self.0.inner.take() {
            Some(sender) => sender.send(value),
            None => Err(value),
        }
    }
}

impl<T> Receiver<T> {
    pub(crate) fn try_recv(&mut self) -> Result<T, TryRecvError> {
        self.0.steps.step();
        self.0.inner.try_recv()
    }
}

impl<T> Future for Receiver<T> {
    type Output = Result<T, RecvError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.steps.step();
        Pin::new(&mut self.0.inner).poll(context)
    }
}
