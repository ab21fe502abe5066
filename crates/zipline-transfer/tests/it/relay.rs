//! A relay between receiver and holder that cuts, stalls or tampers.

use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use zipline_runtime::Tasks;

/// What happens to one connection.
#[derive(Clone)]
pub(crate) enum Fault {
    /// Nothing.
    Pass,
    /// Closed after so many bytes from the holder.
    Cut(usize),
    /// Silent after so many bytes from the holder, without closing.
    Stall(usize),
    /// Every answer is changed as a whole.
    Tamper(Arc<dyn Fn(Vec<u8>) -> Vec<u8> + Send + Sync>),
}

impl Fault {
    pub(crate) fn tamper(change: impl Fn(Vec<u8>) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::Tamper(Arc::new(change))
    }
}

pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    answers: Arc<Mutex<Vec<Vec<u8>>>>,
    _tasks: Tasks,
}

impl Relay {
    /// The first connections meet `first`, one each; all further ones `then`.
    pub(crate) async fn new(target: SocketAddr, first: Vec<Fault>, then: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tasks = Tasks::new();
        let (accepted, answers) = (Arc::<AtomicUsize>::default(), Arc::<Mutex<Vec<Vec<u8>>>>::default());
        let (count, seen, owner) = (Arc::clone(&accepted), Arc::clone(&answers), tasks.child());
        drop(tasks.spawn("relay", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let index = count.fetch_add(1, Ordering::SeqCst);
                let fault = first.get(index).unwrap_or(&then).clone();
                let seen = Arc::clone(&seen);
                drop(owner.spawn("relayed", async move { connection(stream, target, fault, seen).await }));
            }
        }));
        Self { address, accepted, answers, _tasks: tasks }
    }

    /// Connections so far.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Whole answers that passed a tampering connection, before they were changed.
    pub(crate) fn answers(&self) -> Vec<Vec<u8>> {
        self.answers.lock().clone()
    }
}

async fn connection(client: TcpStream, target: SocketAddr, fault: Fault, seen: Arc<Mutex<Vec<Vec<u8>>>>) {
    let server = TcpStream::connect(target).await.unwrap();
    let (mut client_read, mut client_write) = client.into_split();
    let (mut server_read, mut server_write) = server.into_split();
    let up = async {
        let _closed = tokio::io::copy(&mut client_read, &mut server_write).await;
        let _closed = server_write.shutdown().await;
    };
    let down = async {
        match fault {
            Fault::Pass => drop(tokio::io::copy(&mut server_read, &mut client_write).await),
            Fault::Cut(bytes) => {
                let mut some = (&mut server_read).take(bytes as u64);
                drop(tokio::io::copy(&mut some, &mut client_write).await);
            }
            Fault::Stall(bytes) => {
                let mut some = (&mut server_read).take(bytes as u64);
                drop(tokio::io::copy(&mut some, &mut client_write).await);
                std::future::pending::<()>().await;
            }
            Fault::Tamper(change) => loop {
                let mut answer = Vec::new();
                while !is_whole(&answer) {
                    if server_read.read_buf(&mut answer).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                seen.lock().push(answer.clone());
                if client_write.write_all(&change(answer)).await.is_err() {
                    return;
                }
            },
        }
    };
    // Whichever way ends first ends both: dropping the halves closes the sockets.
    tokio::select! { () = up => {}, () = down => {} }
}

/// Whether these are a head without body, or a chunked answer with its trailer section.
fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    answer.ends_with(b"\r\n\r\n")
        && (!text.contains("transfer-encoding: chunked") || text.contains("\r\nzipline-final: "))
}
