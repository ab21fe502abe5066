//! Payloads that are got many at a time.

use parking_lot::Mutex;
use pyo3::IntoPyObjectExt as _;
use pyo3::prelude::*;
use zipline_sdk::blocking::GetMany;

use crate::call;
use crate::errors::raised;
use crate::memory::Payload;

/// What comes for many references, in the order in which it arrives.
#[pyclass(frozen, module = "zipline_sdk._native")]
#[derive(Debug)]
pub(crate) struct Many {
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Idle(Box<GetMany>),
    /// A thread waits for the next one. It has what it waits on, so that nobody else ever waits for this lock.
    Waits,
    Closed,
}

impl Many {
    pub(crate) fn new(many: GetMany) -> Self {
        Self { state: Mutex::new(State::Idle(Box::new(many))) }
    }

    /// What is left, and what stands in its place from here on.
    fn replace(&self, state: State) -> Option<Box<GetMany>> {
        match std::mem::replace(&mut *self.state.lock(), state) {
            State::Idle(many) => Some(many),
            State::Waits | State::Closed => None,
        }
    }
}

#[pymethods]
impl Many {
    /// Waits for the next one: its place, and the payload or the exception in its place. `None`: all have come, or it was closed.
    fn next(&self, call: &Bound<'_, PyAny>) -> PyResult<Option<(usize, Py<PyAny>)>> {
        let py = call.py();
        let Some(mut many) = self.replace(State::Waits) else { return Ok(None) };
        let came = call::run(py, Some(call), || match many.next() {
            Some((_, Err(error))) if error.is_interrupted() => Err(error),
            came => Ok((came, many)),
        });
        let (came, many) = came?;
        {
            let mut state = self.state.lock();
            if matches!(*state, State::Waits) {
                *state = State::Idle(many);
            }
        }
        Ok(match came {
            None => None,
            Some((place, Ok(payload))) => Some((place, Payload::got(payload).into_py_any(py)?)),
            Some((place, Err(error))) => Some((place, raised(py, &error).into_value(py).into_any())),
        })
    }

    /// Gives up what did not come yet.
    fn close(&self, py: Python<'_>) {
        let left = self.replace(State::Closed);
        py.detach(|| drop(left));
    }
}
