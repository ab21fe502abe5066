//! What many tests check in the same way.

use anyhow::{Context, Result, ensure};
use zipline_testkit::client::Reply;
use zipline_testkit::function::{BodyEnd, Run, Runs};
use zipline_testkit::{pattern, wait};

/// The one run that the request `id` led to.
///
/// # Errors
/// There was none, or more than one, or it saw a reference in place of a payload.
pub fn ran_once(runs: &Runs, id: &str) -> Result<Run> {
    let mut found = runs.of(id);
    ensure!(found.len() == 1, "{} runs of {id}: {found:?}", found.len());
    let run = found.remove(0);
    ensure!(!run.reference, "the function saw the reference: {run:?}");
    Ok(run)
}

/// That the request `id` ran at most once, and that no body ended as complete but with these bytes.
///
/// # Errors
/// Says which run breaks the promise.
pub fn ran_at_most_once(runs: &Runs, id: &str, sha256: &str) -> Result<Option<Run>> {
    let mut found = runs.of(id);
    ensure!(found.len() <= 1, "{} runs of {id}: {found:?}", found.len());
    for run in &found {
        ensure!(!run.reference, "the function saw the reference: {run:?}");
        let whole = run.end != BodyEnd::Clean || run.sha256.as_deref() == Some(sha256);
        ensure!(whole, "a wrong body ended as if complete: {run:?}");
    }
    Ok(found.pop())
}

/// Waits until the function has seen the end of the body of request `id`.
///
/// # Errors
/// It never does.
pub async fn body_ended(runs: &Runs, id: &str) -> Result<Run> {
    wait::until("the end of the body", || async {
        Ok(runs.of(id).pop().filter(|run| run.end != BodyEnd::Unread))
    })
    .await
}

/// That the request's body arrived as it was sent, once.
///
/// # Errors
/// Says what differs.
pub fn arrived(runs: &Runs, id: &str, seed: u64, length: u64) -> Result<Run> {
    let run = ran_once(runs, id)?;
    ensure!(run.end == BodyEnd::Clean, "the body did not end: {run:?}");
    ensure!(run.length == length, "{} bytes of {length} arrived: {run:?}", run.length);
    let expected = pattern::sha256(seed, length);
    ensure!(run.sha256.as_deref() == Some(expected.as_str()), "other bytes arrived: {run:?}");
    Ok(run)
}

/// That the answer is 200 with `length` bytes of the pattern `seed`, ended cleanly.
///
/// # Errors
/// Says what differs.
pub fn answered(reply: &Reply, seed: u64, length: u64) -> Result<()> {
    succeeded(reply)?;
    ensure!(reply.length == length, "{} bytes of {length} answered", reply.length);
    ensure!(reply.sha256 == pattern::sha256(seed, length), "other bytes answered");
    Ok(())
}

/// That the answer is 200, ended cleanly, and brings no header of the wire with it.
///
/// # Errors
/// Says what differs.
pub fn succeeded(reply: &Reply) -> Result<()> {
    ensure!(reply.status == 200, "{} {:?}: {}", reply.status, reply.headers, reply.text());
    ensure!(reply.broken.is_none(), "the answer broke off: {:?}", reply.broken);
    let leaked = reply.headers.keys().find(|name| name.as_str().starts_with("zipline-"));
    ensure!(leaked.is_none(), "the function would see {leaked:?}");
    Ok(())
}

/// That the answer is this problem: status, code in header and document, media type.
///
/// # Errors
/// Says what differs.
pub fn problem(reply: &Reply, status: u16, code: &str) -> Result<()> {
    let text = reply.text();
    ensure!(reply.status == status, "{} in place of {status}: {text}", reply.status);
    ensure!(reply.code() == code, "code {:?} in place of {code}: {text}", reply.code());
    ensure!(reply.header("content-type") == "application/problem+json", "{:?}", reply.headers);
    let document = reply.json()?;
    ensure!(document["type"] == format!("urn:zipline:error:{code}"), "{document}");
    ensure!(document["status"] == status, "{document}");
    for field in ["title", "detail"] {
        let value = document[field].as_str().with_context(|| format!("no {field}: {document}"))?;
        ensure!(!value.is_empty(), "{field} says nothing");
    }
    ensure!(!shows_reference(&text), "the error shows a reference: {text}");
    Ok(())
}

/// Whether a text has a reference, or a piece of one, in it. The prefix alone may be spoken of.
#[must_use]
pub fn shows_reference(text: &str) -> bool {
    let mut after = text.split("zl1.");
    after.next();
    after.any(|rest| rest.bytes().take(8).filter(u8::is_ascii_alphanumeric).count() == 8)
}
