//! A call that waits without the GIL, and still ends when Python wants it to.
//!
//! The SDK asks every 100 ms, and whenever a signal comes, whether to give up. The answer is yes once a signal's Python
//! handler raised (Ctrl-C), or the call was cancelled by another thread.

use std::cell::RefCell;

use pyo3::prelude::*;

use crate::errors::raised;

/// The call that runs in this thread, and what a signal's handler raised meanwhile.
struct Running {
    /// None: nobody can cancel it.
    call: Option<Py<PyAny>>,
    raised: Option<PyErr>,
}

thread_local! {
    static RUNNING: RefCell<Option<Running>> = const { RefCell::new(None) };
}

/// Runs `work` without the GIL, for a `zipline_sdk._call.Call` if there is one.
pub(crate) fn run<T: Send>(
    py: Python<'_>,
    call: Option<&Bound<'_, PyAny>>,
    work: impl FnOnce() -> zipline_sdk::Result<T> + Send,
) -> PyResult<T> {
    RUNNING.set(Some(Running { call: call.map(|call| call.clone().unbind()), raised: None }));
    let result = py.detach(work);
    let answer =
        result.map_err(|error| if error.is_interrupted() { why(py, &error) } else { raised(py, &error) });
    RUNNING.set(None);
    answer
}

/// Whether the call of this thread is to be given up.
pub(crate) fn given_up() -> bool {
    Python::attach(|py| {
        let signal = py.check_signals();
        if let Err(error) = signal {
            RUNNING.with_borrow_mut(|running| {
                if let Some(running) = running {
                    running.raised = Some(error);
                }
            });
            return true;
        }
        // Out of the cell first: Python code runs below.
        let call = RUNNING.with_borrow(|running| {
            running.as_ref().and_then(|running| running.call.as_ref().map(|call| call.clone_ref(py)))
        });
        let Some(call) = call else { return false };
        let cancelled = call.bind(py).getattr("cancelled").and_then(|cancelled| cancelled.is_truthy());
        cancelled.unwrap_or(true)
    })
}

/// What Python sees of a call that was given up.
pub(crate) fn why(py: Python<'_>, error: &zipline_sdk::Error) -> PyErr {
    if let Some(raised) =
        RUNNING.with_borrow_mut(|running| running.as_mut().and_then(|running| running.raised.take()))
    {
        return raised;
    }
    let cancelled = py.import("zipline_sdk._call").and_then(|module| module.getattr("Cancelled"));
    match cancelled.and_then(|kind| kind.call0()) {
        Ok(cancelled) => PyErr::from_value(cancelled),
        Err(_) => raised(py, error),
    }
}
