//! Threads that live in one network namespace: sockets they open belong to it, and so do the processes they start.

use std::fs::File;
use std::future::Future;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinSet;

/// A runtime whose threads are in one namespace.
#[derive(Debug)]
pub struct Site {
    /// Where its processes listen.
    pub ip: IpAddr,
    handle: Handle,
    /// None for the namespace this process is in.
    runtime: Option<Runtime>,
}

impl Site {
    /// The namespace this process is in.
    #[must_use]
    pub fn here(ip: IpAddr) -> Self {
        Self { ip, handle: Handle::current(), runtime: None }
    }

    /// The namespace of this name, as `ip netns` knows it.
    ///
    /// # Errors
    /// There is none, or it may not be entered.
    pub async fn within(name: &str, ip: IpAddr) -> Result<Self> {
        let path = PathBuf::from(format!("/run/netns/{name}"));
        let namespace = Arc::new(File::open(&path).with_context(|| path.display().to_string())?);
        let entering = Arc::clone(&namespace);
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .on_thread_start(move || {
                // Whether it worked is checked below: this closure has nobody to tell.
                let _ = move_into_link_name_space(entering.as_fd(), Some(LinkNameSpaceType::Network));
            })
            .build()?;
        let site = Self { ip, handle: runtime.handle().clone(), runtime: Some(runtime) };
        let wanted = inode(&rustix::fs::fstat(&namespace)?);
        let entered = site.run(async { rustix::fs::stat("/proc/thread-self/ns/net") }).await?;
        ensure!(inode(&entered?) == wanted, "the namespace {name} cannot be entered");
        Ok(site)
    }

    /// Runs `future` on a thread of this site. Dropping the answer ends it.
    ///
    /// # Errors
    /// It panicked.
    pub async fn run<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Result<T> {
        let mut tasks = JoinSet::new();
        tasks.spawn_on(future, &self.handle);
        Ok(tasks.join_next().await.context("one task was spawned")??)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // A runtime must not wait for its threads inside of another one.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn inode(stat: &rustix::fs::Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}
