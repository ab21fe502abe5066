//! The gateway: the one front door. Finds the function that a request is for, gets it an instance, and passes both
//! bodies through as they come.
//!
//! Zipline's own headers pass untouched in both directions: the queue-proxies prove and check them.

mod count;
mod forward;
mod route;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use zipline_http::{Body, Client, Handler, problem_response};
use zipline_protocol::{ErrorCode, FunctionName};
use zipline_runtime::Tasks;

use crate::function::Function;

/// Functions by name.
pub(crate) type Functions = Arc<BTreeMap<FunctionName, Arc<Function>>>;

/// Answers requests of the outside and of queue-proxies.
#[derive(Debug, Clone)]
pub(crate) struct Gateway {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    functions: Functions,
    client: Client,
    /// Owns tunnels of upgraded connections.
    tasks: Tasks,
    /// Longest time a request is held for an instance.
    hold: Duration,
}

impl Gateway {
    pub(crate) fn new(functions: Functions, client: Client, tasks: Tasks, hold: Duration) -> Self {
        Self { shared: Arc::new(Shared { functions, client, tasks, hold }) }
    }
}

impl Handler for Gateway {
    async fn handle(&self, mut request: Request<Body>) -> Response<Body> {
        let found = match route::route(&mut request) {
            Ok(name) => {
                self.shared.functions.get(&name).ok_or_else(|| format!("there is no function {name}"))
            }
            Err(why) => Err(why),
        };
        match found {
            Ok(function) => forward::forward(&self.shared, function, request).await,
            Err(why) => self.not_found(&request, &why),
        }
    }
}

impl Gateway {
    fn not_found(&self, request: &Request<Body>, why: &str) -> Response<Body> {
        let detail = format!("{why}; {}", listing(self.shared.functions.keys()));
        problem_response(request.headers(), ErrorCode::NotFound, 404, detail)
    }
}

/// Most functions that an answer lists.
const LISTED: usize = 20;

fn listing<'a>(names: impl ExactSizeIterator<Item = &'a FunctionName>) -> String {
    let count = names.len();
    let shown: Vec<String> = names.take(LISTED).map(ToString::to_string).collect();
    let more = if count > LISTED { format!(" and {} more", count - LISTED) } else { String::new() };
    format!(
        "here run {}{more}; reach one by Host {}.svc.cluster.local, or by path /NAMESPACE/SERVICE/ on a loopback address",
        shown.join(", "),
        shown.first().map_or("SERVICE.NAMESPACE", String::as_str)
    )
}
